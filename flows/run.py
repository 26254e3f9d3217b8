"""One run of a grid, as the dispatcher sees it: what is there, what is done, what people are told.

The store alone says what is finished. A turn that fails is noted, in the store too, and the others
go on without what it would have given them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import TerminationSignal

from circuits.errors import CircuitError
from data import StoreError
from data.errors import ArtifactLostError
from data.leases import Lease
from flows.config import Cell, GridConfig, ModelChoice
from flows.dispatch import Dispatcher
from flows.errors import GridError, Lost, StageError
from flows.estimates import Estimates, recorded
from flows.identity import Identities, ModelIdentity
from flows.judgement import Products
from flows.outcome import Failure, Outcome
from flows.patience import Patience, in_so_long
from flows.plan import Plan, finished, make_plan, planned, turn_key
from flows.progress import Watcher
from flows.publishing import Announcer
from flows.runner import Done, Runner
from flows.stages import Found, ModelStage, Stage
from flows.stories import explained
from flows.walk import Turn, Walk, turns, walk
from flows.workbench import workbench
from tasks import TaskError

_SECONDS_BETWEEN_NOTES = 5.0
_REST = 20.0  # times as long between two notes as one takes
_SECONDS_BETWEEN_LOOKS = 1.0  # at what other processes have leased

_LOST_AGAIN = (
    "what it wrote was damaged or gone at the end of the run, however often it was built: "
    "something damages the store's files; check its disk, then run again"
)

T = TypeVar("T")


class StageFailedError(Exception):
    """Carries a stage's failure to its turn."""

    def __init__(self, stage: Stage, sentence: str) -> None:
        super().__init__(sentence)
        self.stage = stage
        self.sentence = sentence


class Run:
    """One pass over a grid: what the dispatcher asks, and what it tells."""

    def __init__(
        self, config: GridConfig, location: str, watcher: Watcher, file: str | None = None
    ) -> None:
        self.config = config
        self.location = location
        self.watcher = watcher
        self.file = file
        self.bench = workbench(location, config.memory_budget)
        self.identities = Identities()
        self.outcome = Outcome()
        self.announcer: Announcer | None = None  # to a Prefect server, if there is one to tell
        self._patience = Patience(lambda what: self.watcher.waiting(what))
        self._runner: Runner | None = None
        self._failed: dict[str, str] = {}  # sentences of stages that failed in this run, by key
        self._noted: dict[str, Stage] = {}  # the stages of the grid, by place
        self._note_next = 0.0
        self._has_news = False
        self._leased: tuple[float, dict[str, str]] = (0.0, {})
        self._noted_as_failed = {one.key for one in self.bench.store.failures()}

    def noted_as_running(self) -> Lease:
        """The lease of the run itself: nothing that it may need is removed while it is held."""
        return self._patiently(lambda: self.bench.store.running(self.config.name))

    def plan(self) -> Plan:
        """What is there to do; notes it in the store, for `status`."""
        plan = self._patiently(lambda: make_plan(self.config, self.bench, self.identities))
        self._noted = {stage.place: stage for stage in plan.stages}
        if not plan.unplannable:
            self._patiently(lambda: self._forget_failures(plan))
        self._patiently(lambda: self._note(whole=not plan.unplannable))
        return plan

    def _forget_failures(self, plan: Plan) -> None:
        """Forget failures of stages that the grid no longer has."""
        store, now = self.bench.store, {stage.key for stage in plan.stages}
        failed = {one.key for one in store.failures()}
        for stage in store.grids().get(self.config.name, ()) if failed else ():
            if stage.key in failed and stage.key not in now and stage.key not in self._failed:
                store.clear_failure(stage.key)

    def _note(self, whole: bool = True) -> None:
        began = time.monotonic()
        stages = [planned(stage) for stage in self._noted.values()]
        self.bench.store.save_grid(self.config.name, stages, file=self.file, whole=whole)
        self._has_news = False
        rest = _REST * (time.monotonic() - began)
        self._note_next = time.monotonic() + max(_SECONDS_BETWEEN_NOTES, rest)

    def carry_out(self, plan: Plan, runner: Runner) -> Outcome:
        """Go through the turns; the runner does the stages that are not finished."""
        self._runner = runner
        timings = self._patiently(lambda: recorded(self.bench.store))
        self.watcher.timed(Estimates(timings))
        self.watcher.started(plan)
        try:
            self._bring_to_an_end(runner)
        finally:
            runner.close()
            with suppress(StoreError):  # where it is gone, that is said already
                self._note(whole=False)  # more keys are known than before
        return self._end()

    def _bring_to_an_end(self, runner: Runner) -> None:
        """Dispatch all turns; then those again of which something was lost after it was needed."""
        lacking: Mapping[Turn, Stage] = {}
        for _ in range(self.config.retries + 1):
            Dispatcher(self.config, self.location, runner, self, lacking or None).go()
            lacking = self._lacking(self.plan())
            if not lacking:
                return
        for turn, stage in lacking.items():
            self._fail(turn, stage.label, _LOST_AGAIN)

    def _lacking(self, plan: Plan) -> dict[Turn, Stage]:
        """The turns that ended well and lack something by now, and what.

        Of those that need several cells, only where the plan sees the cells that the run saw.
        """
        products, failed = self.outcome.products, {one.turn for one in self.outcome.failures}
        sees_the_same = plan.products.keys() == products.keys()
        products.update((cell, it) for cell, it in plan.products.items() if cell in products)
        return {
            turn: stages[0]
            for turn, stages in plan.missing.items()
            if stages and turn not in failed and (isinstance(turn, Cell) or sees_the_same)
        }

    def take_over(self, plan: Plan) -> Outcome:
        """Take everything from a plan that lacks nothing."""
        self.watcher.started(plan)
        for turn in plan.missing:
            self._forgive(turn)
        self.outcome.products.update(plan.products)
        for stage in plan.stages:
            assert stage.key is not None
            self.outcome.statuses[stage.name, stage.key] = "reused"
        return self._end()

    def _end(self) -> Outcome:
        number = {turn: i for i, turn in enumerate(turns(self.config))}
        self.outcome.failures.sort(key=lambda one: number[one.turn])
        self.watcher.ended()
        self.outcome.whole = True
        return self.outcome

    # What the dispatcher asks -----------------------------------------------------------------

    def begin(self, turn: Turn) -> Walk:
        """The walk of a turn, perhaps once more, on what the cells that are done have given."""
        self.outcome.failures = [one for one in self.outcome.failures if one.turn != turn]
        self.watcher.turn_started(turn)
        return walk(turn, self.config, self.bench, self.identities, self.outcome.products)

    def find(self, turn: Turn, stage: Stage) -> Found | None:
        """A stage's artifacts if the store has them; StageFailedError if it failed in this run."""
        assert stage.key is not None, f"{stage.label} was reached before its inputs"
        before = self._noted.get(stage.place)
        self._has_news |= before is None or before.key != stage.key
        self._noted[stage.place] = stage
        if stage.key in self._failed:
            raise StageFailedError(stage, self._failed[stage.key])
        found = self._patiently(lambda: finished(self.bench.store, stage))
        if found is not None:
            self.outcome.statuses.setdefault((stage.name, stage.key), "reused")
            self.watcher.stage_reused(turn, stage)
        return found

    def is_lost(self, lost: Lost) -> bool:
        """Whether an artifact still cannot be read; if so, `find` finds it missing from now on."""

        def look() -> bool:
            try:
                self.bench.store.read(lost.kind, lost.key)
            except ArtifactLostError:
                return True
            return False

        return self._patiently(look)

    def leased(self) -> Mapping[str, str]:
        """Which keys other processes are at, and who; as it was a moment ago."""
        looked, found = self._leased
        if time.monotonic() - looked > _SECONDS_BETWEEN_LOOKS:
            leases = self._patiently(lambda: self.bench.store.leases(tidy=True))
            found = {one.key: f"{one.host}:{one.pid}" for one in leases}
            self._leased = (time.monotonic(), found)
        return found

    def identity(self, model: ModelChoice) -> ModelIdentity | None:
        """What a model's name stands for; None if it stands for nothing, as its cells will say."""
        try:
            return self.identities.model(model, self.config.device_of(model))
        except CircuitError:
            return None

    def task_of(self, stage: Stage) -> Task[Any, Any]:
        """The Prefect task that stands for doing a stage."""
        assert self._runner is not None
        return task(
            self._runner.work,
            name=stage.name,
            task_run_name=f"{stage.scope} · {stage.label}",
            cache_policy=NO_CACHE,
            persist_result=False,
        )

    # What the dispatcher tells ----------------------------------------------------------------

    def started(self, turn: Turn, stage: Stage) -> None:
        """A stage has been handed out."""
        self.watcher.stage_started(turn, stage)

    def done(self, wanted_by: list[Turn], stage: Stage, done: Done) -> None:
        """A stage is finished: for the first turn that wants it computed, for the others there."""
        assert stage.key is not None
        self._leased[1].pop(stage.key, None)
        if done.reused:
            self.outcome.statuses.setdefault((stage.name, stage.key), "reused")
        else:  # whoever found it before this was told found it computed just now
            self.outcome.statuses[stage.name, stage.key] = "computed"
        for i, turn in enumerate(wanted_by):
            if i or done.reused:
                self.watcher.stage_reused(turn, stage)
            else:
                self.watcher.stage_computed(turn, stage)
                if done.most_examples is not None:
                    self.watcher.stage_cut(turn, stage, done.most_examples)
        if wanted_by and isinstance(stage, ModelStage):
            self.watcher.replanned(wanted_by[0], self.plan())  # much more can be planned now

    def put_off(self, turn: Turn, stage: Stage, sentence: str, seconds: float) -> None:
        """A stage failed and will be tried again in so many seconds."""
        self._patiently(self.bench.store.require)
        if self._patience.has_told(sentence):
            sentence = "the store was out of reach"
        self.watcher.stage_retried(turn, stage, sentence, seconds)

    def elsewhere(self, turn: Turn, stage: Stage, holder: str) -> None:
        """Another process is doing a stage."""
        self.watcher.stage_elsewhere(turn, stage, holder)

    def failed(self, wanted_by: list[Turn], stage: Stage, error: Exception) -> Exception:
        """A stage has failed for good; what its turns are told."""
        assert stage.key is not None
        pass_on_interruption(error)
        sentence = explained(stage, error, self.folder("logs"))
        self._failed[stage.key] = sentence
        self.outcome.statuses[stage.name, stage.key] = "failed"
        cell = wanted_by[0].label if wanted_by else stage.scope
        about = (stage.key, stage.name, cell, sentence)
        self._patiently(lambda: self.bench.store.record_failure(*about))
        for turn in wanted_by:
            self.watcher.stage_failed(turn, stage)
        return StageFailedError(stage, sentence)

    def ended(self, turn: Turn, products: Products | None) -> None:
        """A turn came to its end."""
        if isinstance(turn, Cell) and products is not None:
            self.outcome.products[turn] = products
        self._forgive(turn)
        self.watcher.turn_ended(turn)

    def refused(self, turn: Turn, sentence: str, seconds: float) -> None:
        """A turn's walk was cut short, for this reason, and begins again in so many seconds."""
        self._patiently(self.bench.store.require)
        if not self._patience.has_told(sentence):
            self.watcher.waiting(f"{turn.label}: {sentence} Again {in_so_long(seconds)}")

    def gave_up(self, turn: Turn, error: Exception) -> None:
        """A turn cannot be finished; what is not a turn's own failure is raised."""
        if isinstance(turn, Cell):
            self.outcome.products.pop(turn, None)  # of an earlier walk
        match error:
            case StageFailedError():
                self._fail(turn, error.stage.label, error.sentence)
            case TaskError() | CircuitError() | StoreError() | GridError() | StageError():
                about = (turn_key(turn), "cell", turn.label, str(error))
                self._noted_as_failed.add(turn_key(turn))
                self._patiently(lambda: self.bench.store.record_failure(*about))
                self._fail(turn, "plan", str(error))
            case _:
                raise error
        self.watcher.turn_ended(turn)

    def now_and_then(self) -> None:
        """Note what is known by now, for `status` and for Prefect."""
        if self.announcer is not None:
            self.announcer.update(self.watcher.done, self.watcher.total)
        if self._has_news and time.monotonic() > self._note_next:
            self._patiently(lambda: self._note(whole=False))

    def _patiently(self, action: Callable[[], T]) -> T:
        return self._patience.wait_for(action)

    def _forgive(self, turn: Turn) -> None:
        """Forget a failure that a turn had in an earlier run."""
        key = turn_key(turn)
        if key in self._noted_as_failed:
            self._patiently(lambda: self.bench.store.clear_failure(key))

    def folder(self, name: str) -> Path:
        """A folder for files beside the artifacts: in the store, or here if that is not local."""
        location = self.bench.store.location
        return Path(location.root if location.is_local else "circuit-grid-output") / name

    def _fail(self, turn: Turn, stage: str, sentence: str) -> None:
        self.outcome.failures.append(Failure(turn, stage, sentence))
        self.watcher.turn_failed(turn, stage, sentence)


def pass_on_interruption(error: BaseException) -> None:
    """Raise the interruption that an error hides: Prefect may fail while it is interrupted."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, KeyboardInterrupt | TerminationSignal):
            raise link from None
        link = link.__cause__ or link.__context__
