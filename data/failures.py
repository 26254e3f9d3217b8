"""Failures: stages that failed and have not succeeded since, each noted in a file of its own.

<location>/failures/<key>.json
"""

import json
from dataclasses import asdict, dataclass

from data.keys import is_hex, parse_json
from data.location import Location
from data.origin import now


@dataclass(frozen=True)
class Failure:
    """A stage that failed: its key, its name and cell, why in a sentence, and when (ISO 8601)."""

    key: str
    stage: str
    cell: str
    sentence: str
    time: str


def record_failure(location: Location, key: str, stage: str, cell: str, sentence: str) -> Failure:
    """Note a failure under the stage's key."""
    failure = Failure(key, stage, cell, sentence, now())
    location.put(_path(key), json.dumps(asdict(failure), indent=1).encode())
    return failure


def clear_failure(location: Location, key: str) -> None:
    """Forget a failure."""
    location.remove(_path(key))


def failures(location: Location) -> list[Failure]:
    """All failures noted, in the order of their keys; a file that is no such note counts as none.

    Its stage is missing then, and the next run tries it as one that failed.
    """
    found = []
    for path in location.files("failures"):
        content = location.read(path)
        try:
            failure = Failure(**parse_json(content or b""))
        except (ValueError, TypeError):
            continue
        is_text = all(isinstance(value, str) for value in asdict(failure).values())
        if is_text and is_hex(failure.key) and path == _path(failure.key):
            found.append(failure)
    return found


def _path(key: str) -> str:
    """Where a failure is noted."""
    return f"failures/{key}.json"
