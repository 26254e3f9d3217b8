"""Where grids stand: from the store alone, by the command and by SQL, again and again."""

from __future__ import annotations

import io
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Mapping
from os import getpid
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from data import Catalog, PlannedStage, Store, provenance
from flows.housekeeping import look_over
from flows.prospect import is_empty
from flows.standing import Standings
from flows.status import show_status, wait_for_store, watch
from tests.data.synthetic import key_of, rows_of

CELL = "tiny · ioi · EAP"
CONDITIONS = ("done", "missing", "running", "failed", "stale")


def publish(store: Store, name: str, seconds: float = 2.0) -> str:
    about = provenance("shard", CELL, seconds, 2**20, "cpu", "float32")
    store.write("shards", key_of(name), rows_of("shards", []), about)
    return key_of(name)


def shard(name: str | None, place: str, *former: str, weight: float = 1.0) -> PlannedStage:
    key = None if name is None else key_of(name)
    return PlannedStage("shard", CELL, "shards", key, place, weight, tuple(map(key_of, former)))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """One stage in every condition, beside one that was finished and whose inputs changed since."""
    store = Store.open(tmp_path / "store")
    for name in ("done", "was", "was too", "kept"):
        publish(store, name)
    store.save_grid(
        "demo",
        [
            shard("done", "a", "was too"),
            shard("missing", "b", "gone"),
            shard("running", "c", weight=3.0),
            shard("failed", "d"),
            shard("stale", "e", "was"),
            shard(None, "f", "kept"),
        ],
    )
    store.record_failure(key_of("failed"), "shard", CELL, "The metric is NaN.")
    return store


def by_sql(store: Store) -> Mapping[str, int]:
    rows = Catalog(Store.open(store.location.root)).query("SELECT status FROM grid_stages")
    return Counter(rows["status"].to_pylist())


def shown(standings: Standings, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    show_status(standings.look(), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_stage_is_done_running_failed_stale_or_missing(store: Store):
    with store.lease(key_of("running")) as lease:
        assert lease is not None
        (grid,) = Standings(Store.open(store.location.root)).look().grids
        expected = {"done": 1, "missing": 2, "running": 1, "failed": 1, "stale": 1}
        assert grid.counts == expected
        assert by_sql(store) == expected
        (running,) = grid.running
        assert running.holder == f"{socket.gethostname()}:{getpid()}"
        sql = "SELECT key, holder FROM stages WHERE status = 'running'"
        rows = Catalog(store).query(sql).to_pylist()
        assert rows == [{"key": key_of("running"), "holder": running.holder}]
    assert grid.n_outdated == 2
    assert grid.n_kept == 1
    assert not grid.is_finished


def test_what_a_note_says_is_shown_as_it_is_and_is_no_markup(tmp_path: Path):
    store = Store.open(tmp_path / "store")
    key = key_of("one")
    store.save_grid("demo", [PlannedStage("[bold]shard[/]", "a [red]cell[/]", "shards", key, "a")])
    with store.lease(key):
        said = shown(Standings(store))
    assert said.count("[bold]shard[/]") == 2
    assert "a [red]cell[/], [bold]shard[/], by " in said


def test_what_was_made_from_inputs_that_have_changed_is_stale_in_sql_unless_a_grid_needs_it(
    store: Store,
):
    def stale() -> list[str]:
        sql = "SELECT key FROM stages WHERE status = 'stale'"
        return sorted(row["key"] for row in Catalog(store).query(sql).to_pylist())

    assert stale() == sorted(map(key_of, ("was", "was too")))
    store.save_grid("another", [shard("was", "a")])
    assert stale() == [key_of("was too")]
    (times,) = Catalog(store).query("SELECT n_done FROM run_times").to_pylist()
    assert times["n_done"] == 4


def test_the_time_left_is_that_of_like_stages_by_their_weight(store: Store):
    (grid,) = Standings(store).look().grids
    left = 2.0 * (1 + 3 + 1 + 1 + 1)  # each unit of weight took two seconds
    assert grid.left.seconds == pytest.approx(left)
    assert grid.seconds_left == pytest.approx(left)
    with store.lease(key_of("running")), store.lease(key_of("missing")):
        (grid,) = Standings(store).look().grids
        assert grid.seconds_left == pytest.approx(left / 2)


def test_status_says_all_of_it(store: Store):
    with store.lease(key_of("running")):
        text = shown(Standings(store))
    lines = text.splitlines()
    assert lines[0] == "demo  1 of 6 stages done, ~0:00:14 left"
    assert lines[1].split()[:6] == ["stage", *CONDITIONS]
    assert lines[2].split()[:6] == ["shard", "1", "2", "1", "1", "1"]
    assert re.search(rf"running {CELL}, shard, by process {getpid()}, for 0:0\d:\d\d\n", text)
    assert "stale   1 stage to be made anew: the inputs have changed since" in text
    assert "kept    1 earlier result, reused if the missing inputs come out the same" in text
    assert (
        "unused  2 results that no grid needs any more: `circuit-grid clean` removes them" in text
    )
    assert f"failed  {CELL}, shard:\n        The metric is NaN." in text


def test_what_clean_would_not_remove_is_not_called_unused(store: Store):
    assert "unused  2 results" in shown(Standings(store))
    store.save_grid("another", [shard("was", "a")])
    assert "unused  1 result that no grid needs any more" in shown(Standings(store))
    assert "`circuit-grid clean` removes it\n" in shown(Standings(store))
    about = provenance("shard", CELL, 2.0, 2**20, "cpu", "float32") | {"parts": [key_of("was too")]}
    store.write("shards", key_of("of parts"), rows_of("shards", []), about)
    store.save_grid("third", [shard("of parts", "a")])
    assert "unused" not in shown(Standings(store))
    removed = {one.key for one in look_over(store).removals}
    assert not removed & {key_of("was"), key_of("was too")}


def test_nothing_is_called_unused_while_a_grid_is_run_or_another_process_is_at_it(store: Store):
    with store.running("any"):
        assert "unused" not in shown(Standings(store))
    with store.lease(key_of("was")):
        assert "unused  1 result" in shown(Standings(store))


def test_a_run_is_seen_between_its_stages_and_before_its_grid_is_noted(store: Store):
    idle = "left once it runs, one stage at a time"
    assert idle in shown(Standings(store))
    with store.running("demo"):
        standing = Standings(store).look()
        assert not standing.is_idle
        said = shown(Standings(store))
        assert f"1 of 6 stages done, ~0:00:14 left, being run by process {getpid()}\n" in said
        assert "not noted yet" not in said
    with store.running("new"):
        said = shown(Standings(store))
        assert f"running a grid not noted yet, by process {getpid()}\n" in said
        assert idle in said


def test_watching_waits_for_a_store_that_a_run_is_about_to_make(tmp_path: Path):
    console = Console(file=io.StringIO(), width=200)
    place = str(tmp_path / "later")

    def begin() -> None:
        while not begun.is_set():
            time.sleep(0.01)
        store = Store.open(place)
        with store.running("demo"):
            time.sleep(0.3)
            publish(store, "done")
            store.save_grid("demo", [shard("done", "a")])

    begun = threading.Event()
    run = threading.Thread(target=begin)
    run.start()
    try:
        assert is_empty(place)
        begun.set()
        wait_for_store(place, console, every=0.02)
        standing = watch(Standings(Store.open(place, create=False)), console, every=0.02)
    finally:
        begun.set()
        run.join()
    assert standing.is_finished
    assert [grid.note.name for grid in standing.grids] == ["demo"]


def test_waiting_for_a_store_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    console = Console(file=io.StringIO(), width=200)
    place = tmp_path / "later"
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            Store.open(place)

    monkeypatch.setattr("flows.status.time", SimpleNamespace(sleep=sleep))
    wait_for_store(str(place), console, every=7.0)
    assert looks == [7.0] * 3
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == f"no store at {place} yet: waiting\n"


def test_the_columns_of_a_watched_terminal_do_not_come_and_go(store: Store):
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    store.save_grid("demo", [shard("done", "a")])
    store.clear_failure(key_of("failed"))
    watch(Standings(store), console, every=0.05)
    assert isinstance(console.file, io.StringIO)
    assert "running" in console.file.getvalue()


DAMAGES = {
    "truncated": lambda path: path.write_text(path.read_text()[:40]),
    "of another type": lambda path: path.write_text('{"words": 3, "stages": {}}'),
    "a directory": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_grid_whose_note_cannot_be_read_is_named_and_the_others_are_shown(
    store: Store, damage: str
):
    store.save_grid("other", [shard("was", "a")])
    DAMAGES[damage](Path(store.location.root) / "grids" / "demo.json")
    standing = Standings(store).look()
    assert [grid.note.name for grid in standing.grids] == ["other"]
    assert not standing.is_finished
    said = shown(Standings(store))
    (line,) = (line for line in said.splitlines() if "demo" in line)
    assert line.startswith("damaged grids/demo.json cannot be read (")
    assert "what grid 'demo' needs and how far it is are not known: " in line
    assert "run that grid again" in line
    assert "No grid was run" not in said
    assert Standings(store, "other").look().unreadable == ()
    assert [one.grid for one in Standings(store, "demo").look().unreadable] == ["demo"]
    (Path(store.location.root) / "grids" / "other.json").unlink()
    assert "No grid was run" not in shown(Standings(store))


@pytest.mark.parametrize("terminal", [False, True])
def test_watching_a_grid_whose_note_cannot_be_read_says_so_once_and_ends(
    store: Store, terminal: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("flows.status._QUIET_SECONDS", 0.2)
    store.clear_failure(key_of("failed"))
    store.save_grid("other", [shard("was", "a")])
    (Path(store.location.root) / "grids" / "demo.json").write_text("{")
    console = Console(file=io.StringIO(), force_terminal=terminal, width=400, color_system=None)
    assert not watch(Standings(store), console, every=0.05).is_finished
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    sentence = "grids/demo.json cannot be read (it is damaged), so what grid 'demo' needs"
    assert sentence in said
    if not terminal:
        assert said.count(sentence) == 1


def test_a_terminal_breaks_sentences_between_words(store: Store):
    sentence = "the address in PREFECT_API_URL is not that of a server that is there"
    store.record_failure(key_of("failed"), "shard", CELL, sentence)
    console = Console(file=io.StringIO(), force_terminal=True, width=40, color_system=None)
    show_status(Standings(store).look(), console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    at = lines.index("        the address in PREFECT_API_URL")
    assert lines[at + 1 : at + 3] == ["        is not that of a server that is", "        there"]


def test_columns_that_say_nothing_are_left_out(store: Store):
    store.save_grid("demo", [shard("done", "a")])
    lines = shown(Standings(store)).splitlines()
    assert lines[0] == "demo  finished"
    assert lines[1].split() == ["stage", "done", "missing", "failed"]


def test_later_looks_see_what_was_done_lost_its_lease_or_was_planned_since(store: Store):
    standings = Standings(Store.open(store.location.root))
    with store.lease(key_of("running")):
        assert standings.look().grids[0].counts["running"] == 1
        publish(store, "running", seconds=30.0)
    (grid,) = standings.look().grids
    assert (grid.counts["done"], grid.counts["running"]) == (2, 0)
    store.clear_failure(key_of("failed"))
    store.save_grid("demo", [shard("done", "a"), shard("failed", "d")])
    store.save_grid("other", [shard("was", "a")])
    demo, other = standings.look().grids
    assert demo.counts == {"done": 1, "missing": 1}
    assert other.is_finished


def test_later_looks_do_not_read_what_was_done_before(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    standings = Standings(Store.open(store.location.root))
    before = standings.look()

    def refuse(*_: object) -> None:
        raise AssertionError("everything was listed again")

    monkeypatch.setattr(Store, "artifacts", refuse)
    monkeypatch.setattr(Store, "complete", refuse)
    assert standings.look().grids == before.grids


def test_a_damaged_artifact_is_told_and_is_not_done(store: Store):
    Path(store.path("shards", key_of("done"))).write_bytes(b"PAR1")
    standing = Standings(Store.open(store.location.root)).look()
    assert standing.grids[0].counts["done"] == 0
    assert [damage.path for damage in standing.damaged] == [
        f"shards/{key_of('done')[:2]}/{key_of('done')}.parquet"
    ]


def test_one_grid_alone_can_be_asked_for(store: Store):
    store.save_grid("other", [shard("was", "a")])
    standing = Standings(store, "other").look()
    assert [grid.note.name for grid in standing.grids] == ["other"]
    assert standing.failures == ()


def test_watching_ends_when_all_is_done_and_tells_what_has_changed(store: Store):
    store.clear_failure(key_of("failed"))
    store.save_grid("demo", [shard("done", "a"), shard("running", "c")])

    def work() -> None:
        with store.lease(key_of("running")):
            leased.set()
            seen.wait(120)
            publish(store, "running")

    class Seeing(io.StringIO):
        """Lets the work be finished once something was said of it."""

        def write(self, text: str) -> int:
            seen.set()
            return super().write(text)

    leased, seen = threading.Event(), threading.Event()
    worker = threading.Thread(target=work)
    console = Console(file=Seeing(), width=200)
    worker.start()
    try:
        assert leased.wait(120)
        standing = watch(Standings(Store.open(store.location.root)), console, every=0.05)
    finally:
        seen.set()
        worker.join()
    assert standing.is_finished
    assert isinstance(console.file, io.StringIO)
    first, *_, last = console.file.getvalue().splitlines()
    assert "demo: 1 of 2 stages done, ~0:00:02 left, 1 running" in first
    assert last.endswith("demo: finished")


def test_watching_ends_where_something_failed_and_nothing_happens_any_more(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("flows.status._QUIET_SECONDS", 0.3)
    console = Console(file=io.StringIO(), width=200)
    began = time.monotonic()
    standing = watch(Standings(store), console, every=0.05)
    assert not standing.is_finished
    assert time.monotonic() - began > 0.3
    assert isinstance(console.file, io.StringIO)
    assert "The metric is NaN." in console.file.getvalue()


def test_a_watched_terminal_shows_the_table_anew(store: Store):
    store.save_grid("demo", [shard("done", "a")])
    store.clear_failure(key_of("failed"))
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    assert watch(Standings(store), console, every=0.05).is_finished
    assert isinstance(console.file, io.StringIO)
    assert "finished" in console.file.getvalue()
