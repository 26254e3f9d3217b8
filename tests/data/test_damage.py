"""Damage: whatever happens to the two files of an artifact, it is missing, reported, rebuilt."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data import Store, StoreError, provenance
from tests.data.synthetic import key_of, members_table

KEY = key_of("a circuit")
ABOUT = provenance("circuits", "ioi · EAP", 1.5)
ROWS = members_table("c" * 64, range(100))


def flip(path: Path, position: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "truncated": lambda rows, note: os.truncate(rows, rows.stat().st_size // 2),
    "one byte short": lambda rows, note: os.truncate(rows, rows.stat().st_size - 1),
    "emptied": lambda rows, note: os.truncate(rows, 0),
    "one byte longer": lambda rows, note: rows.write_bytes(rows.read_bytes() + b"x"),
    "bit flipped in the rows": lambda rows, note: flip(rows, 20),
    "bit flipped in the footer": lambda rows, note: flip(rows, rows.stat().st_size - 100),
    "another artifact's rows": lambda rows, note: rows.write_bytes(
        (rows.parent / "other.parquet").read_bytes()
    ),
    "rows deleted": lambda rows, note: rows.unlink(),
    "note deleted": lambda rows, note: note.unlink(),
    "note emptied": lambda rows, note: os.truncate(note, 0),
    "note truncated": lambda rows, note: os.truncate(note, 40),
    "note of something else": lambda rows, note: note.write_text("[]"),
    "note of another key": lambda rows, note: edit(note, key=key_of("other")),
    "note of another kind": lambda rows, note: edit(note, kind="circuits"),
    "note of a newer schema": lambda rows, note: edit(note, schema_version=99),
    "note with another digest": lambda rows, note: edit(note, sha256="0" * 64),
    "note with no digest": lambda rows, note: edit(note, sha256=None),
    "note with no row count": lambda rows, note: edit(note, rows=None),
    "note is not text": lambda rows, note: note.write_bytes(b"\xff\xfe\x00"),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path)
    store.write("members", KEY, ROWS, ABOUT)
    other = Store.open(tmp_path / ".other")
    other.write("members", KEY, members_table("c" * 64, [5]), ABOUT)
    stem = f"members/{KEY[:2]}"
    (tmp_path / stem / "other.parquet").write_bytes(
        (tmp_path / ".other" / stem / f"{KEY}.parquet").read_bytes()
    )
    assert store.find("members", KEY) is not None
    return store


@pytest.mark.parametrize("remembered", ["after a find", "in a new process", "in an index"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_artifact_is_missing_reported_and_rebuilt(
    store: Store, tmp_path: Path, damage: str, remembered: str
) -> None:
    rows = tmp_path / "members" / KEY[:2] / f"{KEY}.parquet"
    note = rows.with_suffix(".json")
    if remembered == "in an index":
        store.save_index()
    DAMAGES[damage](rows, note)
    for path in (rows, note):
        if path.exists():
            os.utime(path, (2e9, 2e9))  # clocks of file systems are coarse
    opened = store if remembered == "after a find" else Store.open(tmp_path)
    assert opened.find("members", KEY) is None
    assert list(opened.artifacts("members")) == []
    (reported,) = opened.damaged
    assert reported.path == f"members/{KEY[:2]}/{KEY}.parquet"
    assert reported.reason
    with pytest.raises(StoreError, match="damaged"):
        opened.read("members", KEY)

    rebuilt = opened.write("members", KEY, ROWS, ABOUT)
    assert opened.find("members", KEY) == rebuilt
    assert opened.read("members", KEY).equals(ROWS)
    assert opened.damaged == []
    assert Store.open(tmp_path).find("members", KEY) == rebuilt


def test_every_single_bit_counts(store: Store, tmp_path: Path) -> None:
    rows = tmp_path / "members" / KEY[:2] / f"{KEY}.parquet"
    whole = rows.read_bytes()
    random = np.random.default_rng(0)
    for position in random.choice(len(whole), 100, replace=False):
        flip(rows, int(position), int(random.integers(8)))
        assert Store.open(tmp_path).find("members", KEY) is None, position
        rows.write_bytes(whole)
    assert Store.open(tmp_path).find("members", KEY) is not None


def test_reading_notices_what_finding_remembered_otherwise(store: Store, tmp_path: Path) -> None:
    rows = tmp_path / "members" / KEY[:2] / f"{KEY}.parquet"
    times = rows.stat().st_mtime_ns
    flip(rows, 20)
    os.utime(rows, ns=(times, times))  # as a failing disk would: same size, same time
    with pytest.raises(StoreError, match="damaged"):
        store.read("members", KEY)
    assert store.find("members", KEY) is None


def test_rows_without_their_note_are_adopted_only_if_whole(store: Store, tmp_path: Path) -> None:
    rows = tmp_path / "members" / KEY[:2] / f"{KEY}.parquet"
    before = rows.read_bytes()
    rows.with_suffix(".json").unlink()  # as after a kill between the two
    late = provenance("circuits", "ioi · EAP", 99.0)
    assert Store.open(tmp_path).write("members", KEY, ROWS, late).provenance["seconds"] == 1.5
    assert rows.read_bytes() == before
    rows.with_suffix(".json").unlink()
    flip(rows, 20)
    assert Store.open(tmp_path).write("members", KEY, ROWS, late).provenance["seconds"] == 99.0


def test_leftovers_of_killed_writers_are_no_artifacts(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "members" / KEY[:2]
    (folder / f".{KEY}.parquet.1.ab.tmp").write_bytes(b"half")
    (folder / "notes.txt").write_text("x")
    assert [artifact.key for artifact in store.artifacts("members")] == [KEY]


def test_failures_and_grids_that_cannot_be_read_count_as_none(store: Store, tmp_path: Path) -> None:
    store.record_failure(KEY, "scores", "ioi", "no")
    store.save_grid("demo", [])
    (tmp_path / "failures" / f"{KEY}.json").write_text("{")
    (tmp_path / "grids" / "demo.json").write_text('{"grid": "demo", "stages": [{}]}')
    assert store.failures() == []
    assert store.grids() == {}


def test_no_flipped_bit_of_the_json_file_passes_for_another_artifact(tmp_path: Path) -> None:
    written = Store.open(tmp_path).write("members", KEY, ROWS, ABOUT)
    voucher = tmp_path / "members" / KEY[:2] / f"{KEY}.json"
    whole = voucher.read_bytes()
    for position in range(0, len(whole), 7):
        flipped = whole[position] ^ (1 << position % 7)
        voucher.write_bytes(whole[:position] + bytes([flipped]) + whole[position + 1 :])
        found = Store.open(tmp_path).find("members", KEY)
        assert found is None or found == written
    voucher.write_bytes(whole)
    assert Store.open(tmp_path).find("members", KEY) == written
