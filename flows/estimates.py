"""How long stages take and how much memory, judged by the stages like them that were timed before.

Every artifact says how long its stage took and what it held at most. A stage is judged by the
nearest of these: of the same cell; else of the same model and method, on another task; of the same
model; of the same method; of the same name; and at last by all there are, whatever they did. Within
each of these, those of about its weight go before others, whose seconds are taken to grow with the
weight. The middle one decides, so that one slow start changes nothing. Where nothing was ever
timed, nothing is known.
"""

from __future__ import annotations

import json
import math
import platform
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from data import TABLES, Store
from data.index import Provenance
from flows.stages import EvaluationStage, MinimalityStage, ShardStage, StabilityStage, Stage

_SURE = 3  # timings of a run after which those of others no longer count
_BETWEEN_PARTS = " · "

# How near what was timed is to what is asked, nearest first.
LIKENESSES = (
    "this cell",
    "this model and method",
    "this model",
    "this method",
    "stages of that name",
    "other stages",
)
_OF_THAT_NAME = LIKENESSES.index("stages of that name")

_Key = tuple[object, ...]


@dataclass(frozen=True)
class Work:
    """A stage as estimates see it: its name, what it is done for, its weight and its device."""

    stage: str
    cell: str
    weight: float
    device: str | None = None  # its kind: cpu, cuda, mps; None: none, or not known

    @classmethod
    def of(cls, stage: Stage) -> Work:
        """The work of a stage."""
        device = None if stage.runs is None else kind_of_device(stage.runs.device)
        return cls(stage.name, stage.scope, weight(stage), device)


@dataclass(frozen=True)
class Timing:
    """A stage that was done, with its seconds and peak memory (bytes) where these are known."""

    stage: str
    cell: str
    weight: float | None  # None: no grid has noted it
    seconds: float | None
    peak_bytes: int | None = None
    device: str | None = None


@dataclass(frozen=True)
class Estimate:
    """What a stage takes, in seconds, and how near it is to what this rests on (LIKENESSES)."""

    seconds: float
    likeness: int

    @property
    def is_near(self) -> bool:
        """Whether it rests on stages of the same name at least."""
        return self.likeness <= _OF_THAT_NAME


@dataclass(frozen=True)
class Total:
    """The seconds of stages one after another, and how many of them rest on what.

    `unknown` is how many are in no such sum, because nothing was ever timed.
    """

    seconds: float
    by_likeness: Counter[int]
    unknown: int

    @property
    def is_near(self) -> bool:
        """Whether most stages rest on others of the same name at least."""
        n_near = sum(n for likeness, n in self.by_likeness.items() if likeness <= _OF_THAT_NAME)
        return 2 * n_near >= sum(self.by_likeness.values()) + self.unknown


@dataclass
class _Group:
    """The timings of stages that are alike."""

    rates: list[float] = field(default_factory=list)  # seconds a unit of weight
    unweighted: list[float] = field(default_factory=list)  # seconds where no weight is known
    peak_bytes: int | None = None
    _middle: tuple[float | None, float | None] | None = None

    def add(self, timings: Iterable[Timing]) -> None:
        """Take recorded timings in."""
        for timing in timings:
            if timing.seconds is not None and timing.weight is None:
                self.unweighted.append(timing.seconds)
            elif timing.seconds is not None and timing.weight is not None:
                self.rates.append(timing.seconds / _positive(timing.weight))
            self.peak_bytes = _greater(self.peak_bytes, timing.peak_bytes)

    def join(self, other: _Group) -> None:
        """Take all that another has in."""
        self.rates += other.rates
        self.unweighted += other.unweighted
        self.peak_bytes = _greater(self.peak_bytes, other.peak_bytes)

    def learn(self, rate: float) -> None:
        """Take one more rate in."""
        self.rates.append(rate)
        self._middle = None

    def seconds(self, weight: float) -> float | None:
        """What a stage of this weight takes; None where no time is known."""
        if self._middle is None:
            self._middle = (
                median(self.rates) if self.rates else None,
                median(self.unweighted) if self.unweighted else None,
            )
        rate, seconds = self._middle
        return seconds if rate is None else rate * _positive(weight)


class Estimates:
    """What recorded timings say of stages to come; `learn` adds what a run sees itself.

    What was recorded `before` counts where this has few timings of its own.
    """

    def __init__(self, timings: Iterable[Timing] = (), before: Estimates | None = None) -> None:
        self._groups: dict[_Key, _Group] = {}
        self._before = before
        alike: dict[Work, list[Timing]] = {}
        for timing in timings:
            known = math.nan if timing.weight is None else timing.weight
            work = Work(timing.stage, timing.cell, known, timing.device)
            alike.setdefault(work, []).append(timing)
        for work, those in alike.items():
            group = _Group()
            group.add(those)
            for key in _all_keys(work):
                self._groups.setdefault(key, _Group()).join(group)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever timed."""
        return not self._groups and (self._before is None or self._before.is_empty)

    def learn(self, work: Work, seconds: float) -> None:
        """Note what a stage of this run took."""
        for key in _all_keys(work):
            self._groups.setdefault(key, _Group()).learn(seconds / _positive(work.weight))

    def of(self, work: Work) -> Estimate | None:
        """What a stage will take; None where nothing was ever timed."""
        for likeness, key in _nearest_first(work):
            seconds = self._seconds(key, work.weight)
            if seconds is not None:
                return Estimate(seconds, likeness)
        return None

    def total(self, works: Iterable[Work]) -> Total:
        """What stages take one after another."""
        counts: Counter[int] = Counter()
        seconds = 0.0
        unknown = 0
        for work, n in Counter(works).items():
            found = self.of(work)
            if found is None:
                unknown += n
                continue
            counts[found.likeness] += n
            seconds += n * found.seconds
        return Total(seconds, counts, unknown)

    def peak_bytes(self, work: Work) -> int | None:
        """The most memory that the nearest stages took on such a device; None where none did."""
        for likeness, key in _nearest_first(work):
            group = self._groups.get(key)
            if (
                group is not None
                and group.peak_bytes is not None
                and likeness <= _OF_THAT_NAME
                and key[1] == work.device
            ):
                return group.peak_bytes
        return None if self._before is None else self._before.peak_bytes(work)

    def _seconds(self, key: _Key, weight: float) -> float | None:
        """What a group says of a stage of this weight."""
        own = self._groups.get(key)
        before = None if self._before is None else self._before._seconds(key, weight)
        if own is None or (len(own.rates) < _SURE and before is not None):
            return before
        seconds = own.seconds(weight)
        return before if seconds is None else seconds


def recorded(store: Store) -> Iterator[Timing]:
    """The timings of everything that a store holds, in no order."""
    weights = {
        stage.key: stage.weight
        for stages in store.grids().values()
        for stage in stages
        if stage.key is not None
    }
    seen: set[str] = set()
    for kind, table in TABLES.items():
        if table.companion_of is not None:
            continue
        for artifact in store.artifacts(kind):
            if artifact.key not in seen:  # a stage may write several tables under one key
                seen.add(artifact.key)
                yield timing_of(artifact.provenance, weights.get(artifact.key))


def timing_of(said: Mapping[str, object], weight: float | None) -> Timing:
    """The timing that a provenance tells of."""
    said = read_once(said)
    seconds, peak, device = said.get("seconds"), said.get("peak_bytes"), said.get("device")
    return Timing(
        stage=str(said.get("stage")),
        cell=str(said.get("cell")),
        weight=weight,
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
        peak_bytes=int(peak) if isinstance(peak, int | float) else None,
        device=kind_of_device(device) if isinstance(device, str) else None,
    )


def read_once(said: Mapping[str, object]) -> Mapping[str, object]:
    """A provenance of which several things are asked."""
    return json.loads(said.text) if isinstance(said, Provenance) else said


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


def kind_of_device(name: str) -> str:
    """`cuda` for `cuda:1`; for `auto`, what this machine seems to have: no torch is asked."""
    if name != "auto":
        return name.partition(":")[0]
    if Path("/dev/nvidiactl").exists() or Path("/proc/driver/nvidia/version").exists():
        return "cuda"
    return "mps" if sys.platform == "darwin" and platform.machine() == "arm64" else "cpu"


def _scopes(work: Work) -> Iterator[tuple[int, _Key]]:
    """What a stage has in common with others, each with its place in LIKENESSES."""
    model, *others = work.cell.split(_BETWEEN_PARTS)
    yield 0, (work.stage, work.cell)
    if len(others) > 1:
        yield 1, (work.stage, model, others[1])
    yield 2, (work.stage, model)
    if len(others) > 1:
        yield 3, (work.stage, others[1])
    yield _OF_THAT_NAME, (work.stage,)


def _nearest_first(work: Work) -> Iterator[tuple[int, _Key]]:
    """The groups to ask, each with its likeness: those on its device, of its weight go first."""
    weights = (None,) if math.isnan(work.weight) else (_octave(work.weight), None)
    for device in dict.fromkeys((work.device, None)):
        for likeness, scope in _scopes(work):
            for about in weights:
                yield likeness, (likeness, device, about, *scope)
    yield len(LIKENESSES) - 1, ("any",)


def _all_keys(work: Work) -> Iterator[_Key]:
    """The groups that a timing belongs to."""
    return (key for _, key in _nearest_first(work))


def _octave(weight: float) -> int:
    """What weights have in common that differ by less than about a half."""
    return round(math.log2(_positive(weight)))


def _positive(weight: float) -> float:
    """A weight that can be divided by."""
    return max(weight, 1e-6)


def _greater(one: int | None, other: int | None) -> int | None:
    """The greater of two numbers that may not be known."""
    return max((n for n in (one, other) if n is not None), default=None)
