"""Notes of grids: what a place remembers, what is needed, what is stale, what is kept."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from data import PlannedStage, Store, StoreError, place_id
from data.errors import StoreUnavailableError
from tests.data.nobody import not_as_root
from tests.data.synthetic import key_of

A, B, C, D = (key_of(name) for name in "abcd")


def stage(place: str, key: str | None, cell: str = "ioi") -> PlannedStage:
    return PlannedStage("scores", cell, "scores", key, place_id(place))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path)


def test_note_is_read_back_as_it_was_saved(store: Store) -> None:
    stages = (
        PlannedStage("shard", "ioi · EAP", "shards", A, place_id("0"), 12.5, (B, C)),
        PlannedStage("scores", "ioi · EAP", "scores", None, place_id("1")),
    )
    saved = store.save_grid("demo", stages, "grids/demo.yaml", {"retries": 3, "days": [1.5]})
    (found,) = Store.open(store.location.root).grid_notes().values()
    assert found == saved
    assert found.stages == stages == store.grids()["demo"]
    assert (found.file, found.settings) == ("grids/demo.yaml", {"retries": 3, "days": [1.5]})
    assert found.saved_at is not None


def test_key_that_a_place_had_before_is_stale(store: Store) -> None:
    store.save_grid("demo", [stage("one", A), stage("two", B)])
    note = store.save_grid("demo", [stage("one", C), stage("two", B)])
    assert (note.stale, note.needed) == ({A}, {B, C})
    note = store.save_grid("demo", [stage("one", D), stage("two", B)])
    assert [one.former for one in note.stages] == [(C, A), ()]
    note = store.save_grid("demo", [stage("one", A), stage("two", B)])  # the content is back
    assert (note.stale, note.needed) == ({C, D}, {A, B})


def test_last_keys_are_needed_while_a_key_is_not_known(store: Store) -> None:
    store.save_grid("demo", [stage("one", A)])
    store.save_grid("demo", [stage("one", B)])
    note = store.save_grid("demo", [stage("one", None)])
    assert (note.stale, note.needed) == (set(), {A, B})
    note = store.save_grid("demo", [stage("one", None)])
    assert note.needed == {A, B}
    note = store.save_grid("demo", [stage("one", B)])
    assert (note.stale, note.needed) == ({A}, {B})


def test_key_that_another_place_has_now_is_not_stale(store: Store) -> None:
    store.save_grid("demo", [stage("one", A), stage("two", B)])
    note = store.save_grid("demo", [stage("one", B), stage("two", C)])
    assert (note.stale, note.needed) == ({A}, {B, C})


def test_stages_that_a_grid_gave_up_are_forgotten(store: Store) -> None:
    store.save_grid("demo", [stage("one", A), stage("two", B)])
    note = store.save_grid("demo", [stage("one", A)])
    assert (note.stale, note.needed, note.kept) == (set(), {A}, ())


@pytest.mark.parametrize("how", ["a key is not known", "a part cannot be planned"])
def test_nothing_is_given_up_while_too_little_is_known(store: Store, how: str) -> None:
    store.save_grid("demo", [stage("one", A), stage("two", B), stage("three", C)])
    unknown = how == "a key is not known"
    now = [stage("one", None if unknown else A)]
    for _ in range(2):
        note = store.save_grid("demo", now, whole=unknown)
        assert note.needed == {A, B, C}
    note = store.save_grid("demo", [stage("one", A), stage("two", B)])
    assert (note.needed, note.stale) == ({A, B}, set())


def test_places_are_those_of_one_grid(store: Store) -> None:
    store.save_grid("demo", [stage("one", A)])
    note = store.save_grid("other", [stage("one", B)])
    assert (note.stale, note.needed) == (set(), {B})
    assert store.grid_notes()["demo"].needed == {A}


def test_forgotten_grid_is_gone(store: Store) -> None:
    store.save_grid("demo", [stage("one", A)])
    assert store.forget_grid("demo")
    assert store.grids() == {}
    assert not store.forget_grid("demo")
    with pytest.raises(StoreError, match="grid"):
        store.forget_grid("../store")


def test_notes_of_the_first_format_are_read_and_their_keys_remembered(store: Store) -> None:
    def old(cell: str, key: str | None) -> dict:
        return {"stage": "scores", "cell": cell, "kind": "scores", "key": key}

    content = {"grid": "demo", "stages": [old("ioi", A), old("ioi", B), old("sva", C)]}
    path = Path(store.location.root) / "grids" / "demo.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    assert [(one.cell, one.key) for one in store.grids()["demo"]] == [
        ("ioi", A), ("ioi", B), ("sva", C)
    ]  # fmt: skip
    note = store.save_grid("demo", [stage("1", A), stage("2", D), stage("3", None, "sva")])
    assert [one.former for one in note.stages] == [(), (B,), (C,)]
    assert (note.needed, note.stale) == ({A, C, D}, {B})


def test_note_without_places_gives_nothing_up_while_too_little_is_known(store: Store) -> None:
    store.save_grid("demo", [PlannedStage("scores", "ioi", "scores", A)])
    note = store.save_grid("demo", [stage("one", None, "another cell")])
    assert note.needed == {A}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b'{"stages": 3}', b'{"words": [], "stages": [[0,0,0,null,"",1,[]]]}',
     b'{"stages": [{"stage": "s", "cell": "c", "kind": "k", "key": "../x"}]}', b"\xff"],
)  # fmt: skip
def test_note_that_cannot_be_read_is_none_and_said_to_be(store: Store, content: bytes) -> None:
    store.save_grid("demo", [stage("one", A)])
    (Path(store.location.root) / "grids" / "demo.json").write_bytes(content)
    assert store.grids() == {}
    assert [one.path for one in store.noted_grids().unreadable] == ["grids/demo.json"]
    store.save_grid("demo", [stage("one", A)])
    assert store.noted_grids().unreadable == ()


def test_directory_in_the_place_of_a_note_is_named_and_is_not_written_over(store: Store) -> None:
    store.save_grid("other", [stage("one", A)])
    (Path(store.location.root) / "grids" / "demo.json").mkdir()
    notes, (unreadable,) = store.noted_grids()
    assert list(notes) == ["other"]
    assert (unreadable.path, unreadable.grid) == ("grids/demo.json", "demo")
    with pytest.raises(StoreError) as refused:
        store.save_grid("demo", [stage("one", A)])
    assert str(refused.value) == unreadable.sentence == (
        "grids/demo.json cannot be read (Is a directory), so what grid 'demo' needs and how far it"
        " is are not known: remove it and run that grid again."
    )  # fmt: skip


def test_note_that_may_not_be_read_is_named_and_is_not_written_over(store: Store) -> None:
    store.save_grid("demo", [stage("one", A)])
    path = Path(store.location.root) / "grids" / "demo.json"
    path.chmod(0)
    with not_as_root(path.parent.parent):
        (unreadable,) = store.noted_grids().unreadable
        assert "(Permission denied)" in unreadable.sentence
        assert "permit it, or remove it" in unreadable.advice
        with pytest.raises(StoreError, match="Permission denied"):
            store.save_grid("demo", [stage("one", B)])
    path.chmod(0o600)
    assert store.grid_notes()["demo"].needed == {A}


def test_what_is_no_note_among_the_notes_is_left_alone(store: Store) -> None:
    store.save_grid("demo", [stage("one", A)])
    folder = Path(store.location.root) / "grids"
    (folder / "read me.txt").write_text("x")
    (folder / "old").mkdir()
    shutil.copy(folder / "demo.json", folder / "old" / "former.json")
    notes, unreadable = store.noted_grids()
    assert (list(notes), unreadable) == (["demo"], ())


def test_store_that_cannot_be_reached_is_no_unreadable_note(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save_grid("demo", [stage("one", A)])

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr("builtins.open", refused)
    with pytest.raises(StoreUnavailableError):
        store.noted_grids()
    with pytest.raises(StoreUnavailableError):
        store.save_grid("demo", [stage("one", B)])


def test_note_of_ten_thousand_stages_is_small(store: Store) -> None:
    stages = [
        PlannedStage("shard", f"model · task {i // 10}", "shards", key_of(i), place_id(str(i)))
        for i in range(10_000)
    ]
    store.save_grid("large", stages)
    assert (Path(store.location.root) / "grids" / "large.json").stat().st_size < 1_500_000
    assert store.grids()["large"] == tuple(stages)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("stages", 0, 5), "heavy"),
        (("stages", 0, 5), -1.0),
        (("stages", 0, 5), True),
        (("stages", 0, 0), -1),
        (("stages",), [[0, 1, 0, "ab" * 32, "p" * 16, 0.2, []]] * 2),
        (("words", 0), None),
        (("saved_at",), 7),
        (("saved_at",), "yesterday"),
        (("saved_at",), "2026-11-23T22:00:00"),
        (("file",), []),
    ],
)
def test_a_note_that_nobody_could_have_written_counts_as_unreadable(
    tmp_path: Path, place: tuple[str | int, ...], value: object
) -> None:
    store = Store.open(tmp_path)
    store.save_grid("g", [PlannedStage("scores", "cell", "scores", "ab" * 32, "p" * 16)])
    path = tmp_path / "grids" / "g.json"
    note = json.loads(path.read_text())
    part = note
    for step in place[:-1]:
        part = part[step]
    part[place[-1]] = value
    path.write_text(json.dumps(note))
    assert store.grid_notes() == {}
    assert [one.path for one in store.noted_grids().unreadable] == ["grids/g.json"]


def test_a_failure_with_something_of_another_type_counts_as_none(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.record_failure("ab" * 32, "scores", "cell", "why")
    (path,) = (tmp_path / "failures").iterdir()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"time": 7}))
    assert store.failures() == []
