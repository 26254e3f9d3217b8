"""What a run does, kept count of: what people see of it is made from this.

A `Watcher` is told what happens; several turns may be under way at once, and each has its own
counts: a stage that this run did for another turn is *shared*, and *reused* is only what the store
had otherwise. Over all turns each stage counts once. Work is counted, not stages: a shard of five
steps weighs five times one of one step, one of many single runs by their number. The time left
comes from recorded timings of like stages (`flows/estimates.py`), from what this run measures
itself, and from how many stages are done at a time. Once a model is described, the plan is made
again: some work is cut by its edges.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from dataclasses import dataclass, field

from flows.config import Cell
from flows.estimates import Estimates, Work
from flows.plan import Plan
from flows.stages import Stage
from flows.walk import Turn

_SECONDS_BETWEEN_SUMS = 5.0  # of all that is left; between them, what is done is taken off
_SECONDS_ALONE = 5.0  # for which one stage at a time is assumed, until it is known how many

_Name = tuple[str, str]  # of a stage: its name and its key; its place while that is not known


@dataclass
class Underway:
    """A turn that is under way: what became of its stages, and which are being done now."""

    number: int
    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0  # that its own stages took, added up
    sentence: str = ""  # why it failed
    waited: bool = False  # for what another process did
    settled: set[_Name] = field(default_factory=set)
    left: dict[str, Stage] = field(default_factory=dict)  # by place
    running: dict[str, tuple[Stage, float]] = field(default_factory=dict)  # and since when
    elsewhere: dict[str, tuple[Stage, str]] = field(default_factory=dict)  # and who does it

    @property
    def counted(self) -> str:
        """What became of its stages, and their time: `9 computed, 4 shared, 1.2 s`."""
        kinds = ("computed", "shared", "reused", "failed")
        said = [f"{self.counts[kind]} {kind}" for kind in kinds if self.counts[kind]]
        return ", ".join((*said, *([f"{self.seconds:.1f} s"] if self.seconds >= 0.05 else [])))

    @property
    def was_there(self) -> bool:
        """Whether this run had nothing to do for it."""
        return not self.sentence and set(+self.counts) <= {"reused"}

    @property
    def is_busy(self) -> bool:
        """Whether any of its stages is being done, here or elsewhere."""
        return bool(self.running or self.elsewhere)

    @property
    def n_settled(self) -> int:
        """How many of its stages are over."""
        return sum(self.counts.values())

    @property
    def n_stages(self) -> int:
        """How many stages it has, as far as is known."""
        return self.n_settled + len(self.left)


class Watcher:
    """Is told what a run does; this one keeps count and says nothing."""

    plan: Plan

    def __init__(self) -> None:
        self.estimates = Estimates()
        self.n_turns = 0
        self.total = self.done = 0.0  # work
        self.turns: dict[Turn, Underway] = {}
        self.n_there = 0  # cells of which nothing was to be done
        self._ways: dict[_Name, str] = {}  # what became of stages
        self._over: set[Turn] = set()
        self._left: dict[str, Work] = {}  # by place; of places with one key, the first alone
        self._wanted: Counter[str] = Counter()  # by how many turns
        self._same: dict[str, str] = {}  # the first place of those with one key
        self._failed: set[str] = set()
        self._seconds_left = 0.0
        self._is_near = False
        self._summed = float("-inf")
        self._n_running = 0
        self._changed = self._began = time.monotonic()
        self._busy = 0.0  # seconds of stages, added up

    def waiting(self, what: str) -> None:
        """Something that is no stage takes its time."""

    def timed(self, estimates: Estimates) -> None:
        """So much is known of how long stages take."""
        self.estimates = Estimates(before=estimates)

    def started(self, plan: Plan) -> None:
        """The run begins, with this much missing."""
        self._began = self._changed = time.monotonic()
        self.n_turns = len(plan.missing)
        self._expect(plan)
        self.total = _weight_of(self._left)

    def replanned(self, turn: Turn, plan: Plan) -> None:
        """More is known of what is left, in the middle of a turn."""
        self._expect(plan)
        self.total = self.done + _weight_of(self._left)
        for one, underway in self.turns.items():
            underway.left = self._missing_of(one)

    def turn_started(self, turn: Turn) -> None:
        """A turn of the grid begins, perhaps anew: a cell, or what needs several."""
        before = self.of(turn)
        for stage, _ in list(before.running.values()):
            self._stops(before, stage)
        number = len(self._over | {*self.turns, turn})
        self.turns[turn] = Underway(number, left=self._missing_of(turn))

    def stage_started(self, turn: Turn, stage: Stage) -> None:
        """A stage is being done."""
        underway = self.of(turn)
        underway.elsewhere.pop(stage.place, None)
        underway.running[stage.place] = (stage, time.monotonic())
        self._run(+1)

    def stage_reused(self, turn: Turn, stage: Stage) -> None:
        """A stage was finished already, perhaps by this run."""
        mine = self._ways.get(_name(stage)) == "computed" or any(
            _name(stage) == _name(other)
            for one, underway in self.turns.items()
            for other, _ in underway.running.values()
            if one != turn
        )
        self._settled(turn, stage, "shared" if mine else "reused")

    def stage_computed(self, turn: Turn, stage: Stage) -> None:
        """A stage was done."""
        running = self.of(turn).running.get(stage.place)
        if running is not None:
            self.estimates.learn(Work.of(stage), time.monotonic() - running[1])
        self._settled(turn, stage, "computed")

    def stage_failed(self, turn: Turn, stage: Stage) -> None:
        """A stage failed; its turn will, too."""
        self._failed.add(stage.place)
        self._settled(turn, stage, "failed")

    def stage_retried(self, turn: Turn, stage: Stage, sentence: str, seconds: float) -> None:
        """A stage failed, for this reason, and will be tried again in so many seconds."""
        self._stops(self.of(turn), stage)

    def stage_elsewhere(self, turn: Turn, stage: Stage, holder: str) -> None:
        """Another process, `host:pid`, is doing a stage."""
        underway = self.of(turn)
        self._stops(underway, stage)
        underway.elsewhere[stage.place] = (stage, holder)
        underway.waited = True

    def stage_cut(self, turn: Turn, stage: Stage, most_examples: int) -> None:
        """A stage ran out of memory, and fits with so many examples at a time."""

    def turn_failed(self, turn: Turn, stage: str, sentence: str) -> None:
        """A turn cannot be finished."""
        self.of(turn).sentence = sentence

    def turn_ended(self, turn: Turn) -> None:
        """A turn is finished, or has failed."""
        underway = self.of(turn)
        for stage, _ in list(underway.running.values()):
            self._stops(underway, stage)
        self.turns.pop(turn, None)
        if turn in self._over:  # it was walked once more, for what was lost
            return
        self.n_there += isinstance(turn, Cell) and underway.was_there and not underway.waited
        for stage in self.plan.missing[turn]:
            place = self._place(stage)
            self._wanted[place] -= 1
            if not self._wanted[place]:
                self._take_off(place)
        self._over.add(turn)

    def ended(self) -> None:
        """Everything had its turn."""

    def close(self) -> None:
        """Leave the terminal as it was; also after an interruption."""

    @property
    def n_over(self) -> int:
        """How many turns are finished or have failed."""
        return len(self._over)

    def of(self, turn: Turn) -> Underway:
        """How a turn stands; of one that is over, nothing is remembered."""
        return self.turns.get(turn) or Underway(0)

    def count(self, how: str) -> int:
        """How many stages were computed or reused or have failed, each counted once."""
        return sum(one == how for one in self._ways.values())

    @property
    def seconds_left(self) -> float | None:
        """About how long the rest takes; None while too little is known to say."""
        now = time.monotonic()
        if now - self._summed > _SECONDS_BETWEEN_SUMS:
            total = self.estimates.total(list(self._left.values()))
            self._seconds_left, self._is_near, self._summed = total.seconds, total.is_near, now
        if not self._is_near:
            return None
        underway = (
            max(0.0, min(now - since, self._seconds_of(stage)))
            for one in list(self.turns.values())
            for stage, since in list(one.running.values())
        )
        return max(0.0, self._seconds_left - sum(underway)) / self._at_a_time(now)

    def _at_a_time(self, now: float) -> float:
        """How many stages were done at a time so far; with what comes between them, less than 1."""
        busy = self._busy + self._n_running * (now - self._changed)
        return (busy + _SECONDS_ALONE) / (now - self._began + _SECONDS_ALONE)

    def _seconds_of(self, stage: Stage) -> float:
        found = self.estimates.of(Work.of(stage))
        return 0.0 if found is None else found.seconds

    def _expect(self, plan: Plan) -> None:
        """What is missing now, each stage once, of the turns that are not over."""
        self.plan = plan
        self._left, self._wanted, self._same = {}, Counter(), {}
        places: dict[str, str] = {}  # by key, where it is known
        for turn, stages in plan.missing.items():
            if turn in self._over:
                continue
            for stage in stages:
                place = (
                    stage.place if stage.key is None else places.setdefault(stage.key, stage.place)
                )
                self._same[stage.place] = place
                self._wanted[place] += 1
                if place not in self._failed and place not in self._left:
                    self._left[place] = Work.of(stage)
        self._summed = float("-inf")

    def _missing_of(self, turn: Turn) -> dict[str, Stage]:
        return {stage.place: stage for stage in self.plan.missing[turn]}

    def _place(self, stage: Stage) -> str:
        return self._same.get(stage.place, stage.place)

    def _settled(self, turn: Turn, stage: Stage, how: str) -> None:
        underway = self.of(turn)
        self._stops(underway, stage)
        underway.counts[how] += _name(stage) not in underway.settled
        underway.settled.add(_name(stage))
        if how == "reused":
            self._ways.setdefault(_name(stage), how)
        elif how != "shared":
            self._ways[_name(stage)] = how
        underway.left.pop(stage.place, None)
        self._take_off(self._place(stage))

    def _stops(self, underway: Underway, stage: Stage) -> None:
        """A stage is no longer being done, here or elsewhere."""
        underway.elsewhere.pop(stage.place, None)
        running = underway.running.pop(stage.place, None)
        if running is not None:
            underway.seconds += time.monotonic() - running[1]
            self._run(-1)

    def _run(self, change: int) -> None:
        now = time.monotonic()
        self._busy += self._n_running * (now - self._changed)
        self._changed = now
        self._n_running += change

    def _take_off(self, place: str) -> None:
        """A stage needs no more work."""
        work = self._left.pop(place, None)
        if work is not None:
            self.done += work.weight
            found = self.estimates.of(work)
            self._seconds_left -= 0.0 if found is None else found.seconds


def _name(stage: Stage) -> _Name:
    return stage.name, stage.key or stage.place


def whom(holder: str) -> str:
    """A process for people, of `host:pid`: `process 17`, and the host where it is another."""
    host, found, pid = holder.rpartition(":")
    if not found:
        return holder
    return f"process {pid}" if host == socket.gethostname() else f"process {pid} on {host}"


def _weight_of(works: dict[str, Work]) -> float:
    return sum(work.weight for work in works.values())
