"""The store: artifacts by kind and key, each published whole or not at all.

    <location>/store.json                       what this is, and its schema version
    <location>/<kind>/<key[:2]>/<key>.parquet   an artifact's rows
    <location>/<kind>/<key[:2]>/<key>.json      what vouches for them (see data/artifact.py)
    <location>/failures/<key>.json              a stage that failed (see data/ledger.py)
    <location>/grids/<name>.json                the stages a grid consists of (see data/ledger.py)
    <location>/leases/<key>.<token>.json        a process is at this stage (see data/leases.py)
    <location>/index/                           derived: what was read and found intact
                                                (see data/index.py and data/segments.py)

Nothing is remembered elsewhere: whatever is known of a run is derived from these files. What does
not open or does not match what vouches for it is missing, is listed in `damaged`, and is rebuilt by
writing it again; so is what an older version wrote whose table has changed since, listed in
`outdated`. A file is read to find out whether it is intact, and not again while its state is the
same; its rows are checked whenever they are read. Paths come from kinds and hexadecimal keys alone.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from data import ledger
from data.access import reaching
from data.artifact import (
    Artifact,
    Damage,
    OutdatedError,
    Voucher,
    decode,
    encode,
    file_digest,
    vouch,
)
from data.errors import StoreAccessError, StoreError, StoreUnavailableError
from data.index import Entry, Index
from data.keys import is_hex
from data.leases import Lease, LeaseInfo, Leases
from data.ledger import Failure, GridNote, PlannedStage
from data.location import Listed, Location
from data.marker import admit
from data.schema import TABLES, companions, table
from data.states import State, state_from, state_of, states_of

_ATTEMPTS = 20
_LOOKS = 32  # finds of a kind that are looks at single files before all of it is listed
_SECONDS_BETWEEN_LOOKS = 0.2  # at a cleaning that goes on


class _Seen(NamedTuple):
    """An artifact's two files as they were read, and the state that they were in before."""

    vouching: bytes | None
    content: bytes | None
    state: State | None


class Store:
    """A content-addressed store of tables; open it with `Store.open`."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self._damaged: dict[str, Damage] = {}
        self._outdated: dict[str, Damage] = {}
        self._index = Index(location)
        self._leases = Leases(location)
        self._listing: dict[str, dict[str, State | None]] | None = None
        self._asked: Counter[str] = Counter()
        self._written: set[tuple[str, str]] = set()  # since it was listed

    @classmethod
    def open(cls, location: str | Path, create: bool = True) -> "Store":
        """The store at a directory or URL, made if `create` and there is none.

        StoreError if it was written by another version of the schema, is missing and not to be
        made, holds something else, or cannot be read or written.
        """
        place = Location.parse(location)
        try:
            admit(place, create)
        except StoreAccessError as error:
            raise type(error)(
                f"The store {place.name!r} cannot be opened: {error.reason}; {error.advice}.",
                error.reason,
                error.advice,
            ) from error
        return cls(place)

    @property
    def location(self) -> Location:
        """Where it lies."""
        return self._location

    @property
    def damaged(self) -> list[Damage]:
        """The damaged files met so far by this object, and not rebuilt since."""
        return [self._damaged[path] for path in sorted(self._damaged)]

    @property
    def outdated(self) -> list[Damage]:
        """The files met so far of older versions, of no use to this one, and not rebuilt since."""
        return [self._outdated[path] for path in sorted(self._outdated)]

    def find(self, kind: str, key: str) -> Artifact | None:
        """The artifact, or None if it is missing or damaged (then `damaged` says why).

        The whole file is checked once, by whichever process, and again whenever its state changes.
        """
        rows, note = _paths(kind, key)
        state = self._listed_state(kind, key)
        if state is None and self._is_absent(kind, key):
            self._forget(rows)
            return None
        if self._location.is_local or self._index.knows(kind, key):
            state = state or state_of(self._location, rows, note)
            entry = self._index.get(kind, key, state)
            if entry is not None:
                self._damaged.pop(rows, None)
                return entry.artifact(kind, key)
        verified = self._verified(kind, key)
        return verified[0].artifact if verified is not None else None

    @contextmanager
    def listed(self) -> Iterator[None]:
        """Within it, many finds take one listing a kind where files are asked for over a network.

        What others publish or lose meanwhile may go unnoticed until its end; what they found
        damaged or intact before is known.
        """
        self._index.refresh()
        self._listing, self._asked, self._written = {}, Counter(), set()
        try:
            yield
        finally:
            self._listing = None

    def tidy_index(self) -> None:
        """Leave in the index what is in the store alone."""
        self._index.keep({kind: states_of(self._location, kind) for kind in TABLES})

    def save_index(self) -> None:
        """Keep what was found intact for other processes; saving a grid does so too."""
        self._index.save()

    def complete(self, kind: str, key: str) -> Artifact | None:
        """The artifact if its companions under the same key are there too, else None."""
        for companion in companions(kind):
            if self.find(companion, key) is None:
                return None
        return self.find(kind, key)

    def read(self, kind: str, key: str) -> pa.Table:
        """The rows of an artifact, checked against its digest; StoreError if it is not there."""
        verified = self._verified(kind, key)
        if verified is None:
            self.save_index()  # where it is damaged in a state that others trust, they are to know
            damage = self._damaged.get(_paths(kind, key)[0])
            reason = f"is damaged ({damage.reason})" if damage else "is not in the store"
            raise StoreError(f"{kind} {key} {reason}: run the grid again to build it.")
        try:
            return decode(verified[1], table(kind))
        except ValueError as error:  # vouched for, by whomever, and yet no such table
            raise StoreError(
                f"{kind} {key} is damaged ({error}): run the grid again to build it."
            ) from error

    def write(
        self, kind: str, key: str, rows: pa.Table, provenance: Mapping[str, object]
    ) -> Artifact:
        """Publish rows under a key; StoreError if they do not fit the schema or cannot be written.

        Idempotent: an intact artifact that is there already stays, whoever wrote it, and is
        returned; a damaged one is replaced. A recorded failure of the key is cleared.
        """
        _paths(kind, key)
        content = encode(rows, kind, key, provenance)
        with self._writing(f"{kind} {key}"):
            publish = self._publish if self._location.is_local else self._publish_remotely
            artifact = publish(kind, key, content)
            if self._listing is not None:
                self._written.add((kind, key))
            if table(kind).companion_of is None:
                ledger.clear_failure(self._location, key)
        return artifact

    def write_all(
        self, key: str, tables: Mapping[str, pa.Table], provenance: Mapping[str, object]
    ) -> dict[str, Artifact]:
        """Publish several tables under one key, companions before their primaries."""
        kinds = sorted(tables, key=lambda kind: table(kind).companion_of is None)
        return {kind: self.write(kind, key, tables[kind], provenance) for kind in kinds}

    def remove_all(self, key: str, kinds: Iterable[str]) -> None:
        """Delete artifacts of a key: primaries before their companions, vouchers before rows.

        Whatever is cut short leaves a stage that is not finished, and files that count as damaged.
        """
        for kind in sorted(kinds, key=lambda kind: table(kind).companion_of is not None):
            rows, description = _paths(kind, key)
            self._location.remove(description)
            self._location.remove(rows)
            self._forget(rows)
            self._index.drop(kind, key)

    def artifacts(self, kind: str) -> Iterator[Artifact]:
        """All intact artifacts of a kind, in the order of their keys."""
        for key, state in sorted(states_of(self._location, table(kind).name).items()):
            entry = self._index.get(kind, key, state)
            artifact = self.find(kind, key) if entry is None else entry.artifact(kind, key)
            if artifact is not None:
                yield artifact

    def path(self, kind: str, key: str) -> str:
        """The path of an artifact's Parquet file in the location's file system."""
        return self._location.path(_paths(kind, key)[0])

    def record_failure(self, key: str, stage: str, cell: str, sentence: str) -> Failure:
        """Note that a stage failed and why; it stands until the stage succeeds."""
        with self._writing(f"The failure of {stage}"):
            return ledger.record_failure(self._location, _checked_key(key), stage, cell, sentence)

    def clear_failure(self, key: str) -> None:
        """Forget that a stage failed."""
        with self._writing(f"The end of failure {key}"):
            ledger.clear_failure(self._location, _checked_key(key))

    def failures(self) -> list[Failure]:
        """The stages that failed and have not succeeded since, in the order of their keys."""
        return ledger.failures(self._location)

    def save_grid(
        self,
        name: str,
        stages: Iterable[PlannedStage],
        file: str | None = None,
        settings: Mapping[str, object] | None = None,
        whole: bool = True,
    ) -> GridNote:
        """Note which stages a grid consists of, merged with what was noted under its name before.

        `whole` is false where parts of it could not be planned: nothing is given up then. The
        settings are plain JSON values. StoreError for a name that cannot be a file's.
        """
        with self._writing(f"The stages of grid {name!r}"):
            note = ledger.save_grid(self._location, name, stages, file, settings, whole)
        self.save_index()
        return note

    def forget_grid(self, name: str) -> bool:
        """Forget that a grid was ever planned here; whether it was."""
        with self._writing(f"The end of grid {name!r}"):
            return ledger.forget_grid(self._location, name)

    def grid_notes(self) -> dict[str, GridNote]:
        """What is noted of each grid that was ever planned here, by its name."""
        return ledger.grid_notes(self._location)

    def grids(self) -> dict[str, tuple[PlannedStage, ...]]:
        """The stages of each grid that was ever planned here, by its name."""
        return {name: note.stages for name, note in self.grid_notes().items()}

    def unreadable_grids(self) -> list[str]:
        """The files of grids whose notes cannot be read: what these need is not known."""
        return ledger.unreadable_grids(self._location)

    def lease(self, key: str) -> Lease | None:
        """The lease of the stage under a key; None while another process has it."""
        return self._leases.take(_checked_key(key))

    def leases(self, tidy: bool = False) -> list[LeaseInfo]:
        """The stages that processes are at now, by key; if `tidy`, dead claims are removed."""
        live = self._leases.live(tidy)
        return [one for one in live if not ledger.is_run(one.key) and one.key != ledger.CLEANING]

    def running(self, name: str) -> Lease:
        """The lease of one more run of a grid: what is in the store stays while it is held.

        A cleaning that goes on gives way first, within seconds. StoreUnavailableError if the lease
        is lost on the way.
        """
        lease = self._leases.take(ledger.grid_run_key(name))
        if lease is None:
            raise StoreUnavailableError(
                f"The run of grid {name!r} could not be noted in {self._location.name!r}:"
                " something removed the note; run again.",
                "something removed the note",
                "run again",
            )
        try:
            while any(one.key == ledger.CLEANING for one in self._leases.live()):
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        except BaseException:
            lease.release()
            raise
        return lease

    def runs(self) -> list[LeaseInfo]:
        """The runs of grids that go on now (see `data.ledger.is_run`)."""
        return [one for one in self._leases.live() if ledger.is_run(one.key)]

    def cleaning(self) -> Lease | None:
        """The lease of whoever removes artifacts; None while another process has it.

        Whoever has it is to look for `runs` then and now and again, and to remove nothing that
        they might have found; a run that begins meanwhile waits until the lease is released.
        """
        return self._leases.take(ledger.CLEANING)

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """Say in a sentence what the system refuses to write."""
        with reaching(what, "written to", self._location.name):
            yield

    def _publish(self, kind: str, key: str, content: bytes) -> Artifact:
        """Bring rows and voucher into place until both stand and match, whoever wrote them.

        Several processes may do this at once: the first file stays, every voucher written is that
        of the file then in place, and the check after it tells whether it still is.
        """
        rows, description = _paths(kind, key)
        for _ in range(_ATTEMPTS):
            verified = self._verified(kind, key)
            if verified is not None:
                return verified[0].artifact
            if not self._location.put_new(rows, content):
                vouching, there = self._location.read(description), self._location.read(rows)
                if there is None or (vouching is not None and _matches(vouching, there, kind, key)):
                    continue
                if vouching is not None or _vouched(there, kind, key) is None:
                    self._location.put(rows, content)
            voucher = _vouched(self._location.read(rows), kind, key)
            if voucher is not None:
                self._location.put(description, voucher.to_json())
        raise StoreError(
            f"{kind} {key} cannot be written to {self._location.name!r}:"
            " other processes keep replacing it."
        )

    def _publish_remotely(self, kind: str, key: str, content: bytes) -> Artifact:
        """The same in an object store, which tells what an object holds without its being read.

        Of several processes the last one to put a file wins; who finds another's rows in place of
        its own vouches for these, so that all come to rest on the same.
        """
        rows, description = _paths(kind, key)
        own, place = vouch(content, kind, key), self._location
        for attempt in range(_ATTEMPTS):
            voucher = None
            if attempt or place.exists(description):
                seen = self._see(kind, key)
                verified = self._judge(kind, key, seen)
                if verified is not None:
                    return verified[0].artifact
                voucher = _vouched(seen.content, kind, key) if attempt else None
            if voucher is None:
                voucher = own
                place.put(rows, content)
            note = voucher.to_json()
            place.put(description, note)
            there = place.look(rows), place.look(description)
            if voucher is own and _tags(there) == (_tag(content), _tag(note)):
                state = state_from(*there)
                self._forget(rows)
                if state is not None:
                    self._index.put(kind, key, Entry.of(state, own))
                return own.artifact
        raise StoreError(
            f"{kind} {key} cannot be written to {place.name!r}: other processes keep replacing it."
        )

    def _listed_state(self, kind: str, key: str) -> State | None:
        """The state of an artifact's files as listed; None where a look at them is as good."""
        if self._listing is None or self._location.is_local:
            return None
        self._asked[kind] += 1
        if kind not in self._listing:
            if self._asked[kind] <= _LOOKS:
                return None
            self._listing[kind] = states_of(self._location, kind)
        return self._listing[kind].get(key)

    def _is_absent(self, kind: str, key: str) -> bool:
        """Whether a listing says that an artifact has not even one of its files."""
        listing = (self._listing or {}).get(kind)
        return listing is not None and key not in listing and (kind, key) not in self._written

    def _verified(self, kind: str, key: str) -> tuple[Voucher, bytes] | None:
        """The voucher and the bytes of a file if they match; else None, and any damage is noted."""
        return self._judge(kind, key, self._see(kind, key))

    def _see(self, kind: str, key: str) -> _Seen:
        """An artifact's files, and their state before: a change after it is found by a find."""
        rows, description = _paths(kind, key)
        place = self._location
        if place.is_local:
            state = state_of(place, rows, description)
            return _Seen(place.read(description), place.read(rows), state)
        vouching, note_file = place.fetch(description) or (None, None)
        content, rows_file = place.fetch(rows) or (None, None)
        return _Seen(vouching, content, state_from(rows_file, note_file))

    def _judge(self, kind: str, key: str, seen: _Seen) -> tuple[Voucher, bytes] | None:
        """The voucher and the bytes if they match; else None, and any damage is noted.

        In the index too, where it may be known to be intact in that very state.
        """
        rows, _ = _paths(kind, key)
        self._forget(rows)
        if seen.vouching is not None or seen.content is not None:
            try:
                voucher = _match(seen.vouching, seen.content, kind, key)
            except OutdatedError as error:
                self._outdated[rows] = Damage(rows, str(error))
            except ValueError as error:
                self._damaged[rows] = Damage(rows, str(error))
                if seen.state is not None:
                    self._index.refute(kind, key, seen.state)
            else:
                assert seen.content is not None
                if seen.state is not None:
                    self._index.put(kind, key, Entry.of(seen.state, voucher))
                return voucher, seen.content
        self._index.drop(kind, key)
        return None

    def _forget(self, rows: str) -> None:
        """Forget what was said of a file."""
        self._damaged.pop(rows, None)
        self._outdated.pop(rows, None)


def _match(vouching: bytes | None, content: bytes | None, kind: str, key: str) -> Voucher:
    """The voucher, if it vouches for the file; else ValueError."""
    if vouching is None:
        raise ValueError("it has no .json file: its writing was interrupted")
    voucher = Voucher.from_json(vouching, kind, key)
    if content is None:
        raise ValueError("its .parquet file is gone")
    if file_digest(content) != voucher.sha256:
        raise ValueError("its .parquet file does not match its digest")
    return voucher


def _matches(vouching: bytes, content: bytes, kind: str, key: str) -> bool:
    """Whether a voucher vouches for a file."""
    try:
        _match(vouching, content, kind, key)
    except ValueError:
        return False
    return True


def _vouched(content: bytes | None, kind: str, key: str) -> Voucher | None:
    """The voucher of a file, or None if it is not there or not whole."""
    try:
        return vouch(content, kind, key) if content is not None else None
    except ValueError:
        return None


def _tag(content: bytes) -> str:
    """What object stores name small objects of this content by."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _tags(files: Iterable[Listed | None]) -> tuple[str | None, ...]:
    """What an object store names the content of files by."""
    return tuple(one.tag if one is not None else None for one in files)


def _paths(kind: str, key: str) -> tuple[str, str]:
    """The relative paths of an artifact's two files; StoreError for no such kind or no key."""
    stem = f"{table(kind).name}/{_checked_key(key)[:2]}/{key}"
    return f"{stem}.parquet", f"{stem}.json"


def _checked_key(key: str) -> str:
    """The key, if it is one: keys become paths."""
    if not is_hex(key):
        raise StoreError(f"{key!r} is no key: keys are lower-case hexadecimal digits.")
    return key
