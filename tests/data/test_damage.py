"""Damage: whatever happens to the two files of an artifact, it is missing, reported, rebuilt."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data import Artifact, Store, StoreError, provenance
from data.artifact import Voucher, file_digest
from data.errors import ArtifactLostError, StoreAccessError
from data.index import Entry, Index
from data.states import seconds_until_settled, state_of
from tests.data.rot import settle
from tests.data.synthetic import key_of, members_table, rows_of

KEY = key_of("a circuit")
ABOUT = provenance("circuits", "ioi · EAP", 1.5)
ROWS = members_table("c" * 64, range(100))


def flip(path: Path, position: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def believe(store: Store, kind: str, key: str, voucher: Voucher) -> None:
    """Have the saved index know an artifact as somebody vouched for it."""
    stem = f"{kind}/{key[:2]}/{key}"
    state = state_of(store.location, f"{stem}.parquet", f"{stem}.json")
    assert state is not None
    time.sleep(seconds_until_settled(state))
    index = Index(store.location)
    index.put(kind, key, Entry.of(state, voucher))
    index.save()


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
        settle(store)
        assert Index(store.location).knows("members", KEY)
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


def test_vouched_rows_that_do_not_open_are_damaged_whoever_believed_them(
    store: Store, tmp_path: Path
) -> None:
    rows = tmp_path / "members" / KEY[:2] / f"{KEY}.parquet"
    settle(store)
    note = rows.with_suffix(".json")
    content = b"PAR1 and nothing else"
    said = json.loads(note.read_text())
    rows.write_bytes(content)
    voucher = Voucher(Artifact("members", KEY, said["digest"], said["rows"], said["provenance"]),
                      file_digest(content))  # fmt: skip
    note.write_bytes(voucher.to_json())
    believe(store, "members", KEY, voucher)
    opened = Store.open(tmp_path)
    assert opened.find("members", KEY) is not None
    with pytest.raises(ArtifactLostError, match="does not open as Parquet"):
        opened.read("members", KEY)
    for one in (opened, Store.open(tmp_path)):
        assert one.find("members", KEY) is None
        (damage,) = one.damaged
        assert "does not open as Parquet" in damage.reason
    opened.write("members", KEY, ROWS, ABOUT)
    assert opened.damaged == []
    assert Store.open(tmp_path).read("members", KEY).equals(ROWS)


@pytest.mark.parametrize("where", ["rows", "note", "folder"])
def test_something_else_in_the_place_of_a_file_is_damage_that_is_for_people_to_remove(
    store: Store, tmp_path: Path, where: str
) -> None:
    rows = tmp_path / "members" / KEY[:2] / f"{KEY}.parquet"
    other = next(one for one in map(key_of, range(9)) if one[:2] != KEY[:2])
    written = store.write("members", other, ROWS, ABOUT)
    if where == "folder":
        shutil.rmtree(rows.parent)
        rows.parent.touch()
    else:
        path = rows if where == "rows" else rows.with_suffix(".json")
        path.unlink()
        path.mkdir()
    for opened in (store, Store.open(tmp_path)):
        assert opened.find("members", KEY) is None
        (damage,) = opened.damaged
        assert (damage.path, damage.blocked) == (f"members/{KEY[:2]}/{KEY}.parquet", True)
        suffix = "parquet" if where == "rows" else "json"
        assert damage.reason.startswith(f"members/{KEY[:2]}/{KEY}.{suffix} cannot be read (")
        assert damage.reason.endswith("a directory): remove what is in its place")
        assert list(opened.artifacts("members")) == [written]
        with pytest.raises(StoreAccessError, match=r"members/.* a directory; .*\.$"):
            opened.write("members", KEY, ROWS, ABOUT)
    found = store.write("scores", KEY, rows_of("scores", []), ABOUT)
    assert store.find("scores", KEY) == found


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
