"""How many random cases a test goes through: few in every run, many where faults are hunted."""

import os


def seeds(few: int) -> range:
    """The seeds of a test: so many, or twenty times as many under `make fuzz`."""
    fuzzing = os.environ.get("CIRCUIT_GRID_TEST_PROFILE") == "fuzz"
    return range(20 * few if fuzzing else few)
