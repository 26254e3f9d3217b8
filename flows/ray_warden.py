"""Ends what a run's own Ray cluster leaves when the run is killed, and removes its directory.

Ray's main processes die with the one that started them; its agents wait for a minute, and nobody
removes the logs. This program, started beside a cluster, waits for the run to be gone.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

_SECONDS_TO_END = 30.0  # for what cannot be killed at once; a machine may be that busy


def watch(run: int, directory: Path) -> None:
    """Return once the directory is gone; if the run goes first, end what it has left there."""
    while os.getppid() == run:
        if not directory.exists():
            return
        time.sleep(0.5)
    deadline = time.monotonic() + _SECONDS_TO_END
    while (left := _users_of(directory)) and time.monotonic() < deadline:
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.1)
    shutil.rmtree(directory, ignore_errors=True)


def _users_of(directory: Path) -> list[int]:
    """The processes that have a file below a directory open; none where there is no /proc."""
    found = []
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with suppress(OSError):  # it has ended, or is another user's
            if any(os.readlink(one).startswith(f"{directory}/") for one in folder.iterdir()):
                found.append(int(folder.parent.name))
    return found


if __name__ == "__main__":
    watch(int(sys.argv[1]), Path(sys.argv[2]))
