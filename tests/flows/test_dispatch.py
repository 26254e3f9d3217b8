"""The dispatcher on made-up stages, with everything going wrong that can: what must hold always."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import flows.dispatch
import flows.patience
from data.errors import StoreUnavailableError
from flows.config import Cell, GridConfig, ModelChoice
from flows.dispatch import Dispatcher
from flows.errors import Lost, StageError, WorkerDiedError
from flows.identity import ModelIdentity
from flows.reading import parse_grid
from flows.runner import HOST, Done, Order, Runner
from flows.stages import Found, Rows, Stage
from flows.walk import Comparisons, CrossTask, Turn, Walk, turns
from flows.workbench import Workbench

GRID = """
models: [one, two, {{name: three, device: "cuda:1"}}]
tasks: [ioi, sva]
methods: [EAP, random]
judging: {{cross_task: true}}
device: cpu
time_limit: 60s
retries: {retries}
"""


@dataclass(frozen=True)
class MadeUp(Stage):
    """A stage that is nothing but its key."""

    name = "made-up"
    kinds = ()
    number: int = 0
    model: ModelIdentity | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        return {"number": self.number, "scope": self.scope}

    @property
    def runs(self) -> ModelIdentity | None:
        return self.model

    def build(self, bench: Workbench) -> Rows:
        raise NotImplementedError


class Promise:
    """A stage under way; by the world's clock, one that hangs takes half a minute between looks."""

    def __init__(self, hangs: bool = False) -> None:
        self.hangs = hangs
        self.seconds = 0.0
        self._callbacks: list[Any] = []
        self._lock = threading.Lock()
        self._outcome: tuple[Done | Exception | None] | None = None

    def add_done_callback(self, callback: Any) -> None:
        with self._lock:
            self._callbacks.append(callback)
            over = self._outcome is not None
        if over:
            callback(self)

    def end(self, outcome: Done | Exception | None) -> None:
        with self._lock:
            if self._outcome is not None:
                return
            self._outcome = (outcome,)
            callbacks = list(self._callbacks)  # one that comes later is called by who brings it
        for callback in callbacks:
            callback(self)

    def result(self) -> Done | None:
        assert self._outcome is not None
        if isinstance(self._outcome[0], Exception):
            raise self._outcome[0]
        return self._outcome[0]


class World(Runner):
    """A run, its store and its workers in one, all made up, that keeps count of what happens."""

    name = "made-up"

    def __init__(self, config: GridConfig, seed: int, trouble: float, rooms: int) -> None:
        self.config, self.chance = config, random.Random(seed)
        self.trouble, self.rooms = trouble, rooms
        self.store: set[str] = set()
        self.over: list[Turn] = []
        self.given_up: dict[Turn, Exception] = {}
        self.others: dict[str, float] = {}  # leases of other processes, until when
        self.met: set[str] = set()
        self.at: Counter[str] = Counter()
        self._counting = threading.Lock()  # stages end in threads of their own
        self.tries: Counter[str] = Counter()
        # by place, in the order in which it ran them
        self.models: dict[str, list[str]] = defaultdict(list)
        self.refusals = 0

    # where stages are done

    @property
    def task_runner(self) -> Any:
        raise NotImplementedError

    def work(self, order: Order) -> Done | None:
        raise NotImplementedError

    def place_of(self, device: str | None) -> str:
        return device or HOST

    def room(self, place: str) -> int:
        return self.rooms

    def seconds(self, future: Any) -> float:
        future.seconds += 30.0 * future.hangs
        return float(future.seconds)

    def abandon(self, future: Any) -> None:
        future.end(WorkerDiedError("it was stopped"))

    def submit(self, task: Any, order: Order) -> Any:
        stage, promise = order.stage, Promise()
        assert stage.key is not None
        place = self.place_of(None if stage.runs is None else stage.runs.device)
        self._count(place, +1)
        assert self.at[place] <= self.rooms, "there is no room"
        self.tries[stage.key] += stage.key not in self.store
        if stage.runs is not None:
            self.models[place].append(stage.runs.name)
        luck = self.chance.random()
        promise.add_done_callback(lambda _: self._count(place, -1))
        if luck < self.trouble / 50 and stage.key not in self.store:
            promise.hangs = True  # until it is stopped
            return promise
        outcome: Done | Exception | None = Done({})
        if luck < self.trouble * 0.3:
            outcome = StageError("no memory", may_pass=True)
        elif luck < self.trouble * 0.5:
            outcome = WorkerDiedError("killed")
        elif luck < self.trouble * 0.6:
            outcome = StageError("wrong by itself")
        elif luck < self.trouble:
            outcome = None  # another process was faster
            self.others[stage.key] = time.monotonic() + 0.005

        def end() -> None:
            if isinstance(outcome, Done):
                self.store.add(stage.key or "")
            promise.end(outcome)

        threading.Timer(self.chance.uniform(0, 0.004), end).start()
        return promise

    def _count(self, place: str, change: int) -> None:
        with self._counting:
            self.at[place] += change

    # what the dispatcher asks and tells

    def begin(self, turn: Turn) -> Walk:
        settled = {*self.over, *self.given_up}
        if isinstance(turn, CrossTask):
            cells = [cell for cell in self.config.cells() if cell.model == turn.cell.model]
            assert settled.issuperset(cells), "it sets cells beside each other that are not over"
        if isinstance(turn, Comparisons):
            assert len(settled) == len(list(turns(self.config))) - 1
        return self._walk(turn)

    def _walk(self, turn: Turn) -> Walk:
        choice = turn.model if isinstance(turn, Cell) else getattr(turn, "cell", turn)
        choice = getattr(choice, "model", choice)
        model = self.identity(choice) if isinstance(choice, ModelChoice) else None
        yield MadeUp(str(model and model.name), 0, model), MadeUp(turn.label, 1)
        yield tuple(MadeUp(turn.label, 10 + i, model) for i in range(4))
        if self.refusals < self.config.retries and self.chance.random() < self.trouble:
            self.refusals += 1
            raise StoreUnavailableError("The store is out of reach.")
        yield (MadeUp(turn.label, 2),)
        yield (MadeUp(turn.label, 3, model),)
        return None

    def find(self, turn: Turn, stage: Stage) -> Found | None:
        assert stage.key is not None
        if stage.key not in self.met and self.chance.random() < self.trouble / 4:
            self.others[stage.key] = time.monotonic() + 0.005
        self.met.add(stage.key)
        return {} if stage.key in self.store else None

    def is_lost(self, lost: Lost) -> bool:
        return lost.key not in self.store

    def leased(self) -> Mapping[str, str]:
        for key, until in list(self.others.items()):
            if until < time.monotonic():
                del self.others[key]
                if self.chance.random() < 0.5:
                    self.store.add(key)  # otherwise that process was killed
        return {key: "elsewhere:1" for key in self.others if key not in self.store}

    def task_of(self, stage: Stage) -> Any:
        return None

    def identity(self, model: ModelChoice) -> ModelIdentity:
        of = (model.name, model.name, model.name, None, "float32", "ungrouped")
        return ModelIdentity(*of, model.device or "cpu", "f" * 64, "t")

    def started(self, turn: Turn, stage: Stage) -> None: ...

    def put_off(self, turn: Turn, stage: Stage, sentence: str, seconds: float) -> None: ...

    def elsewhere(self, turn: Turn, stage: Stage, holder: str) -> None: ...

    def refused(self, turn: Turn, sentence: str, seconds: float) -> None: ...

    def now_and_then(self) -> None: ...

    def done(self, wanted_by: list[Turn], stage: Stage, done: Done) -> None:
        assert stage.key in self.store

    def failed(self, wanted_by: list[Turn], stage: Stage, error: Exception) -> Exception:
        return error

    def ended(self, turn: Turn, products: Any) -> None:
        self.over.append(turn)

    def gave_up(self, turn: Turn, error: Exception) -> None:
        self.given_up[turn] = error


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for in seconds is waited for in milliseconds here."""
    monkeypatch.setattr(flows.dispatch, "SECONDS_ASIDE", 0.003)
    monkeypatch.setattr(flows.dispatch, "_SECONDS_WITHOUT_ROOM", 0.003)
    monkeypatch.setattr(flows.dispatch, "_LONGEST_SLEEP", 0.1)
    monkeypatch.setattr(flows.patience, "FIRST_WAIT", 0.002)
    monkeypatch.setattr(flows.patience, "WAIT_FACTOR", 1.5)


def brought_to_its_end(world: World) -> None:
    """Dispatch all turns of a world; what goes on for ever fails."""
    failures: list[BaseException] = []

    def go() -> None:
        try:
            Dispatcher(world.config, "store", world, world).go()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=go, daemon=True)
    thread.start()
    thread.join(300)
    assert not thread.is_alive(), "it goes on for ever"
    if failures:
        raise failures[0]


def world_after(seed: int, trouble: float, rooms: int = 1, retries: int = 3) -> World:
    config = parse_grid(GRID.format(retries=retries), "grid.yaml", Path())
    world = World(config, seed, trouble, rooms)
    brought_to_its_end(world)
    return world


@pytest.mark.parametrize("rooms", [1, 3])
def test_without_trouble_every_stage_is_done_once_and_every_model_loaded_once(rooms: int):
    world = world_after(0, trouble=0, rooms=rooms)
    assert set(world.over) == set(turns(world.config))
    assert set(world.tries.values()) == {1}
    assert set(world.tries) == world.store
    for place, models in world.models.items():
        assert [name for name, _ in itertools.groupby(models)] == {
            "cpu": ["one", "two"],
            "cuda:1": ["three"],
        }[place]


@pytest.mark.parametrize("seed", range(12))
def test_whatever_goes_wrong_every_turn_ends_and_no_place_is_overfull(seed: int):
    world = world_after(seed, trouble=0.5, rooms=1 + seed % 3, retries=seed % 4)
    settled = [*world.over, *world.given_up]
    assert Counter(settled) == Counter(turns(world.config))
    for error in world.given_up.values():
        assert isinstance(error, StageError | WorkerDiedError)
    assert max(world.tries.values()) > 1 or seed % 4 == 0
    assert world.given_up


def test_what_may_pass_passes_if_it_is_tried_often_enough():
    world = world_after(3, trouble=0.25, retries=100)
    wrong = [error for error in world.given_up.values() if isinstance(error, StageError)]
    assert len(wrong) == len(world.given_up)
    said = {error.sentence for error in wrong}
    assert said <= {"wrong by itself", "it took longer than time_limit, 1m, and was stopped"}


def test_a_failure_that_will_pass_does_not_make_a_place_turn_to_another_model_and_back():
    for seed in range(5):
        world = world_after(seed, trouble=0, retries=9)
        assert len(list(itertools.groupby(world.models["cpu"]))) == 2
        world = World(world.config, seed, 0.0, 1)
        submit, failing = world.submit, set[str]()

        def once(task: Any, order: Order, submit: Any = submit, failing: Any = failing) -> Any:
            key = order.stage.key
            if key in failing or order.stage.runs is None:
                return submit(task, order)
            failing.add(key)
            promise = Promise()
            promise.end(StageError("no memory", may_pass=True))
            return promise

        world.submit = once  # type: ignore[method-assign]
        brought_to_its_end(world)
        assert set(world.over) == set(turns(world.config))
        assert len(list(itertools.groupby(world.models["cpu"]))) == 2


class Leaky(World):
    """A world in which stages that are done get lost before those that need them have read them."""

    def __init__(self, config: GridConfig, seed: int, leak: float, rooms: int = 1) -> None:
        super().__init__(config, seed, 0.0, rooms)
        self.leak = leak
        self.asked: dict[Turn, dict[str, int]] = defaultdict(dict)  # at which step, by key
        self.n_lost: Counter[str] = Counter()
        self.doubted: set[str] = set()

    def find(self, turn: Turn, stage: Stage) -> Found | None:
        assert isinstance(stage, MadeUp)
        step = {0: 0, 1: 0, 2: 2, 3: 3}.get(stage.number, 1)
        self.asked[turn][stage.key or ""] = step
        return super().find(turn, stage)

    def read_by(self, key: str) -> set[str]:
        """What a stage reads: what its cell asked for in earlier steps, or all that cells did."""
        turn = next(turn for turn, keys in self.asked.items() if key in keys)
        of = list(self.config.cells())
        if isinstance(turn, CrossTask):
            of = [cell for cell in of if cell.model == turn.cell.model]
        if not isinstance(turn, Cell):
            return {key for one in of for key in self.asked[one]}
        steps = self.asked[turn]
        return {one for one, step in steps.items() if step < steps[key]}

    def submit(self, task: Any, order: Order) -> Any:
        key = order.stage.key or ""
        self.doubted |= {key} if order.doubted else set()
        read = self.read_by(key)
        if read <= self.store and read and self.chance.random() < self.leak:
            self.lose(self.chance.choice(sorted(read)))
        gone = sorted(read - self.store)
        if not gone:
            return super().submit(task, order)
        promise = Promise()
        promise.end(StageError("an input is gone", lost=Lost("made-up", gone[0], "is gone")))
        return promise

    def done(self, wanted_by: list[Turn], stage: Stage, done: Done) -> None: ...

    def lose(self, key: str) -> None:
        self.store.discard(key)
        self.n_lost[key] += 1


@pytest.mark.parametrize("seed", range(4))
def test_what_is_lost_is_made_again_before_those_go_on_that_need_it(seed: int):
    config = parse_grid(GRID.format(retries=100), "grid.yaml", Path())
    world = Leaky(config, seed, leak=0.2, rooms=1 + seed)
    brought_to_its_end(world)
    assert world.n_lost
    assert set(world.over) == set(turns(config))
    assert world.given_up == {}
    assert world.store == {key for keys in world.asked.values() for key in keys}
    assert {key: n - 1 for key, n in world.tries.items() if n > 1} == dict(world.n_lost)
    assert world.doubted  # others were found missing by a walk itself
    assert world.doubted <= set(world.n_lost)


@pytest.mark.parametrize("rooms", [1, 4])
def test_what_many_turns_miss_at_once_is_made_again_once(rooms: int):
    config = parse_grid(GRID.format(retries=1), "grid.yaml", Path())
    world = Leaky(config, 0, leak=0.0, rooms=rooms)
    submit = world.submit
    shared = MadeUp("one", 0, world.identity(config.models[0])).key or ""

    def once(task: Any, order: Order) -> Any:
        if order.stage.runs is not None and shared in world.store and not world.n_lost:
            world.lose(shared)
        return submit(task, order)

    world.submit = once  # type: ignore[method-assign]
    brought_to_its_end(world)
    assert world.n_lost == {shared: 1}
    assert set(world.over) == set(turns(config))
    assert world.given_up == {}
    assert world.tries[shared] == 2
    assert max(n for key, n in world.tries.items() if key != shared) == 1


def test_what_a_turn_lacks_is_made_again_by_one_that_did_not_fail():
    text = GRID.format(retries=1).replace('[one, two, {name: three, device: "cuda:1"}]', "[one]")
    config = parse_grid(text.replace("[EAP, random]", "[EAP]"), "grid.yaml", Path())
    world = World(config, 0, 0.0, 1)
    submit, first = world.submit, next(iter(config.cells()))
    shared = MadeUp("one", 0, world.identity(config.models[0])).key or ""
    wrong, lost = MadeUp(first.label, 1), list[str]()
    find, begin = world.find, world.begin

    def asks_for_its_own(turn: Turn) -> Walk:
        if isinstance(turn, Cell):
            yield from begin(turn)
        else:
            yield (MadeUp(turn.label, 1),)
        return None

    def unless_it_failed(turn: Turn, stage: Stage) -> Found | None:
        if stage == wrong and first in world.given_up:
            raise world.given_up[first]
        return find(turn, stage)

    def by_turn(task: Any, order: Order) -> Any:
        promise, stage = Promise(), order.stage
        assert isinstance(stage, MadeUp)
        if stage == wrong:
            promise.end(StageError("wrong by itself"))
        elif "other tasks" in stage.scope and shared not in lost:
            lost.append(shared)
            world.store.discard(shared)
            promise.end(StageError("an input is gone", lost=Lost("made-up", shared, "is gone")))
        else:
            return submit(task, order)
        return promise

    world.begin = asks_for_its_own  # type: ignore[method-assign]
    world.find = unless_it_failed  # type: ignore[method-assign]
    world.submit = by_turn  # type: ignore[method-assign]
    brought_to_its_end(world)
    assert lost == [shared]
    assert world.given_up.keys() == {first}
    assert set(world.over) == set(turns(config)) - {first}
    assert world.tries[shared] == 2


def test_what_is_lost_each_time_fails_those_that_need_it_and_no_others():
    config = parse_grid(GRID.format(retries=2), "grid.yaml", Path())
    world = Leaky(config, 0, leak=0.0)
    submit, victim = world.submit, next(iter(config.cells()))
    first = MadeUp(victim.label, 1).key or ""

    def always(task: Any, order: Order) -> Any:
        if order.stage.scope == victim.label and order.stage.key != first:
            world.lose(first)
        elif isinstance(order.stage, MadeUp) and order.stage.scope != victim.label:
            return World.submit(world, task, order)  # these read nothing of it
        return submit(task, order)

    world.submit = always  # type: ignore[method-assign]
    brought_to_its_end(world)
    assert world.tries[first] == 3
    assert world.given_up.keys() == {victim}
    assert "is gone, and so it was each time that it was built again (2 times)" in str(
        world.given_up[victim]
    )
    assert set(world.over) == set(turns(config)) - {victim}


def test_an_input_that_is_there_again_is_read_again_and_not_made_again():
    """Another process was faster, or the reader misread: the stage is tried as after an error."""
    config = parse_grid(GRID.format(retries=1), "grid.yaml", Path())
    world = Leaky(config, 0, leak=0.0)
    submit, failing = world.submit, set[str]()

    def once(task: Any, order: Order) -> Any:
        key = order.stage.key or ""
        if key in failing or not world.store:
            return submit(task, order)
        failing.add(key)
        promise = Promise()
        there = sorted(world.store)[0]
        promise.end(StageError("an input is gone", lost=Lost("made-up", there, "was gone")))
        return promise

    world.submit = once  # type: ignore[method-assign]
    brought_to_its_end(world)
    assert len(failing) > 10
    assert Counter(world.over) == Counter(turns(config))
    assert set(world.tries.values()) == {1}
    assert world.doubted == set()


class Scripted(World):
    """A world of one cell, in which each stage comes to what is said of it."""

    def __init__(self, outcome: Callable[[MadeUp, int], Done | Exception], retries: int = 3):
        text = GRID.format(retries=retries).replace("[one, two, ", "[one] #")
        text = text.replace("[ioi, sva]", "[ioi]").replace("[EAP, random]", "[EAP]")
        text = text.replace("cross_task: true", "comparisons: false")
        super().__init__(parse_grid(text, "grid.yaml", Path()), 0, 0.0, 1)
        self.outcome = outcome
        self.orders: list[Order] = []
        self.told: list[Done] = []

    def submit(self, task: Any, order: Order) -> Any:
        assert isinstance(order.stage, MadeUp)
        n = sum(one.stage == order.stage for one in self.orders)
        self.orders.append(order)
        promise, outcome = Promise(), self.outcome(order.stage, n)
        if isinstance(outcome, Done):
            self.store.add(order.stage.key or "")
        promise.end(outcome)
        return promise

    def done(self, wanted_by: list[Turn], stage: Stage, done: Done) -> None:
        super().done(wanted_by, stage, done)
        self.told.append(done)

    def go(self) -> list[tuple[int, int | None]]:
        """The shards of the cell in the order in which they were tried, and their caps."""
        brought_to_its_end(self)
        (cell,) = self.config.cells()
        stages = [(order.stage, order.most_examples) for order in self.orders]
        return [
            (stage.number - 10, most)
            for stage, most in stages
            if isinstance(stage, MadeUp) and stage.scope == cell.label and 10 <= stage.number < 14
        ]


def test_a_stage_is_tried_again_so_often_and_its_like_wait_until_it_was():
    def outcome(stage: MadeUp, n: int) -> Done | Exception:
        fails = stage.number == 11 and n < 2
        return StageError("no memory", may_pass=True) if fails else Done({}, reused=True)

    world = Scripted(outcome, retries=2)
    tried = [number for number, _ in world.go()]
    assert [number for number in tried if number != 0] == [1, 1, 1, 2, 3]
    assert world.given_up == {}
    # the attempt that failed may have published it: then this run did it all the same
    assert sum(not done.reused for done in world.told) >= 1
    world = Scripted(outcome, retries=1)
    assert [number for number, _ in world.go()].count(1) == 2
    assert [str(error) for error in world.given_up.values()] == ["no memory"]


def test_a_stage_whose_process_is_killed_twice_is_tried_with_few_examples():
    def outcome(stage: MadeUp, n: int) -> Done | Exception:
        return WorkerDiedError("killed") if stage.number == 10 and n < 3 else Done({})

    world = Scripted(outcome)
    assert [most for number, most in world.go() if number == 0] == [None, None, 1, 1]


def test_stages_like_one_that_ran_out_of_memory_begin_with_what_fitted_it():
    def outcome(stage: MadeUp, n: int) -> Done | Exception:
        return Done({}, most_examples=4 if stage.number >= 10 else None)

    assert Scripted(outcome).go() == [(0, None), (1, 4), (2, 4), (3, 4)]


def test_a_store_that_stays_out_of_reach_ends_the_run():
    world = Scripted(lambda stage, n: Done({}), retries=2)
    begun: list[Turn] = []

    def refused(turn: Turn) -> Walk:
        begun.append(turn)
        raise StoreUnavailableError("The store is out of reach.")
        yield ()

    world.begin = refused  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailableError):
        world.go()
    assert len(begun) == 3


def test_a_place_that_turned_to_another_model_meanwhile_finishes_that_one_first():
    text = GRID.format(retries=0).replace(', {name: three, device: "cuda:1"}', "")
    text = text.replace("[ioi, sva]", "[ioi]").replace("[EAP, random]", "[EAP]")
    text = text.replace("cross_task: true", "comparisons: false")
    world = World(parse_grid(text, "grid.yaml", Path()), 0, 0.0, 1)
    first = next(iter(world.config.cells()))
    held = MadeUp(first.label, 10, world.identity(first.model)).key

    def leased() -> Mapping[str, str]:
        is_held = world.models["cpu"].count("two") < 2
        return {held: "elsewhere:1"} if is_held and held is not None else {}

    world.leased = leased  # type: ignore[method-assign]
    brought_to_its_end(world)
    assert len(world.over) == 2
    assert [name for name, _ in itertools.groupby(world.models["cpu"])] == ["one", "two", "one"]


def test_a_stage_that_was_stopped_has_failed_even_if_it_ends_well_after_that():
    world = Scripted(lambda stage, n: Done({}))
    submit, stopped = world.submit, []

    def hang(task: Any, order: Order) -> Any:
        hangs = getattr(order.stage, "number", 0) == 12
        return Promise(hangs=True) if hangs else submit(task, order)

    def abandon(future: Any) -> None:
        stopped.append(future)
        future.end(Done({}))

    world.submit, world.abandon = hang, abandon  # type: ignore[method-assign]
    world.go()
    assert len(stopped) == 1
    (error,) = world.given_up.values()
    assert str(error) == "it took longer than time_limit, 1m, and was stopped"
    n_done = len({order.stage for order in world.orders})
    assert len(world.told) == n_done  # of the one that was stopped, nothing more is said


def test_a_stage_that_ended_before_anybody_looked_is_not_stopped():
    """A runner may count on until its end is looked at; a store out of reach puts that off."""
    world = Scripted(lambda stage, n: Done({}))
    world.seconds = lambda future: 3600.0  # type: ignore[method-assign]
    world.go()
    assert world.given_up == {}
    assert set(world.over) == set(turns(world.config))
