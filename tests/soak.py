"""A grid that is killed again and again, and the tables that it ends in: `make soak`.

The demo grid is run undisturbed, and once more in another store with a SIGKILL at 30 seeded random
moments: between artifacts, in the middle of writing one, while it starts, to the run itself or to a
worker of its. After each, what was finished must stand untouched, and in the end the tables must be
those of the undisturbed run, bit for bit.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

PATIENCE = 300.0
MOST_ARTIFACTS = 12  # that appear between a start and its kill


@dataclass
class Kills:
    """What became of a grid that was killed: how often, and what it had then."""

    kept: list[int] = field(default_factory=list)  # vouchers at each kill
    of_workers: int = 0


def start(grid: str | Path | None, store: Path) -> subprocess.Popen[str]:
    """A run of a grid (None: the demo) in a process of its own."""
    arguments = [] if grid is None else [str(grid)]
    command = [sys.executable, "-m", "flows.cli", "run", *arguments, "--store", str(store)]
    return subprocess.Popen(
        command,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        # what runs in the background inherits that Ctrl-C is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def vouchers(store: Path) -> dict[Path, tuple[int, int]]:
    """The finished artifacts: inode and time of the file that was written last."""
    found = {}
    for path in store.glob("*/??/[!.]*.json"):
        with suppress(FileNotFoundError):  # removed since it was listed
            about = path.stat()
            found[path] = (about.st_ino, about.st_mtime_ns)
    return found


def digests(store: Path) -> dict[tuple[str, str], str]:
    """The content digest of every artifact, by kind and key."""
    from data import TABLES, Store

    opened = Store.open(store, create=False)
    return {(kind, one.key): one.digest for kind in TABLES for one in opened.artifacts(kind)}


def kill_again_and_again(
    grid: str | Path | None, store: Path, n_kills: int, seed: int, of_workers: float = 0.2
) -> Kills:
    """Start a grid and kill it at seeded moments, so often or until it ends by itself.

    AssertionError where something that was finished is not there any more, or was made again.
    """
    moments, kills = random.Random(seed), Kills()
    before: Mapping[Path, tuple[int, int]] = {}
    while len(kills.kept) < n_kills:
        process = start(grid, store)
        if moments.random() < 0.15:  # while it starts
            time.sleep(moments.uniform(0.0, 4.0))
        else:
            _wait_for(process, store, len(before) + moments.randint(1, MOST_ARTIFACTS))
            time.sleep(moments.uniform(0.0, 0.05))
        if process.poll() is not None:
            break
        workers = workers_of(process.pid)
        if workers and moments.random() < of_workers:  # the run survives that, and is killed next
            with suppress(psutil.NoSuchProcess):  # it was over
                moments.choice(workers).kill()
                kills.of_workers += 1
            time.sleep(moments.uniform(0.0, 2.0))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=PATIENCE)
        now = vouchers(store)
        assert {path: now.get(path) for path in before} == before, "something finished was lost"
        before = now
        kills.kept.append(len(now))
    return kills


def workers_of(pid: int) -> list[psutil.Process]:
    """The worker processes of a run that live."""
    found = []
    with suppress(psutil.NoSuchProcess):  # the run is over
        for one in psutil.Process(pid).children():
            with suppress(psutil.NoSuchProcess):  # or it is
                if "flows.worker" in one.cmdline():
                    found.append(one)
    return found


def finish(grid: str | Path | None, store: Path) -> str:
    """Run a grid to its end; what it printed."""
    before = vouchers(store)
    process = start(grid, store)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said
    now = vouchers(store)
    assert {path: now.get(path) for path in before} == before, "something finished was made again"
    return said


def _wait_for(process: subprocess.Popen[str], store: Path, n_artifacts: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and len(vouchers(store)) < n_artifacts:
        assert time.monotonic() < deadline, "the run makes no progress"
        time.sleep(0.003)


def main(n_kills: int = 30, seed: int = 0) -> None:
    """Kill the demo grid, and say what came of it."""
    from flows.server import PrivateServer

    server = PrivateServer()
    server.wait()
    os.environ |= {"PREFECT_API_URL": server.api_url, "PREFECT_LOGGING_TO_API_ENABLED": "false"}
    try:
        with tempfile.TemporaryDirectory() as folder:
            undisturbed, disturbed = Path(folder) / "undisturbed", Path(folder) / "disturbed"
            began = time.monotonic()
            finish(None, undisturbed)
            whole = time.monotonic() - began
            n_artifacts = len(vouchers(undisturbed))
            print(f"undisturbed: {n_artifacts} artifacts in {whole:.1f} s", flush=True)
            began = time.monotonic()
            kills = kill_again_and_again(None, disturbed, n_kills, seed)
            finish(None, disturbed)
            seconds = time.monotonic() - began
            print(f"killed {len(kills.kept)} times ({kills.of_workers} with a worker before)")
            print(f"artifacts at each kill: {' '.join(map(str, kills.kept))}")
            same = digests(undisturbed) == digests(disturbed)
            print(f"{seconds:.1f} s; tables bit for bit the same: {same}")
            assert len(kills.kept) == n_kills, "it ended before it was killed so often"
            assert same
    finally:
        server.stop()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
