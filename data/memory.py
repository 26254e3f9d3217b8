"""Bytes in memory that Arrow owns, for readers whose threads may outlive Python's end.

A Parquet reader over Python's own bytes gives them up on whichever of its threads ends last. If
Python is ending by then, that thread cannot take Python's lock, and the whole process aborts.
"""

import pyarrow as pa


def held(content: bytes) -> pa.NativeFile:
    """A reader over a copy of `content`, which no thread needs Python to let go of."""
    copy = pa.allocate_buffer(len(content))
    memoryview(copy).cast("B")[:] = content
    return pa.BufferReader(copy)  # noqa: TID251
