"""The log of a run: a line for what happens, with its time, level, grid, cell and stage.

    2026-11-23T17:40:00.123Z INFO    small | speaker · ioi · EAP | shard 2 of 3 | computed, 0.8 s

Each run that does anything writes a file of its own, `<folder>/<grid>/<time>-<pid>.log`; the latest
of a grid are kept. On a server that somebody keeps the same lines are in the flow run's own log.
Whoever has something to say of a run says it to the logger `circuit-grid`; cell and stage are given
as `extra`, where there are any. Stages that were there already are counted, not listed.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from flows.patience import in_so_long
from flows.plan import Plan
from flows.progress import Watcher, whom
from flows.stages import Stage
from flows.walk import Turn
from flows.wrapping import counted

LOGGER = logging.getLogger("circuit-grid")
KEPT = 50  # files of a grid

_LINE = "%(grid)s | %(cell)s | %(stage)s | %(message)s"
_IN_FILES = f"%(asctime)s %(levelname)-7s {_LINE}"


class LogWatcher(Watcher):
    """Writes what happens to a file and, with `to_server`, to the log of the Prefect flow run.

    `tell` is told in a sentence if the file cannot be written; the run goes on without it.
    """

    def __init__(
        self,
        grid: str,
        folder: Path,
        to_server: bool = False,
        tell: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        super().__init__()
        self.grid = grid
        self._file = _File(folder / grid, tell)
        unsaid = {"grid": grid, "cell": "-", "stage": "-"}
        self._file.setFormatter(_Form(_IN_FILES, defaults=unsaid))
        self._handlers: list[logging.Handler] = [self._file]
        if to_server:
            self._handlers.append(_Server())
            self._handlers[-1].setFormatter(logging.Formatter(_LINE, defaults=unsaid))
        for handler in self._handlers:
            LOGGER.addHandler(handler)
        LOGGER.setLevel(logging.INFO)
        LOGGER.propagate = False

    @property
    def path(self) -> Path:
        """The file, which is there once something was written."""
        return self._file.path

    def started(self, plan: Plan) -> None:
        """The run begins."""
        super().started(plan)
        if not plan.done:
            n, total = len(self._left), len(plan.stages)
            waits = any(stage.key is None for stage in plan.stages)
            known = ", as far as is known yet" if waits else ""
            LOGGER.info("run started: %d of %d stages are missing%s", n, total, known)

    def stage_started(self, turn: Turn, stage: Stage) -> None:
        """A stage is being done."""
        super().stage_started(turn, stage)
        self._say(logging.INFO, turn, stage.label, "started")

    def stage_computed(self, turn: Turn, stage: Stage) -> None:
        """A stage was done, in so many seconds."""
        running = self.of(turn).running.get(stage.place)
        super().stage_computed(turn, stage)
        took = "" if running is None else f", {time.monotonic() - running[1]:.1f} s"
        self._say(logging.INFO, turn, stage.label, f"computed{took}")

    def stage_failed(self, turn: Turn, stage: Stage) -> None:
        """A stage failed; why is said of its turn."""
        super().stage_failed(turn, stage)
        self._say(logging.ERROR, turn, stage.label, "failed")

    def stage_retried(self, turn: Turn, stage: Stage, sentence: str, seconds: float) -> None:
        """A stage will be tried again."""
        super().stage_retried(turn, stage, sentence, seconds)
        self._say(logging.WARNING, turn, stage.label, f"again {in_so_long(seconds)}: {sentence}")

    def stage_elsewhere(self, turn: Turn, stage: Stage, holder: str) -> None:
        """Another process is doing a stage."""
        super().stage_elsewhere(turn, stage, holder)
        self._say(logging.INFO, turn, stage.label, f"being done by {whom(holder)}")

    def stage_cut(self, turn: Turn, stage: Stage, most_examples: int) -> None:
        """A stage fits with fewer examples at a time."""
        super().stage_cut(turn, stage, most_examples)
        what = f"ran out of memory, fits with {counted(most_examples, 'example')} at a time"
        self._say(logging.WARNING, turn, stage.label, what)

    def turn_failed(self, turn: Turn, stage: str, sentence: str) -> None:
        """A turn cannot be finished."""
        super().turn_failed(turn, stage, sentence)
        self._say(logging.ERROR, turn, stage, sentence)

    def turn_ended(self, turn: Turn) -> None:
        """A turn is over: what became of its stages, unless all of it was there already."""
        was = self.of(turn)
        super().turn_ended(turn)
        if not was.was_there:
            self._say(logging.INFO, turn, "-", f"ended: {was.counted or 'nothing was done'}")

    def ended(self) -> None:
        """Everything had its turn."""
        super().ended()
        counts = {how: self.count(how) for how in ("computed", "reused", "failed")}
        if counts["computed"] or counts["failed"]:
            LOGGER.info("run ended: %s", ", ".join(f"{n} {how}" for how, n in counts.items()))

    def close(self) -> None:
        """Close the file; does nothing the second time."""
        super().close()
        for handler in self._handlers:
            LOGGER.removeHandler(handler)
            handler.close()

    def _say(self, level: int, turn: Turn, stage: str, message: str) -> None:
        LOGGER.log(level, message, extra={"grid": self.grid, "cell": turn.label, "stage": stage})


class _Form(logging.Formatter):
    """A line a record, its time in UTC to the millisecond."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        when = datetime.fromtimestamp(record.created, UTC)
        return f"{when:%Y-%m-%dT%H:%M:%S}.{when.microsecond // 1000:03}Z"


class _File(logging.Handler):
    """A file that is made with its first line; if it cannot be written, that is told once."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        super().__init__()
        self.path = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.log"
        self._tell = tell
        self._stream: TextIO | None = None
        self._lost = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, and hand it to the system at once."""
        if self._lost:
            return
        try:
            if self._stream is None:
                self._stream = self._open()
            self._stream.write(self.format(record).replace("\n", " / ") + "\n")
            self._stream.flush()
        except OSError as error:
            self._lost = True
            self._tell(f"the log {self.path} cannot be written: {error.strerror or error}")

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):  # what a full disk did not take is lost, and was told
            if self._stream is not None:
                self._stream.close()
        super().close()

    def _open(self) -> TextIO:
        """A new file; of the others the latest are kept."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for old in sorted(self.path.parent.glob("*.log"))[: -(KEPT - 1)]:
            old.unlink(missing_ok=True)
        return self.path.open("a", encoding="utf-8")


class _Server(logging.Handler):
    """The log of the flow run that is under way, on the server; of none, nothing is said."""

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a line to Prefect, which sends it in the background."""
        from prefect.exceptions import MissingContextError
        from prefect.logging import get_run_logger

        with suppress(MissingContextError):
            get_run_logger().log(record.levelno, self.format(record))
