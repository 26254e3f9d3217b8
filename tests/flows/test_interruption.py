"""Killing a run in the middle, in a process of its own, and going on from there."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from data import Catalog, Store
from flows.server import PrivateServer
from tests.flows.conftest import digests
from tests.flows.outsiders import Held

GRID = """
name: killed
models: [{model}]
tasks: [{{name: ioi, metric: held, judged_by: [logit-diff]}}]
methods: [{{name: EAP-IG-inputs, steps: 5}}]
examples: {{train: 16, evaluate: 4}}
sizes: [0.1, 0.5, 1.0]
shard_size: 1
"""
EXACT = """
name: killed-exact
models: [{model}]
tasks: [{{name: ioi, metric: held, judged_by: [logit-diff]}}]
methods: [{{name: exact, edges: [{edges}]}}]
examples: {{train: 4, evaluate: 4}}
sizes: [0.5, 1.0]
shard_size: 4
shard_units: 2
"""
pytestmark = pytest.mark.slow
PATIENCE = 240.0


def start(grid: Path, held: Held, store: Path | None = None) -> subprocess.Popen[str]:
    store = store or held.store
    command = [sys.executable, "-m", "flows.cli", "run", str(grid), "--store", str(store)]
    return subprocess.Popen(
        command,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=held.environment,
        start_new_session=True,
        # tests that run in the background inherit that Ctrl-C is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def shards(store: Path) -> dict[Path, int]:
    """The finished shards, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in (store / "shards").rglob("[!.]*.json")}


@pytest.fixture
def held(tmp_path: Path) -> Held:
    return Held(tmp_path)


@pytest.fixture
def grid(speaker: Path, tmp_path: Path) -> Path:
    path = tmp_path / "grid.yaml"
    path.write_text(GRID.format(model=speaker))
    return path


@pytest.mark.soak
def test_an_exact_run_killed_among_the_edges_goes_on_with_the_next_edges(
    server: PrivateServer, speaker: Path, tmp_path: Path, held: Held
):
    from circuits.graph import Graph

    # the one run of examples is cut by edges alone
    edges = ", ".join(f"'{edge.name}'" for edge in Graph(2, 2).edges[:40])
    grid = tmp_path / "exact.yaml"
    grid.write_text(EXACT.format(model=speaker, edges=edges))
    held.go_on_until(4)
    process = start(grid, held)
    held.wait()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=PATIENCE)
    kept = shards(held.store)
    assert len(kept) == 4
    noted = Catalog(Store.open(held.store)).query(
        "SELECT status FROM grid_stages WHERE stage = 'shard'"
    )
    assert noted["status"].to_pylist().count("done") == len(kept)
    assert noted.num_rows == 20

    held.go_on()
    again = start(grid, held)
    out, err = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, out + err
    whole = start(grid, held, tmp_path / "whole")
    out, err = whole.communicate(timeout=PATIENCE)
    assert whole.returncode == 0, out + err
    now = shards(held.store)
    assert len(now) == 20
    assert {path: now[path] for path in kept} == kept
    assert digests(held.store) == digests(tmp_path / "whole")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_ends_in_seconds_and_keeps_what_is_finished(
    server: PrivateServer, grid: Path, held: Held, number: signal.Signals, code: int
):
    held.go_on_until(2)
    process = start(grid, held)
    held.wait()
    asked = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    assert time.monotonic() - asked < 60
    assert process.returncode == code
    assert "interrupted: what is finished is kept" in err
    assert "Traceback" not in err
    assert len(shards(held.store)) == 2


def test_a_server_that_goes_away_in_the_middle_costs_the_run_nothing(
    grid: Path, held: Held, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "0")
    held.go_on_until(2)
    process = start(grid, held)
    held.wait()
    children = psutil.Process(process.pid).children()
    (server,) = (one for one in children if "server.py" in " ".join(one.cmdline()))
    server.kill()
    held.go_on()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out + err
    assert "stages computed, 0 reused" in out
    told = " ".join(err.split())
    assert "the Prefect server does not answer any more" in told
    assert "and was not told how the run ended" in told
    assert Store.open(held.store).runs() == []


def is_alive(pid: int) -> bool:
    """Whether a process goes on, which nobody may have waited for."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_private_server_ends_with_a_killed_run_and_leaves_nothing(tmp_path: Path):
    code = (
        "import sys, time\n"
        "from flows.server import PrivateServer\n"
        "server = PrivateServer()\n"
        "print(server._process.pid, server.home, flush=True)\n"
        "time.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], text=True, stdout=subprocess.PIPE)
    assert owner.stdout is not None
    pid, home = owner.stdout.readline().split()
    assert Path(home).is_dir()
    owner.kill()
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 120
    while Path(home).exists() or is_alive(int(pid)):
        assert time.monotonic() < deadline, "the server outlives the run"
        time.sleep(0.1)


def test_a_server_that_was_killed_is_told_by_the_signal_and_nothing_that_it_never_said():
    import flows.server

    server = PrivateServer()
    server._process.kill()
    with pytest.raises(flows.server.ServerError) as told:
        server.wait()
    assert str(told.value).startswith(
        "Prefect's private server was killed (SIGKILL); start one by `prefect server start`"
    )


def test_a_server_that_cannot_start_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch):
    import flows.server

    with closing(socket.socket(type=socket.SOCK_DGRAM)) as deaf:  # nobody can listen there
        deaf.bind(("127.0.0.1", 0))
        monkeypatch.setattr(flows.server, "_bound", deaf.dup)
        server = PrivateServer()
        with pytest.raises(flows.server.ServerError, match=r"ended with code .* PREFECT_API_URL"):
            server.wait()
    assert not server.home.exists()
