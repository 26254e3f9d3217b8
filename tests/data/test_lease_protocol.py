"""The protocol of the leases in a world of its own: no two holders, whatever happens when.

Processes take their steps in any order. Between two steps time passes, processes are killed or
stand still, and listings show what changed while they were made or do not. Each process has a clock
that shows a time of its own.
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from data import leases as protocol
from data.leases import Lease, Leases, Steps
from data.location import Listed
from data.processes import Process
from tests.data.seeds import seeds

KEY = "ab" * 8
BEAT, DEAD_AFTER = 5.0, 30.0


@pytest.fixture(autouse=True)
def tokens_of_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same tokens in every run: they decide who of several claimants goes on."""
    chance = random.Random("tokens")
    monkeypatch.setattr(protocol.secrets, "token_hex", lambda n: chance.randbytes(n).hex())


@dataclass
class File:
    content: bytes
    made: int  # the moment
    changed: int
    removed: int | None = None


@dataclass
class World:
    """Files, the time, and which processes are gone."""

    seconds: float = 1e6
    moment: int = 0
    files: dict[str, list[File]] = field(default_factory=dict)  # every file that ever had a path
    gone: set[int] = field(default_factory=set)

    def there(self, path: str) -> File | None:
        last = self.files.get(path, [None])[-1]
        return last if last is not None and last.removed is None else None

    @property
    def paths(self) -> list[str]:
        return [path for path in self.files if self.there(path) is not None]


@dataclass
class Place:
    """The world's files as one process reaches them; nothing that a dead process does counts."""

    world: World
    pid: int
    is_local: bool
    chance: random.Random
    last_step: int = 0

    def put_lightly(self, path: str, content: bytes) -> None:
        moment = self.world.moment
        file = self.world.there(path)
        if self.pid in self.world.gone:
            return
        if file is None:
            self.world.files.setdefault(path, []).append(File(content, moment, moment))
        else:
            file.content, file.changed = content, moment

    def touch(self, path: str) -> bool:
        file = self.world.there(path)
        if file is not None and self.pid not in self.world.gone:
            file.changed = self.world.moment
        return file is not None

    def exists(self, path: str) -> bool:
        return self.world.there(path) is not None

    def read(self, path: str) -> bytes | None:
        file = self.world.there(path)
        return None if file is None else file.content

    def remove(self, path: str) -> None:
        file = self.world.there(path)
        if file is not None and self.pid not in self.world.gone:
            file.removed = self.world.moment

    def listing(self, folder: str) -> list[Listed]:
        """What was there all the time since the process's last step, and any of the rest."""
        found = []
        for path, files in self.world.files.items():
            for file in files:
                if file.removed is not None and file.removed <= self.last_step:
                    continue
                for_certain = file.made <= self.last_step and file.removed is None
                if for_certain or self.chance.random() < 0.5:
                    found.append(Listed(path, file.changed, len(file.content)))
                    break
        return found


@dataclass
class Claimant:
    """A process that takes the lease, holds it for a while and releases it, several times over."""

    world: World
    pid: int
    host: str
    is_local: bool
    chance: random.Random
    times: int
    lease: Lease | None = None
    taken: int = 0
    steps: Iterator[None] | None = None

    def __post_init__(self) -> None:
        self.ahead = self.chance.uniform(-1e6, 1e6)
        self.place = Place(self.world, self.pid, self.is_local, self.chance)
        self.leases = Leases(
            self.place,  # type: ignore[arg-type]
            BEAT,
            DEAD_AFTER,
            lambda: Process(self.host, "boot", "", self.pid, "0"),
            lambda process: process.host == self.host and process.pid in self.world.gone,
            lambda: self.world.seconds + self.ahead,
            heart=None,
        )

    @property
    def is_over(self) -> bool:
        return self.taken >= self.times or self.pid in self.world.gone

    @property
    def believes(self) -> bool:
        return self.lease is not None and not self.lease.lost and self.pid not in self.world.gone

    def step(self) -> None:
        """Take one step of whatever it is at."""
        if self.steps is None:
            self.steps = self.life()
        next(self.steps)
        self.place.last_step = self.world.moment

    def life(self) -> Iterator[None]:
        while True:
            lease = yield from _each(self.leases.taking(KEY))
            if lease is None:
                continue
            self.lease = lease
            for _ in range(self.chance.randrange(8)):
                if lease.lost:
                    break
                yield from _each(lease.beating())
                yield
            self.lease = None
            yield from _each(lease.withdrawing())
            self.taken += 1
            yield


class _Never(random.Random):
    """Chance that never shows what it may hide."""

    def random(self) -> float:
        return 1.0


NEVER = _Never(0)


def _each(steps: Steps[Lease | None]) -> Iterator[None]:
    """The steps of the protocol, each a moment of the world."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
        yield


def claimants(world: World, chance: random.Random, n: int, times: int) -> list[Claimant]:
    hosts, is_local = chance.randint(1, n), chance.random() < 0.5
    return [
        Claimant(world, pid, f"host {chance.randrange(hosts)}", is_local, chance, times)
        for pid in range(n)
    ]


def advance(world: World, chance: random.Random) -> None:
    """Time passes: mostly little, sometimes so much that whoever held is lost."""
    world.moment += 1
    draw = chance.random()
    if draw < 0.5:
        world.seconds += chance.uniform(0.0, 0.1)
    elif draw < 0.9:
        world.seconds += chance.uniform(0.0, BEAT)
    else:
        world.seconds += chance.uniform(0.0, 1.5 * DEAD_AFTER)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_no_two_hold_whatever_happens_when(n: int) -> None:
    taken = died_holding = 0
    for seed in seeds(1000 // n):
        chance, world = random.Random(f"{n} {seed}"), World()
        some = claimants(world, chance, n, times=2)
        asleep: dict[int, float] = {}
        for _ in range(300):
            ready = [
                one for one in some
                if not one.is_over and asleep.get(one.pid, 0.0) <= world.seconds
            ]  # fmt: skip
            if ready:
                chance.choice(ready).step()
            believing = [one.pid for one in some if one.believes]
            assert len(believing) <= 1, f"seed {seed}: {believing} hold it together"
            if all(one.is_over for one in some):
                break
            victim = chance.choice(some)
            if chance.random() < 0.02:
                asleep[victim.pid] = world.seconds + chance.uniform(0.0, 2 * DEAD_AFTER)
            elif chance.random() < 0.005:
                died_holding += victim.believes
                world.gone.add(victim.pid)
            advance(world, chance)
        taken += sum(one.taken for one in some)
    assert taken > 700
    assert died_holding > 5


@pytest.mark.parametrize("order", ["ab", "ba"])
@pytest.mark.parametrize("is_local", [True, False], ids=["directory", "object store"])
def test_every_order_of_the_steps_of_two_gives_one_holder_at_most(
    monkeypatch: pytest.MonkeyPatch, order: str, is_local: bool
) -> None:
    """All of them, one by one, with listings that hide all that changed while they were made."""
    outcomes: Counter[int] = Counter()
    schedules: list[list[int]] = [[]]
    while schedules:
        schedule = schedules.pop()
        world = World()
        some = [Claimant(world, pid, "host", is_local, NEVER, 1) for pid in range(2)]
        running = {one.pid: one.leases.taking(KEY) for one in some}
        held: list[int] = []
        played: list[int] = []
        while running:
            pids = sorted(running)
            choice = schedule[len(played)] if len(played) < len(schedule) else pids[0]
            if len(played) >= len(schedule):
                schedules += [[*played, other] for other in pids[1:]]
            played.append(choice)
            world.moment += 1
            monkeypatch.setattr(protocol.secrets, "token_hex", lambda n, one=choice: order[one] * n)
            try:
                next(running[choice])
            except StopIteration as end:
                del running[choice]
                if end.value is not None:
                    held.append(choice)
            some[choice].place.last_step = world.moment
        assert len(held) <= 1, f"both hold it after {played}"
        outcomes[len(held)] += 1
    assert outcomes[1] > 100


def test_who_contends_gets_it_in_turn_and_nothing_is_left() -> None:
    for seed in seeds(75):
        chance, world = random.Random(seed), World()
        some = claimants(world, chance, 4, times=1)
        for _ in range(20_000):
            ready = [one for one in some if not one.is_over]
            if not ready:
                break
            chance.choice(ready).step()
            world.moment += 1
            world.seconds += chance.uniform(0.0, 0.1)
        assert [one.taken for one in some] == [1] * 4, f"seed {seed}"
        assert world.paths == []


def test_claims_of_the_dead_are_removed_by_whoever_comes() -> None:
    for seed in seeds(50):
        chance, world = random.Random(seed), World()
        some = claimants(world, chance, 3, times=10**6)
        last = some[-1]
        last.times = 1
        for _ in range(chance.randrange(5, 60)):
            chance.choice(some[:-1]).step()
            world.moment += 1
        world.gone |= {0, 1}
        began = world.seconds
        while not last.is_over:
            last.step()
            world.moment += 1
            world.seconds += 0.2
        assert world.paths == []
        assert world.seconds - began < 60


@pytest.mark.parametrize("is_local", [True, False], ids=["directory", "object store"])
def test_claimant_that_stood_still_on_the_way_does_not_hold(is_local: bool) -> None:
    """At whichever step: what it saw before may not be so any more."""
    for last in range(10):
        world = World()
        one = Claimant(world, 0, "host", is_local, NEVER, 1)
        steps = one.leases.taking(KEY)
        for _ in range(last):
            world.moment += 1
            if next(steps, None) is None:
                return
            one.place.last_step = world.moment
        world.seconds += 2 * DEAD_AFTER
        lease = None
        try:
            while True:
                world.moment += 1
                next(steps)
                one.place.last_step = world.moment
        except StopIteration as end:
            lease = end.value
        assert lease is None or not lease.lost
        assert lease is not None or world.paths == []
    pytest.fail("it never ended")


@pytest.mark.parametrize("is_local", [True, False], ids=["directory", "object store"])
@pytest.mark.parametrize("n_steps", range(4))
def test_owner_that_stood_still_while_it_beat_leaves_no_claim(n_steps: int, is_local: bool) -> None:
    """Others took its claim away meanwhile; nothing of it may come back."""
    world = World()
    one = Claimant(world, 0, "host", is_local, NEVER, 1)
    lease, steps = None, one.leases.taking(KEY)
    while lease is None:
        try:
            next(steps)
        except StopIteration as end:
            lease = end.value
        world.moment += 1
        one.place.last_step = world.moment - 1
    beat = lease.beating()
    for _ in range(n_steps):
        next(beat, None)
    world.seconds += 2 * DEAD_AFTER
    world.files[lease.path][-1].removed = world.moment
    for _ in beat:
        world.moment += 1
    assert world.paths == [] or n_steps == 3
    assert lease.lost
