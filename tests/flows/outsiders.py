"""Metrics of a user's own that misbehave or wait, for runs in processes of their own."""

from __future__ import annotations

import os
import time
from pathlib import Path

PATIENCE = 240.0
MODULE = '''
import os
import pathlib
import signal
import time

from tasks import metric


def difference(logits, answers, reference=None):
    rows = range(len(logits))
    return logits[rows, answers.correct[:, 0]] - logits[rows, answers.incorrect[:, 0]]


@metric("hangs")
def hangs(logits, answers, reference=None):
    """Never ends; where HANGING names a file, by the run's clock it has hung for an hour."""
    if "HANGING" in os.environ:
        pathlib.Path(os.environ["HANGING"]).write_text(str(os.getpid()))
    time.sleep(10**6)


if "HANGING" in os.environ:
    from flows.worker import Worker

    real = Worker.seconds.fget

    def seconds(worker):
        hanging = pathlib.Path(os.environ["HANGING"])
        hangs = hanging.exists() and hanging.read_text() == str(worker.pid)
        return 3600.0 if hangs else real(worker)

    Worker.seconds = property(seconds)


@metric("breaks")
def breaks(logits, answers, reference=None):
    """Has a fault that nobody foresaw."""
    with open(os.environ["SHAKY_COUNT"], "a") as count:
        count.write("x")
    raise ZeroDivisionError("deep")


@metric("takes-memory")
def takes_memory(logits, answers, reference=None):
    """Has memory enough for one example at a time."""
    if len(logits) > 1:
        raise MemoryError
    return difference(logits, answers)


@metric("dies")
def dies(logits, answers, reference=None):
    """Is killed with more than one example at a time, as the system does where memory runs out."""
    if len(logits) > 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return difference(logits, answers)


@metric("meets")
def meets(logits, answers, reference=None):
    """Waits until two processes are at it, where MEETING names the folder in which they meet."""
    if "MEETING" in os.environ:
        meeting = pathlib.Path(os.environ["MEETING"])
        (meeting / str(os.getpid())).touch()
        deadline = time.monotonic() + 120
        while len(list(meeting.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    return difference(logits, answers)


@metric("held")
def held(logits, answers, reference=None):
    """Waits while `store` in the folder that HELD names has as many shards as `most` there says."""
    folder = pathlib.Path(os.environ.get("HELD", "/nowhere"))
    while (folder / "most").exists():
        most = int((folder / "most").read_text() or 0)
        if len(list(folder.glob("store/shards/??/[!.]*.json"))) < most:
            break
        (folder / f"held-{most}-{os.getpid()}").touch()
        time.sleep(0.01)
    return difference(logits, answers)
'''


class Held:
    """A run on `folder/store` whose shards with the metric `held` are done as far as it is told.

    So it is in the middle of one for as long as somebody needs to do something to it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store"
        self._most = 0
        self._own = _brought(folder / "brought") | {"HELD": str(folder)}

    @property
    def environment(self) -> dict[str, str]:
        """That of a run that is held."""
        return os.environ | self._own

    def go_on_until(self, n_shards: int) -> None:
        """Let it do so many shards in all, and stay in the middle of the next."""
        self._most = n_shards
        (self.folder / "most").write_text(str(n_shards))

    def go_on(self) -> None:
        """Hold it no more."""
        self.go_on_until(10**6)

    @property
    def processes(self) -> list[int]:
        """The processes that were found to be held since it was told how far to go."""
        return [int(one.name.split("-")[-1]) for one in self.folder.glob(f"held-{self._most}-*")]

    def wait(self, n_processes: int = 1) -> list[int]:
        """Wait until so many processes are held; which they are."""
        deadline = time.monotonic() + PATIENCE
        while len(found := self.processes) < n_processes:
            assert time.monotonic() < deadline, "nobody is in the middle of a shard"
            time.sleep(0.01)
        return found


def environment(folder: Path) -> dict[str, str]:
    """The environment of a process that finds these metrics; `folder/count` counts what breaks."""
    return os.environ | _brought(folder)


def _brought(folder: Path) -> dict[str, str]:
    """Write these metrics as a package; what in the environment leads to it."""
    about = folder / "shaky_metrics-1.dist-info"
    about.mkdir(parents=True)
    (folder / "shaky_metrics.py").write_text(MODULE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: shaky-metrics\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[circuit_grid.tasks]\nshaky = shaky_metrics\n")
    return {
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "SHAKY_COUNT": str(folder / "count"),
    }
