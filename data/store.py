"""The store: artifacts by kind and key, each published whole or not at all.

    <location>/store.json                       what this is, and its schema version
    <location>/<kind>/<key[:2]>/<key>.parquet   an artifact's rows
    <location>/<kind>/<key[:2]>/<key>.json      what vouches for them (see data/artifact.py)
    <location>/failures/<key>.json              a stage that failed (see data/ledger.py)
    <location>/grids/<name>.json                the stages a grid consists of (see data/ledger.py)

Nothing is remembered elsewhere: whatever is known of a run is derived from these files. What does
not open or does not match what vouches for it is missing, is listed in `damaged`, and is rebuilt by
writing it again. Paths come from kinds and hexadecimal keys alone.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from data import ledger
from data.artifact import Artifact, Damage, Voucher, decode, encode, file_digest, vouch
from data.errors import StoreError
from data.keys import is_hex
from data.ledger import Failure, PlannedStage
from data.location import Location
from data.marker import admit
from data.schema import companions, table

_ATTEMPTS = 20


class Store:
    """A content-addressed store of tables; open it with `Store.open`."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self._damaged: dict[str, Damage] = {}
        self._verified: dict[tuple[str, str], tuple[object, Artifact]] = {}

    @classmethod
    def open(cls, location: str | Path, create: bool = True) -> "Store":
        """The store at a directory or URL, made if `create` and there is none.

        StoreError if it was written by another version of the schema, is missing and not to be
        made, holds something else, or cannot be read or written.
        """
        place = Location.parse(location)
        try:
            admit(place, create)
        except OSError as error:
            raise StoreError(
                f"The store {place.name!r} cannot be opened: {_reason(error)}; choose another place"
                " with --store or CIRCUIT_GRID_STORE."
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

    def find(self, kind: str, key: str) -> Artifact | None:
        """The artifact, or None if it is missing or damaged (then `damaged` says why).

        The whole file is checked once per process and again whenever its time or size changes.
        """
        rows, description = _paths(kind, key)
        state = [(info.mtime_ns, info.size) for info in self._location.info(rows, description)]
        remembered = self._verified.get((kind, key))
        if remembered is not None and remembered[0] == state:
            return remembered[1]
        checked = self._checked(kind, key)
        if checked is None:
            return None
        self._verified[kind, key] = (state, checked[0])
        return checked[0]

    def complete(self, kind: str, key: str) -> Artifact | None:
        """The artifact if its companions under the same key are there too, else None."""
        for companion in companions(kind):
            if self.find(companion, key) is None:
                return None
        return self.find(kind, key)

    def read(self, kind: str, key: str) -> pa.Table:
        """The rows of an artifact, checked against its digest; StoreError if it is not there."""
        checked = self._checked(kind, key)
        if checked is None:
            damage = self._damaged.get(_paths(kind, key)[0])
            reason = f"is damaged ({damage.reason})" if damage else "is not in the store"
            raise StoreError(f"{kind} {key} {reason}: run the grid again to build it.")
        return decode(checked[1], table(kind))

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
            artifact = self._publish(kind, key, content)
            if table(kind).companion_of is None:
                ledger.clear_failure(self._location, key)
        return artifact

    def write_all(
        self, key: str, tables: Mapping[str, pa.Table], provenance: Mapping[str, object]
    ) -> dict[str, Artifact]:
        """Publish several tables under one key, companions before their primaries."""
        kinds = sorted(tables, key=lambda kind: table(kind).companion_of is None)
        return {kind: self.write(kind, key, tables[kind], provenance) for kind in kinds}

    def artifacts(self, kind: str) -> Iterator[Artifact]:
        """All intact artifacts of a kind, in the order of their keys."""
        table(kind)
        stems = (path.rsplit("/", 1)[-1].split(".")[0] for path in self._location.files(kind))
        for key in sorted({stem for stem in stems if is_hex(stem)}):
            artifact = self.find(kind, key)
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

    def save_grid(self, name: str, stages: Iterable[PlannedStage]) -> None:
        """Note which stages a grid consists of, in place of what was noted under its name."""
        with self._writing(f"The stages of grid {name!r}"):
            ledger.save_grid(self._location, name, stages)

    def grids(self) -> dict[str, tuple[PlannedStage, ...]]:
        """The stages of each grid that was ever planned here, by its name."""
        return ledger.grids(self._location)

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        """Say in a sentence what the system refuses to write."""
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{what} cannot be written to the store {self._location.name!r}:"
                f" {_reason(error)}; make room or permit it, then run again."
            ) from error

    def _publish(self, kind: str, key: str, content: bytes) -> Artifact:
        """Bring rows and voucher into place until both stand and match, whoever wrote them.

        Several processes may do this at once: the first file stays, every voucher written is that
        of the file then in place, and the check after it tells whether it still is.
        """
        rows, description = _paths(kind, key)
        for _ in range(_ATTEMPTS):
            checked = self._checked(kind, key)
            if checked is not None:
                return checked[0]
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

    def _checked(self, kind: str, key: str) -> tuple[Artifact, bytes] | None:
        """The artifact and its file's bytes if they match; else None, and any damage is noted."""
        rows, description = _paths(kind, key)
        self._verified.pop((kind, key), None)
        vouching = self._location.read(description)
        content = self._location.read(rows)
        if vouching is None and content is None:
            self._damaged.pop(rows, None)
            return None
        try:
            artifact = _match(vouching, content, kind, key)
        except ValueError as error:
            self._damaged[rows] = Damage(rows, str(error))
            return None
        self._damaged.pop(rows, None)
        assert content is not None
        return artifact, content


def _match(vouching: bytes | None, content: bytes | None, kind: str, key: str) -> Artifact:
    """The artifact that a voucher vouches for, if the file is that one; else ValueError."""
    if vouching is None:
        raise ValueError("it has no .json file: its writing was interrupted")
    voucher = Voucher.from_json(vouching, kind, key)
    if content is None:
        raise ValueError("its .parquet file is gone")
    if file_digest(content) != voucher.sha256:
        raise ValueError("its .parquet file does not match its digest")
    return voucher.artifact


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


def _paths(kind: str, key: str) -> tuple[str, str]:
    """The relative paths of an artifact's two files; StoreError for no such kind or no key."""
    stem = f"{table(kind).name}/{_checked_key(key)[:2]}/{key}"
    return f"{stem}.parquet", f"{stem}.json"


def _checked_key(key: str) -> str:
    """The key, if it is one: keys become paths."""
    if not is_hex(key):
        raise StoreError(f"{key!r} is no key: keys are lower-case hexadecimal digits.")
    return key


def _reason(error: OSError) -> str:
    """What the system says, without its number."""
    return error.strerror or str(error)
