"""Metrics of a user's own that misbehave or wait, for runs in processes of their own."""

from __future__ import annotations

import os
from pathlib import Path

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
    """Never ends."""
    time.sleep(10**6)


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
'''


def environment(folder: Path) -> dict[str, str]:
    """The environment of a process that finds these metrics; `folder/count` counts what breaks."""
    about = folder / "shaky_metrics-1.dist-info"
    about.mkdir(parents=True)
    (folder / "shaky_metrics.py").write_text(MODULE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: shaky-metrics\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[circuit_grid.tasks]\nshaky = shaky_metrics\n")
    return os.environ | {
        "PYTHONPATH": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
        "SHAKY_COUNT": str(folder / "count"),
    }
