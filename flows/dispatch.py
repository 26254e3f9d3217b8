"""Which stage is done next, where, and what becomes of it.

Several turns of a grid are under way at once. Each place (see `flows/runner.py`) gets the first
stage that is ready for it, in the order of the turns; further turns are opened only while a place
would be idle, and another model's only once a place needs its present one no more. A stage that
another process has leased is left aside and looked for in the store; one that failed for a reason
that may pass is tried again after a while; one that takes too long is stopped.
"""

from __future__ import annotations

import heapq
import itertools
import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from data.errors import StoreUnavailableError
from flows.config import Cell, GridConfig, ModelChoice
from flows.doing import with_half
from flows.errors import StageError, WorkerDiedError
from flows.identity import ModelIdentity
from flows.patience import wait_before
from flows.quantities import seconds_as_text
from flows.runner import Done, Order, Runner
from flows.stages import Found, ShardStage, Stage
from flows.walk import CrossTask, Turn, Walk, turns

if TYPE_CHECKING:
    from prefect import Task
    from prefect.futures import PrefectFuture

MOST_OPEN = 16  # turns at a place
SECONDS_ASIDE = 1.0  # between looks at what another process is doing
_LONGEST_SLEEP = 1.0
_SECONDS_WITHOUT_ROOM = 0.2
_STREAK = 8  # stages done with few examples at a time, before more are tried again
_ENOUGH = 1 << 16  # examples at a time: no cap


class Supervisor(Protocol):
    """What the dispatcher asks of the run, and tells it."""

    def begin(self, turn: Turn) -> Walk:
        """The walk of a turn; its stages are asked for by `next` and `send`."""

    def find(self, turn: Turn, stage: Stage) -> Found | None:
        """A stage's artifacts if it is finished, noted as reused. Raises for one that failed."""

    def leased(self) -> Mapping[str, str]:
        """Which keys other processes are at, and who: `host:pid`."""

    def task_of(self, stage: Stage) -> Task[Any, Any]:
        """The Prefect task that stands for doing a stage."""

    def identity(self, model: ModelChoice) -> ModelIdentity | None:
        """What a model's name stands for; None if it stands for nothing."""

    def started(self, turn: Turn, stage: Stage) -> None:
        """A stage has been handed out."""

    def done(self, wanted_by: list[Turn], stage: Stage, done: Done) -> None:
        """A stage is finished."""

    def put_off(self, turn: Turn, stage: Stage, sentence: str, seconds: float) -> None:
        """A stage failed and will be tried again in so many seconds."""

    def elsewhere(self, turn: Turn, stage: Stage, holder: str) -> None:
        """Another process is doing a stage."""

    def failed(self, wanted_by: list[Turn], stage: Stage, error: Exception) -> Exception:
        """A stage has failed for good; what its turns are told."""

    def ended(self, turn: Turn, products: Any) -> None:
        """A turn came to its end."""

    def refused(self, turn: Turn, sentence: str, seconds: float) -> None:
        """The store refused a turn's walk, which begins again in so many seconds."""

    def gave_up(self, turn: Turn, error: Exception) -> None:
        """A turn cannot be finished; raises what is not a turn's own failure."""

    def now_and_then(self) -> None:
        """Between two events."""


_Kind = tuple[str, str]  # a stage's name and scope: stages alike, such as the shards of a method


@dataclass
class _Cap:
    """How many examples at a time fit in memory, and for how many stages that has held."""

    n_examples: int
    streak: int = 0


@dataclass(eq=False)
class _Open:
    """A turn under way: its walk, and what came of the stages that it asked for last."""

    turn: Turn
    number: int
    place: str
    model: ModelChoice | None
    walk: Walk
    found: list[Found | None] = field(default_factory=list)
    waiting: set[str] = field(default_factory=set)  # keys
    over: bool = False


@dataclass(eq=False)
class _Job:
    """A stage that is wanted and not finished."""

    stage: Stage
    key: str
    place: str
    wanted_by: list[tuple[_Open, int]] = field(default_factory=list)
    attempts: int = 0
    most_examples: int | None = None
    aside: bool = False
    told: str = ""  # who is doing it, as people were told last
    stopped: bool = False  # it took too long

    @property
    def kind(self) -> _Kind:
        """What it shares with stages like it."""
        return self.stage.name, self.stage.scope

    @property
    def turns(self) -> list[Turn]:
        """The turns that still want it."""
        return list(dict.fromkeys(one.turn for one, _ in self.wanted_by if not one.over))


_Heap = list[tuple[int, int, _Job]]  # the turn's number, the order of coming, the job
_ModelOf = ModelIdentity | None


class Dispatcher:
    """One pass over the turns of a grid."""

    def __init__(
        self, config: GridConfig, location: str, runner: Runner, supervisor: Supervisor
    ) -> None:
        self.config = config
        self.location = location
        self.runner = runner
        self.run = supervisor
        self._pending: dict[str, deque[Turn]] = {}  # turns by place, in order
        self._last: deque[Turn] = deque()  # those that need all others
        for turn in turns(config):
            model = _model_of(turn)
            if model is not None:
                place = runner.place_of(config.device_of(model))
                self._pending.setdefault(place, deque()).append(turn)
            else:
                self._last.append(turn)
        self._open: list[_Open] = []
        self._jobs: dict[str, _Job] = {}
        self._ready: dict[str, dict[_ModelOf, _Heap]] = {}  # by place, and by the model they run
        self._at: dict[str, _ModelOf] = {}  # the model that a place ran last
        self._aside: list[tuple[float, int, _Job]] = []  # heap by when to look again
        self._running: dict[PrefectFuture[Any], _Job] = {}
        self._busy: Counter[str] = Counter()
        self._events: queue.SimpleQueue[PrefectFuture[Any]] = queue.SimpleQueue()
        self._most_examples: dict[_Kind, _Cap] = {}  # where memory ran out before
        self._troubled: dict[_Kind, _Job] = {}  # failed, and to be tried again before its like
        self._count = itertools.count()
        self._numbers = {turn: number for number, turn in enumerate(turns(config))}
        self._refused: Counter[Turn] = Counter()  # how often the store refused a turn's walk
        self._not_before = 0.0  # when turns may be opened again

    def go(self) -> None:
        """Bring every turn to its end; whatever interrupts it is raised."""
        while self._open_turns() or self._open:
            self._look_again()
            self._hand_out()
            self._stop_what_hangs()
            self._wait()
            self.run.now_and_then()

    # Turns ------------------------------------------------------------------------------------

    def _open_turns(self) -> bool:
        """Open turns while a place would be idle; whether any is open or still to come."""
        if time.monotonic() >= self._not_before:
            for place in self._pending:
                while (turn := self._next_turn(place)) is not None:
                    self._pending[place].remove(turn)
                    self._begin(turn, place)
            if not any(self._pending.values()) and not self._open and self._last:
                self._begin(self._last.popleft(), "")
        return bool(self._open or self._last or any(self._pending.values()))

    def _next_turn(self, place: str) -> Turn | None:
        """The turn that a place should open now, if any."""
        here = [one for one in self._open if one.place == place]
        n_ready = sum(map(len, self._ready.get(place, {}).values()))
        if self._busy[place] + n_ready >= self.runner.room(place) or len(here) >= MOST_OPEN:
            return None
        for turn in self._pending[place]:
            model = _model_of(turn)
            alike = [one for one in here if one.model == model and isinstance(one.turn, Cell)]
            if isinstance(turn, CrossTask) and alike:  # it sets cells beside each other
                if all(map(self._is_stalled, alike)):
                    continue
                return None
            others = [one for one in here if one.model != model]
            if self.runner.one_model_a_place and not all(map(self._is_stalled, others)):
                return None
            return turn
        return None

    def _is_stalled(self, one: _Open) -> bool:
        """Whether a turn waits for nothing but other processes."""
        return all(self._jobs[key].told for key in one.waiting)

    def _begin(self, turn: Turn, place: str) -> None:
        opened = _Open(turn, self._numbers[turn], place, _model_of(turn), self.run.begin(turn))
        self._open.append(opened)
        self._go_on(opened, lambda: next(opened.walk))

    def _go_on(self, one: _Open, ask: Callable[[], tuple[Stage, ...]]) -> None:
        """Take a turn as far as finished stages lead."""
        try:
            self._take(one, ask())
            while not one.waiting:
                self._take(one, one.walk.send(tuple(one.found)))
        except StopIteration as end:
            self._close(one)
            self.run.ended(one.turn, end.value)
        except StoreUnavailableError as error:
            self._close(one)
            if self._refused[one.turn] >= self.config.retries:
                raise
            self._open_later(one, error)
        except Exception as error:
            # The boundary of a turn: the run says which errors are a turn's own.
            self._close(one)
            self.run.gave_up(one.turn, error)

    def _open_later(self, one: _Open, error: StoreUnavailableError) -> None:
        """Put a turn back whose walk the store refused."""
        seconds = wait_before(self._refused[one.turn])
        self._refused[one.turn] += 1
        self._not_before = time.monotonic() + seconds
        pending = self._pending[one.place] if one.place else self._last
        pending.appendleft(one.turn)
        self.run.refused(one.turn, str(error), seconds)

    def _take(self, one: _Open, stages: tuple[Stage, ...]) -> None:
        """Look for stages that a turn asks for, and want those that are not finished."""
        one.found = []
        for i, stage in enumerate(stages):
            found = self.run.find(one.turn, stage)
            one.found.append(found)
            if found is None:
                self._want(one, i, stage)

    def _want(self, one: _Open, i: int, stage: Stage) -> None:
        key = stage.key
        assert key is not None, f"{stage.label} was reached before its inputs"
        one.waiting.add(key)
        if key not in self._jobs:
            device = None if stage.runs is None else stage.runs.device
            job = _Job(stage, key, self.runner.place_of(device))
            self._jobs[key] = job
            self._make_ready(job, one.number)
        self._jobs[key].wanted_by.append((one, i))

    def _close(self, one: _Open) -> None:
        one.over = True
        self._open.remove(one)

    # Stages -----------------------------------------------------------------------------------

    def _make_ready(self, job: _Job, number: int) -> None:
        job.aside = False
        heaps = self._ready.setdefault(job.place, {})
        heapq.heappush(heaps.setdefault(job.stage.runs, []), (number, next(self._count), job))

    def _put_aside(self, job: _Job, seconds: float) -> None:
        job.aside = True
        heapq.heappush(self._aside, (time.monotonic() + seconds, next(self._count), job))

    def _look_again(self) -> None:
        """See what became of stages that were put aside, when it is time."""
        while self._aside and self._aside[0][0] <= time.monotonic():
            _, _, job = heapq.heappop(self._aside)
            if not self._is_wanted(job):
                continue
            if job.told:  # another process is at it, or was
                found = self.run.find(job.turns[0], job.stage)
                if found is not None:
                    self._deliver(job, found)
                    continue
            self._make_ready(job, min(one.number for one, _ in job.wanted_by if not one.over))

    def _hand_out(self) -> None:
        """Give every place as many stages as it has room for."""
        for place in self._ready:
            while self._busy[place] < self.runner.room(place):
                heap = self._next_heap(place)
                if heap is None:
                    break
                _, _, job = heapq.heappop(heap)
                if not self._is_wanted(job):
                    continue
                holder = self.run.leased().get(job.key)
                if holder is not None:
                    self._leave_to(job, holder)
                elif self._troubled.get(job.kind, job) is not job:
                    self._put_aside(job, SECONDS_ASIDE)  # what befell its like may befall it
                else:
                    self._submit(job)

    def _next_heap(self, place: str) -> _Heap | None:
        """Where a place's next stage is: the first; while its model is needed, of no other."""
        heaps = {model: heap for model, heap in self._ready[place].items() if heap}
        present = self._at.get(place)
        if self.runner.one_model_a_place and present is not None:
            here = (one for one in self._open if one.place == place)
            needed = present in heaps or any(
                one.model is not None
                and self.run.identity(one.model) == present
                and not self._is_stalled(one)
                for one in here
            )
            if needed:
                heaps = {model: heap for model, heap in heaps.items() if model in (None, present)}
        return min(heaps.values(), default=None, key=lambda heap: heap[0][:2])

    def _is_wanted(self, job: _Job) -> bool:
        """Whether a turn still waits for a job; one that nobody wants is forgotten."""
        if job.turns:
            return True
        self._forget(job)
        return False

    def _forget(self, job: _Job) -> None:
        self._jobs.pop(job.key, None)
        if self._troubled.get(job.kind) is job:
            del self._troubled[job.kind]

    def _leave_to(self, job: _Job, holder: str) -> None:
        if job.told != holder:
            self.run.elsewhere(job.turns[0], job.stage, holder)
        job.told = holder
        if self._troubled.get(job.kind) is job:
            del self._troubled[job.kind]
        self._put_aside(job, SECONDS_ASIDE)

    def _submit(self, job: _Job) -> None:
        stage = job.stage
        cap = self._most_examples.get(job.kind)
        if job.most_examples is None and cap is not None:
            job.most_examples = cap.n_examples
        order = Order(
            stage,
            self.location,
            self.config.memory_budget,
            job.most_examples,
            self.config.max_models,
            self.config.max_bytes,
            self._next_model(job) if self.config.max_models > 1 else None,
        )
        self.run.started(job.turns[0], stage)
        future = self.runner.submit(self.run.task_of(stage), order)
        job.told = ""
        if stage.runs is not None:
            self._at[job.place] = stage.runs
        self._running[future] = job
        self._busy[job.place] += 1
        future.add_done_callback(self._events.put)

    def _next_model(self, job: _Job) -> ModelIdentity | None:
        """The model that a place needs next, once all turns of its present one are open."""
        if job.stage.runs is None:
            return None
        for turn in self._pending.get(job.place, ()):
            model = _model_of(turn)
            assert model is not None
            following = self.run.identity(model)
            return None if following == job.stage.runs else following
        return None

    def _stop_what_hangs(self) -> None:
        """Stop the stages that take longer than the time limit."""
        limit = self.config.time_limit
        if limit is None:
            return
        for future, job in list(self._running.items()):
            if job.stopped or self.runner.seconds(future) < limit:
                continue
            job.stopped = True
            said = seconds_as_text(limit)
            self.runner.abandon(future)
            self._fail(
                job,
                StageError(f"it took longer than time_limit, {said}, and was stopped"),
            )

    def _wait(self) -> None:
        """Wait for the next stage to end, or until there is something else to do."""
        if not self._running and not self._aside:
            waits = any(any(heaps.values()) for heaps in self._ready.values())
            assert waits or not self._open, "turns wait for stages that nobody does"
            if waits or time.monotonic() < self._not_before:
                time.sleep(_SECONDS_WITHOUT_ROOM)
            return
        until = self._aside[0][0] if self._aside else float("inf")
        sleep = min(_LONGEST_SLEEP, max(0.0, until - time.monotonic()))
        try:
            ended = [self._events.get(timeout=sleep)]
        except queue.Empty:
            return
        while not self._events.empty():
            ended.append(self._events.get())
        for future in ended:
            self._ended(future)

    def _ended(self, future: PrefectFuture[Any]) -> None:
        job = self._running.pop(future)
        self._busy[job.place] -= 1
        if self._jobs.get(job.key) is not job:  # it was given up
            return
        try:
            done: Done | None = future.result()
        except Exception as error:
            self._retry(job, error)
            return
        if done is None:
            if self._is_wanted(job):
                self._leave_to(job, self.run.leased().get(job.key, "another process"))
            return
        self._remember(job, done.most_examples)
        if job.attempts:  # the process that died may have published it before
            done = replace(done, reused=False)
        self.run.done(job.turns, job.stage, done)
        self._deliver(job, done.found)

    def _remember(self, job: _Job, fitted: int | None) -> None:
        """Start the stages like one with as many examples as fitted; with more, after a while."""
        if fitted is None:
            return
        cap = self._most_examples.setdefault(job.kind, _Cap(fitted))
        if job.most_examples is None or fitted < job.most_examples:
            cap.n_examples, cap.streak = fitted, 0
        elif cap.streak < _STREAK:
            cap.streak += 1
        else:
            cap.n_examples, cap.streak = 2 * cap.n_examples, 0
            if cap.n_examples > _ENOUGH:
                del self._most_examples[job.kind]

    def _deliver(self, job: _Job, found: Found) -> None:
        """Hand what was found to the turns that wait for it."""
        self._forget(job)
        for one, i in job.wanted_by:
            one.found[i : i + 1] = [found] if not one.over else one.found[i : i + 1]
        for one in dict.fromkeys(one for one, _ in job.wanted_by if not one.over):
            one.waiting.discard(job.key)
            if not one.waiting:
                self._go_on(one, lambda one=one: one.walk.send(tuple(one.found)))  # type: ignore[misc]

    def _retry(self, job: _Job, error: Exception) -> None:
        """Try a failed stage again later if that may help, else fail what waits for it."""
        died = isinstance(error, WorkerDiedError)
        may_pass = died or (isinstance(error, StageError) and error.may_pass)
        if not may_pass or job.attempts >= self.config.retries:
            self._fail(job, error)
            return
        if not self._is_wanted(job):
            return
        if died and job.attempts:  # twice: for want of memory, perhaps
            n = job.stage.last - job.stage.first if isinstance(job.stage, ShardStage) else None
            order = Order(job.stage, self.location, 0, job.most_examples)
            job.most_examples = with_half(order, n).most_examples
        seconds = wait_before(job.attempts)
        job.attempts += 1
        self._troubled[job.kind] = job
        self.run.put_off(job.turns[0], job.stage, str(error), seconds)
        self._put_aside(job, seconds)

    def _fail(self, job: _Job, error: Exception) -> None:
        self._forget(job)
        told = self.run.failed(job.turns, job.stage, error)
        for one in dict.fromkeys(one for one, _ in job.wanted_by if not one.over):
            self._close(one)
            self.run.gave_up(one.turn, told)


def _model_of(turn: Turn) -> ModelChoice | None:
    match turn:
        case Cell():
            return turn.model
        case CrossTask():
            return turn.cell.model
    return None
