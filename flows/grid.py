"""The flow: every turn of a grid through its stages, each stage once, failures beside the rest.

The store alone says what is finished. A run first walks the grid without working, so that it knows
what is missing; finished stages are never submitted. Then it goes turn by turn, cells first: a
missing stage is one Prefect task run, given names and keys and never tensors. A turn that fails is
noted, in the store too, and the others go on without what it would have given them; a stage that
failed is not tried twice in a run.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.states import Completed, Failed

from circuits.errors import CircuitError
from data import StoreError, provenance
from flows.config import Cell, GridConfig
from flows.errors import GridError
from flows.identity import Identities
from flows.judgement import Products
from flows.measuring import measured
from flows.plan import Plan, finished, make_plan, planned, turn_key
from flows.progress import Watcher
from flows.settings import has_own_server, prefect_server
from flows.stages import Found, ModelStage, Stage
from flows.walk import Turn, follow, turns, walk
from flows.workbench import workbench
from tasks import TaskError

_SECONDS_BETWEEN_NOTES = 5.0

Status = Literal["reused", "computed", "failed"]
Execute = Callable[[Stage], Found]


@dataclass(frozen=True)
class Failure:
    """A turn that could not be finished: at which stage, and why, in a sentence."""

    turn: Turn
    stage: str
    sentence: str


@dataclass
class Outcome:
    """What came of a run: every stage's status, each cell's products or failure."""

    statuses: dict[tuple[str, str], Status] = field(default_factory=dict)  # by stage name and key
    products: dict[Cell, Products] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    whole: bool = False  # everything had its turn

    def count(self, status: Status, stage: str | None = None) -> int:
        """How many stages ended so, of one name or of all."""
        return sum(
            found == status and stage in (None, name) for (name, _), found in self.statuses.items()
        )

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The names of the stages, in the order in which they were met."""
        return tuple(dict.fromkeys(name for name, _ in self.statuses))


class StageFailedError(Exception):
    """Carries a stage's failure to its turn."""

    def __init__(self, stage: Stage, sentence: str) -> None:
        super().__init__(sentence)
        self.stage = stage
        self.sentence = sentence


class Run:
    """One pass over a grid."""

    def __init__(self, config: GridConfig, location: str, watcher: Watcher) -> None:
        self.config = config
        self.location = location
        self.watcher = watcher
        self.bench = workbench(location, config.memory_budget)
        self.identities = Identities()
        self.outcome = Outcome()
        self._failed: dict[str, str] = {}  # sentences of stages that failed in this run, by key
        self._noted: dict[str, Stage] = {}  # the stages of the grid, by place
        self._noted_at = 0.0

    def plan(self) -> Plan:
        """What is there to do; notes it in the store, for `status`."""
        plan, store = make_plan(self.config, self.bench, self.identities), self.bench.store
        now = {stage.key for stage in plan.stages}
        for stage in store.grids().get(self.config.name, ()):
            if stage.key is not None and stage.key not in now:
                store.clear_failure(stage.key)  # the grid no longer has this stage
        self._noted = {stage.place: stage for stage in plan.stages}
        self._note()
        return plan

    def _note(self) -> None:
        self._noted_at = time.monotonic()
        stages = [planned(stage) for stage in self._noted.values()]
        self.bench.store.save_grid(self.config.name, stages)

    def carry_out(self, plan: Plan, execute: Execute) -> Outcome:
        """Go through the turns; `execute` does the stages that are not finished."""
        self.watcher.started(plan)
        try:
            self._carry_out_turns(execute)
        finally:
            self._note()  # more keys are known than before
        self.plan()
        self.watcher.ended()
        self.outcome.whole = True
        return self.outcome

    def _carry_out_turns(self, execute: Execute) -> None:
        done = self.outcome.products
        for turn in turns(self.config):
            self.watcher.turn_started(turn)
            try:
                steps = walk(turn, self.config, self.bench, self.identities, done)
                products = follow(steps, partial(self._settle, turn, execute))
                if isinstance(turn, Cell) and products is not None:
                    done[turn] = products
                self.bench.store.clear_failure(turn_key(turn))
            except StageFailedError as failed:
                self._fail(turn, failed.stage.label, failed.sentence)
            except (TaskError, CircuitError, StoreError, GridError) as error:
                self.bench.store.record_failure(turn_key(turn), "cell", turn.label, str(error))
                self._fail(turn, "plan", str(error))
            self.watcher.turn_ended(turn)
            if time.monotonic() - self._noted_at > _SECONDS_BETWEEN_NOTES:
                self._note()

    def _settle(self, turn: Turn, execute: Execute, stage: Stage) -> Found:
        """The artifacts of a stage, from the store or by doing it now."""
        assert stage.key is not None, f"{stage.label} was reached before its inputs"
        self._noted[stage.place] = stage
        if stage.key in self._failed:
            raise StageFailedError(stage, self._failed[stage.key])
        found = finished(self.bench.store, stage)
        if found is not None:
            self.outcome.statuses.setdefault((stage.name, stage.key), "reused")
            self.watcher.stage_reused(turn, stage)
            return found
        self.watcher.stage_started(turn, stage)
        try:
            found = execute(stage)
        except Exception as error:
            # The boundary of a turn: whatever a stage meets, the others go on.
            _pass_on_interruption(error)
            sentence = self._explain(stage, error)
            self._failed[stage.key] = sentence
            self.outcome.statuses[stage.name, stage.key] = "failed"
            self.bench.store.record_failure(stage.key, stage.name, turn.label, sentence)
            self.watcher.stage_failed(turn, stage)
            raise StageFailedError(stage, sentence) from error
        self.outcome.statuses[stage.name, stage.key] = "computed"
        self.watcher.stage_computed(turn, stage)
        if isinstance(stage, ModelStage):
            self.watcher.replanned(turn, self.plan())  # much more can be planned now
        return found

    def _explain(self, stage: Stage, error: Exception) -> str:
        """One sentence; for what nobody foresaw, with the file that has the traceback."""
        if isinstance(error, TaskError | CircuitError | StoreError | GridError):
            return str(error)
        first = (str(error).strip().splitlines() or ["no message"])[0]
        log = self.folder("logs") / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{stage.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        heading = f"{stage.label} of {stage.scope}\n"
        log.write_text(heading + "".join(traceback.format_exception(error)), encoding="utf-8")
        return f"{type(error).__name__}: {first} (the whole story is in {log})"

    def folder(self, name: str) -> Path:
        """A folder for files beside the artifacts: in the store, or here if that is not local."""
        location = self.bench.store.location
        return Path(location.root if location.is_local else "circuit-grid-output") / name

    def _fail(self, turn: Turn, stage: str, sentence: str) -> None:
        self.outcome.failures.append(Failure(turn, stage, sentence))
        self.watcher.turn_failed(turn, stage, sentence)


def _pass_on_interruption(error: BaseException) -> None:
    """Raise the interruption that an error hides: Prefect may fail while it is interrupted."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, KeyboardInterrupt | TerminationSignal):
            raise link from None
        link = link.__cause__ or link.__context__


def do_stage(stage: Stage, location: str, memory_budget: int) -> Found:
    """Build a stage's tables and publish them in the store under its key."""
    bench = workbench(location, memory_budget)
    if stage.runs is not None:
        bench.model(stage.runs)  # loading is not the stage's own time
    device = None if stage.runs is None else str(bench.model(stage.runs).device)
    with measured(device) as cost:
        tables = stage.build(bench)
    assert stage.key is not None
    about = provenance(
        stage.name,
        stage.scope,
        cost.seconds,
        cost.peak_bytes,
        device,
        None if stage.runs is None else stage.runs.dtype,
        stage.parts,
    )
    return bench.store.write_all(stage.key, tables, about)


_CURRENT: ContextVar[tuple[Run, Plan]] = ContextVar("run")


@flow(name="circuit-grid", flow_run_name="{grid}", validate_parameters=False)
def circuit_grid(grid: str, store: str) -> State:
    """Run the grid at hand; Completed, or Failed with the list of what failed."""
    run, plan = _CURRENT.get()

    def execute(stage: Stage) -> Found:
        submitted = task(
            do_stage,
            name=stage.name,
            task_run_name=f"{stage.scope} · {stage.label}",
            cache_policy=NO_CACHE,
            persist_result=False,
        )
        return submitted(stage, run.location, run.config.memory_budget)

    outcome = run.carry_out(plan, execute)
    if outcome.failures:
        lines = "\n".join(f"{one.turn.label}: {one.sentence}" for one in outcome.failures)
        return Failed(message=f"{len(outcome.failures)} failed\n{lines}")
    computed, reused = outcome.count("computed"), outcome.count("reused")
    return Completed(message=f"{computed} stages computed, {reused} reused")


def run_grid(config: GridConfig, location: str, watcher: Watcher) -> Run:
    """Run a grid on a store and return the run with its outcome; StoreError for an unusable store.

    Where nothing is missing and nobody keeps a Prefect server to tell, none is started.
    """
    run = Run(config, location, watcher)
    plan = run.plan()
    if plan.done and not has_own_server():
        run.carry_out(plan, _refuse)
        return run
    watcher.waiting("starting Prefect")
    with prefect_server():
        token = _CURRENT.set((run, plan))
        try:
            state = circuit_grid(config.name, location, return_state=True)
            if not run.outcome.whole:
                state.result()  # raises what ended the flow
        finally:
            _CURRENT.reset(token)
    return run


def _refuse(stage: Stage) -> Found:
    raise GridError(f"{stage.label} vanished from the store while it was being read: run again")
