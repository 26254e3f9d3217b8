"""Where grids stand, from the store alone: what is done, running, failed, stale, missing.

A stage of a grid is *done* if its artifacts are there and intact; *running* while a process has its
lease; *failed* if the last attempt did; *stale* if its place in the grid has an artifact, made from
inputs that have changed since; and *missing* otherwise. A `Standings` is made for a store once and
looks at it as often as it is asked: the first time at everything, and then only at what was not
done before, so that watching costs little.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from data import TABLES, Damage, Failure, GridNote, PlannedStage, Store
from data.leases import LeaseInfo
from data.ledger import UnreadableNote
from data.runs import is_run
from data.schema import companions
from data.states import states_of
from flows.estimates import Estimates, Timing, Total, Work, read_once, timing_of

Condition = Literal["done", "running", "failed", "stale", "missing"]
CONDITIONS: tuple[Condition, ...] = ("done", "missing", "running", "failed", "stale")


@dataclass(frozen=True)
class StageRow:
    """The stages of one name in a grid: how many are how, and what is left of them."""

    stage: str
    counts: Counter[Condition]
    left: Total


@dataclass(frozen=True)
class Running:
    """A stage that a process is at: the stage, who (`host:pid`), and since when (ISO 8601)."""

    stage: PlannedStage
    holder: str
    since: str


@dataclass(frozen=True)
class GridStanding:
    """A grid: its stages by name, those running, what is left of it, and what lies there besides.

    `n_outdated` are artifacts that were made from inputs which have changed since and that no grid
    needs: what a cleaning would remove now. `n_kept` are stages whose inputs are not there at
    present and which have artifacts from before: they will be reused if the inputs turn out the
    same. `runs` are the processes (`host:pid`) that run it.
    """

    note: GridNote
    rows: tuple[StageRow, ...]
    running: tuple[Running, ...]
    left: Total
    n_outdated: int
    n_kept: int
    runs: tuple[str, ...] = ()

    @property
    def is_idle(self) -> bool:
        """Whether nobody is at it."""
        return not self.running and not self.runs

    @property
    def counts(self) -> Counter[Condition]:
        """How many stages are how."""
        return sum((row.counts for row in self.rows), Counter[Condition]())

    @property
    def is_finished(self) -> bool:
        """Whether all of it is done."""
        return bool(self.note.stages) and self.counts["done"] == len(self.note.stages)

    @property
    def seconds_left(self) -> float | None:
        """About how long the rest takes with as many at a time as now; None: nothing is known."""
        if not self.left.is_near:
            return None
        return self.left.seconds / max(1, len(self.running))


@dataclass(frozen=True)
class Standing:
    """All grids of a store at one moment, with the failures and the damaged files of the store.

    Of grids that are `unreadable` nothing is known: whether they are finished is not either.
    """

    grids: tuple[GridStanding, ...]
    failures: tuple[Failure, ...]
    damaged: tuple[Damage, ...]
    elsewhere: tuple[LeaseInfo, ...]  # leases of stages that no grid is noted to have
    beginning: tuple[str, ...] = ()  # processes (`host:pid`) that run grids not noted yet
    unreadable: tuple[UnreadableNote, ...] = ()

    @property
    def is_finished(self) -> bool:
        """Whether all of every grid is done."""
        return not self.unreadable and all(grid.is_finished for grid in self.grids)

    @property
    def is_idle(self) -> bool:
        """Whether nobody is at anything."""
        return not (self.elsewhere or self.beginning) and all(grid.is_idle for grid in self.grids)


class Standings:
    """Looks at the grids of one store, again and again; `only` names the one that is asked for."""

    def __init__(self, store: Store, only: str | None = None) -> None:
        self.store = store
        self.only = only
        self._there: dict[str, set[str]] | None = None  # keys of complete artifacts by kind
        self._parts: dict[str, tuple[str, ...]] = {}  # keys of which artifacts were made, by key
        self._estimates = Estimates()

    def look(self, planned: GridNote | None = None) -> Standing:
        """How everything stands now; `planned` goes before an older note of the same grid."""
        notes, unreadable = self.store.noted_grids()
        if planned is not None:
            noted = notes.get(planned.name)
            if noted is None or (noted.saved_at or "") < (planned.saved_at or ""):
                notes[planned.name] = planned
        weights, all_notes = _weights(notes), tuple(notes.values())
        if self.only is not None:
            notes = {name: note for name, note in notes.items() if name == self.only}
        if self._there is None:
            self._there = self._look_at_everything(weights)
        else:
            self._look_for_missing(notes)
        leases = {one.key: one for one in self.store.leases()}
        runs = self.store.runs()
        removable = frozenset[str]()
        if not runs and not unreadable:
            removable = self._removable(all_notes) - set(leases)
        failures = {one.key: one for one in self.store.failures()}
        keys = {stage.key for note in notes.values() for stage in note.stages}
        told = [
            one
            for one in failures.values()
            if self.only is None or one.key in keys or one.stage == "cell"
        ]
        running = {
            name: tuple(f"{one.host}:{one.pid}" for one in runs if is_run(one.key, name))
            for name in notes
        }
        return Standing(
            grids=tuple(
                replace(
                    self._grid(note, leases, failures),
                    runs=running[note.name],
                    n_outdated=len(removable & note.stale),
                )
                for note in notes.values()
            ),
            failures=tuple(sorted(told, key=lambda one: (one.time, one.cell))),
            damaged=tuple(self.store.damaged),
            elsewhere=tuple(
                one for key, one in leases.items() if key not in keys and self.only is None
            ),
            beginning=tuple(
                f"{one.host}:{one.pid}"
                for one in runs
                if not any(is_run(one.key, note.name) for note in all_notes)
            ),
            unreadable=tuple(one for one in unreadable if self.only in (None, one.grid)),
        )

    def _grid(
        self, note: GridNote, leases: Mapping[str, LeaseInfo], failures: Mapping[str, Failure]
    ) -> GridStanding:
        counts: dict[str, Counter[Condition]] = {}
        left: dict[str, list[Work]] = {}
        running = []
        n_kept = 0
        for stage in note.stages:
            condition = self._condition(stage, leases, failures)
            counts.setdefault(stage.stage, Counter())[condition] += 1
            if condition != "done":
                left.setdefault(stage.stage, []).append(_work(stage))
            if condition == "running" and stage.key is not None:
                lease = leases[stage.key]
                running.append(Running(stage, f"{lease.host}:{lease.pid}", lease.since))
            n_kept += stage.key is None and self._has_former(stage)
        total = self._estimates.total
        rows = [StageRow(name, n, total(left.get(name, ()))) for name, n in counts.items()]
        everything = total(work for works in left.values() for work in works)
        return GridStanding(note, tuple(rows), tuple(running), everything, 0, n_kept)

    def _removable(self, notes: Iterable[GridNote]) -> frozenset[str]:
        """The keys of what is there and stale, and neither needed by a grid nor part of that."""
        needed = frozenset[str]().union(*(note.needed for note in notes))
        needed |= {part for key in needed for part in self._parts.get(key, ())}
        stale = frozenset[str]().union(*(note.stale for note in notes)) - needed
        return frozenset(key for key in stale if self._is_there_under(key))

    def _condition(
        self, stage: PlannedStage, leases: Mapping[str, LeaseInfo], failures: Mapping[str, Failure]
    ) -> Condition:
        if stage.key is None:
            return "missing"
        if self._is_there(stage.kind, stage.key):
            return "done"
        if stage.key in leases:
            return "running"
        if stage.key in failures:
            return "failed"
        return "stale" if self._has_former(stage) else "missing"

    def _has_former(self, stage: PlannedStage) -> bool:
        return any(self._is_there(stage.kind, key) for key in stage.former)

    def _is_there(self, kind: str, key: str) -> bool:
        assert self._there is not None
        return key in self._there.get(kind, ())

    def _is_there_under(self, key: str) -> bool:
        assert self._there is not None
        return any(key in keys for keys in self._there.values())

    def _look_at_everything(self, weights: Mapping[str, float]) -> dict[str, set[str]]:
        """The complete artifacts by kind; notes their timings, and what is damaged."""
        intact: dict[str, set[str]] = {}
        timings: dict[str, Timing] = {}  # by key: a stage may write several tables under one
        for kind, table in TABLES.items():
            found = list(self.store.artifacts(kind))
            intact[kind] = {one.key for one in found}
            if table.companion_of is None:
                for one in found:
                    if one.key not in timings:
                        said = read_once(one.provenance)
                        timings[one.key] = timing_of(said, weights.get(one.key))
                        self._note_parts(one.key, said)
        self._estimates = Estimates(timings.values())
        return {
            kind: set.intersection(keys, *(intact[one] for one in companions(kind)))
            for kind, keys in intact.items()
            if TABLES[kind].companion_of is None
        }

    def _look_for_missing(self, notes: Mapping[str, GridNote]) -> None:
        """See which of the stages that were not done are, and how long they took."""
        missing: dict[str, list[PlannedStage]] = {}
        for note in notes.values():
            for stage in note.stages:
                if stage.key is not None and not self._is_there(stage.kind, stage.key):
                    missing.setdefault(stage.kind, []).append(stage)
        assert self._there is not None
        for kind, stages in missing.items():
            listed = None if self.store.location.is_local else states_of(self.store.location, kind)
            for stage in stages:
                key = stage.key
                assert key is not None
                if key not in listed if listed is not None else not self._has_file(kind, key):
                    continue
                artifact = self.store.complete(kind, key)
                if artifact is not None:
                    self._there.setdefault(kind, set()).add(key)
                    self._note_parts(key, artifact.provenance)
                    self._learn(stage, timing_of(artifact.provenance, stage.weight))

    def _note_parts(self, key: str, said: Mapping[str, object]) -> None:
        parts = said.get("parts")
        if isinstance(parts, list) and parts:
            self._parts[key] = tuple(map(str, parts))

    def _has_file(self, kind: str, key: str) -> bool:
        return os.path.exists(self.store.path(kind, key))

    def _learn(self, stage: PlannedStage, timing: Timing) -> None:
        if timing.seconds is not None:
            self._estimates.learn(_work(stage, timing.device), timing.seconds)


def _work(stage: PlannedStage, device: str | None = None) -> Work:
    return Work(stage.stage, stage.cell, stage.weight, device)


def _weights(notes: Mapping[str, GridNote]) -> dict[str, float]:
    """The weights of stages by key, as far as grids have noted them."""
    return {
        stage.key: stage.weight
        for note in notes.values()
        for stage in note.stages
        if stage.key is not None
    }
