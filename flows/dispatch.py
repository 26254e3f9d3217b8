"""Which stage is done next, where, and what becomes of it.

Several turns of a grid are under way at once (see `flows/agenda.py` and `flows/walker.py`). Each
place (see `flows/runner.py`) gets the first stage that is ready for it, in the order of the turns
(see `flows/jobs.py`); where it keeps to one model, another's only once it needs its present one no
more. A stage that another process has leased is left aside and looked for in the store; one that
failed for a reason that may pass is tried again after a while; one that takes too long is stopped.
Of one that finds an input damaged or gone, the turns are walked anew.
"""

from __future__ import annotations

import queue
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flows.caps import Caps
from flows.config import GridConfig
from flows.doing import with_half
from flows.errors import Lost, StageError, WorkerDiedError
from flows.identity import ModelIdentity
from flows.jobs import Job, Jobs
from flows.patience import wait_before
from flows.quantities import seconds_as_text
from flows.runner import Done, Order, Runner
from flows.stages import ShardStage
from flows.supervisor import Supervisor
from flows.walk import Turn, turns
from flows.walker import Walker

if TYPE_CHECKING:
    from prefect.futures import PrefectFuture

SECONDS_ASIDE = 1.0  # between looks at what another process is doing
_LONGEST_SLEEP = 1.0
_SECONDS_WITHOUT_ROOM = 0.2


class Dispatcher:
    """One pass over the turns of a grid, or over some of them."""

    def __init__(
        self,
        config: GridConfig,
        location: str,
        runner: Runner,
        supervisor: Supervisor,
        to_do: Iterable[Turn] | None = None,
    ) -> None:
        self.config = config
        self.location = location
        self.runner = runner
        self.supervisor = supervisor
        self._jobs = Jobs()
        to_do = turns(config) if to_do is None else to_do
        self._walker = Walker(config, to_do, runner, supervisor, self._jobs)
        self._caps = Caps()
        self._at: dict[str, ModelIdentity] = {}  # the model that a place ran last
        self._running: dict[PrefectFuture[Any], Job] = {}
        self._busy: Counter[str] = Counter()
        self._events: queue.SimpleQueue[PrefectFuture[Any]] = queue.SimpleQueue()
        self._over: set[PrefectFuture[Any]] = set()  # ended, and not looked at yet

    def go(self) -> None:
        """Bring every turn to its end; whatever interrupts it is raised."""
        while True:
            self._walker.open_turns(self._is_idle)
            if self._walker.agenda.is_over:
                return
            self._look_again()
            self._hand_out()
            self._stop_what_hangs()
            self._wait()
            self.supervisor.now_and_then()

    def _is_idle(self, place: str) -> bool:
        """Whether a place has more room than stages that are ready."""
        return self._busy[place] + self._jobs.n_ready(place) < self.runner.room(place)

    # Stages -----------------------------------------------------------------------------------

    def _look_again(self) -> None:
        """See what became of stages that were put aside, when it is time."""
        for job in self._jobs.due():
            if job.told:  # another process is at it, or was
                found = self.supervisor.find(job.turns[0], job.stage)
                if found is not None:
                    self._walker.deliver(job, found)
                    continue
            self._jobs.make_ready(job)

    def _hand_out(self) -> None:
        """Give every place as many stages as it has room for."""
        for place in self._jobs.places:
            while self._busy[place] < self.runner.room(place):
                job = self._jobs.next_ready(place, self._models_for(place))
                if job is None:
                    break
                if not self._jobs.is_wanted(job):
                    continue
                holder = self.supervisor.leased().get(job.key)
                if holder is not None:
                    self._leave_to(job, holder)
                elif self._jobs.follows_trouble(job):
                    self._jobs.put_aside(job, SECONDS_ASIDE)
                else:
                    self._submit(job)

    def _models_for(self, place: str) -> set[ModelIdentity | None]:
        """The models whose stages a place may do: while it needs its present one, that alone."""
        ready, present = self._jobs.models_ready(place), self._at.get(place)
        if not self.runner.one_model_a_place or present is None:
            return ready
        needed = present in ready or any(
            one.model is not None
            and self.supervisor.identity(one.model) == present
            and not self._walker.is_stalled(one)
            for one in self._walker.agenda.open_at(place)
        )
        return {None, present} if needed else ready

    def _leave_to(self, job: Job, holder: str) -> None:
        if job.told != holder:
            self.supervisor.elsewhere(job.turns[0], job.stage, holder)
        job.told = holder
        self._jobs.untrouble(job)
        self._jobs.put_aside(job, SECONDS_ASIDE)

    def _submit(self, job: Job) -> None:
        stage = job.stage
        job.most_examples = job.most_examples or self._caps.of(job.kind)
        order = Order(
            stage,
            self.location,
            self.config.memory_budget,
            job.most_examples,
            self.config.max_models,
            self.config.max_bytes,
            self._next_model(job) if self.config.max_models > 1 else None,
            doubted=job.key in self._walker.losses,
        )
        self.supervisor.started(job.turns[0], stage)
        future = self.runner.submit(self.supervisor.task_of(stage), order)
        job.told = ""
        if stage.runs is not None:
            self._at[job.place] = stage.runs
        self._running[future] = job
        self._busy[job.place] += 1
        future.add_done_callback(self._note_end)

    def _note_end(self, future: PrefectFuture[Any]) -> None:
        """In whatever thread it ended: what it came to is looked at in the dispatcher's own."""
        self._over.add(future)
        self._events.put(future)

    def _next_model(self, job: Job) -> ModelIdentity | None:
        """The model that a place needs next, once all turns of its present one are open."""
        if job.stage.runs is None:
            return None
        model = next(self._walker.agenda.models_to_come(job.place), None)
        following = None if model is None else self.supervisor.identity(model)
        return None if following == job.stage.runs else following

    def _stop_what_hangs(self) -> None:
        """Stop the stages that take longer than the time limit.

        One that has ended is not stopped, however long ago that was: the dispatcher may have been
        kept from looking, by a store that was out of reach.
        """
        limit = self.config.time_limit
        if limit is None:
            return
        for future, job in list(self._running.items()):
            if job.stopped or self.runner.seconds(future) < limit or future in self._over:
                continue
            job.stopped = True
            said = seconds_as_text(limit)
            self.runner.abandon(future)
            self._fail(
                job,
                StageError(f"it took longer than time_limit, {said}, and was stopped"),
            )

    # What became of them ----------------------------------------------------------------------

    def _wait(self) -> None:
        """Wait for the next stage to end, or until there is something else to do."""
        until = self._jobs.seconds_aside
        if not self._running and until is None:
            waits = self._jobs.is_any_ready
            assert waits or not self._walker.agenda.open, "turns wait for stages that nobody does"
            if waits or self._walker.is_waiting:
                time.sleep(_SECONDS_WITHOUT_ROOM)
            return
        sleep = _LONGEST_SLEEP if until is None else min(_LONGEST_SLEEP, until)
        try:
            ended = [self._events.get(timeout=sleep)]
        except queue.Empty:
            return
        while not self._events.empty():
            ended.append(self._events.get())
        for future in ended:
            self._ended(future)

    def _ended(self, future: PrefectFuture[Any]) -> None:
        self._over.discard(future)
        job = self._running.pop(future)
        self._busy[job.place] -= 1
        if job not in self._jobs:  # it was given up
            return
        try:
            done: Done | None = future.result()
        except Exception as error:
            self._failed(job, error)
            return
        if done is None:
            if self._jobs.is_wanted(job):
                self._leave_to(job, self.supervisor.leased().get(job.key, "another process"))
            return
        self._caps.learn(job.kind, job.most_examples, done.most_examples)
        if job.attempts:  # the process that died may have published it before
            done = replace(done, reused=False)
        self.supervisor.done(job.turns, job.stage, done)
        self._walker.deliver(job, done.found)

    def _failed(self, job: Job, error: Exception) -> None:
        """Try a failed stage again if that may help, else fail what waits for it."""
        died = isinstance(error, WorkerDiedError)
        may_pass = died or (isinstance(error, StageError) and error.may_pass)
        lost = error.lost if isinstance(error, StageError) else None
        if lost is not None:
            if not self._jobs.is_wanted(job):
                return
            if self.supervisor.is_lost(lost):
                self._lost_its_input(job, lost, error)
                return
            may_pass = True  # it is there again
        if not may_pass or job.attempts >= self.config.retries:
            self._fail(job, error)
            return
        if not self._jobs.is_wanted(job):
            return
        if died and job.attempts:  # twice: for want of memory, perhaps
            n = job.stage.last - job.stage.first if isinstance(job.stage, ShardStage) else None
            order = Order(job.stage, self.location, 0, job.most_examples)
            job.most_examples = with_half(order, n).most_examples
        seconds = wait_before(job.attempts)
        job.attempts += 1
        self._jobs.trouble(job)
        self.supervisor.put_off(job.turns[0], job.stage, str(error), seconds)
        self._jobs.put_aside(job, seconds)

    def _lost_its_input(self, job: Job, lost: Lost, error: Exception) -> None:
        """Have the turns walked anew that want a stage whose input is gone."""
        losses = self._walker.losses
        if losses.may_be_made_again(job.key, lost):
            self.supervisor.put_off(job.turns[0], job.stage, lost.again, 0.0)
            self._jobs.forget(job)
            self._walker.make_again(job.wanting, lost, error)
        else:
            self._fail(job, losses.last_word(job.key, lost, error))

    def _fail(self, job: Job, error: Exception) -> None:
        self._jobs.forget(job)
        told = self.supervisor.failed(job.turns, job.stage, error)
        for one in job.wanting:
            self._walker.give_up(one, told)
