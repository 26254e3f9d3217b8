"""A pair of files: an artifact's rows, and the note that vouches for them.

    <location>/<kind>/<key[:2]>/<key>.parquet   the rows
    <location>/<kind>/<key[:2]>/<key>.json      the note (see data/artifact.py)

A pair is an artifact exactly if its note is there and vouches for the very bytes of its rows, and
these open as rows of their table. It is published rows first, so that whatever is cut short leaves
a pair that does not match: it is damaged and counts as missing, like one that an older version
wrote whose table has changed since. A pair that was read and found to match is known by the index
to be intact, and is not read again to be found while its state is the same.
"""

import hashlib
import os
from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa

from data.artifact import Artifact, Damage, OutdatedError, Voucher, decode, file_digest, vouch
from data.errors import StoreAccessError, StoreError
from data.index import Entry, Index
from data.keys import checked_key
from data.location import Listed, Location
from data.schema import table
from data.states import State, state_from, state_of

_ATTEMPTS = 20


class Pair(NamedTuple):
    """The files of an artifact: its kind and key, the paths of its rows and of their note."""

    kind: str
    key: str
    rows: str
    note: str

    @classmethod
    def of(cls, kind: str, key: str) -> "Pair":
        """The pair of a kind and key; StoreError for no such kind or no key."""
        stem = f"{table(kind).name}/{checked_key(key)[:2]}/{key}"
        return cls(kind, key, f"{stem}.parquet", f"{stem}.json")


class Intact(NamedTuple):
    """A pair that matches: what its note says, and its rows."""

    voucher: Voucher
    rows: pa.Table


class _Seen(NamedTuple):
    """The bytes of a pair's files as they were read, and the state that they were in before.

    `trouble` is why they could not be read where something else is in the place of one.
    """

    note: bytes | None
    rows: bytes | None
    state: State | None
    trouble: str | None = None


class Pairs:
    """The pairs of a location: looked for, judged and published, and what was found to be wrong."""

    def __init__(self, location: Location, index: Index) -> None:
        self._location = location
        self._index = index
        self._damaged: dict[str, Damage] = {}  # by the path of the rows
        self._outdated: dict[str, Damage] = {}

    @property
    def damaged(self) -> list[Damage]:
        """The damaged ones met so far, and not rebuilt since."""
        return sorted(self._damaged.values(), key=lambda one: one.path)

    @property
    def outdated(self) -> list[Damage]:
        """Those of older versions met so far, of no use to this one, and not rebuilt since."""
        return sorted(self._outdated.values(), key=lambda one: one.path)

    def damage_of(self, pair: Pair) -> Damage | None:
        """What is wrong with a pair, if it was met and is damaged."""
        return self._damaged.get(pair.rows)

    def find(self, pair: Pair, state: State | None = None) -> Artifact | None:
        """The artifact, or None if it is missing or damaged; `state` is its files', where known.

        They are read only where the index does not know of them in that state.
        """
        if self._location.is_local or self._index.knows(pair.kind, pair.key):
            state = state or state_of(self._location, pair.rows, pair.note)
            entry = self._index.get(pair.kind, pair.key, state)
            if entry is not None:
                self.forget(pair)
                return entry.artifact(pair.kind, pair.key)
        intact = self.read(pair)
        return intact.voucher.artifact if intact is not None else None

    def read(self, pair: Pair) -> Intact | None:
        """The pair if it matches; else None, and any damage is noted."""
        return self._judged(pair, self._seen(pair))

    def publish(self, pair: Pair, content: bytes) -> Artifact:
        """Bring rows and note into place; an intact artifact that is there already stays.

        StoreError where others keep replacing them.
        """
        publish = self._publish_locally if self._location.is_local else self._publish_remotely
        artifact = publish(pair, content)
        if artifact is None:
            raise StoreError(
                f"{pair.kind} {pair.key} cannot be written to {self._location.name!r}: other"
                " processes keep replacing it; run again once they have ended."
            )
        return artifact

    def remove(self, pair: Pair) -> None:
        """Delete both files, the note first: what is cut short counts as damaged."""
        self._location.remove(pair.note)
        self._location.remove(pair.rows)
        self.forget(pair)
        self._index.drop(pair.kind, pair.key)

    def forget(self, pair: Pair) -> None:
        """Forget what was said to be wrong with a pair."""
        self._damaged.pop(pair.rows, None)
        self._outdated.pop(pair.rows, None)

    def _publish_locally(self, pair: Pair, content: bytes) -> Artifact | None:
        """Put rows and note until both stand and match, whoever wrote them; None: they never did.

        Several processes may do this at once: the first file of rows stays, every note put is that
        of the rows then in place, and the check after it tells whether they still are.
        """
        place = self._location
        for _ in range(_ATTEMPTS):
            intact = self.read(pair)
            if intact is not None:
                return intact.voucher.artifact
            if not place.put_new(pair.rows, content):
                note, rows = place.read(pair.note), place.read(pair.rows)
                if rows is None or (note is not None and _matches(pair, note, rows)):
                    continue
                if note is not None or _vouched(pair, rows) is None:
                    place.put(pair.rows, content)
            voucher = _vouched(pair, place.read(pair.rows))
            if voucher is not None:
                place.put(pair.note, voucher.to_json())
        return None

    def _publish_remotely(self, pair: Pair, content: bytes) -> Artifact | None:
        """The same in an object store, which tells what an object holds without its being read.

        Of several processes the last one to put a file wins; who finds another's rows in place of
        its own vouches for these, so that all come to rest on the same.
        """
        own, place = vouch(content, pair.kind, pair.key), self._location
        for attempt in range(_ATTEMPTS):
            voucher = None
            if attempt or place.exists(pair.note):
                seen = self._seen(pair)
                intact = self._judged(pair, seen)
                if intact is not None:
                    return intact.voucher.artifact
                voucher = _vouched(pair, seen.rows) if attempt else None
            if voucher is None:
                voucher = own
                place.put(pair.rows, content)
            note = voucher.to_json()
            place.put(pair.note, note)
            there = place.look(pair.rows), place.look(pair.note)
            if voucher is own and _tags(there) == (_tag(content), _tag(note)):
                self.forget(pair)
                self._note_intact(pair, own, state_from(*there))
                return own.artifact
        return None

    def _seen(self, pair: Pair) -> _Seen:
        """A pair's files, and their state before: a change after it is found by a find."""
        place = self._location
        if place.is_local:
            state = state_of(place, pair.rows, pair.note)
            try:
                return _Seen(place.read(pair.note), place.read(pair.rows), state)
            except StoreAccessError as error:
                cause = error.__cause__
                if not isinstance(cause, IsADirectoryError | NotADirectoryError):
                    raise
                place.require()  # or it is the store itself
                path = os.path.relpath(cause.filename, place.root)
                trouble = f"{path} cannot be read ({error.reason}): remove what is in its place"
                return _Seen(None, None, state, trouble)
        note, note_file = place.fetch(pair.note) or (None, None)
        rows, rows_file = place.fetch(pair.rows) or (None, None)
        return _Seen(note, rows, state_from(rows_file, note_file))

    def _judged(self, pair: Pair, seen: _Seen) -> Intact | None:
        """The pair if it matches; else None, and any damage is noted.

        In the index too, where it may be known to be intact in that very state.
        """
        self.forget(pair)
        if seen.trouble is not None:
            self._damaged[pair.rows] = Damage(pair.rows, seen.trouble, blocked=True)
        elif seen.note is not None or seen.rows is not None:
            try:
                intact = _matched(pair, seen.note, seen.rows)
            except OutdatedError as error:
                self._outdated[pair.rows] = Damage(pair.rows, str(error))
            except ValueError as error:
                self._damaged[pair.rows] = Damage(pair.rows, str(error))
                if seen.state is not None:
                    self._index.refute(pair.kind, pair.key, seen.state)
            else:
                self._note_intact(pair, intact.voucher, seen.state)
                return intact
        self._index.drop(pair.kind, pair.key)
        return None

    def _note_intact(self, pair: Pair, voucher: Voucher, state: State | None) -> None:
        """Have the index know that a pair matches, if its files' state is known."""
        if state is not None:
            self._index.put(pair.kind, pair.key, Entry.of(state, voucher))


def _matched(pair: Pair, note: bytes | None, rows: bytes | None) -> Intact:
    """The pair if its note vouches for its rows; else ValueError, as half a sentence."""
    if note is None:
        raise ValueError("it has no .json file: its writing was interrupted")
    voucher = Voucher.from_json(note, pair.kind, pair.key)
    if rows is None:
        raise ValueError("its .parquet file is gone")
    if file_digest(rows) != voucher.sha256:
        raise ValueError("its .parquet file does not match its digest")
    return Intact(voucher, decode(rows, table(pair.kind)))


def _matches(pair: Pair, note: bytes, rows: bytes) -> bool:
    """Whether a note vouches for rows."""
    try:
        _matched(pair, note, rows)
    except ValueError:
        return False
    return True


def _vouched(pair: Pair, rows: bytes | None) -> Voucher | None:
    """What vouches for rows that have no note; None if they are not there or not whole."""
    try:
        return vouch(rows, pair.kind, pair.key) if rows is not None else None
    except ValueError:
        return None


def _tag(content: bytes) -> str:
    """What object stores name small objects of this content by."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _tags(files: Iterable[Listed | None]) -> tuple[str | None, ...]:
    """What an object store names the content of files by."""
    return tuple(one.tag if one is not None else None for one in files)
