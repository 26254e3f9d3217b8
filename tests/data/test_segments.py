"""Segments: questions over many small artifacts read few files, and give the same rows."""

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import pytest

from data import Catalog, Store, provenance, segments
from data.location import Location
from data.schema import TABLES
from tests.data.nobody import not_as_root
from tests.data.synthetic import build, key_of, members_table, rows_of

ABOUT = provenance("circuits", "ioi · EAP", 1.5)
KEYS = [key_of(number) for number in range(20)]
ASKED = "SELECT circuit, edge_id FROM members ORDER BY ALL"


@pytest.fixture(autouse=True)
def few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "ENOUGH", 4)
    monkeypatch.setattr(segments, "MOST", 8)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.open(tmp_path)
    for number in range(len(KEYS)):
        put(store, number, [number])
    return store


def put(store: Store, number: int, edges: list[int]) -> None:
    tables = {kind: rows_of(kind, []) for kind in ("circuits", "extractions", "member_neurons")}
    tables["members"] = members_table(key_of("circuit", number), edges)
    store.write_all(key_of(number), tables, ABOUT)


def asked(store: Store) -> list[int]:
    found = Catalog(Store.open(store.location.root)).query("SELECT edge_id FROM members ORDER BY 1")
    return found["edge_id"].to_pylist()


def joined(store: Store) -> dict[str, int]:
    """The segments of members by path, each with how many artifacts it has."""
    folder = Path(store.location.root) / segments.FOLDER / "members"
    return {str(path): int(path.name.split("-")[0]) for path in folder.glob("*.parquet")}


def every_query(store: Store) -> Iterator[tuple[str, list[dict]]]:
    catalog = Catalog(Store.open(store.location.root))
    for kind in TABLES:
        if kind != "shards":
            order = ", ".join(TABLES[kind].key)
            rows = catalog.query(f"SELECT * FROM {kind} ORDER BY {order}")
            yield kind, [repr(row) for row in rows.to_pylist()]
    for name in ("leaderboard", "benchmark", "circuit_sizes", "edge_scores"):
        yield name, sorted(map(repr, catalog.query(name).to_pylist()))


def test_every_question_has_the_same_answer_from_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = build(Store.open(tmp_path)).store
    monkeypatch.setattr(segments, "ENOUGH", 10**9)
    from_files = dict(every_query(store))
    assert not (tmp_path / segments.FOLDER).exists()
    monkeypatch.setattr(segments, "ENOUGH", 4)
    assert dict(every_query(store)) == from_files  # as they are made
    assert list((tmp_path / segments.FOLDER).iterdir())
    assert dict(every_query(store)) == from_files  # as they are found


def test_artifacts_are_joined_up_to_a_size(store: Store) -> None:
    assert asked(store) == list(range(20))
    assert sorted(joined(store).values()) == [4, 8, 8]
    before = joined(store)
    assert asked(store) == list(range(20))
    assert joined(store) == before


def test_new_artifacts_are_read_beside_and_joined_once_they_are_many(store: Store) -> None:
    asked(store)
    for number in range(20, 23):
        put(store, number, [number])
    before = joined(store)
    assert asked(store) == list(range(23))
    assert joined(store) == before
    put(store, 23, [23])
    assert asked(store) == list(range(24))
    assert sum(joined(store).values()) == 24
    assert len(joined(store)) == 3


def test_segment_is_read_in_place_of_its_artifacts(store: Store) -> None:
    """What is in a segment needs no file of its own, once it is known to be intact."""
    asked(store)
    opened = Store.open(store.location.root)
    catalog = Catalog(opened)
    for key in KEYS:
        Path(store.path("members", key)).unlink()
    assert catalog.query(ASKED).num_rows == 20


@pytest.mark.parametrize("damage", ["deleted", "damaged", "companion deleted", "rebuilt"])
def test_rows_of_what_is_not_intact_are_in_no_answer(store: Store, damage: str) -> None:
    asked(store)
    path = Path(store.path("members", KEYS[3]))
    match damage:
        case "deleted":
            path.unlink()
        case "damaged":
            path.write_bytes(path.read_bytes()[:-1])
        case "companion deleted":
            Path(store.path("extractions", KEYS[3])).unlink()
        case "rebuilt":
            store.remove_all(KEYS[3], ["members"])
            put(store, 3, [77])
    last = [77] if damage == "rebuilt" else []
    expected = [number for number in range(20) if number != 3] + last
    assert asked(store) == expected
    assert asked(store) == expected
    # Its segment is of no use any more; what else was in it is joined again.
    assert sum(joined(store).values()) == len(expected)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied", "renamed", "deleted"])
def test_damaged_segment_is_replaced(store: Store, damage: str) -> None:
    asked(store)
    path = Path(min(joined(store)))
    content = path.read_bytes()
    match damage:
        case "flipped":
            path.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
        case "truncated":
            path.write_bytes(content[:-9])
        case "emptied":
            path.write_bytes(b"")
        case "renamed":
            path.rename(path.with_name("8-" + "0" * 64 + ".parquet"))
        case "deleted":
            path.unlink()
    assert asked(store) == list(range(20))
    assert sum(joined(store).values()) == 20


def test_damage_of_an_artifact_is_no_part_of_a_segment(store: Store) -> None:
    """It is checked once more as it is joined: its state does not tell of a failing disk."""
    catalog = Catalog(Store.open(store.location.root))  # everything is known to be intact
    path = Path(store.path("members", KEYS[0]))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(Exception, match="damaged"):
        catalog.query(ASKED)
    assert asked(store) == list(range(1, 20))


def test_large_artifacts_stay_as_they_are(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SMALL", 100)
    assert asked(store) == list(range(20))
    assert joined(store) == {}


def test_tables_that_nobody_asks_for_are_not_joined(store: Store) -> None:
    Catalog(Store.open(store.location.root)).query("status")
    assert joined(store) == {}
    assert asked(store) == list(range(20))
    assert joined(store)


def test_names_in_any_case_and_in_views_of_views_are_provided(store: Store) -> None:
    catalog = Catalog(Store.open(store.location.root))
    assert catalog.query('SELECT count(*) AS n FROM "MEMBERS"')["n"].to_pylist() == [20]
    assert catalog.query("SELECT count(*) AS n FROM Stages")["n"].to_pylist() == [20]
    other = Catalog(Store.open(store.location.root)).connection()
    assert other.execute("SELECT count(*) FROM members").fetchall() == [(20,)]


def test_place_where_no_segment_can_be_written_is_read_file_by_file(store: Store) -> None:
    folder = Path(store.location.root) / segments.FOLDER
    folder.parent.mkdir(parents=True)
    folder.write_text("not a folder")
    assert asked(store) == list(range(20))


def _ask(place: str) -> None:
    segments.ENOUGH, segments.MOST = 4, 8
    for _ in range(2):
        found = Catalog(Store.open(place)).query(ASKED)
        assert sorted(found["edge_id"].to_pylist()) == list(range(20))
        assert found.num_rows == 20


def test_processes_join_the_same_artifacts_at_once(store: Store) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["data.catalog", "tests.data.synthetic"])
    processes = [context.Process(target=_ask, args=(store.location.root,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    assert asked(store) == list(range(20))


def test_segment_that_another_process_replaces_at_once_answers_all_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finds it joined already may join it with more, and remove it, before it is opened."""
    put_lightly, gone = Location.put_lightly, []

    def replaced(self: Location, relative: str, content: bytes) -> None:
        put_lightly(self, relative, content)
        self.remove(relative)
        gone.append(relative)

    monkeypatch.setattr(Location, "put_lightly", replaced)
    assert asked(store) == list(range(20))
    assert len([path for path in gone if path.startswith(segments.FOLDER)]) == 3
    assert joined(store) == {}
    monkeypatch.undo()
    assert asked(store) == list(range(20))


def test_segment_that_may_not_be_read_is_as_one_that_is_gone(store: Store) -> None:
    assert asked(store) == list(range(20))
    assert joined(store)
    for path in joined(store):
        Path(path).chmod(0)
    with not_as_root(Path(store.location.root)):
        with pytest.raises(PermissionError):
            Path(path).read_bytes()
        assert asked(store) == list(range(20))
