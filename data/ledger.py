"""The ledger of grids: which stages each grid that was ever planned on a store consists of.

    <location>/grids/<name>.json

With these notes, the failures and the artifacts alone, one can say of every stage of a grid whether
it is done, missing, stale or failed. A grid's note is merged with the one before it: a *place* of
the grid remembers the keys that it had, for as long as anyone may need what lies under them.
"""

import hashlib
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from data.errors import StoreAccessError, StoreError, StoreUnavailableError
from data.keys import is_hex, parse_json
from data.location import Location
from data.origin import is_time, now

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FILE = re.compile(rf"grids/{_NAME.pattern}\.json")
_FORMAT = 2
_REMEMBERED = 8  # former keys of one place, the latest


@dataclass(frozen=True)
class PlannedStage:
    """A stage a grid needs: its primary table, and its key once its inputs are known.

    `place` tells it from the others of its grid for good (see `place_id`), `weight` is what it
    costs beside others (seconds, roughly). `former` are the keys that the place had before: where
    its key is known, what lies under them is stale; while it is not, they are kept.
    """

    stage: str
    cell: str
    kind: str
    key: str | None
    place: str = ""
    weight: float = 0.2
    former: tuple[str, ...] = ()


@dataclass(frozen=True)
class GridNote:
    """A grid as noted: its stages, its file, when it was saved (ISO 8601), its settings.

    `kept` are keys of stages that it had before and may have again: they are none of its stages
    only because too little is known of it now.
    """

    name: str
    stages: tuple[PlannedStage, ...]
    file: str | None = None
    saved_at: str | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    kept: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether the keys of all stages are known."""
        return all(stage.key is not None for stage in self.stages)

    @property
    def needed(self) -> frozenset[str]:
        """The keys that it needs, or may need as far as is known now."""
        waiting = (key for stage in self.stages if stage.key is None for key in stage.former)
        known = (stage.key for stage in self.stages if stage.key is not None)
        return frozenset((*known, *waiting, *self.kept))

    @property
    def stale(self) -> frozenset[str]:
        """The keys of what was made from upstream content that has changed since."""
        former = (key for stage in self.stages if stage.key is not None for key in stage.former)
        return frozenset(former) - self.needed


@dataclass(frozen=True)
class UnreadableNote:
    """The file of a grid's note that cannot be read: why, as half a sentence, and what to do."""

    path: str
    reason: str
    advice: str

    @property
    def grid(self) -> str:
        """The name of the grid."""
        return _name_in(self.path)

    @property
    def sentence(self) -> str:
        """Which file it is, what that means, and what to do, for people."""
        return (
            f"{self.path} cannot be read ({self.reason}), so what grid {self.grid!r} needs and how"
            f" far it is are not known: {self.advice}."
        )


class NotedGrids(NamedTuple):
    """What is noted of all grids: by name, and the files that do not tell."""

    notes: dict[str, GridNote]
    unreadable: tuple[UnreadableNote, ...]


def place_id(place: str) -> str:
    """A short digest (16 hexadecimal digits) of what tells a stage from others of its grid."""
    return hashlib.sha256(place.encode()).hexdigest()[:16]


def save_grid(
    location: Location,
    name: str,
    stages: Iterable[PlannedStage],
    file: str | None = None,
    settings: Mapping[str, object] | None = None,
    whole: bool = True,
) -> GridNote:
    """Note a grid, merged with what was noted before; StoreError if its name cannot be a file's.

    `whole` is false where parts of the grid could not even be planned: then nothing that the note
    before it named is given up. The same holds while the key of any stage is not known.
    """
    path, planned = _grid_path(name), tuple(stages)
    try:
        content = location.read(path)
    except StoreUnavailableError:
        raise
    except StoreAccessError as error:  # what it may know is not to be lost
        location.require()
        raise StoreError(_refused(path, error).sentence) from error
    before = None if content is None else _decoded(name, content)
    note = renewed(before, GridNote(name, planned, file, now(), dict(settings or {})), whole)
    location.put(path, _encoded(note))
    return note


def renewed(before: GridNote | None, after: GridNote, whole: bool = True) -> GridNote:
    """A note that remembers what the one before it knew, as `save_grid` saves it."""
    return after if before is None else _merged(before, after, whole and after.whole)


def forget_grid(location: Location, name: str) -> bool:
    """Forget a grid; whether there was a note of it. StoreError for what cannot be a name."""
    path = _grid_path(name)
    there = location.exists(path)
    location.remove(path)
    return there


def noted_grids(location: Location) -> NotedGrids:
    """The notes of all grids by name, and those that cannot be read.

    StoreUnavailableError where the store cannot be reached.
    """
    notes: dict[str, GridNote] = {}
    unreadable: list[UnreadableNote] = []
    for name in location.entries("grids"):
        path = f"grids/{name}"
        if not _FILE.fullmatch(path):
            continue
        match _found(location, path):
            case GridNote() as note:
                notes[note.name] = note
            case UnreadableNote() as file:
                unreadable.append(file)
    return NotedGrids(notes, tuple(unreadable))


def _found(location: Location, path: str) -> GridNote | UnreadableNote | None:
    """The note in a file, or why there is none; None if there is no such file."""
    try:
        content = location.read(path)
    except StoreUnavailableError:
        raise
    except StoreAccessError as error:
        return _refused(path, error)
    if content is None:
        return None
    note = _decoded(_name_in(path), content)
    if note is None:
        advice = "run that grid again, or remove the file"
        return UnreadableNote(path, "it is damaged", advice)
    return note


def _refused(path: str, error: StoreAccessError) -> UnreadableNote:
    """A note that the system refuses to read."""
    permit = "" if isinstance(error.__cause__, IsADirectoryError) else "permit it, or "
    return UnreadableNote(path, error.reason, f"{permit}remove it and run that grid again")


def _merged(before: GridNote, after: GridNote, whole: bool) -> GridNote:
    """A note that remembers, place by place, the keys that the one before it knew."""
    placed = _placed(before.stages, after.stages)
    former = {stage.place: stage for stage in placed if stage.place}
    stages = tuple(_remembering(stage, former.get(stage.place)) for stage in after.stages)
    if whole:
        return replace(after, stages=stages)
    places = {stage.place for stage in stages if stage.place}
    gone = [key for stage in placed if stage.place not in places for key in _keys(stage)]
    named = {key for stage in stages for key in _keys(stage)}
    kept = tuple(key for key in dict.fromkeys((*before.kept, *gone)) if key not in named)
    return replace(after, stages=stages, kept=kept)


def _remembering(stage: PlannedStage, before: PlannedStage | None) -> PlannedStage:
    """The stage with the keys that its place had, the latest first, without the one it has."""
    if before is None:
        return stage
    keys = dict.fromkeys((*stage.former, before.key, *before.former))
    former = tuple(key for key in keys if key not in (None, stage.key))[:_REMEMBERED]
    return stage if former == stage.former else replace(stage, former=former)


def _placed(
    before: Sequence[PlannedStage], after: Sequence[PlannedStage]
) -> Iterable[PlannedStage]:
    """The stages of a note; of one without places, each at the place of the like stage after it."""
    if all(stage.place for stage in before):
        return before
    places = defaultdict(list)
    for stage in after:
        places[stage.stage, stage.cell, stage.kind].append(stage.place)
    found = []
    for stage in before:
        like = places[stage.stage, stage.cell, stage.kind]
        found.append(replace(stage, place=stage.place or (like.pop(0) if like else "")))
    return found


def _keys(stage: PlannedStage) -> tuple[str, ...]:
    """All keys that a place has or had, the latest first."""
    return stage.former if stage.key is None else (stage.key, *stage.former)


def _encoded(note: GridNote) -> bytes:
    """The bytes of a note: a list a stage, with its words by their places in one list of words."""
    words: dict[str, int] = {}

    def word(text: str) -> int:
        return words.setdefault(text, len(words))

    stages = [
        (
            word(one.stage),
            word(one.cell),
            word(one.kind),
            one.key,
            one.place,
            one.weight,
            one.former,
        )
        for one in note.stages
    ]
    content = {
        "format": _FORMAT,
        "grid": note.name,
        "file": note.file,
        "saved_at": note.saved_at,
        "settings": note.settings,
        "kept": note.kept,
        "words": list(words),
        "stages": stages,
    }
    return json.dumps(content, separators=(",", ":")).encode()


def _decoded(name: str, content: bytes) -> GridNote | None:
    """A note read back, of this format or of the first, which had objects and no places.

    None for what is no such note.
    """
    try:
        grid = parse_json(content)
        if "words" in grid:
            words = dict(enumerate(grid["words"]))  # whose places are no negative ones
            stages = tuple(
                PlannedStage(words[a], words[b], words[c], key, place, weight, tuple(former))
                for a, b, c, key, place, weight, former in grid["stages"]
            )
            kept, settings = tuple(grid["kept"]), dict(grid["settings"])
            note = GridNote(name, stages, grid["file"], grid["saved_at"], settings, kept)
        else:
            note = GridNote(name, tuple(PlannedStage(**stage) for stage in grid["stages"]))
        keys = (*note.kept, *(key for stage in note.stages for key in _keys(stage)))
    except (ValueError, TypeError, KeyError, IndexError):
        return None
    return note if all(is_hex(key) for key in keys) and _is_sound(note) else None


def _is_sound(note: GridNote) -> bool:
    """Whether everything in a note is of its type, and no stage is listed twice."""
    about = (one for one in (note.file, note.saved_at) if one is not None)
    words = (text for one in note.stages for text in (one.stage, one.cell, one.kind, one.place))
    if not all(isinstance(text, str) for text in (*about, *words)):
        return False
    weights = (one.weight for one in note.stages)
    listed = [(one.place, one.key) for one in note.stages if one.place]
    return (
        (note.saved_at is None or is_time(note.saved_at))
        and all(type(one) in (int, float) and 0 <= one < math.inf for one in weights)
        and len(set(listed)) == len(listed)
    )


def _name_in(path: str) -> str:
    """The name of the grid that a file is of."""
    return path.rsplit("/", 1)[-1].removesuffix(".json")


def _grid_path(name: str) -> str:
    """Where a grid is noted; StoreError if its name cannot be a file's name."""
    if not _NAME.fullmatch(name):
        raise StoreError(
            f"{name!r} cannot name a grid: use up to 100 letters, digits, dots, dashes and"
            " underscores, a letter or digit first."
        )
    return f"grids/{name}.json"
