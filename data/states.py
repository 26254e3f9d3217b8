"""The state of a file: what tells, without reading it, that it is still the one that was read.

On a directory the time and size of its content, the time of its inode, which nobody can set back,
and the inode's number; on an object store the time and size. An artifact's state is that of its two
files. Of a whole kind, states are asked for in one pass over the directories, or in one listing.

Object stores tell the time of an object in milliseconds in one place and in seconds in another:
there, whole seconds count. While a state is *young* a second change could hide in the same tick of
the clock: it tells nothing for sure.
"""

import os
import struct
import time
from collections.abc import Iterator
from typing import TypeAlias

from data.access import reaching, refusal
from data.keys import is_hex
from data.location import Listed, Location

State = bytes
_LOCAL = 4  # numbers of a file in a directory
_File: TypeAlias = os.stat_result | Listed

_ROWS, _NOTE = ".parquet", ".json"
_SECOND = 10**9  # nanoseconds
_A_TICK = _SECOND // 20  # longer than any tick of a clock that tells fractions of seconds
_A_COARSE_TICK = 3 * _SECOND  # of one that tells whole seconds, or two


def state_of(location: Location, rows: str, note: str) -> State | None:
    """The state of an artifact's two files; None where one is missing or has no time."""
    if not location.is_local:
        file = location.look(note)
        return state_from(location.look(rows), file) if file is not None else None
    try:
        return _state(os.stat(location.path(rows)), os.stat(location.path(note)))
    except (FileNotFoundError, NotADirectoryError):  # who reads it is told what is in its way
        return None
    except OSError as error:
        raise refusal(error, f"{rows} cannot be read from the store {location.name!r}") from error


def seconds_until_settled(state: State) -> float:
    """How long a state is still young; 0 once no change can hide in it."""
    numbers = struct.unpack(f"{len(state) // 8}q", state)
    if len(numbers) == 2 * _LOCAL:
        latest = max(numbers[1], numbers[_LOCAL + 1])  # of the inodes: nobody sets them back
        coarse = not (numbers[1] % _SECOND or numbers[_LOCAL + 1] % _SECOND)
        tick = _A_COARSE_TICK if coarse else _A_TICK
    else:
        latest, tick = _SECOND * max(numbers[::2]), _A_COARSE_TICK
    return max(0, latest + tick - time.time_ns()) / _SECOND


def state_from(rows: Listed | None, note: Listed | None) -> State | None:
    """The state of an artifact's two files in an object store; None where it is not known."""
    return _state(rows, note) if rows is not None and note is not None else None


def states_of(location: Location, kind: str) -> dict[str, State | None]:
    """The states of all artifacts of a kind by key; None for those that lack one of their files."""
    return {
        key: _state(files[_ROWS], files[_NOTE]) if len(files) == 2 else None
        for key, files in _files_of(location, kind).items()
    }


def files_of(location: Location, kind: str) -> dict[str, tuple[Listed, ...]]:
    """The files of all artifacts of a kind by key, the one that vouches first."""
    return {
        key: tuple(
            _as_listed(f"{kind}/{key[:2]}/{key}{suffix}", files[suffix]) for suffix in sorted(files)
        )
        for key, files in _files_of(location, kind).items()
    }


def _files_of(location: Location, kind: str) -> dict[str, dict[str, _File]]:
    """What is known of the files of all artifacts of a kind, by key and suffix."""
    found: dict[str, dict[str, _File]] = {}
    with reaching(f"{kind}/", "read from", location.name):
        for path, file in (_scanned if location.is_local else _listed)(location, kind):
            folder, _, name = path.rpartition("/")
            key, suffix = os.path.splitext(name)
            if suffix in (_ROWS, _NOTE) and is_hex(key) and folder == key[:2]:
                found.setdefault(key, {})[suffix] = file
    return found


def sizes_of(location: Location, kind: str) -> dict[str, int]:
    """The bytes of the rows of all whole artifacts of a kind by key."""
    files = files_of(location, kind)
    return {key: both[-1].size for key, both in files.items() if len(both) == 2}


def _scanned(location: Location, kind: str) -> Iterator[tuple[str, os.stat_result]]:
    """The files of a kind in a directory, by their paths below it."""
    for folder in _entries(location.path(kind)):
        if folder.is_dir(follow_symlinks=False):  # what a link leads to is not the store's
            for file in _entries(folder.path):
                try:
                    yield f"{folder.name}/{file.name}", file.stat()
                except FileNotFoundError:  # removed meanwhile
                    continue


def _entries(path: str) -> list[os.DirEntry[str]]:
    """What is in a directory, hidden files left out; nothing where there is none."""
    try:
        with os.scandir(path) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except FileNotFoundError:
        return []


def _listed(location: Location, kind: str) -> Iterator[tuple[str, Listed]]:
    """The files of a kind in an object store, by their paths below it."""
    for file in location.listing(kind, recursive=True):
        yield file.path[len(kind) + 1 :], file


def _as_listed(path: str, file: _File) -> Listed:
    """A file as listings show it."""
    if isinstance(file, os.stat_result):
        return Listed(path, file.st_mtime_ns, file.st_size)
    return Listed(path, file.mtime_ns, file.size)


def _state(*files: _File) -> State | None:
    """The numbers of two files as bytes."""
    numbers: list[int] = []
    for one in files:
        if isinstance(one, os.stat_result):
            numbers += (one.st_mtime_ns, one.st_ctime_ns, one.st_ino % 2**63, one.st_size)
        elif one.size is not None and one.mtime_ns is not None:
            numbers += (one.mtime_ns // _SECOND, one.size)
        else:
            return None
    return struct.pack(f"{len(numbers)}q", *numbers)
