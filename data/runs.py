"""Runs and cleanings: what is leased besides stages, by keys that are no stage's.

Every run of a grid has a key of its own, so that several may go on at once. Those that a clock
starts have one key a grid beside it, and a cleaning of the store has one key, so that only one of
them goes on.
"""

import hashlib
import secrets

_RUN = hashlib.sha256(b"a run of a grid").hexdigest()[:16]  # what their keys begin with
_SCHEDULED = hashlib.sha256(b"a scheduled run of a grid").hexdigest()[:16]
CLEANING = hashlib.sha256(b"a cleaning of the store").hexdigest()


def run_key(grid: str) -> str:
    """The key of the lease that one run of a grid holds: never twice the same."""
    return f"{_prefix(grid)}{secrets.token_hex(8)}"


def scheduled_key(grid: str) -> str:
    """The key of the lease that the scheduled run of a grid holds: the same for all of them."""
    return f"{_SCHEDULED}{hashlib.sha256(grid.encode()).hexdigest()[:48]}"


def is_run(key: str, grid: str | None = None) -> bool:
    """Whether a key is that of a run, of a grid or of any."""
    return key.startswith(_RUN if grid is None else _prefix(grid))


def is_stage(key: str) -> bool:
    """Whether what is leased under a key is a stage."""
    return not key.startswith((_RUN, _SCHEDULED)) and key != CLEANING


def _prefix(grid: str) -> str:
    """What the keys of a grid's runs begin with."""
    return f"{_RUN}{hashlib.sha256(grid.encode()).hexdigest()[:32]}"
