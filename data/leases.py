"""Leases: that a stage is being done by one process, among all that share a store.

One algorithm for directories, for directories shared by hosts, and for object stores. It needs no
file system with locks or exclusive creation, only one whose listings show what was written before
they began. To take the lease of a key, a process

1. looks: where the key has a live claim, another process has the lease or is about to;
2. claims it: writes a file of its own, `leases/<key>.<token>.json`, with a token nobody shares;
3. looks again: if its own is the only live claim, the lease is its;
4. withdraws otherwise: deletes its own file. Of claimants who see each other, the one with the
   smallest token looks again a few times before it withdraws.

Of two processes, each of which wrote before it looked, one looked after both had written, and sees
the other's claim: two never hold one lease. As every claim has its own file, a dead one is passed
over, and removing it cannot touch the claim of anyone else.

The holder changes its file every 5 s. A claim is dead at once where its process was on this host
and is gone; elsewhere, when its file has stayed the same for 30 s of the observer's own clock: the
times that files and other hosts tell are compared with nothing. A holder who could not change its
file for 20 s of its own clock, or finds it gone, has lost the lease: it knows so before anyone can
take the claim for dead. The clock goes on while a machine sleeps, where the system has such a one
(Linux); elsewhere a holder who slept knows that it lost its lease only when its file is gone.
"""

import json
import logging
import random
import re
import secrets
import threading
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from typing import TypeAlias, TypeVar

from data.errors import StoreError
from data.heart import HEART, Heart
from data.keys import parse_json
from data.location import Location
from data.origin import now
from data.processes import Process, this_process

BEAT = 5.0
DEAD_AFTER = 30.0
_FOLDER = "leases"
CLAIM = re.compile(rf"{_FOLDER}/(?P<key>[0-9a-f]+)\.(?P<token>[0-9a-f]+)\.json")
_LOOKS = 6
_UNSEEN = (None, -1, b"")
_PROCESS = [field.name for field in fields(Process)]

_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", None)
_LOGGER = logging.getLogger("circuit-grid")

T = TypeVar("T")
Steps: TypeAlias = Generator[float, None, T]  # one access to the store a step; seconds to wait


@dataclass(frozen=True)
class LeaseInfo:
    """A live lease: its key, who has it (host, process number), since when; whether it is mine.

    `since` is the holder's own time (ISO 8601). It is `sure` that the holder lives where that is a
    process of this host, or where its file has changed under the observer's eyes; of another, it is
    only not known yet to be dead.
    """

    key: str
    host: str
    pid: int
    since: str
    mine: bool
    sure: bool


@dataclass(frozen=True)
class _Said:
    """What a claim's file says: whose it is (None where it does not say), and since when."""

    process: Process | None
    since: str


@dataclass(frozen=True)
class _Sighting:
    """A claim: the state of its file, since when (the observer's clock) it has been that.

    `moved` says that it was another when it was seen first.
    """

    key: str
    token: str
    state: tuple[int | None, int, bytes]
    since: float
    said: _Said | None  # None until it is read
    moved: bool = False


def seconds_awake_or_asleep() -> float:
    """The time of a clock that nobody sets and that goes on while the machine is suspended.

    Where the system has none (macOS, Windows), of one that may stand still meanwhile.
    """
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


class Lease:
    """A lease that this process has taken; leaving it as a context releases it.

    Where the store refuses that then, the log says so: its claim is dead to others in a while.
    """

    def __init__(self, key: str, token: str, leases: "Leases") -> None:
        self.key = key
        self.token = token
        self.beat_every = leases.beat
        self.trouble: str | None = None  # why the last change of its file failed
        self._leases = leases
        self.process = leases.process()
        self.since = now()
        self._over = False
        self._beaten = leases.clock()
        self._busy = threading.Lock()

    @property
    def path(self) -> str:
        """The claim's file in the store."""
        return _path(self.key, self.token)

    @property
    def lost(self) -> bool:
        """Whether another process may have it by now, or it was released; it stays so."""
        if self._leases.clock() - self._beaten > self._leases.dead_after * 2 / 3:
            self._over = True
        return self._over

    def beat(self) -> bool:
        """Change the claim's file, so that others see that its process lives; False once lost.

        Where that fails, `trouble` says why, until it succeeds or the lease is lost.
        """
        with self._busy:
            try:
                _done(self.beating())
                self.trouble = None
            except StoreError as error:
                self.trouble = str(error)
            return not self.lost

    def beating(self) -> Steps[None]:
        """The steps of changing the claim's file."""
        began, location = self._leases.clock(), self._leases.location
        yield 0.0
        if self.lost:
            return
        if location.is_local:
            there = location.touch(self.path)
        else:
            there = location.exists(self.path)
            if there:
                yield 0.0
                location.put_lightly(self.path, self.content())
        if not there:
            self._over = True
        elif self.lost:  # it took so long that the file may have been removed and put back by this
            yield 0.0
            location.remove(self.path)
        else:
            self._beaten = began

    def release(self) -> None:
        """Give it up, and leave nothing behind; once is enough, and a forked child's is not its."""
        if self.process != self._leases.process():
            return
        if self._leases.heart is not None:
            self._leases.heart.forget(self)
        with self._busy:
            _done(self.withdrawing())

    def withdrawing(self) -> Steps[None]:
        """The steps of giving it up."""
        self._over = True
        self._leases.forsaken.add(self.token)
        yield 0.0
        self._leases.location.remove(self.path)
        self._leases.forsaken.discard(self.token)

    def content(self) -> bytes:
        """What its file says: never twice the same."""
        said = {
            "process": asdict(self.process),
            "since": self.since,
            "beat": secrets.token_hex(4),
        }
        return json.dumps(said).encode()

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.release()
        except StoreError as error:  # what was done under it stands, and what went wrong is told
            _LOGGER.warning("a lease could not be given back, and ends by itself soon: %s", error)


class Leases:
    """The leases of a store, as one process sees and takes them.

    `beat` and `dead_after` are seconds, the same in all processes that share the store.
    """

    def __init__(
        self,
        location: Location,
        beat: float = BEAT,
        dead_after: float = DEAD_AFTER,
        process: Callable[[], Process] = this_process,
        is_gone: Callable[[Process], bool] = lambda process: process.is_gone,
        clock: Callable[[], float] = seconds_awake_or_asleep,
        heart: Heart | None = HEART,
    ) -> None:
        self.location = location
        self.beat = beat
        self.dead_after = dead_after
        self.process = process
        self.clock = clock
        self.heart = heart
        self.forsaken: set[str] = set()  # tokens withdrawn whose files may still be there
        self._is_gone = is_gone
        self._sightings: dict[str, _Sighting] = {}

    def take(self, key: str) -> Lease | None:
        """The lease of a key, or None while another process has it or contends for it."""
        return _done(self.taking(key))

    def live(self, tidy: bool = False) -> list[LeaseInfo]:
        """The leases that are live now, by key; if `tidy`, claims that are dead are removed.

        Then other processes need not see for themselves that they are.
        """
        here = self.process()
        found: dict[str, LeaseInfo] = {}
        live, dead = _done(self._looking(None))
        if tidy:
            _done(self._burying(dead))
        for claim in live:
            said = claim.said or _Said(None, "")
            of = said.process or Process("unknown", "", "", 0, "")
            sure = claim.moved or of.can_be_asked_about
            info = LeaseInfo(claim.key, of.host, of.pid, said.since, said.process == here, sure)
            found.setdefault(claim.key, info)
        return list(found.values())

    def dead(self) -> list[str]:
        """The files of the claims that are known to be dead."""
        _, dead = _done(self._looking(None))
        return [_path(claim.key, claim.token) for claim in dead]

    def taking(self, key: str) -> Steps["Lease | None"]:
        """The steps of taking a lease; closed on the way, they leave nothing behind."""
        if (yield from self._tidying(key)):
            return None
        lease = Lease(key, secrets.token_hex(8), self)
        try:
            yield 0.0
            self.location.put_lightly(lease.path, lease.content())
            said = _Said(lease.process, lease.since)  # so that it need not be read
            self._sightings[lease.path] = _Sighting(key, lease.token, _UNSEEN, self.clock(), said)
            for _ in range(_LOOKS):
                tokens = yield from self._tidying(key)
                if tokens == [lease.token] and not lease.lost:
                    if self.heart is not None:
                        self.heart.keep(lease)
                    return lease
                if lease.token != min(tokens, default=None):
                    break
                yield random.uniform(0.01, 0.05)
            yield from lease.withdrawing()
        except BaseException:
            with suppress(StoreError):  # what went wrong first is what is told
                lease.release()
            raise
        return None

    def _tidying(self, key: str) -> Steps[list[str]]:
        """The tokens of the live claims of a key; what is dead, of any key, is removed."""
        live, dead = yield from self._looking(key)
        yield from self._burying(dead)
        return [claim.token for claim in live if claim.key == key]

    def _burying(self, dead: list[_Sighting]) -> Steps[None]:
        """Remove claims that are dead."""
        for claim in dead:
            yield 0.0
            try:
                self.location.remove(_path(claim.key, claim.token))
            except StoreError:
                continue  # a dead claim does no harm where it is
            self.forsaken.discard(claim.token)

    def _looking(self, key: str | None) -> Steps[tuple[list[_Sighting], list[_Sighting]]]:
        """The claims that are live, and those that are dead.

        Claims are read once, in an object store only those of `key` (of all if None): of the others
        the states of their files have to do. Where files have no times, they are their states.
        """
        key = None if self.location.is_local else key
        began = self.clock()
        yield 0.0
        live: list[_Sighting] = []
        dead: list[_Sighting] = []
        seen: dict[str, _Sighting] = {}
        for one in self.location.listing(_FOLDER):
            match = CLAIM.fullmatch(one.path)
            if match is None:
                continue
            before = self._sightings.get(one.path)
            said, content = before.said if before is not None else None, b""
            if one.mtime_ns is None or (said is None and key in (None, match["key"])):
                yield 0.0
                read = self.location.read(one.path)
                if read is None:
                    continue  # withdrawn since the listing
                said, content = _said(read), read if one.mtime_ns is None else b""
            state = (one.mtime_ns, one.size, content)
            same = before is not None and before.state == state
            since = before.since if before is not None and same else self.clock()
            moved = before is not None and (before.moved or not same)
            claim = _Sighting(match["key"], match["token"], state, since, said, moved)
            seen[one.path] = claim
            is_dead = (
                claim.token in self.forsaken
                or began - since >= self.dead_after
                or (said is not None and said.process is not None and self._is_gone(said.process))
            )
            (dead if is_dead else live).append(claim)
        self._sightings = seen
        return live, dead


def _path(key: str, token: str) -> str:
    """The file of a claim."""
    return f"{_FOLDER}/{key}.{token}.json"


def _said(content: bytes) -> _Said:
    """What the file of a claim says; nothing where it cannot be read."""
    try:
        found = parse_json(content)
        host, boot, namespace, pid, started = (found["process"][name] for name in _PROCESS)
        whose = Process(str(host), str(boot), str(namespace), int(pid), str(started))
        return _Said(whose, str(found["since"]))
    except (ValueError, TypeError, KeyError, OverflowError):
        return _Said(None, "")


def _done(steps: Steps[T]) -> T:
    """Take all steps, waiting where they say so; closed if that is interrupted."""
    try:
        while True:
            try:
                pause = next(steps)
            except StopIteration as end:
                result: T = end.value
                return result
            if pause:
                time.sleep(pause)
    finally:
        steps.close()
