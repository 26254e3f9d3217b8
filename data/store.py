"""The store: artifacts by kind and key, each published whole or not at all.

    <location>/store.json                       what this is, and its schema version
    <location>/<kind>/<key[:2]>/<key>.parquet   an artifact's rows
    <location>/<kind>/<key[:2]>/<key>.json      what vouches for them (see data/pairs.py)
    <location>/failures/<key>.json              a stage that failed (see data/failures.py)
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

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from data import failures, ledger
from data.access import reaching
from data.artifact import Artifact, Damage, encode
from data.errors import ArtifactLostError, StoreAccessError, StoreUnavailableError
from data.failures import Failure
from data.index import Index
from data.keys import checked_key
from data.leases import Lease, LeaseInfo, Leases
from data.ledger import GridNote, NotedGrids, PlannedStage
from data.location import Location
from data.marker import admit
from data.pairs import Pair, Pairs
from data.runs import CLEANING, is_run, is_stage, run_key, scheduled_key
from data.schema import TABLES, companions, table
from data.states import State, states_of

_LOOKS = 32  # finds of a kind that are looks at single files before all of it is listed
_SECONDS_BETWEEN_LOOKS = 0.2  # at a cleaning that goes on


class Store:
    """A content-addressed store of tables; open it with `Store.open`."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self._index = Index(location)
        self._pairs = Pairs(location, self._index)
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

    def require(self) -> None:
        """StoreUnavailableError if it is gone: where it lay, there is nothing or something else."""
        self._location.require()

    @property
    def damaged(self) -> list[Damage]:
        """The damaged files met so far by this object, and not rebuilt since."""
        return self._pairs.damaged

    @property
    def outdated(self) -> list[Damage]:
        """The files met so far of older versions, of no use to this one, and not rebuilt since."""
        return self._pairs.outdated

    def find(self, kind: str, key: str) -> Artifact | None:
        """The artifact, or None if it is missing or damaged (then `damaged` says why).

        The whole file is checked once, by whichever process, and again whenever its state changes.
        """
        pair = Pair.of(kind, key)
        state = self._listed_state(kind, key)
        if state is None and self._is_absent(kind, key):
            self._pairs.forget(pair)
            return None
        return self._pairs.find(pair, state)

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
        """The rows of an artifact, checked against its digest; ArtifactLostError without it."""
        pair = Pair.of(kind, key)
        intact = self._pairs.read(pair)
        if intact is None:
            self.save_index()  # where it is damaged in a state that others trust, they are to know
            damage = self._pairs.damage_of(pair)
            reason = f"is damaged ({damage.reason})" if damage else "is not in the store"
            raise ArtifactLostError(kind, key, reason)
        return intact.rows

    def write(
        self, kind: str, key: str, rows: pa.Table, provenance: Mapping[str, object]
    ) -> Artifact:
        """Publish rows under a key; StoreError if they do not fit the schema or cannot be written.

        Idempotent: an intact artifact that is there already stays, whoever wrote it, and is
        returned; a damaged one is replaced. A recorded failure of the key is cleared.
        """
        pair = Pair.of(kind, key)
        content = encode(rows, kind, key, provenance)
        with self._writing(f"{kind} {key}"):
            artifact = self._pairs.publish(pair, content)
            if self._listing is not None:
                self._written.add((kind, key))
            if table(kind).companion_of is None:
                failures.clear_failure(self._location, key)
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
            self._pairs.remove(Pair.of(kind, key))

    def artifacts(self, kind: str) -> Iterator[Artifact]:
        """All intact artifacts of a kind, in the order of their keys."""
        for key, state in sorted(states_of(self._location, table(kind).name).items()):
            entry = self._index.get(kind, key, state)
            artifact = self.find(kind, key) if entry is None else entry.artifact(kind, key)
            if artifact is not None:
                yield artifact

    def path(self, kind: str, key: str) -> str:
        """The path of an artifact's Parquet file in the location's file system."""
        return self._location.path(Pair.of(kind, key).rows)

    def record_failure(self, key: str, stage: str, cell: str, sentence: str) -> Failure:
        """Note that a stage failed and why; it stands until the stage succeeds."""
        with self._writing(f"The failure of {stage}"):
            return failures.record_failure(self._location, checked_key(key), stage, cell, sentence)

    def clear_failure(self, key: str) -> None:
        """Forget that a stage failed."""
        with self._writing(f"The end of failure {key}"):
            failures.clear_failure(self._location, checked_key(key))

    def failures(self) -> list[Failure]:
        """The stages that failed and have not succeeded since, in the order of their keys."""
        return failures.failures(self._location)

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

    def noted_grids(self) -> NotedGrids:
        """What is noted of the grids that were ever planned here, and the notes that do not tell.

        What a grid needs whose note cannot be read is not known.
        """
        return ledger.noted_grids(self._location)

    def grid_notes(self) -> dict[str, GridNote]:
        """What is noted of each grid by its name, as far as notes can be read."""
        return self.noted_grids().notes

    def grids(self) -> dict[str, tuple[PlannedStage, ...]]:
        """The stages of each grid by its name, as far as notes can be read."""
        return {name: note.stages for name, note in self.grid_notes().items()}

    def lease(self, key: str) -> Lease | None:
        """The lease of the stage under a key; None while another process has it."""
        return self._leases.take(checked_key(key))

    def leases(self, tidy: bool = False) -> list[LeaseInfo]:
        """The stages that processes are at now, by key; if `tidy`, dead claims are removed."""
        live = self._leases.live(tidy)
        return [one for one in live if is_stage(one.key)]

    def dead_claims(self) -> list[str]:
        """The files that processes left in `leases/` which are known to have ended."""
        return self._leases.dead()

    def running(self, name: str) -> Lease:
        """The lease of one more run of a grid: what is in the store stays while it is held.

        A cleaning that goes on gives way first, within seconds. StoreUnavailableError if the lease
        is lost on the way.
        """
        lease = self._leases.take(run_key(name))
        if lease is None:
            raise StoreUnavailableError(
                f"The run of grid {name!r} could not be noted in {self._location.name!r}:"
                " something removed the note; run again.",
                "something removed the note",
                "run again",
            )
        try:
            while any(one.key == CLEANING for one in self._leases.live()):
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        except BaseException:
            lease.release()
            raise
        return lease

    def runs(self) -> list[LeaseInfo]:
        """The runs of grids that go on now (see `data.runs.is_run`)."""
        return [one for one in self._leases.live() if is_run(one.key)]

    def scheduled(self, name: str) -> Lease | LeaseInfo:
        """The lease of the scheduled run of a grid, or whoever runs that grid already, for sure.

        Where that may be a host that is gone, this takes half a minute to see.
        """
        key = scheduled_key(name)
        while True:
            going = [one for one in self._leases.live() if one.key == key or is_run(one.key, name)]
            if sure := next((one for one in going if one.sure), None):
                return sure
            if not going and (lease := self._leases.take(key)):
                return lease
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def cleaning(self) -> Lease | None:
        """The lease of whoever removes artifacts; None while another process has it.

        Whoever has it is to look for `runs` then and now and again, and to remove nothing that
        they might have found; a run that begins meanwhile waits until the lease is released.
        """
        return self._leases.take(CLEANING)

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """Say in a sentence what the system refuses to write."""
        with reaching(what, "written to", self._location.name):
            yield

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
