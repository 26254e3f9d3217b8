"""The content digest: the rows alone, however they are held."""

import itertools
import math
import struct

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data import content_digest

patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # shared cores
COLUMNS = {
    "id": (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "name": (pa.string(), st.text("abé𝄞\0", max_size=5)),
    "value": (pa.float64(), st.floats()),
    "flag": (pa.bool_(), st.booleans()),
    "tokens": (pa.list_(pa.int32()), st.lists(st.integers(0, 60000), max_size=3)),
    "names": (pa.list_(pa.string()), st.lists(st.text("ab\0", max_size=2), max_size=3)),
    "vector": (pa.list_(pa.float64()), st.lists(st.floats(), max_size=3)),
}
SCHEMA = pa.schema({name: kind for name, (kind, _) in COLUMNS.items()})
rows = st.lists(
    st.fixed_dictionaries({name: st.none() | strategy for name, (_, strategy) in COLUMNS.items()}),
    max_size=8,
)


def table_of(content: list[dict]) -> pa.Table:
    return pa.Table.from_pylist(content, SCHEMA)


def bits(value: object) -> object:
    """A value that compares as the digest should: one NaN, two zeros."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else struct.pack("<d", value)
    return tuple(map(bits, value)) if isinstance(value, list) else value


def in_column_order(content: list[dict]) -> list[list[object]]:
    """Rows in the order of the columns: a drawn dict may list its keys in any order."""
    return [[bits(row[column]) for column in COLUMNS] for row in content]


@patiently
@given(rows, rows)
def test_digests_are_equal_exactly_if_rows_are_equal_in_order(one: list, other: list) -> None:
    same = in_column_order(one) == in_column_order(other)
    assert (content_digest(table_of(one)) == content_digest(table_of(other))) == same


@patiently
@given(rows, st.randoms())
def test_digest_sees_the_order_of_rows(content: list, random) -> None:
    shuffled = random.sample(content, len(content))
    equal = content_digest(table_of(content)) == content_digest(table_of(shuffled))
    assert equal == (in_column_order(content) == in_column_order(shuffled))


@patiently
@given(rows, st.lists(st.integers(0, 8), max_size=4))
def test_digest_does_not_depend_on_chunks_and_slices(content: list, cuts: list[int]) -> None:
    whole = table_of(content)
    ends = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    pieces = [whole.slice(a, b - a) for a, b in itertools.pairwise(ends)]
    assert content_digest(pa.concat_tables(pieces)) == content_digest(whole)


@patiently
@given(rows)
def test_digest_does_not_depend_on_dictionaries_wide_offsets_or_metadata(content: list) -> None:
    plain = table_of(content)
    held = [
        plain.column("id").dictionary_encode(),
        plain.column("name").dictionary_encode(),
        plain.column("value"),
        plain.column("flag"),
        plain.column("tokens").cast(pa.large_list(pa.int32())),
        plain.column("names").cast(pa.large_list(pa.large_string())),
        plain.column("vector").cast(pa.large_list(pa.float64())),
    ]
    other = pa.table(held, names=plain.column_names).replace_schema_metadata({"made": "elsewhere"})
    assert content_digest(other) == content_digest(plain)
    wide = plain.set_column(1, "name", plain.column("name").cast(pa.large_string()))
    assert content_digest(wide) == content_digest(plain)


@patiently
@given(rows, st.sampled_from(["zstd", "snappy", "none"]), st.integers(1, 4), st.booleans())
def test_digest_does_not_depend_on_the_encoding_of_the_file(
    content: list, compression: str, row_group_size: int, use_dictionary: bool
) -> None:
    plain, sink = table_of(content), pa.BufferOutputStream()
    pq.write_table(
        plain, sink, compression=compression, row_group_size=row_group_size,
        use_dictionary=use_dictionary,
    )  # fmt: skip
    assert content_digest(pq.read_table(pa.BufferReader(sink.getvalue()))) == content_digest(plain)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([None], [""]),
        (["ab", "c"], ["a", "bc"]),
        (["a", None], [None, "a"]),
        ([[1], [2]], [[1, 2], []]),
        ([None, [1]], [[], [1]]),
        ([0.0], [None]),
        ([0.0], [-0.0]),
        ([float("nan")], [None]),
        ([False], [None]),
        ([0], [None]),
    ],
)
def test_digest_tells_rows_apart_that_hold_the_same_bytes(one: list, other: list) -> None:
    kind = pa.array([value for value in one + other if value is not None]).type
    digests = {content_digest(pa.table({"x": pa.array(rows, kind)})) for rows in (one, other)}
    assert len(digests) == 2


def test_every_nan_is_the_same_nan() -> None:
    quiet, other = (
        struct.unpack("<d", struct.pack("<Q", bits))[0]
        for bits in (0x7FF8 << 48, 0xFFF8000000000123)
    )
    one, two = pa.table({"x": [quiet]}), pa.table({"x": [other]})
    assert content_digest(one) == content_digest(two)


def test_digest_sees_names_and_types_of_columns() -> None:
    one = pa.table({"x": pa.array([1], pa.int32())})
    others = [
        pa.table({"y": pa.array([1], pa.int32())}),
        pa.table({"x": pa.array([1], pa.int64())}),
    ]
    assert content_digest(one) not in {content_digest(other) for other in others}
