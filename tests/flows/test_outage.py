"""A schedule is left running for weeks: its Prefect server may go and come back meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import psutil
import pytest

from data import Store
from flows.server import PrivateServer
from flows.service import Service
from flows.timetable import schedule_of
from tests.flows.kept import KeptServer, finished, wait_for
from tests.flows.outsiders import Held

GRID = """
name: nightly
models: [{model}]
tasks: [ioi]
methods: [EAP]
examples: {{train: 4, evaluate: 4}}
sizes: [0.5, 1.0]
shard_size: 2
"""


class EnoughError(Exception):
    """The test has seen what it wanted to see."""


class Shaken(Service):
    """Serving ends again and again: whether it had begun each time, and by which error."""

    ends: list[tuple[bool, Exception | None]]

    def _serve_once(self) -> None:
        self._serving, self._error = self.ends.pop(0)
        self._ended.set()


def test_once_it_has_served_no_error_ends_a_schedule(server: PrivateServer):
    told: list[str] = []
    rests: list[float] = []

    def tell(line: str) -> None:
        told.append(line)
        if len(told) == 4:
            raise EnoughError

    schedule = schedule_of(None, "15m", None)
    service = Shaken("name", schedule, {"grid": "g"}, tell, sleep=rests.append)
    lost = RuntimeError("Service exceeded error threshold.")
    service.ends = [
        (True, ExceptionGroup("one", [ExceptionGroup("two", [lost])])),
        (False, httpx.ConnectError("refused\nby all")),
        (False, None),
        (True, None),
    ]
    with pytest.raises(EnoughError):
        service.serve()
    assert told == [
        "Prefect stopped serving (RuntimeError: Service exceeded error threshold.): "
        "beginning again",
        "Prefect stopped serving (ConnectError: refused): beginning again",
        "Prefect stopped serving: beginning again",
        "Prefect stopped serving: beginning again",
    ]
    assert rests == [5.0, 10.0, 20.0]


class Serving:
    """A schedule in a process of its own, and what it says."""

    def __init__(self, kept: KeptServer, folder: Path, env: Mapping[str, str] = os.environ) -> None:
        command = [sys.executable, "-m", "flows.cli", "schedule", str(folder / "nightly.yaml")]
        self._said = folder / "said"
        with self._said.open("ab") as said:
            self.process = subprocess.Popen(
                [*command, "--every", "15s", "--store", str(folder / "store")],
                env=dict(env) | {"PREFECT_API_URL": kept.url},
                stdout=said,
                stderr=said,
            )

    def until(self, is_so: Callable[[], object], what: str) -> None:
        wait_for(lambda: is_so() or self.process.poll() is not None, what)
        assert self.process.poll() is None, self.said()

    def said(self) -> str:
        return self._said.read_text()

    def end(self) -> None:
        self.process.terminate()
        assert self.process.wait(60) == 143
        for noise in ("Traceback", "fault", "Exception", "---"):
            assert noise not in self.said()


@pytest.fixture
def folder(speaker: Path, tmp_path: Path) -> Path:
    """A directory with a grid's file."""
    (tmp_path / "nightly.yaml").write_text(GRID.format(model=speaker))
    return tmp_path


@pytest.fixture
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptServer]:
    """A server of this test's own."""
    started = KeptServer(tmp_path_factory.mktemp("prefect"))
    yield started
    started.stop()


@pytest.mark.soak
@pytest.mark.parametrize("seconds", [20, 240])
def test_a_schedule_outlives_an_outage_of_its_server(seconds: int, kept: KeptServer, folder: Path):
    serving = Serving(kept, folder)
    try:
        serving.until(lambda: finished(kept.runs()), "first run")
        kept.stop()
        with pytest.raises(subprocess.TimeoutExpired):  # it goes on
            serving.process.wait(seconds)
        kept.start()
        n_before = len(finished(kept.runs()))
        serving.until(lambda: len(finished(kept.runs())) > n_before, "new run")
        states = [one["state_name"] for one in finished(kept.runs())]
        serving.end()
    finally:
        serving.process.kill()
    assert set(states) <= {"Completed", "Crashed"}  # crashed is what the outage met
    assert states[-1] == "Completed"
    assert "nothing to do" in serving.said()


@pytest.mark.soak
def test_a_run_in_progress_goes_on_while_its_server_is_away(kept: KeptServer, folder: Path):
    held = Held(folder)
    grid = (folder / "nightly.yaml").read_text()
    task = "tasks: [{name: ioi, metric: held, judged_by: [logit-diff]}]"
    (folder / "nightly.yaml").write_text(grid.replace("tasks: [ioi]", task))
    held.go_on_until(1)
    serving = Serving(kept, folder, held.environment)
    try:
        (worker,) = held.wait()
        kept.stop()
        serving.until(lambda: "the run in progress goes on" in serving.said(), "sign of patience")
        assert psutil.pid_exists(worker)
        with pytest.raises(subprocess.TimeoutExpired):  # Prefect's own runner would give up
            serving.process.wait(240)
        held.go_on()
        shards = held.store / "shards"
        serving.until(lambda: len(list(shards.glob("??/[!.]*.json"))) == 2, "shard")
        kept.start()
        serving.until(lambda: "beginning again" in serving.said(), "new beginning")
        assert finished(kept.runs())[0]["state_name"] == "Completed"
        serving.end()
    finally:
        serving.process.kill()
    assert "stages computed, 0 reused" in serving.said()
    assert "left out" in serving.said()
    assert kept.deployment()["paused"]


@pytest.mark.soak
@pytest.mark.parametrize("with_server", [False, True])
def test_what_was_killed_in_the_middle_of_a_run_goes_on_once_it_is_started_again(
    with_server: bool, kept: KeptServer, folder: Path
):
    store = Store.open(folder / "store")
    serving = Serving(kept, folder)
    try:
        serving.until(store.runs, "run that has begun")
        for process in (*psutil.Process(serving.process.pid).children(True), serving.process):
            process.kill()
        serving.process.wait()
        if with_server:
            kept.stop()
            kept.start()
        serving = Serving(kept, folder)
        serving.until(lambda: finished(kept.runs()), "new run")
        assert finished(kept.runs())[0]["state_name"] == "Completed"
        serving.end()
    finally:
        serving.process.kill()
    assert "cancelled" not in serving.said()
