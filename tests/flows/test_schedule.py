"""Schedules on a real Prefect server: runs fire by the clock, and end well whatever they find."""

from __future__ import annotations

import _thread
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prefect.settings import temporary_settings
from rich.console import Console

from data import Store
from data.processes import this_process
from flows.deployment import NO_SERVER, scheduled_grid, store_of
from flows.dry_run import show_dry_run
from flows.errors import GridError
from flows.prospect import look_ahead
from flows.reading import parse_grid
from flows.server import ServerError
from flows.service import Service
from flows.timetable import next_run, schedule_of
from tests.flows.conftest import digests
from tests.flows.kept import KeptServer, finished, wait_for

GRID = """
name: nightly
models: [{model}]
tasks: [ioi]
methods: [EAP]
examples: {{train: 4, evaluate: 4}}
sizes: [0.5, 1.0]
shard_size: 2
"""


@pytest.fixture(scope="module")
def kept_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptServer]:
    started = KeptServer(tmp_path_factory.mktemp("prefect"))
    yield started
    started.stop()


@pytest.fixture
def at_hand(kept_server: KeptServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Flows of this process are that server's, too."""
    monkeypatch.setenv("PREFECT_API_URL", kept_server.url)
    with temporary_settings({"api.url": kept_server.url, "logging.to_api.enabled": False}):
        yield


def failed(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for one in runs if one["state_type"] in ("FAILED", "CRASHED")]


@pytest.mark.slow
def test_runs_fire_by_the_clock_and_each_reads_its_file_anew(
    kept_server: KeptServer, at_hand: None, speaker: Path, tmp_path: Path
):
    grid, store = tmp_path / "nightly.yaml", tmp_path / "store"
    grid.write_text(GRID.format(model=speaker))
    words = [sys.executable, "-m", "flows.cli", "schedule", str(grid), "--every", "10s"]
    with (tmp_path / "said").open("wb") as said:
        serving = subprocess.Popen(
            [*words, "--store", str(store)],
            env=os.environ | {"PREFECT_API_URL": kept_server.url},
            stdout=said,
            stderr=said,
        )
    try:
        wait_for(lambda: finished(kept_server.runs()) or serving.poll() is not None, "first run")
        after_first = digests(store)
        written = times(store)
        changed = tmp_path / "changed.yaml"
        changed.write_text(GRID.format(model=speaker).replace("EAP", "EAPP"))
        changed.replace(grid)  # a run may be reading it
        wait_for(lambda: failed(kept_server.runs()), "run of the changed grid")
        first, last = finished(kept_server.runs())[0], failed(kept_server.runs())[0]
        asked = time.monotonic()
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(120) == 143
        assert time.monotonic() - asked < 60
    finally:
        serving.kill()
    assert first["state_name"] == "Completed"
    n = len({key for _, key in after_first})
    assert message(first) == f"{n} stages computed, 0 reused"
    assert last["state_name"] == "Failed"
    assert "EAPP" in message(last)
    kept = kept_server.deployment()
    assert kept["paused"]
    grid.write_text(GRID.format(model=speaker))
    again = scheduled_grid(str(grid), str(store), "inline", return_state=True)
    assert again.message == f"nothing to do: {n} stages are there already"
    assert times(store) == written
    words_said = (tmp_path / "said").read_text()
    assert f"serving scheduled-grid/nightly at {kept_server.url}; next run" in words_said
    assert "Traceback" not in words_said
    assert "leaked" not in words_said


def times(store: Path) -> dict[Path, int]:
    """When each artifact was written."""
    return {path: path.stat().st_mtime_ns for path in (store / "shards").rglob("*.parquet")}


def message(run: dict[str, Any]) -> str:
    return str(run["state"]["message"])


@pytest.mark.slow
def test_a_scheduled_run_with_failing_cells_fails_with_their_list(
    at_hand: None, speaker: Path, tmp_path: Path
):
    grid = tmp_path / "grid.yaml"
    grid.write_text(GRID.format(model=speaker).replace("[ioi]", "[ioi, greater-than]"))
    state = scheduled_grid(str(grid), str(tmp_path / "store"), "inline", return_state=True)
    again = scheduled_grid(str(tmp_path / "none.yaml"), str(tmp_path), return_state=True)
    assert state.is_failed()
    assert "1 failed\nspeaker · greater-than · EAP: " in state.message
    assert again.is_failed()
    assert again.message.startswith("There is no grid file")


@pytest.mark.parametrize(
    ("cron", "every", "timezone", "sentence"),
    [
        (None, None, None, "say when"),
        ("0 2 * * *", "15m", None, "say when"),
        ("2 o'clock", None, None, "not a cron expression; it has five fields"),
        ("61 2 * * *", None, None, "not a cron expression"),
        ("0 0 31 2 *", None, None, "there is no such date"),
        ("0 2 * * *", None, "Mars/Olympus", "--timezone Mars/Olympus: no such timezone"),
        (None, "15m", "UTC", "--timezone goes with --cron"),
        (None, "often", None, "--every often: must be a time such as 90s"),
        (None, "3s", None, "--every 3s: must be 10s at least"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_told_in_a_sentence(
    cron: str | None, every: str | None, timezone: str | None, sentence: str
):
    with pytest.raises(GridError, match=sentence.replace("(", r"\(")):
        schedule_of(cron, every, timezone)


def test_cron_is_read_in_its_timezone():
    from zoneinfo import ZoneInfo

    due = next_run(schedule_of("30 2 * * *", None, "Asia/Tokyo"))
    assert due is not None
    assert due.astimezone(ZoneInfo("UTC")).strftime("%H:%M") == "17:30"


def test_a_schedule_needs_a_server_that_stays_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    service = Service("name", schedule_of(None, "15m", None), {"grid": "g"}, print)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(ServerError, match=r"nothing answers at http://127.0.0.1:9/api"):
        service.serve()
    monkeypatch.delenv("PREFECT_API_URL")
    monkeypatch.setenv("PREFECT_PROFILES_PATH", str(tmp_path / "none.toml"))
    with pytest.raises(ServerError) as told:
        service.serve()
    assert str(told.value) == NO_SERVER


class NoPrefect(BaseHTTPRequestHandler):
    """A server of something else."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def no_prefect() -> Iterator[str]:
    """Where something else answers."""
    other = ThreadingHTTPServer(("127.0.0.1", 0), NoPrefect)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{other.server_port}/api"
    other.shutdown()
    other.server_close()


def test_what_is_no_prefect_server_is_told_in_a_sentence(
    no_prefect: str, speaker: Path, tmp_path: Path
):
    grid = tmp_path / "grid.yaml"
    grid.write_text(GRID.format(model=speaker))
    words = ["schedule", str(grid), "--every", "15m", "--store", str(tmp_path / "store")]
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *words],
        env=os.environ | {"PREFECT_API_URL": no_prefect},
        capture_output=True,
        text=True,
        timeout=240,
    )
    said = " ".join(done.stderr.split())
    assert done.returncode == 2, said
    assert f"what answers at {no_prefect} takes no deployments (" in said
    assert "fault" not in said


class Interrupted(Service):
    """A Ctrl-C comes while nothing is served."""

    def _serve_once(self) -> None:
        _thread.interrupt_main()
        self._ended.set()  # else whoever waits already would not wake up


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """As in a terminal; what a shell starts in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def end_of(service: Service) -> str:
    """What a service says last when it is interrupted."""
    told: list[str] = []
    service.tell = told.append
    with pytest.raises(KeyboardInterrupt):
        service.serve()
    return told[-1]


def test_who_ends_a_schedule_hears_whether_it_is_paused(
    kept_server: KeptServer, at_hand: None, hears_ctrl_c: None, monkeypatch: pytest.MonkeyPatch
):
    service = Interrupted("nightly", schedule_of(None, "15m", None), {"grid": "g"}, print)
    assert end_of(service) == "nothing was scheduled yet"
    service._deployment = scheduled_grid.to_deployment("nightly", interval=900).apply()
    assert not kept_server.deployment()["paused"]
    assert end_of(service) == "schedule paused; start the same command to resume"
    assert kept_server.deployment()["paused"]

    monkeypatch.setattr("flows.service.check_server", lambda: None)  # it went away since
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    said = "nothing answers at http://127.0.0.1:9/api, so the schedule could not be paused there"
    assert end_of(service).startswith(said)


class Faltering(Service):
    """Prefect stops serving by itself again and again, at last with an error."""

    left = 3

    def _serve_once(self) -> None:
        self.left -= 1
        self._error = None if self.left else RuntimeError("deep")
        self._ended.set()


def test_serving_that_ends_by_itself_begins_again_after_a_rest(
    at_hand: None, monkeypatch: pytest.MonkeyPatch
):
    told: list[str] = []
    rest = 0.3
    monkeypatch.setattr("flows.service._SECONDS_BETWEEN_LOOKS", rest)
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="deep"):
        Faltering("name", schedule_of(None, "15m", None), {"grid": "g"}, told.append).serve()
    assert told == ["Prefect stopped serving: beginning again"] * 2
    assert time.monotonic() - began >= 2 * rest


@pytest.mark.parametrize(
    "store", ["s3://KEY:hidden@grids/store", "s3://grids/store?secret_key=hidden"]
)
def test_secrets_of_a_store_stay_out_of_deployments_and_of_what_is_printed(
    speaker: Path, tmp_path: Path, store: str
):
    with pytest.raises(GridError, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") as told:
        store_of(store)
    assert "hidden" not in str(told.value)
    config = parse_grid(GRID.format(model=speaker), "grid.yaml", tmp_path)
    prospect = replace(look_ahead(config, str(tmp_path / "none")), location=store)
    printed = io.StringIO()
    show_dry_run(prospect, Console(file=printed, width=140))
    assert "nightly on s3://" in printed.getvalue()
    assert "hidden" not in printed.getvalue()


def test_a_store_without_secrets_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert store_of("store") == str(tmp_path / "store")
    url = (tmp_path / "store").as_uri()
    assert store_of(url) == str(tmp_path / "store")


def test_a_run_that_falls_due_while_another_is_going_is_cancelled_and_says_who_does_its_work(
    at_hand: None, speaker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    grid, store = tmp_path / "grid.yaml", tmp_path / "store"
    grid.write_text(GRID.format(model=speaker))
    other = Store.open(store).running("another grid")
    with Store.open(store).running("nightly"):
        state = scheduled_grid(str(grid), str(store), "inline", return_state=True)
    other.release()
    who = f"{this_process().host}:{os.getpid()}"
    assert state.is_cancelled()
    assert state.message == f"a run of it is going already ({who})"
    assert f"cancelled: a run of it is going already ({who})" in capsys.readouterr().err
    assert digests(store) == {}


def test_a_name_that_prefect_refuses_is_told_in_a_sentence():
    with pytest.raises(GridError, match="Prefect takes no / in a name: give one by --name"):
        Service("a/b", schedule_of(None, "15m", None), {"grid": "g"}, print)
