"""Segments: the rows of many small artifacts joined into few files, for queries over all of them.

    <location>/index/<schema version>/rows/<kind>/<artifacts>-<digest>.parquet

Opening a file costs as much as reading thousands of rows. So where a kind has many small artifacts,
their rows, each checked against its digest, are joined; every later question reads the segment in
their place. A segment is of use only as it is whole (its name has the digest of its content) and as
long as all its artifacts are there, complete and with the same digests; else its artifacts are read
one by one, and joined anew. Segments are derived: delete them, and they are made again.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from data.access import reaching
from data.artifact import Artifact
from data.errors import StoreAccessError, StoreUnavailableError
from data.location import Location
from data.memory import held
from data.schema import SCHEMA_VERSION, Table
from data.states import sizes_of
from data.store import Store

FOLDER = f"index/{SCHEMA_VERSION}/rows"
ENOUGH = 256  # artifacts of a kind that are worth joining
SMALL = 2**16  # bytes of a file that is worth joining
MOST = 4096  # artifacts in a segment
_MEMBERS = b"circuit-grid members"
_PIECE = 2**20
_NAMED = re.compile(r"/\d+-[0-9a-f]{64}\.parquet")


@dataclass(frozen=True)
class Segment:
    """A segment that is whole: its path, its open file, and the digests of its artifacts by key."""

    path: str
    file: pa.NativeFile
    members: Mapping[str, str]


def dataset(store: Store, table: Table, artifacts: Sequence[Artifact]) -> ds.Dataset | pa.Table:
    """One lazy dataset over the rows of complete artifacts of a table, joined where it pays."""
    if not artifacts:
        return table.schema.empty_table()
    text = pa.dictionary(pa.int32(), pa.string())
    fields = [
        field.with_type(text) if field.name in table.text_columns else field
        for field in table.schema
    ]
    options = ds.ParquetReadOptions(dictionary_columns=set(table.text_columns))
    form = ds.ParquetFileFormat(read_options=options)
    filesystem = store.location.filesystem
    segments = _joined(store, table, artifacts) if len(artifacts) >= ENOUGH else []
    held = {key for segment in segments for key in segment.members}
    paths = [store.path(table.name, one.key) for one in artifacts if one.key not in held]
    fragments = [form.make_fragment(segment.file) for segment in segments]
    fragments += [form.make_fragment(path, filesystem) for path in paths]
    return ds.FileSystemDataset(fragments, pa.schema(fields), form, filesystem)


def _joined(store: Store, table: Table, artifacts: Sequence[Artifact]) -> list[Segment]:
    """The segments of use, after joining what is not in one if that is worth it."""
    digests = {one.key: one.digest for one in artifacts}
    segments, useless = _sorted_out(store.location, table.name, digests)
    held = {key for segment in segments for key in segment.members}
    loose = [one for one in artifacts if one.key not in held]
    if len(loose) >= ENOUGH:
        sizes = sizes_of(store.location, table.name)
        loose = [one for one in loose if sizes.get(one.key, SMALL) < SMALL]
    if len(loose) < ENOUGH:
        return segments
    few = [segment for segment in segments if 2 * len(segment.members) <= MOST]
    kept = [segment for segment in segments if segment not in few]
    try:
        made = list(_made(store, table, loose, few))
    except StoreAccessError:  # a store that cannot be written to is read file by file
        return segments
    for path in {*useless, *(one.path for one in few)} - {one.path for one in made}:
        store.location.remove(path)
    return kept + made


def _sorted_out(
    location: Location, kind: str, digests: Mapping[str, str]
) -> tuple[list[Segment], list[str]]:
    """The segments whose artifacts are all as they were, each in one alone; the paths of others."""
    found: list[Segment] = []
    useless: list[str] = []
    held: set[str] = set()
    files = location.files(f"{FOLDER}/{kind}")
    paths = sorted(filter(_NAMED.search, files), key=_size, reverse=True)
    for path in paths:
        segment = _opened(location, path)
        if segment is None:
            useless.append(path)
            continue
        if held.isdisjoint(segment.members) and segment.members.items() <= digests.items():
            found.append(segment)
            held.update(segment.members)
        else:
            segment.file.close()
            useless.append(path)
    return found, useless


def _made(
    store: Store, table: Table, loose: Sequence[Artifact], few: Sequence[Segment]
) -> Iterator[Segment]:
    """New segments of loose artifacts and of segments that are small."""
    pieces = [
        (segment.members, lambda one=segment: pq.ParquetFile(one.file).read()) for segment in few
    ]
    pieces += [
        ({one.key: one.digest}, lambda one=one: store.read(table.name, one.key)) for one in loose
    ]
    members: dict[str, str] = {}
    rows: list[pa.Table] = []
    for some, read in pieces:
        if len(members) + len(some) > MOST:
            yield _written(store.location, table, members, rows)
            members, rows = {}, []
        members |= some
        rows.append(read().replace_schema_metadata(None).cast(table.schema))
    yield _written(store.location, table, members, rows)


def _written(
    location: Location, table: Table, members: Mapping[str, str], rows: Sequence[pa.Table]
) -> Segment:
    """A segment of these rows, in place and open."""
    metadata = {_MEMBERS: json.dumps(members).encode()}
    joined = pa.concat_tables(rows).replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    pq.write_table(joined, sink, compression="zstd", use_dictionary=table.text_columns)
    content = sink.getvalue().to_pybytes()
    digest = hashlib.sha256(content).hexdigest()
    path = f"{FOLDER}/{table.name}/{len(members)}-{digest}.parquet"
    location.put_lightly(path, content)
    # another process may have joined it with more and removed it already
    return _opened(location, path) or Segment(path, held(content), dict(members))


def _opened(location: Location, path: str) -> Segment | None:
    """A segment, if it is whole; its file stays open, so that it may be replaced meanwhile.

    One that may not be read is of no use, as one that is gone. StoreUnavailableError where the
    store cannot be reached.
    """
    try:
        with reaching(path, "read from", location.name):
            file = _file(location, path)
            digest = hashlib.sha256()
            while piece := file.read(_PIECE):
                digest.update(piece)
            file.seek(0)
    except StoreUnavailableError:
        raise
    except (FileNotFoundError, StoreAccessError):
        return None
    if not path.endswith(f"-{digest.hexdigest()}.parquet"):
        file.close()
        return None
    metadata = pq.read_metadata(file).metadata or {}
    return Segment(path, file, json.loads(metadata[_MEMBERS]))


def _file(location: Location, path: str) -> pa.NativeFile:
    """A file, open; FileNotFoundError if there is none."""
    if location.is_local:
        return pa.OSFile(location.path(path))
    content = location.read(path)
    if content is None:
        raise FileNotFoundError(path)
    return held(content)


def _size(path: str) -> int:
    """How many artifacts a segment has, as its name says."""
    return int(path.rsplit("/", 1)[-1].split("-")[0])
