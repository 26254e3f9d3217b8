"""Leases between real processes: killed, stopped, on another host, with absurd clocks."""

import itertools
import json
import logging
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from data import Store, StoreError
from data.errors import StoreUnavailableError
from data.heart import Heart
from data.leases import DEAD_AFTER, Leases
from data.processes import Process, this_process
from tests.data.clock import Clock
from tests.data.contenders import ABOUT, contend, hold, key_at, tell, told, work
from tests.data.synthetic import members_table

KEY = key_at(0)
SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(["tests.data.contenders"])
ELSEWHERE = Process("elsewhere", "another boot", "pid:[1]", 1, "0")


def start(target: Callable[..., None], *arguments: object) -> multiprocessing.Process:
    process = SPAWN.Process(target=target, args=arguments)
    process.start()
    return process


def until(true: Callable[[], object]) -> None:
    """Wait until it is true."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < 120, "it never was"
        time.sleep(0.005)


def stop(process: multiprocessing.Process) -> None:
    """Have a process stand still from now on."""
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)


def lines_of(log: Path, word: str) -> list[list[str]]:
    return [line for line in told(log) if line[0] == word]


def claim_of(store: Store, process: Process, token: str = "0" * 16) -> Path:
    """The file of a claim as another process would have written it."""
    assert store.location.is_local
    path = Path(store.location.root) / "leases" / f"{KEY}.{token}.json"
    path.parent.mkdir(exist_ok=True)
    said = {"process": asdict(process), "since": "9999-12-31T23:59:59.999+00:00", "beat": "00"}
    path.write_text(json.dumps(said))
    return path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


def by_hand(store: Store, clock: Clock) -> Leases:
    """Leases of this process, whose hearts beat often; time passes for them where a test says."""
    return Leases(store.location, 0.1, DEAD_AFTER, clock=clock, heart=Heart())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_no_two_work_on_a_key_and_all_is_done_though_some_are_killed(
    store: Store, log: Path, seed: int
) -> None:
    moments, n_keys, n_processes = random.Random(seed), 30, 7
    n_long = n_processes  # so that nobody has done all before the last is killed
    processes = [
        start(work, store.location.address, str(log), n_keys, n_long, 0.06, 10 * seed + i)
        for i in range(n_processes)
    ]
    until(lambda: len(lines_of(log, "ready")) == n_processes)
    tell(str(log), "go")
    *some, last = moments.sample(processes, n_processes - 2)
    for victim in (*some, last):
        time.sleep(moments.uniform(0.01, 0.12))
        if victim is last:
            until(
                lambda: any(
                    int(index) >= n_keys - n_long and pid == str(last.pid)
                    for _, index, pid in lines_of(log, "begin")
                )
            )
        assert victim.pid is not None
        tell(str(log), "kill", victim.pid)
        os.kill(victim.pid, signal.SIGKILL)
    tell(str(log), "over")
    for process in processes:
        process.join(120)
    assert sorted(process.exitcode for process in processes) == [-signal.SIGKILL] * 5 + [0, 0]

    at_work: dict[str, str] = {}
    ended: list[str] = []
    killed: set[str] = set()
    taken_over = 0
    for word, *about in told(log):
        if word == "kill":
            killed.add(about[0])
        elif word == "begin":
            index, pid = about
            assert at_work.get(index) is None or at_work[index] in killed, "two at one key"
            taken_over += index in at_work
            at_work[index] = pid
        elif word == "end":
            index, pid = about
            assert at_work.pop(index) == pid
            ended.append(index)
    assert taken_over > 0, "nobody was killed at work"
    assert len(ended) == len(set(ended)), "a key was done twice"
    assert {key_at(index) for index in range(n_keys)} == {
        artifact.key for artifact in store.artifacts("members")
    }
    assert store.damaged == []
    assert store.lease(KEY) is not None  # and with it, whatever the dead left is swept away
    claims = list((Path(store.location.root) / "leases").iterdir())
    assert [claim.name.split(".")[0] for claim in claims] == [KEY]


def test_lease_of_a_killed_owner_is_taken_at_once(store: Store, log: Path, clock: Clock) -> None:
    owner = start(hold, store.location.address, str(log), 5.0, 30.0, False)
    until(lambda: lines_of(log, "holds"))
    observer = by_hand(store, clock)
    assert observer.take(KEY) is None
    (live,) = store.leases()
    assert (live.key, live.host, live.pid, live.mine) == (
        KEY,
        os.uname().nodename,
        owner.pid,
        False,
    )
    assert owner.pid is not None
    os.kill(owner.pid, signal.SIGKILL)
    owner.join()
    assert observer.take(KEY) is not None, "no time has passed"
    assert [(live.pid, live.mine) for live in store.leases()] == [(os.getpid(), True)]


def test_owner_that_ended_and_was_not_waited_for_is_gone(store: Store) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0 if store.lease(KEY) else 1)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    try:
        assert store.leases() == []
        assert store.lease(KEY) is not None
    finally:
        os.waitpid(pid, 0)


def test_owner_that_stood_still_loses_the_lease_and_does_no_harm(
    store: Store, log: Path, clock: Clock
) -> None:
    owner = start(hold, store.location.address, str(log), 0.1, 0.6, True)
    until(lambda: lines_of(log, "holds"))
    others = by_hand(store, clock)
    stop(owner)
    assert owner.pid is not None
    try:
        assert others.take(KEY) is None, "it may live"
        time.sleep(0.5)  # longer than it may keep the lease by its own clock
        clock.seconds += DEAD_AFTER
        taken = others.take(KEY)
        assert taken is not None
        written = store.write("members", KEY, members_table(KEY, range(5)), ABOUT)
        tell(str(log), "go")
    finally:
        os.kill(owner.pid, signal.SIGCONT)
    owner.join(120)
    assert owner.exitcode == 0
    assert lines_of(log, "lost") == [["lost", str(owner.pid)]]
    assert list(store.artifacts("members")) == [written]
    assert Store.open(store.location.address).find("members", KEY) == written
    assert store.damaged == []
    assert not taken.lost
    assert [(live.key, live.mine) for live in others.live()] == [(KEY, True)]


def test_owner_that_goes_on_working_keeps_the_lease(store: Store, log: Path, clock: Clock) -> None:
    """However slow its beats are for others, as long as one comes before they take it for dead."""
    owner = start(hold, store.location.address, str(log), 0.05, 30.0, False)
    until(lambda: lines_of(log, "holds"))
    others = by_hand(store, clock)
    (claim,) = (Path(store.location.root) / "leases").iterdir()
    for _ in range(10):
        before = claim.stat().st_mtime_ns
        assert others.take(KEY) is None
        clock.seconds += DEAD_AFTER - 1
        until(lambda then=before: claim.stat().st_mtime_ns != then)
    assert others.take(KEY) is None
    tell(str(log), "go")
    owner.join(120)
    assert lines_of(log, "kept") == [["kept", str(owner.pid)]]
    assert list((Path(store.location.root) / "leases").iterdir()) == []


@pytest.mark.parametrize("time_of_file", [0, 1, 2**33], ids=["1970", "a second later", "2242"])
def test_owner_elsewhere_is_believed_while_its_file_changes_whatever_its_clock(
    store: Store, time_of_file: int, clock: Clock
) -> None:
    claim, observer = claim_of(store, ELSEWHERE), by_hand(store, clock)
    for beat in range(50):
        os.utime(claim, ns=(0, time_of_file * 10**9 + beat))
        assert observer.take(KEY) is None
        clock.seconds += DEAD_AFTER - 1
    assert observer.take(KEY) is None
    assert [(live.host, live.mine) for live in observer.live()] == [("elsewhere", False)]
    clock.seconds += 1
    assert observer.take(KEY) is not None
    assert not claim.exists()
    assert observer.take(KEY) is None


def test_claim_elsewhere_for_another_key_is_swept_away_in_passing(
    store: Store, clock: Clock
) -> None:
    claim, observer = claim_of(store, ELSEWHERE), by_hand(store, clock)
    assert _held(observer, key_at(1))
    assert claim.exists()
    clock.seconds += DEAD_AFTER
    assert _held(observer, key_at(1))
    assert not claim.exists()
    assert observer.live() == []


def _held(leases: Leases, key: str) -> bool:
    """Whether the lease can be taken (it is released again)."""
    lease = leases.take(key)
    if lease is None:
        return False
    lease.release()
    return True


@pytest.mark.parametrize(
    "other",
    [{"host": "elsewhere"}, {"boot": "an earlier boot"}, {"namespace": "pid:[1]"}],
    ids=["another host", "another boot", "another container"],
)
def test_number_of_a_process_elsewhere_says_nothing_here(
    store: Store, other: dict, clock: Clock
) -> None:
    gone = replace(this_process(), pid=2**22 + 1, started="0")
    claim_of(store, gone)
    assert _held(by_hand(store, clock), KEY)
    claim_of(store, replace(gone, **other))
    assert not _held(by_hand(store, clock), KEY)


def test_another_process_under_a_number_used_again_is_not_the_owner(store: Store) -> None:
    claim_of(store, replace(this_process(), started="0"))
    assert store.lease(KEY) is not None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"process": {}}', b"\xff\x00"])
def test_claim_that_cannot_be_read_counts_until_it_has_not_changed_for_long(
    store: Store, content: bytes, clock: Clock
) -> None:
    claim = claim_of(store, ELSEWHERE)
    claim.write_bytes(content)
    observer = by_hand(store, clock)
    assert observer.take(KEY) is None
    clock.seconds += DEAD_AFTER - 1
    assert observer.take(KEY) is None
    assert [live.host for live in observer.live()] == ["unknown"]
    clock.seconds += 1
    assert observer.take(KEY) is not None


def test_released_lease_leaves_nothing_behind_however_it_ends(store: Store) -> None:
    folder = Path(store.location.root) / "leases"
    lease = store.lease(KEY)
    assert lease is not None
    assert len(list(folder.iterdir())) == 1
    with pytest.raises(ZeroDivisionError), lease:
        raise ZeroDivisionError
    assert list(folder.iterdir()) == []
    assert lease.lost
    lease.release()
    assert store.leases() == []
    with store.lease(KEY) or pytest.fail("it is free"):
        pass
    assert list(folder.iterdir()) == []


def test_interruption_while_it_is_taken_leaves_nothing_behind(store: Store, clock: Clock) -> None:
    """Ctrl-C after every step on the way, where another claimant comes after the first look."""
    folder, n_steps = Path(store.location.root) / "leases", 0
    for last in range(100):
        observer = by_hand(store, clock)
        steps = observer.taking(KEY)
        for n_steps, _ in enumerate(itertools.islice(steps, last)):
            if n_steps == 1:
                rival = claim_of(store, ELSEWHERE, token="f" * 16)
        steps.close()
        if last < 2:
            assert not folder.exists() or list(folder.iterdir()) == []
            continue
        assert list(folder.iterdir()) == [rival]
        rival.unlink()
        if n_steps < last - 1:
            break
    assert n_steps > 10


def test_interruption_while_it_waits_leaves_nothing_behind(
    store: Store, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    observer, rivals = by_hand(store, clock), []

    def contended(key: str) -> Iterator[float]:
        steps = Leases.taking(observer, key)
        yield next(steps)
        yield next(steps)
        rivals.append(claim_of(store, ELSEWHERE, token="f" * 16))
        yield from steps

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(observer, "taking", contended)
    there = SimpleNamespace(**vars(time) | {"sleep": interrupted})
    monkeypatch.setattr("data.leases.time", there)  # where other threads sleep on
    with pytest.raises(KeyboardInterrupt):
        observer.take(KEY)
    assert list((Path(store.location.root) / "leases").iterdir()) == rivals


def test_child_of_a_fork_neither_has_nor_ends_its_parents_lease(store: Store) -> None:
    lease = store.lease(KEY)
    assert lease is not None
    pid = os.fork()
    if pid == 0:
        lease.release()
        os._exit(0 if store.lease(KEY) is None and not store.leases()[0].mine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not lease.lost
    assert [live.mine for live in store.leases()] == [True]


def test_threads_of_one_process_share_leases_no_more_than_processes_do(store: Store) -> None:
    holders, most, lock, taken = 0, 0, threading.Lock(), 0

    def contend_here() -> None:
        nonlocal holders, most, taken
        for _ in range(30):
            while (lease := store.lease(KEY)) is None:
                time.sleep(0.001)
            with lease:
                with lock:
                    holders += 1
                    most, taken = max(most, holders), taken + 1
                time.sleep(0.0005)
                with lock:
                    holders -= 1

    threads = [threading.Thread(target=contend_here) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert (most, taken) == (1, 120)


def test_lease_whose_file_was_removed_is_lost(store: Store, clock: Clock) -> None:
    leases = by_hand(store, clock)
    lease = leases.take(KEY)
    assert lease is not None
    assert not lease.lost
    for claim in (Path(store.location.root) / "leases").iterdir():
        claim.unlink()
    until(lambda: lease.lost)
    assert leases.take(KEY) is not None


def test_lease_of_a_store_that_is_gone_is_lost_and_says_why(store: Store, clock: Clock) -> None:
    leases = by_hand(store, clock)
    lease = leases.take(KEY)
    assert lease is not None
    root = Path(store.location.root)
    root.rename(root.with_name("elsewhere"))
    until(lambda: lease.lost)
    with pytest.raises(StoreUnavailableError, match=r"is gone.*then run again"):
        leases.take(KEY)
    assert not root.exists()


def test_lease_that_cannot_be_renewed_is_lost_in_time_and_says_why(
    store: Store, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    lease = by_hand(store, clock).take(KEY)
    assert lease is not None

    def refused(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "utime", refused)
    until(lambda: lease.trouble)
    assert "Input/output error" in str(lease.trouble)
    clock.seconds += DEAD_AFTER * 2 / 3
    assert not lease.lost
    clock.seconds += 1
    assert lease.lost, "others may not take it yet"


def test_lease_recovers_from_a_renewal_that_failed_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    lease = by_hand(store, clock).take(KEY)
    assert lease is not None
    monkeypatch.setattr(os, "utime", lambda *_: (_ for _ in ()).throw(OSError(5, "no")))
    until(lambda: lease.trouble)
    monkeypatch.undo()
    until(lambda: lease.trouble is None)
    assert not lease.lost


@pytest.mark.parametrize("key", ["../" * 3 + "ab" * 8, "", "AB" * 8, "ab\0" * 8, "a" * 200])
def test_only_keys_become_claims(tmp_path: Path, store: Store, key: str) -> None:
    with pytest.raises(StoreError, match="key"):
        store.lease(key)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["store", "store.json"]


def test_file_that_is_no_claim_is_left_alone(store: Store) -> None:
    folder = Path(store.location.root) / "leases"
    folder.mkdir()
    for name in ("notes.txt", f"{KEY}.json", f"{KEY}.xyz.json"):
        (folder / name).write_text("x")
    with store.lease(KEY) or pytest.fail("it is free"):
        assert len(store.leases()) == 1
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["notes.txt", f"{KEY}.json", f"{KEY}.xyz.json"]
    )


def test_processes_take_turns_in_an_object_store_too(tmp_path: Path, log: Path) -> None:
    """On a file system that is not known to be one of this machine: claims are put again."""
    address = f"fsspec+local://{tmp_path}/other"
    Store.open(address)
    processes = [start(contend, address, str(log), 10, 0.1, 30.0) for _ in range(3)]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    words = [(line[0], line[2]) for line in told(log)]
    assert len(words) == 60
    for (begin, one), (end, other) in zip(words[::2], words[1::2], strict=True):
        assert (begin, end) == ("begin", "end")
        assert one == other


def test_lease_whose_file_could_not_be_removed_is_free_to_its_own_process_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("circuit-grid"), "propagate", True)  # runs end that

    def refused(*_: object) -> None:
        raise StoreUnavailableError("No network.")

    lease = store.lease(KEY)
    assert lease is not None
    monkeypatch.setattr(type(store.location), "remove", refused)
    with lease:
        pass  # what was done under it stands
    monkeypatch.undo()
    assert "could not be given back" in caplog.text
    assert "No network." in caplog.text
    assert len(list((Path(store.location.root) / "leases").iterdir())) == 1
    assert store.lease(KEY) is not None
    assert len(list((Path(store.location.root) / "leases").iterdir())) == 1
