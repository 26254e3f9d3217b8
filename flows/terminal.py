"""A run in the terminal: a live bar and what is being done now; sparse lines anywhere else."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
)
from rich.table import Column, Table
from rich.text import Text

from flows.patience import in_so_long
from flows.plan import Plan
from flows.progress import Underway, Watcher, whom
from flows.stages import Stage
from flows.walk import Turn
from flows.wrapping import counted, say, shortened

_SECONDS_BETWEEN_LINES = 15.0
_SECONDS_BETWEEN_FRAMES = 0.2
_MOST_TURNS_SHOWN = 6
AT_THE_END = "writing the leaderboard and drawings"


class _TimeLeft(ProgressColumn):
    """The time left, once enough is known to tell."""

    def __init__(self, watcher: Watcher) -> None:
        super().__init__()
        self.watcher = watcher

    def render(self, task: Task) -> Text:
        left = None if task.total is None else self.watcher.seconds_left
        return Text("" if left is None else f"{about(left)} left", no_wrap=True)


class _Clock(ProgressColumn):
    """The time since the command began."""

    def __init__(self, began: float) -> None:
        super().__init__()
        self.began = began

    def render(self, task: Task) -> Text:
        return Text(as_duration(time.monotonic() - self.began), "yellow", no_wrap=True)


class LiveWatcher(Watcher):
    """A bar with the time left, what is being done now, and a line for every turn worked on.

    Before there is work to show, and after it, a line says what takes its time. The clock counts
    from `began` (`time.monotonic()`), now unless given.
    """

    def __init__(self, console: Console, began: float | None = None) -> None:
        super().__init__()
        self.console = console
        clock = _Clock(time.monotonic() if began is None else began)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=16),
            TaskProgressColumn(),
            clock,
            _TimeLeft(self),
            console=console,
        )
        self._task = self._bar.add_task("", total=None)
        self._line = Progress(
            SpinnerColumn(), TextColumn("{task.description}"), clock, console=console
        )
        self._doing = self._line.add_task("looking at the store", total=None)
        self._live = Live(
            console=console, transient=True, auto_refresh=False, get_renderable=self._render
        )
        self._live.start()
        # Rich's own refreshing gets in the way of lines above that are printed meanwhile.
        self._drawing = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._refresh, daemon=True).start()

    def waiting(self, what: str) -> None:
        """Say it beside the bar."""
        self._bar.update(self._task, description=what)
        self._line.update(self._doing, description=what)

    def started(self, plan: Plan) -> None:
        """Fix the bar's length."""
        super().started(plan)
        self._move()

    def replanned(self, turn: Turn, plan: Plan) -> None:
        """Fix the bar's length anew."""
        super().replanned(turn, plan)
        self._move()

    def turn_started(self, turn: Turn) -> None:
        """Count it beside the bar."""
        super().turn_started(turn)
        self._move()

    def stage_retried(self, turn: Turn, stage: Stage, sentence: str, seconds: float) -> None:
        """Leave a line above the bar."""
        super().stage_retried(turn, stage, sentence, seconds)
        self._leave("↻", "yellow", retried(turn, stage, sentence, seconds))

    def stage_cut(self, turn: Turn, stage: Stage, most_examples: int) -> None:
        """Leave a line above the bar."""
        self._leave("½", "yellow", cut(turn, stage, most_examples))

    def turn_ended(self, turn: Turn) -> None:
        """Leave a line above the bar, unless all of it was there already."""
        was = self.of(turn)
        super().turn_ended(turn)
        self._move()
        if self.n_over == self.n_turns:
            self._line.update(self._doing, description=AT_THE_END)
        if was.was_there:
            return
        room = self.console.width - len(f"✓   {was.counted}") - 1
        line = Text.assemble(shortened(turn.label, room), "  ", (was.counted, "dim"))
        self._leave("✗" if was.sentence else "✓", "red" if was.sentence else "green", line)
        if was.sentence:
            self._leave(" ", "", Text(was.sentence, "red"))

    def _settled(self, turn: Turn, stage: Stage, how: str) -> None:
        super()._settled(turn, stage, how)
        self._move()

    def ended(self) -> None:
        """Say how many cells had nothing to be done."""
        if self.n_there:
            self._leave("✓", "green", were_there(self.n_there))

    def close(self) -> None:
        """Take the bar away; does nothing the second time."""
        with self._drawing:
            self._closed.set()
            self._live.stop()

    def _move(self) -> None:
        described = f"{self.n_over} of {self.n_turns}"
        total = self.total or None
        self._bar.update(self._task, description=described, completed=self.done, total=total)

    def _leave(self, mark: str, style: str, line: Text | str) -> None:
        with self._drawing:
            say(self._live.console, Text.assemble((mark, style), " ", line), indent=2)

    def _refresh(self) -> None:
        while not self._closed.wait(_SECONDS_BETWEEN_FRAMES):
            with self._drawing:
                if not self._closed.is_set():
                    self._live.refresh()

    def _render(self) -> RenderableType:
        """The bar, and below it what is being done now, turn by turn."""
        if not self.total or self.n_over == self.n_turns:
            return self._line.get_renderable()
        busy = [(turn, one) for turn, one in list(self.turns.items()) if one.is_busy]
        rows = Table.grid(padding=(0, 1))
        for justify in ("right", "left", "left"):
            rows.add_column(justify=justify, no_wrap=True, overflow="ellipsis")
        for turn, one in busy[:_MOST_TURNS_SHOWN]:
            n = f"{one.n_settled}/{one.n_stages}"
            rows.add_row(Text(f"  {n}", "dim"), Text(doing(one)), Text(turn.label, "dim"))
        if len(busy) > _MOST_TURNS_SHOWN:
            more = f"and {len(busy) - _MOST_TURNS_SHOWN} more at the same time"
            rows.add_row("", Text(more, "dim"), "")
        return Group(self._bar.get_renderable(), rows) if busy else self._bar.get_renderable()


class LineWatcher(Watcher):
    """A line for every turn that was worked on, and one now and then within long ones."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self._last = time.monotonic()

    def waiting(self, what: str) -> None:
        """Say it."""
        self._print(f"{what} …")

    def stage_started(self, turn: Turn, stage: Stage) -> None:
        """Say it if nothing was said for a while."""
        super().stage_started(turn, stage)
        if time.monotonic() - self._last > _SECONDS_BETWEEN_LINES:
            said = [f"{self._of(turn)}: {stage.label}"]
            said += [f"{100 * self.done / self.total:.0f} % of the work"] if self.total else []
            left = self.seconds_left
            said += [] if left is None else [f"{about(left)} left"]
            self._print(", ".join(said))

    def stage_retried(self, turn: Turn, stage: Stage, sentence: str, seconds: float) -> None:
        """Say it."""
        super().stage_retried(turn, stage, sentence, seconds)
        self._print(
            f"[{self.of(turn).number}/{self.n_turns}] {retried(turn, stage, sentence, seconds)}"
        )

    def stage_elsewhere(self, turn: Turn, stage: Stage, holder: str) -> None:
        """Say it."""
        super().stage_elsewhere(turn, stage, holder)
        self._print(f"{self._of(turn)}: {stage.label} is being done by {whom(holder)}")

    def stage_cut(self, turn: Turn, stage: Stage, most_examples: int) -> None:
        """Say it."""
        self._print(f"[{self.of(turn).number}/{self.n_turns}] {cut(turn, stage, most_examples)}")

    def turn_ended(self, turn: Turn) -> None:
        """Say what became of the turn, unless it was all there already."""
        was, name = self.of(turn), self._of(turn)
        super().turn_ended(turn)
        if was.sentence:
            self._print(f"{name}: FAILED: {was.sentence}")
        elif not was.was_there:
            self._print(f"{name}: {was.counted}")

    def ended(self) -> None:
        """Say how many cells had nothing to be done."""
        if self.n_there:
            self._print(were_there(self.n_there))

    def _of(self, turn: Turn) -> str:
        return f"[{self.of(turn).number}/{self.n_turns}] {turn.label}"

    def _print(self, line: str) -> None:
        self._last = time.monotonic()
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def retried(turn: Turn, stage: Stage, sentence: str, seconds: float) -> str:
    """That a stage will be tried again, for people."""
    return f"{turn.label}: {stage.label} failed, again {in_so_long(seconds)}: {sentence}"


def cut(turn: Turn, stage: Stage, most_examples: int) -> str:
    """That a stage ran out of memory, for people."""
    n = counted(most_examples, "example")
    return f"{turn.label}: {stage.label} ran out of memory, and fits with {n} at a time"


def doing(one: Underway) -> str:
    """What is being done of a turn now: `shard 3 of 8, shard 5 of 8 (by process 17)`."""
    here = [stage.label for stage, _ in list(one.running.values())]
    there = [f"{stage.label} (by {whom(holder)})" for stage, holder in list(one.elsewhere.values())]
    return ", ".join((*here, *there))


def were_there(n: int) -> str:
    """That nothing had to be done for so many cells, for people."""
    return "1 cell was there already" if n == 1 else f"{n} cells were there already"


def about(seconds: float) -> str:
    """A length of time that is an estimate, for people: `~0:01:23`, `<0:00:01`."""
    return "<0:00:01" if seconds < 1 else f"~{as_duration(seconds)}"


def as_duration(seconds: float) -> str:
    """A length of time for people: `0:01:23`, `2 days, 3:00:00`."""
    return str(timedelta(seconds=round(seconds)))
