"""A real run watched: what is foreseen before it, its log, what Prefect shows, what is stale."""

from __future__ import annotations

import base64
import io
import itertools
import logging
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
from prefect import flow
from prefect.artifacts import Artifact
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from rich.console import Console

from data import Store
from flows.config import GridConfig
from flows.dry_run import show_dry_run
from flows.grid import run_grid
from flows.logs import KEPT, LOGGER, LogWatcher
from flows.progress import Watcher
from flows.prospect import look_ahead
from flows.publishing import Announcer, announce
from flows.reading import read_grid
from flows.run import Run
from flows.server import PrivateServer
from flows.standing import Standings
from flows.workbench import workbench

LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING|ERROR) +"
    r"(?P<grid>[^|]+) \| (?P<cell>[^|]+) \| (?P<stage>[^|]+) \| (?P<said>.+)"
)
GRID = """
name: Watched.Grid_1
models: [{model}]
tasks: [{{path: pairs.csv, metric: logit-diff, train_on: all, evaluate_on: all}}, greater-than]
methods: [EAP]
sizes: [0.2, 1.0]
shard_size: 2
examples: {{train: 4, evaluate: 4}}
judging: {{comparisons: false}}
"""


@dataclass
class Watched:
    """A finished run of a grid of which one cell fails, and what was foreseen and told of it."""

    file: Path
    store: Path
    config: GridConfig
    run: Run
    log: str
    before: str  # the dry run before it
    told: list[str]


def pairs(n: int) -> str:
    """The rows of so many pairs, of which the model knows the words of every other."""
    from tasks import get_task

    found = islice((pair for pair in get_task("ioi").pairs() if pair is not None), n)
    lines = [f'"{p.clean}","{p.corrupted}","{p.correct[0]}","{p.incorrect[0]}"' for p in found]
    return "\n".join(["clean,corrupted,correct,incorrect", *lines]) + "\n"


def foreseen(config: GridConfig, store: Path, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    show_dry_run(look_ahead(config, str(store)), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def watched(
    server: PrivateServer, speaker: Path, tmp_path_factory: pytest.TempPathFactory
) -> Watched:
    folder = tmp_path_factory.mktemp("watched")
    (folder / "pairs.csv").write_text(pairs(8))
    (folder / "grid.yaml").write_text(GRID.format(model=speaker))
    config = read_grid(folder / "grid.yaml")
    before = foreseen(config, folder / "store")
    assert not (folder / "store").exists()
    told: list[str] = []

    class Listening(Watcher):
        def waiting(self, what: str) -> None:
            told.append(what)

    workbench.cache_clear()
    run = run_grid(config, str(folder / "store"), Listening(), "inline")
    (path,) = (run.folder("logs") / config.name).iterdir()
    log = path.read_text()
    return Watched(folder / "grid.yaml", folder / "store", config, run, log, before, told)


# Before a run -----------------------------------------------------------------------------------


def test_a_dry_run_of_a_store_that_is_not_there_counts_everything_and_makes_nothing(
    watched: Watched,
):
    lines = watched.before.splitlines()
    assert lines[0].startswith("Watched.Grid_1 on ")
    assert re.search(r"\d+ stages would run, 0 would be reused", lines[0])
    (cell,) = (line for line in lines if line.startswith("speaker · pairs · EAP"))
    assert "dataset, method, model, shard, scores, circuits" in cell
    assert (
        "not yet known  how many shards pairs takes: the file's examples are not counted yet"
        in (watched.before)
    )
    assert "time           not known: nothing was ever timed on this store" in lines
    memory = next(line for line in lines if line.startswith("memory"))
    assert re.search(r"speaker: weights \d+(\.\d)? [KM]iB \(float32\) and up to 1.0 GiB", memory)
    assert "none like these was measured on" in memory


def test_a_dry_run_changes_nothing_and_says_what_is_reused_and_what_is_new(watched: Watched):
    text = watched.file.read_text().replace("[EAP]", "[EAP, clean-corrupted]")
    text = text.replace(", greater-than]", "]")
    more = watched.file.with_name("more.yaml")
    more.write_text(text)
    before = contents(watched.store)
    said = foreseen(read_grid(more), watched.store)
    assert contents(watched.store) == before
    shards = next(line for line in said.splitlines() if line.startswith("shard"))
    assert shards.split()[1:3] == ["2", "2"]  # would run, reused
    assert shards.rstrip().endswith("this model 2")
    assert re.search(r"time           about \d:\d\d:\d\d, one stage after another", said)
    assert re.search(r"stages like these took [\d.]+ [MG]iB at most on cpu", said)
    assert re.search(r"disk           about [\d.]+ KiB of results; [\d.]+ [MGT]iB are free", said)


def test_a_dry_run_says_what_cannot_be_planned_and_fetches_nothing(watched: Watched):
    text = watched.file.read_text()
    hub = watched.file.with_name("hub.yaml")
    hub.write_text(re.sub(r"models: .*", "models: [nobody/has-this-model]", text))
    said = foreseen(read_grid(hub), watched.store)
    assert (
        "nobody/has-this-model is not on this machine; a run fetches it from the hub first" in said
    )
    assert "speaker" not in said


def test_a_dry_run_says_what_failed_before_and_would_be_tried_again(watched: Watched):
    said = foreseen(watched.config, watched.store)
    assert re.search(r"again          \d+ stages? failed last time and would be tried again", said)


# After a change ---------------------------------------------------------------------------------


def test_what_was_made_from_a_file_that_has_changed_is_stale_before_any_run(
    watched: Watched, tmp_path: Path
):
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / "pairs.csv").write_text((watched.file.parent / "pairs.csv").read_text())
    (folder / "grid.yaml").write_text(watched.file.read_text())
    config = read_grid(folder / "grid.yaml")
    store = Store.open(watched.store, create=False)

    def conditions() -> dict[str, int]:
        note = look_ahead(config, str(watched.store)).note
        (grid,) = Standings(store, note.name).look(note).grids
        return dict(grid.counts) | {"kept": grid.n_kept}

    as_it_was = conditions()
    assert as_it_was["done"] > 8
    assert "stale" not in as_it_was
    (folder / "pairs.csv").write_text(pairs(12))
    changed = conditions()
    assert changed["stale"] == 1  # the dataset of that file
    assert changed["kept"] == 5  # what is downstream of it, from the scores on
    (alone,) = Standings(store, config.name).look().grids
    assert alone.counts["done"] == as_it_was["done"]  # the store by itself does not know
    assert "stale          1 stage of these, made from inputs that have changed" in foreseen(
        config, watched.store
    )


# Logs -------------------------------------------------------------------------------------------


def test_every_line_of_the_log_has_its_time_grid_cell_and_stage(watched: Watched):
    lines = [LINE.fullmatch(line) for line in watched.log.splitlines()]
    assert all(lines)
    found = [line for line in lines if line is not None]
    assert {line["grid"] for line in found} == {"Watched.Grid_1"}
    missing = r"run started: \d+ of \d+ stages are missing, as far as is known yet"
    assert re.fullmatch(missing, found[0]["said"])
    counts = {how: watched.run.outcome.count(how) for how in ("computed", "reused", "failed")}
    counted = ", ".join(f"{n} {how}" for how, n in counts.items())
    assert found[-1]["said"] == f"run ended: {counted}"
    assert counts["reused"] == 0  # nothing was there before
    said = [(line["cell"], line["stage"], line["said"].split(",")[0]) for line in found]
    cell = "speaker · pairs · EAP"
    assert (cell, "shard 2 of 2", "started") in said
    assert (cell, "shard 2 of 2", "computed") in said
    failures = [line for line in found if "cannot express" in line["said"]]
    assert len(failures) == 1, [line.string for line in failures]
    (failed,) = failures
    assert failed["cell"] == "speaker · greater-than · EAP"
    assert failed[1] == "ERROR"
    assert watched.told == ["starting Prefect"]


def test_a_log_that_cannot_be_written_is_told_once_and_stops_nothing(tmp_path: Path):
    (tmp_path / "logs").write_text("a file where a folder should be")
    told: list[str] = []
    watcher = LogWatcher("small", tmp_path / "logs", tell=told.append)
    LOGGER.info("one")
    LOGGER.info("two")
    watcher.close()
    assert len(told) == 1
    assert "cannot be written" in told[0]


def test_runs_that_say_nothing_leave_no_file_and_old_ones_go(tmp_path: Path):
    quiet = LogWatcher("small", tmp_path)
    quiet.close()
    assert not (tmp_path / "small").exists()
    (tmp_path / "small").mkdir()
    for i in range(KEPT + 5):
        (tmp_path / "small" / f"20200101T{i:06}-1.log").touch()
    watcher = LogWatcher("small", tmp_path)
    LOGGER.warning("a line\nof two")
    watcher.close()
    assert len(list((tmp_path / "small").iterdir())) == KEPT
    LOGGER.warning("nobody listens any more")
    assert watcher.path.read_text().endswith("small | - | - | a line / of two\n")


# Prefect ----------------------------------------------------------------------------------------


def in_a_flow(do: Callable[[], None]) -> str:
    """Do something within a flow; returns the flow run's id."""
    from prefect.runtime import flow_run

    ids: list[str] = []

    @flow(name="told")
    def told() -> None:
        ids.append(flow_run.id)
        do()

    with on_server():
        told()
    return ids[0]


def on_server() -> AbstractContextManager[object]:
    """The settings of a run on the server that the environment names."""
    return temporary_settings({"flows.heartbeat_frequency": None})


def test_prefect_shows_progress_leaderboard_failures_and_the_drawing(watched: Watched):
    def publish() -> None:
        announcer = announce(watched.run)
        for done in range(5):
            announcer.update(done, 5.0)  # the first alone: the others come too soon
        announcer.finish()

    in_a_flow(publish)
    with on_server():
        found = {what: Artifact.get(f"watched-grid-1-{what}") for what in KINDS}
    assert {what: one.type for what, one in found.items() if one is not None} == KINDS
    assert float(found["progress"].data) == 100
    leaderboard = found["leaderboard"].data
    assert '"task": "pairs"' in leaderboard
    assert '"label": "EAP"' in leaderboard
    assert "cannot express the task greater-than" in found["failures"].data
    markdown = found["circuits"].data
    (picture,) = re.findall(r"!\[[^]]*\]\(data:image/svg\+xml;base64,([^)]+)\)", markdown)
    assert b"<svg" in base64.b64decode(picture)
    assert str(watched.store) in markdown


KINDS = {
    "progress": "progress",
    "leaderboard": "table",
    "failures": "table",
    "circuits": "markdown",
}


def test_progress_is_told_every_few_seconds_at_most(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
):
    told: list[float] = []
    now = [1000.0]
    monkeypatch.setattr("flows.publishing.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(Announcer, "_tell", lambda self, percent: told.append(percent))
    announcer = announce(watched.run)
    for done in range(100):
        announcer.update(done, 100.0)
        now[0] += 0.04
    assert told == [0.0]
    now[0] += 2.0
    announcer.update(50.0, 100.0)
    assert told == [0.0, 50.0]


def test_a_server_that_is_away_is_asked_ever_less_often_and_not_waited_for(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
):
    told: list[float] = []
    now, asked = [1000.0], [0.0]
    answers = True

    def is_reachable(url: str, seconds: float) -> bool:
        assert seconds <= 2.0
        asked.append(now[0])
        return answers

    monkeypatch.setattr("flows.publishing.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr("flows.publishing.is_reachable", is_reachable)
    monkeypatch.setattr(Announcer, "_tell", lambda self, percent: told.append(percent))
    announcer = announce(watched.run)

    def pass_time(seconds: int) -> list[float]:
        """A stage ends every second; how long it was each time until the server was asked."""
        asked[1:] = asked[-1:]
        for _ in range(seconds):
            now[0] += 1.0
            announcer.update(1.0, 2.0)
        return [later - before for before, later in itertools.pairwise(asked[1:])]

    announcer.update(0.0, 2.0)
    answers = False
    assert pass_time(1000) == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]
    assert told == [0.0]
    answers = True
    assert pass_time(320) == [300.0] + [5.0] * 21
    assert set(told) == {0.0, 50.0}


def test_nothing_is_published_where_nobody_keeps_a_server(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("PREFECT_API_URL")
    announcer = announce(watched.run)
    published: list[object] = []
    monkeypatch.setattr(Announcer, "_attempt", lambda *about: published.append(about))
    announcer.update(1, 2)
    announcer.finish()
    assert published == []


def test_a_server_that_refuses_artifacts_fails_no_run_and_is_logged(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    log = LogWatcher("small", tmp_path)
    try:
        with temporary_settings({"api.url": "http://127.0.0.1:9/api", "client.max_retries": 0}):
            announcer = announce(watched.run)
            announcer.update(1, 2)
    finally:
        log.close()
    assert "WARNING small | - | - | the progress cannot be published" in log.path.read_text()


def test_the_same_lines_are_in_the_flow_run_s_own_log(watched: Watched, tmp_path: Path):
    from prefect.logging.handlers import APILogWorker

    def say() -> None:
        log = LogWatcher("small", tmp_path, to_server=True)
        LOGGER.warning("something", extra={"cell": "a · b · c", "stage": "shard 1 of 2"})
        log.close()

    with temporary_settings({PREFECT_LOGGING_TO_API_ENABLED: True}):
        flow_run = in_a_flow(say)
        APILogWorker.drain_all(timeout=120)
        with get_client(sync_client=True) as client:
            lines = [one for one in client.read_logs() if str(one.flow_run_id) == flow_run]
    (line,) = (one for one in lines if "something" in one.message)
    assert line.message == "small | a · b · c | shard 1 of 2 | something"
    assert line.level == logging.WARNING
