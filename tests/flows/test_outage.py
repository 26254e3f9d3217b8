"""A schedule is left running for weeks: its Prefect server may go and come back meanwhile."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from flows.server import PrivateServer
from flows.service import Service, _asyncio_told_to
from flows.timetable import schedule_of
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


def test_what_goes_wrong_where_nobody_waits_is_a_line_and_what_is_called_off_is_none():
    told: list[str] = []

    def called_back(error: BaseException) -> None:
        raise error

    async def some() -> None:
        loop = asyncio.get_running_loop()
        for error in (asyncio.CancelledError(), KeyError("deep")):
            loop.call_soon(called_back, error)
        await asyncio.sleep(0)

    handlers = list(logging.getLogger("asyncio").handlers)
    with _asyncio_told_to(told.append):
        asyncio.run(some())
        logging.getLogger("asyncio").error("Unclosed\nconnection")
    assert told == ["in Prefect: KeyError: 'deep'", "in Prefect: Unclosed"]
    assert logging.getLogger("asyncio").handlers == handlers


@pytest.mark.soak
@pytest.mark.parametrize("seconds", [20, 240])
def test_a_schedule_outlives_an_outage_of_its_server(seconds: int, speaker: Path, tmp_path: Path):
    grid, store, home = tmp_path / "nightly.yaml", tmp_path / "store", tmp_path / "prefect"
    grid.write_text(GRID.format(model=speaker))
    home.mkdir()
    kept = KeptServer(home)
    words = [sys.executable, "-m", "flows.cli", "schedule", str(grid), "--every", "15s"]
    with (tmp_path / "said").open("wb") as said:
        serving = subprocess.Popen(
            [*words, "--store", str(store)],
            env=os.environ | {"PREFECT_API_URL": kept.url},
            stdout=said,
            stderr=said,
        )
    try:
        wait_for(lambda: finished(kept.runs()) or serving.poll() is not None, "first run")
        kept.stop()
        with pytest.raises(subprocess.TimeoutExpired):  # it goes on
            serving.wait(seconds)
        kept.start()
        n_before = len(finished(kept.runs()))
        wait_for(
            lambda: len(finished(kept.runs())) > n_before or serving.poll() is not None, "new run"
        )
        states = [one["state_name"] for one in finished(kept.runs())]
        serving.terminate()
        assert serving.wait(60) == 143
    finally:
        serving.kill()
        kept.stop()
    assert set(states) <= {"Completed", "Crashed"}  # crashed is what the outage met
    assert states[-1] == "Completed"
    words_said = (tmp_path / "said").read_text()
    assert "nothing to do" in words_said
    assert "Traceback" not in words_said
    assert "fault" not in words_said
