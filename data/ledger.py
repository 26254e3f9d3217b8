"""What a store notes beside its artifacts: stages that failed, and the stages grids consist of.

Both are single JSON files put in one step. With them and the artifacts alone, one can say of every
stage of a grid whether it is done, missing or failed.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from data.errors import StoreError
from data.keys import is_hex
from data.location import Location
from data.origin import now

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Failure:
    """A stage that failed: its key, its name and cell, why in a sentence, and when (ISO 8601)."""

    key: str
    stage: str
    cell: str
    sentence: str
    time: str


@dataclass(frozen=True)
class PlannedStage:
    """A stage a grid needs: its primary table, and its key once its inputs are known."""

    stage: str
    cell: str
    kind: str
    key: str | None


def record_failure(location: Location, key: str, stage: str, cell: str, sentence: str) -> Failure:
    """Note a failure under the stage's key."""
    failure = Failure(key, stage, cell, sentence, now())
    location.put(_failure_path(key), json.dumps(asdict(failure), indent=1).encode())
    return failure


def clear_failure(location: Location, key: str) -> None:
    """Forget a failure."""
    location.remove(_failure_path(key))


def failures(location: Location) -> list[Failure]:
    """All failures noted; a file that cannot be read counts as none."""
    found = []
    for path in location.files("failures"):
        content = location.read(path)
        try:
            failure = Failure(**json.loads(content or b""))
        except (ValueError, TypeError):
            continue
        if is_hex(failure.key) and path == _failure_path(failure.key):
            found.append(failure)
    return found


def save_grid(location: Location, name: str, stages: Iterable[PlannedStage]) -> None:
    """Note a grid's stages; StoreError if its name cannot be a file's name."""
    if not _NAME.fullmatch(name):
        raise StoreError(
            f"{name!r} cannot name a grid: use up to 100 letters, digits, dots, dashes and"
            " underscores, a letter or digit first."
        )
    content = {"grid": name, "stages": [asdict(stage) for stage in stages]}
    location.put(f"grids/{name}.json", json.dumps(content, indent=1).encode())


def grids(location: Location) -> dict[str, tuple[PlannedStage, ...]]:
    """The stages of every grid noted; a file that cannot be read counts as none."""
    found = {}
    for path in location.files("grids"):
        content = location.read(path)
        try:
            grid = json.loads(content or b"")
            found[str(grid["grid"])] = tuple(PlannedStage(**stage) for stage in grid["stages"])
        except (ValueError, TypeError, KeyError):
            continue
    return found


def _failure_path(key: str) -> str:
    """Where a failure is noted."""
    return f"failures/{key}.json"
