"""The index: which artifacts were read and found intact, and in which state their files were then.

    <location>/index/<schema version>/artifacts/<time>-<entries>-<digest>.parquet

It saves reading: an artifact whose files are in the state they were in when they were checked is
not read again to be found. It is derived: delete it, or lose any of it, and artifacts are read once
more. It is kept in segments, so that many processes add to it without waiting for each other; a
process that saves joins small segments into one, at most doubling what it writes. A segment's name
has the digest of its content: a damaged one is ignored.

Bytes may rot while the state of their file stays the same. Whoever reads such a file *refutes* its
state: a line that says so stands beside the entries, and nobody trusts that state of that artifact
again, whichever segment, written by whichever clock, still has it. What is written anew has another
state. One so young that a second change could hide in the same tick of the clock is not kept.
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from data.artifact import Artifact, Voucher
from data.errors import StoreAccessError, StoreUnavailableError
from data.location import Location
from data.memory import held
from data.schema import SCHEMA_VERSION
from data.states import State, seconds_until_settled

FOLDER = f"index/{SCHEMA_VERSION}/artifacts"
_SEGMENT = re.compile(r"/\d{20}-\d+-[0-9a-f]{32}\.parquet")
_TEXT = pa.string()
_SCHEMA = pa.schema(
    {"kind": _TEXT, "key": _TEXT, "state": pa.binary(), "sha256": _TEXT, "digest": _TEXT}
    | {"rows": pa.int64(), "provenance": _TEXT}
)
_REPEATED = ["kind", "provenance"]
_Key = tuple[str, str]
_Refuted = tuple[str, str, State]


class Provenance(Mapping[str, object]):
    """A provenance that is still JSON until somebody looks at it."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __getitem__(self, name: str) -> object:
        return _parsed(self.text)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_parsed(self.text))

    def __len__(self) -> int:
        return len(_parsed(self.text))

    def __repr__(self) -> str:
        return self.text


@lru_cache(maxsize=16)
def _parsed(text: str) -> dict[str, object]:
    """A provenance of which several things are asked, one after the other."""
    said: dict[str, object] = json.loads(text)
    return said


class Entry(NamedTuple):
    """What is known of an artifact whose files are in a state."""

    state: State
    sha256: str
    digest: str
    rows: int
    provenance: str

    @classmethod
    def of(cls, state: State, voucher: Voucher) -> "Entry":
        """What a voucher says that was found to be true."""
        artifact = voucher.artifact
        provenance = artifact.provenance
        if isinstance(provenance, Provenance):
            text = provenance.text
        else:
            text = json.dumps(dict(provenance), sort_keys=True)
        return cls(state, voucher.sha256, artifact.digest, artifact.rows, text)

    def artifact(self, kind: str, key: str) -> Artifact:
        """The artifact."""
        return Artifact(kind, key, self.digest, self.rows, Provenance(self.provenance))


class Index:
    """The index of one store, read when first needed."""

    def __init__(self, location: Location) -> None:
        self._location = location
        self._entries: dict[_Key, Entry] | None = None
        self._refuted: set[_Refuted] = set()
        self._new: dict[_Key, Entry] = {}
        self._newly_refuted: set[_Refuted] = set()
        self._young: dict[_Key, tuple[Entry, float]] = {}  # and until when (monotonic) they serve
        self._read: set[str] = set()  # segments that were read, or written here
        self._lock = threading.RLock()  # a run and its runner may share a store

    def get(self, kind: str, key: str, state: State | None) -> Entry | None:
        """What is known of an artifact, if its files are in the state they were checked in."""
        with self._lock:
            known = self._known()
            if state is None or (kind, key, state) in self._refuted:
                return None
            entry = known.get((kind, key))
            if entry is not None and entry.state == state:
                return entry
            young, until = self._young.get((kind, key), (None, 0.0))
            if time.monotonic() > until:
                self._young.pop((kind, key), None)
                return None
            return young if young is not None and young.state == state else None

    def knows(self, kind: str, key: str) -> bool:
        """Whether anything is known of an artifact, in whatever state its files are."""
        with self._lock:
            return (kind, key) in self._known() or (kind, key) in self._young

    def put(self, kind: str, key: str, entry: Entry) -> None:
        """Note an artifact that was checked; of a young state only for as long as it is young."""
        with self._lock:
            known = self._known()
            before = known.get((kind, key))
            if before == entry or (kind, key, entry.state) in self._refuted:
                return
            if before is not None and before.state == entry.state and before.sha256 != entry.sha256:
                self.refute(kind, key, entry.state)  # two contents: it tells them not apart
                return
            seconds = seconds_until_settled(entry.state)
            if seconds > 0:
                self._young[kind, key] = (entry, time.monotonic() + seconds)
            else:
                self._young.pop((kind, key), None)
                known[kind, key] = self._new[kind, key] = entry

    def drop(self, kind: str, key: str) -> None:
        """Forget an artifact that is not there any more."""
        with self._lock:
            self._known().pop((kind, key), None)
            self._new.pop((kind, key), None)
            self._young.pop((kind, key), None)

    def refute(self, kind: str, key: str, state: State) -> bool:
        """Note that files in this state are not intact; whether that is news worth saving."""
        with self._lock:
            self.drop(kind, key)
            if seconds_until_settled(state) > 0 or (kind, key, state) in self._refuted:
                return False
            self._refuted.add((kind, key, state))
            self._newly_refuted.add((kind, key, state))
            return True

    def refresh(self) -> None:
        """Learn what other processes have added since it was read."""
        with self._lock:
            if self._entries is not None:
                self._learn(self._entries)

    def save(self) -> None:
        """Write what was noted since it was saved last, if anything."""
        with self._lock:
            entries, self._new = self._new, {}
            refuted, self._newly_refuted = self._newly_refuted, set()
            number = len(entries) + len(refuted)
            if not number:
                return
            joined = []
            try:
                for path in sorted(self._segments(), key=_size):
                    if _size(path) > 2 * number:
                        break
                    joined.append(path)
                    before, wrong = _sorted_out(_segment(self._location, path))
                    self._refuted |= wrong  # what is joined here is not read here again
                    entries, refuted = before | entries, refuted | wrong
                    number = len(entries) + len(refuted)
                self._write(entries, refuted)
                for path in joined:
                    self._location.remove(path)
            except StoreAccessError:  # then artifacts are read once more: never worth a failure
                self._new, self._newly_refuted = entries | self._new, refuted | self._newly_refuted

    def keep(self, states: Mapping[str, Mapping[str, State | None]]) -> None:
        """Rewrite it with the entries of these keys by kind alone."""
        with self._lock:
            before = self._segments()
            self._entries, self._read = None, set()  # others may have added to it
            known = self._known() | self._new
            entries = {
                one: entry for one, entry in known.items() if one[1] in states.get(one[0], ())
            }
            refuted = {one for one in self._refuted if states.get(one[0], {}).get(one[1]) == one[2]}
            if entries or refuted:
                self._write(entries, refuted)
            for path in before:
                self._location.remove(path)
            self._entries, self._new = entries, {}
            self._refuted, self._newly_refuted = refuted, set()

    def _write(self, entries: Mapping[_Key, Entry], refuted: Iterable[_Refuted]) -> None:
        """One segment of entries and of refuted states."""
        lines = [
            *((*one, *entry) for one, entry in entries.items()),
            *((kind, key, *_REFUTED._replace(state=state)) for kind, key, state in sorted(refuted)),
        ]
        columns = zip(*lines, strict=True)
        arrays = [pa.array(one, field.type) for one, field in zip(columns, _SCHEMA, strict=True)]
        sink = pa.BufferOutputStream()
        segment = pa.Table.from_arrays(arrays, schema=_SCHEMA)
        pq.write_table(segment, sink, compression="zstd", use_dictionary=_REPEATED)
        content = sink.getvalue().to_pybytes()
        path = f"{FOLDER}/{time.time_ns():020d}-{len(lines)}-{_digest(content)}.parquet"
        self._location.put_lightly(path, content)
        self._read.add(path)

    def _segments(self) -> list[str]:
        """The paths of all segments, the oldest first."""
        return [path for path in self._location.files(FOLDER) if _SEGMENT.search(path)]

    def _known(self) -> dict[_Key, Entry]:
        """All entries; where segments disagree, those of the latest."""
        if self._entries is None:
            entries: dict[_Key, Entry] = {}
            self._learn(entries)
            self._entries = entries
        return self._entries

    def _learn(self, entries: dict[_Key, Entry]) -> None:
        """Add what the segments say that were not read yet."""
        try:
            segments = self._segments()
            for path in segments:
                if path not in self._read:
                    more, refuted = _sorted_out(_segment(self._location, path))
                    entries.update(more)
                    self._refuted |= refuted
                    self._read.add(path)
            self._read.intersection_update(segments)
            entries.update(self._new)
        except StoreUnavailableError:
            raise
        except StoreAccessError:  # as for an index that cannot be written
            entries.clear()


_REFUTED = Entry(b"", "", "", -1, "")  # how a refuted state stands in a segment


def _sorted_out(
    lines: Iterable[tuple[_Key, Entry]],
) -> tuple[dict[_Key, Entry], set[_Refuted]]:
    """The entries of a segment, and the states that it says are refuted."""
    entries: dict[_Key, Entry] = {}
    refuted: set[_Refuted] = set()
    for one, entry in lines:
        if entry.rows < 0:
            refuted.add((*one, entry.state))
        else:
            entries[one] = entry
    return entries, refuted


def _segment(location: Location, path: str) -> Iterator[tuple[_Key, Entry]]:
    """The lines of a segment; none where it is damaged, of another version, or gone."""
    content = location.read(path)
    if content is None or not path.endswith(f"-{_digest(content)}.parquet"):
        return
    segment = pq.ParquetFile(held(content)).read()
    if not segment.schema.equals(_SCHEMA):
        return
    shared: dict[str, str] = {}
    columns = [column.to_pylist() for column in segment.columns]
    for kind, key, state, sha256, digest, rows, provenance in zip(*columns, strict=True):
        text = shared.setdefault(provenance, provenance)  # companions have the same
        yield (shared.setdefault(kind, kind), key), Entry(state, sha256, digest, rows, text)


def _size(path: str) -> int:
    """How many entries a segment has, as its name says."""
    return int(path.rsplit("/", 1)[-1].split("-")[1])


def _digest(content: bytes) -> str:
    """What names a segment of this content."""
    return hashlib.sha256(content).hexdigest()[:32]
