import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.memory import held


@pytest.mark.parametrize("size", [0, 1, 64, 100_003])
def test_what_is_held_is_the_content_and_needs_nothing_of_pythons(size: int) -> None:
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    before = sys.getrefcount(content)
    reader = held(content)
    assert sys.getrefcount(content) == before
    assert reader.read() == content
    naive = pa.BufferReader(content)  # what must not be: it keeps Python's own bytes
    assert sys.getrefcount(content) > before
    assert naive.read() == content


def test_held_file_is_read_as_parquet_after_its_bytes_are_gone() -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"word": ["one", "two"] * 5000}), sink)
    content = sink.getvalue().to_pybytes()
    reader = held(content)
    del content
    assert pq.ParquetFile(reader).read().column("word").to_pylist() == ["one", "two"] * 5000
