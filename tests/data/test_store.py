"""The store: what is written is found, whole and unchanged; what does not belong is refused."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data import SCHEMA_VERSION, TABLES, PlannedStage, Store, StoreError, content_digest, provenance
from tests.data.synthetic import key_of, members_table, rows_of

KEY = key_of("a circuit")
ABOUT = provenance("circuits", "ioi · EAP", 1.5, 1000, "cpu", "float32")
ROWS = members_table("c" * 64, [1, 4, 7])


@pytest.fixture(params=["directory", "object store"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """The same store on a directory, and on a file system that is none of this machine."""
    if request.param == "directory":
        return Store.open(tmp_path / "store")
    return Store.open(f"fsspec+memory://bucket/{tmp_path.name}/{os.getpid()}")


def test_what_is_written_is_found_and_read(store: Store) -> None:
    written = store.write("members", KEY, ROWS, ABOUT)
    assert store.find("members", KEY) == written
    assert store.read("members", KEY).equals(ROWS)
    assert (written.rows, written.digest) == (3, content_digest(ROWS))
    assert written.provenance["seconds"] == 1.5
    assert set(written.provenance["versions"]) >= {"python", "pyarrow", "circuit-grid"}
    assert list(store.artifacts("members")) == [written]


def test_another_store_object_finds_it_too(store: Store) -> None:
    written = store.write("members", KEY, ROWS, ABOUT)
    assert Store.open(store.location.name, create=False).find("members", KEY) == written


def test_what_was_never_written_is_missing_and_not_damaged(store: Store) -> None:
    assert store.find("members", KEY) is None
    assert store.damaged == []
    with pytest.raises(StoreError, match="not in the store"):
        store.read("members", KEY)


def test_writing_again_keeps_the_first_rows_and_provenance(store: Store) -> None:
    first = store.write("members", KEY, ROWS, ABOUT)
    again = store.write("members", KEY, members_table("c" * 64, [2]), {"stage": "late"})
    assert again == first == store.find("members", KEY)
    assert store.read("members", KEY).equals(ROWS)


def test_rows_may_be_empty(store: Store) -> None:
    store.write("members", KEY, members_table("c" * 64, []), ABOUT)
    assert store.read("members", KEY).num_rows == 0


def test_companions_are_published_before_their_primary_and_complete_it(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    circuits = rows_of("circuits", [])
    store.write("circuits", KEY, circuits, ABOUT)
    assert store.complete("circuits", KEY) is None
    belongs = rows_of("extractions", [])
    neurons = rows_of("member_neurons", [])
    tables = {"circuits": circuits, "members": ROWS, "extractions": belongs}
    written = store.write_all(KEY, tables | {"member_neurons": neurons}, ABOUT)
    assert sorted(written) == ["circuits", "extractions", "member_neurons", "members"]
    assert list(written)[-1] == "circuits"
    assert store.complete("circuits", KEY) == written["circuits"]


def test_file_says_what_it_is_and_what_its_columns_mean(tmp_path: Path) -> None:
    artifact = Store.open(tmp_path).write("members", KEY, ROWS, ABOUT)
    path = tmp_path / "members" / KEY[:2] / f"{KEY}.parquet"
    file = pq.ParquetFile(path)
    said = json.loads(file.metadata.metadata[b"circuit-grid"])
    assert (said["key"], said["schema_version"]) == (KEY, SCHEMA_VERSION)
    assert (said["digest"], said["provenance"]) == (artifact.digest, dict(artifact.provenance))
    assert file.schema_arrow.field("edge_id").metadata[b"description"] == b"the edge"
    column = file.metadata.row_group(0).column(0)
    assert column.compression == "ZSTD"
    assert "RLE_DICTIONARY" in column.encodings
    assert list(tmp_path.rglob("*.tmp")) == []


def test_every_column_of_every_table_is_described() -> None:
    for table in TABLES.values():
        for field in table.schema:
            assert field.metadata[b"description"], (table.name, field.name)
        assert set(table.key) <= set(table.schema.names)
        assert table.companion_of is None or table.companion_of in TABLES


def test_rows_are_converted_only_where_nothing_is_lost(store: Store) -> None:
    held = pa.table(
        {
            "edge_id": pa.array([1, 4, 7], pa.int64()),
            "circuit": pa.chunked_array([["c" * 64] * 2, ["c" * 64]]).dictionary_encode(),
        }
    )
    assert store.write("members", KEY, held, ABOUT).digest == content_digest(ROWS)
    assert store.read("members", KEY).equals(ROWS)


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        ({"circuit": ["c"]}, "'edge_id'"),
        ({"circuit": ["c"], "edge_id": [1], "score": [0.1]}, "'score'"),
        ({"circuit": ["c"], "edge_id": ["1"]}, "'edge_id'"),
        ({"circuit": ["c"], "edge_id": [1.0]}, "'edge_id'"),
        ({"circuit": [7], "edge_id": [1]}, "'circuit'"),
        ({"circuit": ["c", None], "edge_id": [1, 2]}, "'circuit'"),
        ({"circuit": ["c"], "edge_id": [2**31]}, "'edge_id'"),
        ({"circuit": ["c"], "edge_id": [True]}, "'edge_id'"),
    ],
)
def test_rows_that_do_not_fit_are_refused_naming_the_column(
    tmp_path: Path, columns: dict, word: str
) -> None:
    store = Store.open(tmp_path)
    with pytest.raises(StoreError, match=f"{word}.*") as refused:
        store.write("members", KEY, pa.table(columns), ABOUT)
    assert "'members'" in str(refused.value)
    assert store.find("members", KEY) is None


def test_nulls_within_lists_are_refused(tmp_path: Path) -> None:
    rows = rows_of("examples", []).to_pydict()
    rows = {name: ["x"] for name in rows} | {"example_id": [0], "correct": [[1, None]]}
    rows |= {name: [[1]] for name in ("clean_tokens", "corrupted_tokens", "incorrect")}
    with pytest.raises(StoreError, match="'correct'"):
        Store.open(tmp_path).write("examples", KEY, pa.table(rows), ABOUT)


def test_provenance_that_is_not_json_is_refused(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    for value in (float("nan"), object()):
        with pytest.raises(StoreError, match="provenance"):
            store.write("members", KEY, ROWS, {"seconds": value})


@pytest.mark.parametrize("key", ["../../../etc/cron.d/x", "A" * 64, "", "ab/cd", "x" * 64])
def test_only_keys_become_paths(tmp_path: Path, key: str) -> None:
    store = Store.open(tmp_path / "store")
    attempts = [
        lambda: store.find("members", key),
        lambda: store.read("members", key),
        lambda: store.write("members", key, ROWS, ABOUT),
        lambda: store.record_failure(key, "circuits", "ioi", "no"),
        lambda: store.clear_failure(key),
        lambda: store.path("members", key),
    ]
    for attempt in attempts:
        with pytest.raises(StoreError, match="key"):
            attempt()
    assert [path.name for path in tmp_path.rglob("*")] == ["store", "store.json"]


@pytest.mark.parametrize("kind", ["../members", "failures", "nothing", ""])
def test_only_tables_of_the_schema_are_kinds(tmp_path: Path, kind: str) -> None:
    store = Store.open(tmp_path)
    for attempt in (
        lambda: store.find(kind, KEY),
        lambda: store.write(kind, KEY, ROWS, ABOUT),
        lambda: list(store.artifacts(kind)),
    ):
        with pytest.raises(StoreError, match="no table"):
            attempt()


def test_failure_stands_until_the_stage_succeeds(store: Store) -> None:
    failure = store.record_failure(KEY, "members", "ioi · EAP", "The metric is NaN.")
    assert store.failures() == [failure]
    assert (failure.key, failure.sentence) == (KEY, "The metric is NaN.")
    store.write("members", KEY, ROWS, ABOUT)
    assert store.failures() == [failure]  # only a companion: the stage is not done
    store.write("circuits", KEY, rows_of("circuits", []), ABOUT)
    assert store.failures() == []


def test_failure_is_replaced_by_a_later_one_and_can_be_cleared(store: Store) -> None:
    store.record_failure(KEY, "scores", "ioi", "first")
    store.record_failure(KEY, "scores", "ioi", "second")
    assert [failure.sentence for failure in store.failures()] == ["second"]
    store.clear_failure(KEY)
    store.clear_failure(KEY)
    assert store.failures() == []


def test_grid_is_remembered_with_its_stages(store: Store) -> None:
    stages = (
        PlannedStage("scores", "ioi", "scores", KEY),
        PlannedStage("circuits", "ioi", "circuits", None),
    )
    store.save_grid("demo", stages)
    store.save_grid("other-1.2", [])
    assert store.grids() == {"demo": stages, "other-1.2": ()}


@pytest.mark.parametrize("name", ["../demo", "", "a/b", ".hidden", "x" * 101, "a\nb"])
def test_name_of_a_grid_never_becomes_a_path_elsewhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="grid"):
        Store.open(tmp_path).save_grid(name, [])


def test_missing_store_is_not_made_where_it_should_exist(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere.*--store.*CIRCUIT_GRID_STORE"):
        Store.open(tmp_path / "nowhere", create=False)
    assert list(tmp_path.iterdir()) == []


def test_directory_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    for create in (True, False):
        with pytest.raises(StoreError, match=r"thesis\.tex"):
            Store.open(tmp_path, create=create)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_empty_directory_and_hidden_files_are_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*")
    assert Store.open(tmp_path).damaged == []


def test_store_of_a_newer_schema_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    Store.open(tmp_path)
    marker = tmp_path / "store.json"
    newer = json.loads(marker.read_text()) | {
        "schema_version": SCHEMA_VERSION + 1,
        "written_by": "9.9",
    }
    marker.write_text(json.dumps(newer))
    with pytest.raises(StoreError) as refused:
        Store.open(tmp_path)
    sentence = str(refused.value)
    assert f"version {SCHEMA_VERSION + 1}" in sentence
    assert f"up to version {SCHEMA_VERSION}" in sentence
    assert "9.9" in sentence
    assert "upgrade" in sentence
    assert json.loads(marker.read_text()) == newer


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"format": "other", "schema_version": 1}',
     '{"format": "circuit-grid store"}', '{"format": "circuit-grid store", "schema_version": null}',
     '{"format": "circuit-grid store", "schema_version": 0}'],
)  # fmt: skip
def test_marker_that_says_something_else_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "store.json").write_text(content)
    with pytest.raises(StoreError, match=r"store\.json"):
        Store.open(tmp_path)


@pytest.mark.parametrize("place", ["/proc/circuit-grid-store", "a file"])
def test_place_that_cannot_be_written_is_one_sentence(tmp_path: Path, place: str) -> None:
    if place == "a file":
        (tmp_path / "a file").write_text("x")
        place = str(tmp_path / "a file")
    with pytest.raises(StoreError, match=r"cannot be opened.*--store"):
        Store.open(place)


@pytest.mark.parametrize("place", ["nonsense://x", "s3:///", "http://example.com/store"])
def test_url_that_cannot_be_used_is_one_sentence(place: str) -> None:
    with pytest.raises(StoreError, match="store"):
        Store.open(place)


def test_full_disk_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left on device"):
        store.write("members", KEY, ROWS, ABOUT)
    monkeypatch.undo()
    assert store.find("members", KEY) is None
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "store.json"]
