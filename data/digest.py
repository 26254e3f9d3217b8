"""The content digest: a SHA-256 of a table's rows alone.

Two tables have one digest exactly if they have the same columns (names and types, in order) and
the same rows in the same order. How they are held (chunks, slices, dictionaries, wide or narrow
offsets, compression, metadata) does not matter; a null is not a value; every NaN is the same NaN;
0.0 and -0.0 differ.

Each column is read as a few byte streams (validity, lengths, values), each hashed over all chunks;
the digest is that of the columns' types and their streams' hashes.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types


def content_digest(table: pa.Table) -> str:
    """SHA-256 (hex) of the rows; TypeError for a column type that the schemas do not use."""
    streams: dict[str, hashlib._Hash] = defaultdict(hashlib.sha256)
    for index, column in enumerate(table.columns):
        for chunk in column.chunks:
            for name, piece in _streams(_plain(chunk), str(index)):
                if piece:
                    streams[name].update(piece)
    header = {
        "rows": table.num_rows,
        "columns": [[field.name, _type_name(field.type)] for field in table.schema],
        "streams": {name: stream.hexdigest() for name, stream in streams.items()},
    }
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode("ascii")).hexdigest()


def _streams(values: pa.Array, path: str) -> Iterator[tuple[str, bytes]]:
    """The byte streams of a plain array: whether each is valid, how long it is, what it is."""
    yield f"{path}/valid", _bytes(pc.is_valid(values).cast(pa.uint8()))
    if types.is_large_list(values.type):
        yield f"{path}/lengths", _bytes(pc.fill_null(pc.list_value_length(values), 0))
        yield from _streams(_plain(values.flatten()), f"{path}/items")
    elif types.is_large_string(values.type):
        values = pc.fill_null(values, "")
        lengths = pc.binary_length(values).cast(pa.int64())
        yield f"{path}/lengths", _bytes(lengths)
        yield f"{path}/values", _text_bytes(values)
    elif types.is_floating(values.type):
        floats = pc.fill_null(values, 0.0).to_numpy(zero_copy_only=False)
        nan = np.array(np.nan, floats.dtype)
        yield f"{path}/values", _little(np.where(np.isnan(floats), nan, floats)).tobytes()
    elif types.is_boolean(values.type):
        yield f"{path}/values", _bytes(pc.fill_null(values, False).cast(pa.uint8()))
    elif types.is_integer(values.type):
        yield f"{path}/values", _bytes(pc.fill_null(values, 0))
    else:
        raise TypeError(f"There is no content digest of a column of type {values.type}.")


def _plain(values: pa.Array) -> pa.Array:
    """The same values without dictionaries and with wide offsets."""
    if types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if types.is_string(values.type) or types.is_string_view(values.type):
        return values.cast(pa.large_string())
    if types.is_list(values.type) or types.is_fixed_size_list(values.type):
        return values.cast(pa.large_list(values.type.value_type))
    return values


def _text_bytes(values: pa.LargeStringArray) -> bytes:
    """All texts of an array without nulls, one after the other, as UTF-8."""
    _, offsets, data = values.buffers()
    if len(values) == 0 or data is None:
        return b""
    ends = np.frombuffer(offsets, np.int64)[values.offset : values.offset + len(values) + 1]
    return memoryview(data)[int(ends[0]) : int(ends[-1])].tobytes()


def _bytes(values: pa.Array) -> bytes:
    """Fixed-width values without nulls as little-endian bytes."""
    return _little(values.to_numpy(zero_copy_only=False)).tobytes()


def _little(values: np.ndarray) -> np.ndarray:
    """The same numbers in little-endian order."""
    return values.astype(values.dtype.newbyteorder("<"), copy=False)


def _type_name(kind: pa.DataType) -> str:
    """One name for all ways of holding the same values."""
    if types.is_dictionary(kind):
        return _type_name(kind.value_type)
    if types.is_large_string(kind) or types.is_string_view(kind) or types.is_string(kind):
        return "string"
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return f"list<{_type_name(kind.value_type)}>"
    return str(kind)
