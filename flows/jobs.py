"""The stages that are wanted and not finished: what is ready at each place, and what waits.

A stage that several turns want is one job. A job is ready, or being done (then it is known here
and nothing more), or put aside for a while; one that no turn wants any more is forgotten when its
time comes.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from flows.agenda import Open
from flows.identity import ModelIdentity
from flows.stages import Stage
from flows.walk import Turn

Kind = tuple[str, str]  # a stage's name and scope: stages alike, such as the shards of a method


@dataclass(eq=False)
class Job:
    """A stage that is wanted and not finished."""

    stage: Stage
    key: str
    place: str
    wanted_by: list[tuple[Open, int]] = field(default_factory=list)
    attempts: int = 0
    most_examples: int | None = None
    told: str = ""  # who is doing it, as people were told last
    stopped: bool = False  # it took too long

    @property
    def kind(self) -> Kind:
        """What it shares with stages like it."""
        return self.stage.name, self.stage.scope

    @property
    def wanting(self) -> list[Open]:
        """The open turns that wait for it."""
        return list(dict.fromkeys(one for one, _ in self.wanted_by if not one.over))

    @property
    def turns(self) -> list[Turn]:
        """The turns that wait for it."""
        return [one.turn for one in self.wanting]


_Heap = list[tuple[int, int, Job]]  # the turn's number, the order of coming, the job


class Jobs:
    """All jobs of a run, by the keys of their stages."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._ready: dict[str, dict[ModelIdentity | None, _Heap]] = {}  # by place and model
        self._aside: list[tuple[float, int, Job]] = []  # heap by when to look again
        self._troubled: dict[Kind, Job] = {}  # failed, and to be tried again before its like
        self._count = itertools.count()

    def __getitem__(self, key: str) -> Job:
        return self._jobs[key]

    def __contains__(self, job: object) -> bool:
        return isinstance(job, Job) and self._jobs.get(job.key) is job

    def want(self, one: Open, i: int, stage: Stage, place: str) -> None:
        """Note that a turn needs a stage for the place `i` of what it asked for."""
        key = stage.key
        assert key is not None, f"{stage.label} was reached before its inputs"
        one.waiting.add(key)
        job = self._jobs.get(key)
        is_new = job is None
        if job is None:
            job = self._jobs[key] = Job(stage, key, place)
        job.wanted_by.append((one, i))
        if is_new:
            self.make_ready(job)

    def forget(self, job: Job) -> None:
        """A job is finished, has failed, or is not wanted."""
        if job in self:
            del self._jobs[job.key]
        self.untrouble(job)

    def is_wanted(self, job: Job) -> bool:
        """Whether a turn still waits for a job; one that nobody wants is forgotten."""
        if job.turns:
            return True
        self.forget(job)
        return False

    # What is ready ----------------------------------------------------------------------------

    @property
    def places(self) -> tuple[str, ...]:
        """Where there was anything to do."""
        return tuple(self._ready)

    @property
    def is_any_ready(self) -> bool:
        """Whether a job waits for room at its place."""
        return any(any(heaps.values()) for heaps in self._ready.values())

    def n_ready(self, place: str) -> int:
        """How many jobs wait for room at a place."""
        return sum(map(len, self._ready.get(place, {}).values()))

    def models_ready(self, place: str) -> set[ModelIdentity | None]:
        """The models that the jobs run which wait for room at a place."""
        return {model for model, heap in self._ready[place].items() if heap}

    def make_ready(self, job: Job) -> None:
        """Have a job done when it is its turn: that of the first of its turns."""
        number = min(one.number for one in job.wanting)
        heaps = self._ready.setdefault(job.place, {})
        heapq.heappush(heaps.setdefault(job.stage.runs, []), (number, next(self._count), job))

    def next_ready(self, place: str, models: set[ModelIdentity | None]) -> Job | None:
        """Take the first job at a place that runs one of these models."""
        heaps = [heap for model, heap in self._ready[place].items() if heap and model in models]
        first = min(heaps, default=None, key=lambda heap: heap[0][:2])
        return None if first is None else heapq.heappop(first)[-1]

    # What waits -------------------------------------------------------------------------------

    @property
    def seconds_aside(self) -> float | None:
        """How long until a job is to be looked at again; None while none was put aside."""
        return max(0.0, self._aside[0][0] - time.monotonic()) if self._aside else None

    def put_aside(self, job: Job, seconds: float) -> None:
        """Leave a job alone for so long."""
        heapq.heappush(self._aside, (time.monotonic() + seconds, next(self._count), job))

    def due(self) -> Iterator[Job]:
        """Take the jobs whose time has come."""
        while self._aside and self._aside[0][0] <= time.monotonic():
            job = heapq.heappop(self._aside)[-1]
            if self.is_wanted(job):
                yield job

    def trouble(self, job: Job) -> None:
        """A job failed: those like it wait until it is tried again, as that may befall them."""
        self._troubled[job.kind] = job

    def untrouble(self, job: Job) -> None:
        """What is like a job need not wait for it."""
        if self._troubled.get(job.kind) is job:
            del self._troubled[job.kind]

    def follows_trouble(self, job: Job) -> bool:
        """Whether another job like it is to be tried again first."""
        return self._troubled.get(job.kind, job) is not job
