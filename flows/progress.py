"""What people see while a grid runs: a live bar in a terminal, sparse lines anywhere else.

A `Watcher` is told what happens. The bar counts work, not stages: a shard of five steps weighs five
times one of one step, one of many single runs by their number, and the time left follows from the
work done so far. Once a model is described, the plan is made again: some work is cut by its edges.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import timedelta

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

from flows.plan import Plan
from flows.stages import EvaluationStage, MinimalityStage, ShardStage, StabilityStage, Stage
from flows.walk import Turn

_SECONDS_BETWEEN_LINES = 15.0
_WIDTH_OF_THE_REST = 52  # of the bar's line, and room for a ^C, which would break a full line


class Watcher:
    """Is told what a run does; this one keeps count and says nothing."""

    def waiting(self, what: str) -> None:
        """Something that is no stage takes its time."""

    def started(self, plan: Plan) -> None:
        """The run begins, with this much missing."""
        self.plan = plan
        self.n_turns = len(plan.missing)
        self.turn_number = 0
        self.total = sum(weight(s) for missing in plan.missing.values() for s in missing)
        self.done = 0.0
        self._turns: set[Turn] = set()  # those that are over

    def replanned(self, turn: Turn, plan: Plan) -> None:
        """More is known of what is left, in the middle of a turn."""
        self.plan = plan
        left = {one: stages for one, stages in plan.missing.items() if one not in self._turns}
        self.total = self.done + sum(weight(s) for stages in left.values() for s in stages)
        self._expect(turn)

    def turn_started(self, turn: Turn) -> None:
        """A turn of the grid begins: a cell, or what needs several."""
        self.turn_number += 1
        self.counts: Counter[str] = Counter()
        self.sentence = ""
        self._began = time.monotonic()
        self._expect(turn)

    def stage_started(self, turn: Turn, stage: Stage) -> None:
        """A stage is being done."""

    def stage_reused(self, turn: Turn, stage: Stage) -> None:
        """A stage was finished already."""
        self._settled(stage, "reused")

    def stage_computed(self, turn: Turn, stage: Stage) -> None:
        """A stage was done."""
        self._settled(stage, "computed")

    def stage_failed(self, turn: Turn, stage: Stage) -> None:
        """A stage failed; its turn will, too."""
        self._settled(stage, "failed")

    def turn_failed(self, turn: Turn, stage: str, sentence: str) -> None:
        """A turn cannot be finished."""
        self.sentence = sentence

    def turn_ended(self, turn: Turn) -> None:
        """A turn is finished, or has failed."""
        self.done += self._left
        self._turns.add(turn)

    def ended(self) -> None:
        """Everything had its turn."""

    def close(self) -> None:
        """Leave the terminal as it was; also after an interruption."""

    @property
    def seconds(self) -> float:
        """How long the present turn has taken."""
        return time.monotonic() - self._began

    @property
    def counted(self) -> str:
        """What became of the present turn's stages, such as `9 computed, 4 reused`."""
        kinds = ("computed", "reused", "failed")
        return ", ".join(f"{self.counts[kind]} {kind}" for kind in kinds if self.counts[kind])

    def _expect(self, turn: Turn) -> None:
        self._open = Counter(_name(stage) for stage in self.plan.missing[turn])
        self._left = sum(weight(stage) for stage in self.plan.missing[turn])

    def _settled(self, stage: Stage, how: str) -> None:
        self.counts[how] += 1
        if self._open[_name(stage)] > 0:
            self._open[_name(stage)] -= 1
            self.done += weight(stage)
            self._left -= weight(stage)


class _TimeLeft(ProgressColumn):
    """The time left, once enough is done to tell."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        left = task.time_remaining
        return Text("" if left is None else f"~{timedelta(seconds=round(left))} left", no_wrap=True)


class LiveWatcher(Watcher):
    """A bar with the time left, and a line for every turn that was worked on."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=16),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            _TimeLeft(),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("looking at the store", total=None)
        self._bar.start()

    def waiting(self, what: str) -> None:
        """Say it beside the bar."""
        self._bar.update(self._task, description=what)

    def started(self, plan: Plan) -> None:
        """Fix the bar's length."""
        super().started(plan)
        self._bar.reset(self._task, total=self.total or None, description="")

    def replanned(self, turn: Turn, plan: Plan) -> None:
        """Fix the bar's length anew."""
        super().replanned(turn, plan)
        self._bar.update(self._task, total=self.total or None)

    def stage_started(self, turn: Turn, stage: Stage) -> None:
        """Name turn and stage beside the bar."""
        what = Text(f"{self.turn_number}/{self.n_turns} {turn.label} · {stage.label}")
        what.truncate(max(20, self.console.width - _WIDTH_OF_THE_REST), overflow="ellipsis")
        self._bar.update(self._task, description=escape(what.plain))

    def turn_ended(self, turn: Turn) -> None:
        """Leave a line above the bar, unless all of it was there already."""
        super().turn_ended(turn)
        self._bar.update(self._task, completed=self.done)
        line = f"{escape(turn.label)}  [dim]{self.counted}, {self.seconds:.1f} s[/]"
        if self.sentence:
            self._bar.console.print(f"[red]✗[/] {line}")
            self._bar.console.print(f"  [red]{escape(self.sentence)}[/]", highlight=False)
        elif self.counts["computed"]:
            self._bar.console.print(f"[green]✓[/] {line}", highlight=False)

    def _settled(self, stage: Stage, how: str) -> None:
        super()._settled(stage, how)
        self._bar.update(self._task, completed=self.done)

    def ended(self) -> None:
        """Take the bar away."""
        self.close()

    def close(self) -> None:
        """Take the bar away; does nothing the second time."""
        self._bar.stop()


class LineWatcher(Watcher):
    """A line for every cell that was worked on, and one now and then within long ones."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._last = time.monotonic()

    def waiting(self, what: str) -> None:
        """Say it."""
        self._print(f"{what} …")

    def stage_started(self, turn: Turn, stage: Stage) -> None:
        """Say it if nothing was said for a while."""
        if time.monotonic() - self._last > _SECONDS_BETWEEN_LINES:
            share = f"{100 * self.done / self.total:.0f} % of the work" if self.total else ""
            self._print(f"[{self.turn_number}/{self.n_turns}] {turn.label}: {stage.label}, {share}")

    def turn_ended(self, turn: Turn) -> None:
        """Say what became of the turn, unless it was all there already."""
        super().turn_ended(turn)
        if self.sentence or self.counts["computed"]:
            what = f"FAILED: {self.sentence}" if self.sentence else self.counted
            number = f"[{self.turn_number}/{self.n_turns}]"
            self._print(f"{number} {turn.label}: {what} ({self.seconds:.1f} s)")

    def _print(self, line: str) -> None:
        self._last = time.monotonic()
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def weight(stage: Stage) -> float:
    """How much work a stage is, next to a shard of one gradient."""
    match stage:
        case ShardStage():
            return stage.passes
        case StabilityStage():
            return stage.passes
        case EvaluationStage():
            return 3.0
        case MinimalityStage():
            return 0.2 * stage.most_units
    return 0.2


def _name(stage: Stage) -> tuple[str, str, str]:
    return (stage.name, stage.scope, stage.label)
