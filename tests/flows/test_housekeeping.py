"""Cleaning: what no grid needs goes, what one needs stays, whatever happens in between."""

import multiprocessing
import os
import queue
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from data import Catalog, PlannedStage, Store, place_id, provenance
from data.heart import HEART
from data.schema import TABLES, companions
from flows import housekeeping
from flows.cleaning import Cleaning, Removal, reasons_of, seconds_of, show_cleaning
from flows.errors import GridError
from flows.housekeeping import clean, look_over
from tests.data.synthetic import key_of, rows_of

HOUR, DAY = 3600, 86400
KINDS = ("scores", "circuits", "evaluations")  # with none, three and one companion
OLD = 30 * DAY


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def put(store: Store, name: object, kind: str = "circuits", age: float = OLD, **about: list) -> str:
    """An artifact of no rows with its companions, so many seconds old; its key."""
    key = key_of(name)
    kinds = (kind, *companions(kind))
    tables = {one: rows_of(one, []) for one in kinds}
    store.write_all(key, tables, provenance(kind, "ioi", 1.0, parts=about.get("parts", ())))
    for one in kinds:
        grow_old(Path(store.path(one, key)), age)
    return key


def grow_old(rows: Path, age: float) -> None:
    then = time.time() - age
    for path in (rows, rows.with_suffix(".json")):
        if path.exists():
            os.utime(path, (then, then))


def stage(place: object, key: str | None, kind: str = "circuits") -> PlannedStage:
    return PlannedStage(kind, "ioi", kind, key, place_id(str(place)))


def files(store: Store) -> set[str]:
    root = Path(store.location.root)
    found = (str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
    return {path for path in found if not path.startswith("index/")}


def of_key(store: Store, key: str) -> set[str]:
    return {path for path in files(store) if key in path}


def cleaned(store: Store, **options: object) -> Cleaning:
    return clean(store, look_over(store, **options))


def test_something_in_the_place_of_a_file_is_left_to_people_and_the_rest_is_cleaned(
    store: Store,
) -> None:
    blocked, other = put(store, "blocked"), put(store, "other")
    path = Path(store.path("circuits", blocked))
    path.unlink()
    path.mkdir()
    grow_old(path, OLD)
    found = Store.open(store.location.root)
    assert found.find("circuits", blocked) is None
    removed = cleaned(found, reasons=("unreferenced", "leftover"))
    assert all(
        str(path.relative_to(store.location.root)) not in one.paths for one in removed.removals
    )
    assert of_key(store, other) == set()
    assert path.is_dir()


def reasons(cleaning: Cleaning) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for one in cleaning.removals:
        found.setdefault(one.reason, set()).add(one.key or one.kind)
    return found


def test_what_no_grid_needs_goes_with_its_companions_and_the_rest_stays(store: Store) -> None:
    needed, stale, lost = (put(store, name) for name in ("needed", "stale", "lost"))
    store.save_grid("demo", [stage(1, stale)])
    store.save_grid("demo", [stage(1, needed)])
    before = files(store)
    found = look_over(store)
    assert files(store) == before
    assert reasons(found) == {"stale": {stale}, "unreferenced": {lost}}
    assert {path for one in found.removals for path in one.paths} == {
        path for path in before if stale in path or lost in path
    }
    assert found.n_bytes == sum(
        (Path(store.location.root) / path).stat().st_size
        for one in found.removals
        for path in one.paths
    )
    assert set(clean(store, found).removals) == set(found.removals)
    assert files(store) == {path for path in before if stale not in path and lost not in path}
    assert Store.open(store.location.root).complete("circuits", needed) is not None
    assert look_over(store).removals == ()


def test_what_is_young_stays_unless_a_grid_says_that_it_is_stale(store: Store) -> None:
    fresh, stale = put(store, "fresh", age=0.9 * HOUR), put(store, "stale", age=0)
    store.save_grid("demo", [stage(1, stale)])
    store.save_grid("demo", [stage(1, key_of("new"))])
    found = cleaned(store)
    assert reasons(found) == {"stale": {stale}}
    assert found.young == 4
    grow_old(Path(store.path("circuits", fresh)), 1.1 * HOUR)
    assert {one.kind for one in look_over(store).removals} == {"circuits"}


def test_age_holds_for_all(store: Store) -> None:
    keys = {days: put(store, days, age=days * DAY) for days in (10, 40)}
    stale = {days: put(store, ("stale", days), age=days * DAY) for days in (10, 40)}
    store.save_grid("demo", [stage(days, key) for days, key in stale.items()])
    store.save_grid("demo", [stage(days, key_of(days, "new")) for days in stale])
    found = cleaned(store, older_than=seconds_of("30d"))
    assert reasons(found) == {"unreferenced": {keys[40]}, "stale": {stale[40]}}
    assert of_key(store, keys[10])
    assert of_key(store, stale[10])


@pytest.mark.parametrize(
    ("age", "seconds"), [("90m", 5400), ("12h", 43200), ("30d", 2592000), ("1.5w", 907200)]
)
def test_ages_are_read(age: str, seconds: float) -> None:
    assert seconds_of(age) == seconds


@pytest.mark.parametrize("age", ["", "d", "30", "30 months", "-1d", "nand", "infd", "1e999d"])
def test_what_is_no_age_is_refused(age: str) -> None:
    with pytest.raises(GridError, match="is no age"):
        seconds_of(age)


def test_last_keys_stay_while_a_key_is_not_known(store: Store) -> None:
    last = put(store, "last")
    store.save_grid("demo", [stage(1, last)])
    store.save_grid("demo", [stage(1, None)])
    assert cleaned(store).removals == ()
    assert of_key(store, last)


def test_parts_of_what_is_needed_stay(store: Store) -> None:
    part = put(store, "part", "shards")
    whole = put(store, "whole", "scores", parts=[part])
    store.save_grid("demo", [stage(1, whole, "scores")])
    assert cleaned(store).removals == ()
    assert of_key(store, part)


def test_what_is_stale_in_one_grid_and_needed_in_another_stays(store: Store) -> None:
    key = put(store, "shared")
    store.save_grid("demo", [stage(1, key)])
    store.save_grid("demo", [stage(1, put(store, "now"))])
    store.save_grid("other", [stage(1, key)])
    assert cleaned(store).removals == ()


def test_what_is_under_a_live_lease_stays(store: Store) -> None:
    key = put(store, "being done again")
    with store.lease(key) as lease:
        assert lease is not None
        assert look_over(store).removals == ()
    assert reasons(cleaned(store)) == {"unreferenced": {key}}


def test_while_a_run_goes_on_every_artifact_stays_and_other_leftovers_go(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    lost, stale = put(store, "lost"), put(store, "stale")
    store.save_grid("demo", [stage(1, stale)])
    store.save_grid("demo", [stage(1, key_of("new"))])
    store.record_failure(key_of("gone"), "scores", "ioi", "no")
    noted = Path(store.location.root) / "failures" / f"{key_of('gone')}.json"
    os.utime(noted, (time.time() - OLD, time.time() - OLD))
    before = look_over(store)
    assert reasons(before) == {
        "unreferenced": {lost},
        "stale": {stale},
        "leftover": {key_of("gone")},
    }
    other = Store.open(store.location.root)
    with other.running("demo"), other.running("demo"):  # two at once are no matter
        assert reasons(look_over(store)) == {"leftover": {key_of("gone")}}
        done = clean(store, before)  # it began after the look
        assert reasons(done) == {"leftover": {key_of("gone")}}
        assert len(done.running) == 2
        show_cleaning(done, Console(), True)
        said = f"grid 'demo' is being run, by process {os.getpid()} on "
        assert said in capsys.readouterr().out
        assert store.leases() == []
    assert store.runs() == []
    assert reasons(cleaned(store)) == {"unreferenced": {lost}, "stale": {stale}}


def test_run_that_died_with_its_host_an_hour_ago_keeps_nothing(store: Store) -> None:
    put(store, "lost")
    with store.running("demo") as run:
        HEART.forget(run)
        (claim,) = (Path(store.location.root) / "leases").iterdir()
        os.utime(claim, (time.time() - 2 * HOUR, time.time() - 2 * HOUR))
        assert look_over(store).running == ()
        kinds = {one.kind for one in look_over(store).removals}
        assert kinds == {"circuits", *companions("circuits"), "dead leases"}


def _run_a_while(place: str, told: object, cleaned: object) -> None:
    store = Store.open(place)
    with store.running("demo"):
        told.put(store.find("circuits", key_of("found")) is not None)
        assert cleaned.wait(120)
        told.put(store.find("circuits", key_of("found")) is not None)


def test_run_that_begins_while_a_cleaning_removes_waits_and_keeps_what_it_finds(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [put(store, "found"), *(put(store, number) for number in range(30))]
    found = look_over(store)
    assert len({one.key for one in found.removals}) == len(keys)
    order = tuple(sorted(found.removals, key=lambda one: one.key == keys[0]))  # it last
    context = multiprocessing.get_context("fork")
    told, over = context.Queue(), context.Event()
    run = context.Process(target=_run_a_while, args=(store.location.root, told, over), daemon=True)
    remove_all, gone = store.remove_all, []

    def during_a_run(*args: object) -> None:
        if len(gone) == 2:
            run.start()
            deadline = time.monotonic() + 120
            while not store.runs():
                assert time.monotonic() < deadline, "no run begins"
                time.sleep(0.01)
            with pytest.raises(queue.Empty):  # it waits
                told.get(timeout=0.3)
        gone.append(args)
        remove_all(*args)

    monkeypatch.setattr(store, "remove_all", during_a_run)
    monkeypatch.setattr(housekeeping, "_SECONDS_BETWEEN_LOOKS", 0.0)
    done = clean(store, replace(found, removals=order))
    over.set()
    assert [told.get(timeout=120), told.get(timeout=120)] == [True, True]
    run.join(120)
    assert not run.is_alive()
    assert len({one.key for one in done.removals}) == len(gone) == 3  # and then it saw the run
    assert keys[0] not in {one.key for one in done.removals}
    assert done.running


def _end_with_leases(place: str) -> None:
    store = Store.open(place)
    store.running("demo")
    for name in ("one", "two"):
        assert store.lease(key_of(name)) is not None
    os._exit(0)  # as if it were killed: nothing is given back


def test_claims_of_processes_that_ended_go_at_once_and_are_counted(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    claims = Path(store.location.root) / "leases"
    with store.lease(key_of("mine")):
        run = multiprocessing.get_context("fork").Process(
            target=_end_with_leases, args=(store.location.root,)
        )
        run.start()
        run.join(120)
        assert run.exitcode == 0
        assert len(list(claims.iterdir())) == 4
        assert look_over(store, older_than=60.0).removals == ()
        found = look_over(store)
        assert [one.kind for one in found.removals] == ["dead leases"] * 3
        assert found.running == ()
        done = clean(store, found)
        show_cleaning(done, Console(), True)
        assert re.search(r"3 leftovers, [\d,]+ bytes removed\n", capsys.readouterr().out)
        assert [path.name.split(".")[0] for path in claims.iterdir()] == [key_of("mine")]


@pytest.mark.parametrize(
    ("kinds", "forgotten", "question"),
    [
        ((), (), ""),
        (("scores",), (), "Remove 1 artifact, 1,000 bytes?"),
        (
            ("scores", "shards"),
            ("Demo",),
            "Remove 2 artifacts, 2,000 bytes, and forget grid 'Demo'?",
        ),
        (("index",), (), "Remove 1 leftover, 1,000 bytes?"),
        (("scores", "index", "index"), (), "Remove 1 artifact and 2 leftovers, 3,000 bytes?"),
        ((), ("a", "b"), "Forget grid 'a' and 'b'?"),
    ],
)
def test_what_is_asked_before_says_how_much_and_nothing_is_asked_for_nothing(
    kinds: tuple[str, ...], forgotten: tuple[str, ...], question: str
) -> None:
    removals = tuple(Removal("leftover", kind, None, ("x",), 1000) for kind in kinds)
    assert Cleaning(removals, forgotten).question == question


@pytest.mark.parametrize("done", [False, True])
def test_what_is_told_after_has_the_right_words(
    done: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(cleaning: Cleaning) -> str:
        show_cleaning(cleaning, Console(), done)
        return capsys.readouterr().out

    one = Removal("leftover", "index", None, ("x",), 1)
    would, is_ = ("", "is") if done else ("would be ", "would be")
    assert told(Cleaning(())) == "nothing to remove\n"
    assert told(Cleaning((), young=1)) == (
        "nothing to remove\n1 artifact is kept, too young to be removed\n"
    )
    assert told(Cleaning((), young=2)).endswith("2 artifacts are kept, too young to be removed\n")
    assert f"1 leftover, 1 byte {would}removed\n" in told(Cleaning((one,)))
    assert f"grid 'demo' {is_} forgotten\n" in told(Cleaning((), ("demo",)))
    assert "nothing to remove" not in told(Cleaning((), ("demo",)))


def test_two_cleanings_at_once_are_refused(store: Store) -> None:
    put(store, "lost")
    found = look_over(store)
    with store.cleaning(), pytest.raises(GridError, match="cleaned by another process"):
        clean(store, found)
    assert clean(store, found).removals == found.removals


def test_what_comes_to_be_needed_meanwhile_stays(store: Store) -> None:
    noted, leased, lost = (put(store, name) for name in ("noted", "leased", "lost"))
    found = look_over(store)
    assert reasons(found) == {"unreferenced": {noted, leased, lost}}
    store.save_grid("late", [stage(1, noted)])
    with store.lease(leased):
        assert reasons(clean(store, found)) == {"unreferenced": {lost}}
    assert of_key(store, noted)
    assert of_key(store, leased)


def test_damaged_artifact_that_is_rebuilt_meanwhile_stays(store: Store) -> None:
    key = put(store, "damaged", "scores")
    store.save_grid("demo", [stage(1, key, "scores")])
    rows = Path(store.path("scores", key))
    whole = rows.read_bytes()
    rows.write_bytes(whole[:-1])
    grow_old(rows, OLD)
    found = look_over(Store.open(store.location.root))
    assert reasons(found) == {"leftover": {key}}
    rows.write_bytes(whole)
    assert clean(store, found).removals == ()
    assert store.find("scores", key) is not None


def test_forgotten_grid_takes_along_what_it_alone_needed(store: Store) -> None:
    shared, own = put(store, "shared"), put(store, "own", age=60)
    store.save_grid("demo", [stage(1, shared), stage(2, own)])
    store.save_grid("other", [stage(1, shared)])
    found = look_over(store, ["demo"])
    assert set(store.grids()) == {"demo", "other"}
    assert reasons(found) == {"unreferenced": {own}}
    clean(store, found)
    assert set(store.grids()) == {"other"}
    assert not of_key(store, own)
    assert of_key(store, shared)


def test_grid_that_is_not_there_or_is_being_run_is_not_forgotten(store: Store) -> None:
    key = put(store, "own")
    store.save_grid("demo", [stage(1, key)])
    with pytest.raises(GridError, match="no grid 'dmeo': there are demo"):
        look_over(store, ["dmeo"])
    with store.lease(key), pytest.raises(GridError, match=r"being run, by process \d+"):
        look_over(store, ["demo"])
    found = look_over(store, ["demo"])
    with store.running("other"):
        look_over(store, ["demo"])
    with store.running("demo"):  # before it has a lease of any stage
        for ask in (lambda: look_over(store, ["demo"]), lambda: clean(store, found)):
            with pytest.raises(GridError, match=r"'demo' is being run, by process \d+"):
                ask()
    assert set(store.grids()) == {"demo"}


def test_nothing_goes_that_an_unreadable_note_may_need(store: Store) -> None:
    put(store, "lost")
    store.record_failure(key_of("failed"), "scores", "ioi", "no")
    store.save_grid("demo", [])
    (Path(store.location.root) / "grids" / "demo.json").write_text("{")
    found = look_over(store, older_than=0.0)
    assert (found.removals, [one.grid for one in found.unreadable]) == ((), ["demo"])


def test_leftovers_go_and_what_is_not_the_stores_stays(store: Store, tmp_path: Path) -> None:
    root = tmp_path / "store"
    key, kept = put(store, "half"), put(store, "needed", "scores")
    store.save_grid("demo", [stage(1, kept, "scores"), stage(2, key)])
    Path(store.path("members", key)).with_suffix(".json").unlink()  # killed between the two
    temporary = root / "scores" / "ab" / f".{kept}.parquet.1.0123abcd.tmp"
    theirs = [root / "notes.txt", root / "scores" / "thesis.tex", root / ".x.parquet.tmp",
              root / "mine" / ".a.b.1.0123abcd.tmp", root / "scores" / "ab" / "x.parquet",
              root / "other" / kept[:2] / f"{key_of('x')}.parquet",
              root / "scores" / "zz" / f"{key_of('x')}.parquet"]  # fmt: skip
    lost, standing = key_of("lost"), kept
    for path in (temporary, *theirs, root / "index" / "1" / "rows" / "x.parquet"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    for one in (lost, standing):
        store.record_failure(one, "scores", "ioi", "no")
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - OLD, time.time() - OLD))
    found = cleaned(store)
    assert reasons(found) == {"leftover": {key, "temporary files", lost, "index"}}
    assert not temporary.exists()
    assert [one.key for one in store.failures()] == [standing]
    assert all(path.exists() for path in theirs)
    assert store.find("members", key) is None
    assert store.damaged == []
    assert store.find("circuits", key) is not None


def test_only_what_is_asked_for_goes(store: Store) -> None:
    stale, lost = put(store, "stale"), put(store, "lost")
    store.save_grid("demo", [stage(1, stale)])
    store.save_grid("demo", [stage(1, key_of("new"))])
    assert reasons(look_over(store, reasons=["stale"])) == {"stale": {stale}}
    assert reasons(look_over(store, reasons=["unreferenced"])) == {"unreferenced": {lost}}
    with pytest.raises(GridError, match="'all' is nothing that can be removed"):
        reasons_of(["stale", "all"])


def test_cleaning_that_is_cut_short_leaves_nothing_half_finished(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = put(store, "lost")
    for kind in ("circuits", *companions("circuits")):
        assert store.find(kind, key) is not None
    place = type(store.location)
    removed, remove = [], place.remove
    template = Path(store.location.root)
    for after in range(1, 8):
        copy = template.parent / f"copy {after}"
        shutil.copytree(template, copy)
        other = Store.open(copy)
        removed.clear()

        def cut(self: object, relative: str, after: int = after) -> None:
            if relative.startswith("leases/"):
                return remove(self, relative)
            if len(removed) == after:
                raise KeyboardInterrupt
            removed.append(relative)
            return remove(self, relative)

        monkeypatch.setattr(place, "remove", cut)
        with pytest.raises(KeyboardInterrupt):
            cleaned(other)
        monkeypatch.undo()
        again = Store.open(copy)
        assert again.complete("circuits", key) is None
        assert again.find("circuits", key) is None  # the primary went first
        assert Catalog(again).query("SELECT * FROM stages").num_rows == 0
        for path in copy.rglob(f"{key}.*"):
            os.utime(path, (time.time() - OLD, time.time() - OLD))
        cleaned(again)
        assert of_key(again, key) == set()


ages = st.sampled_from([0, 0.5 * HOUR, 2 * HOUR, OLD])
keys = st.integers(0, 9)
histories = st.lists(st.none() | keys, min_size=1, max_size=3)
grids = st.dictionaries(
    st.sampled_from(["demo", "other"]),
    st.dictionaries(st.integers(0, 5), histories, max_size=4),
    max_size=2,
)
held = st.dictionaries(keys, ages, max_size=10)


def _found(store: Store) -> Mapping[str, list[tuple[object, ...]]]:
    """What every grid's stages find: the artifacts of their tables, or None."""
    return {
        name: [
            tuple(store.find(kind, one.key) for kind in (one.kind, *companions(one.kind)))
            for one in stages
            if one.key is not None
        ]
        for name, stages in store.grids().items()
    }


@settings(max_examples=30, deadline=None)
@given(grids=grids, held=held, damaged=st.sets(keys, max_size=2), age=st.none() | ages)
def test_every_grid_finds_after_cleaning_what_it_found_before(
    tmp_path_factory: pytest.TempPathFactory,
    grids: dict[str, dict[int, list[int | None]]],
    held: dict[int, float],
    damaged: set[int],
    age: float | None,
) -> None:
    store = Store.open(tmp_path_factory.mktemp("store"))

    def kind_of(number: int) -> str:
        return KINDS[number % len(KINDS)]

    for number, old in held.items():
        put(store, number, kind_of(number), old)
    for name, places in grids.items():
        for step in range(3):
            stages = [
                stage(place, None if (number := history[min(step, len(history) - 1)]) is None
                      else key_of(number), kind_of(number or 0))
                for place, history in places.items()
            ]  # fmt: skip
            store.save_grid(name, stages)
    for number in damaged & set(held):
        rows = Path(store.path(kind_of(number), key_of(number)))
        rows.write_bytes(rows.read_bytes()[:-1])
        grow_old(rows, held[number])
    before = _found(Store.open(store.location.root))
    notes = store.grid_notes().values()
    wanted = frozenset().union(*(note.needed for note in notes))
    stale = frozenset().union(*(note.stale for note in notes)) - wanted
    cleaned(store, older_than=age)
    assert _found(Store.open(store.location.root)) == before
    for number, old in held.items():
        key, there = key_of(number), bool(of_key(store, key_of(number)))
        if key in wanted:
            assert there or number in damaged
        elif key in stale:
            assert there == (old < (age or 0))
        else:
            assert there == (old < max(HOUR, age or 0))
    assert all(TABLES[kind] for kind in KINDS)


def test_what_lies_beyond_a_link_is_not_the_stores(tmp_path: Path) -> None:
    outside = tmp_path / "outside" / "aa"
    outside.mkdir(parents=True)
    names = [f"{'a' * 64}.parquet", f"{'a' * 64}.json", "precious.txt"]
    for name in names:
        (outside / name).write_text("x")
        os.utime(outside / name, (1, 1))
    store = Store.open(tmp_path / "store")
    for kind in ("index", "scores", "failures", "leases"):
        (tmp_path / "store" / kind).mkdir(exist_ok=True)
        (tmp_path / "store" / kind / "aa").symlink_to(outside)
    clean(store, look_over(store))
    assert sorted(path.name for path in outside.iterdir()) == sorted(names)
    for kind in ("scores", "index"):
        store.location.remove(f"{kind}/aa/{names[0]}")
    assert (outside / names[0]).exists()
