"""Which run of a grid goes on for sure: on this host, on another, on one that is gone."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from data import Store, StoreError
from data.heart import Heart
from data.leases import DEAD_AFTER, Lease, LeaseInfo, Leases
from data.processes import Process, this_process
from data.runs import run_key
from tests.data.clock import Clock
from tests.data.nobody import not_as_root

ELSEWHERE = Process("elsewhere", "another boot", "pid:[1]", 1, "0")
BEFORE_THE_BOOT = Process(this_process().host, "another boot", this_process().namespace, 1, "0")


def elsewhere(store: Store, process: Process, heart: Heart | None) -> Leases:
    """Leases as another process takes them; without a heart it is as if it were gone."""
    return Leases(store.location, 0.1, DEAD_AFTER, process=lambda: process, heart=heart)


def test_a_run_of_this_host_is_known_at_once(tmp_path: Path):
    store = Store.open(tmp_path)
    me = (this_process().host, os.getpid())
    with store.running("nightly"), store.running("another"):
        going = Store.open(tmp_path).scheduled("nightly")
        assert isinstance(going, LeaseInfo)
        assert (going.host, going.pid) == me
    mine = store.scheduled("nightly")
    assert isinstance(mine, Lease)
    with mine:
        going = Store.open(tmp_path).scheduled("nightly")  # before it is a run
        assert isinstance(going, LeaseInfo)
        assert (going.host, going.pid) == me
        other = store.scheduled("another")
        assert isinstance(other, Lease)
        other.release()
        assert store.leases() == []  # it is no stage
        assert store.runs() == []


def test_of_scheduled_runs_that_begin_at_once_one_goes_on(tmp_path: Path):
    begin, found = threading.Barrier(8), []

    def try_to() -> None:
        store = Store.open(tmp_path)
        begin.wait()
        found.append(store.scheduled("nightly"))

    trying = [threading.Thread(target=try_to) for _ in range(8)]
    for one in trying:
        one.start()
    for one in trying:
        one.join()
    assert sum(isinstance(one, Lease) for one in found) == 1


def test_a_run_elsewhere_is_known_once_it_is_seen_to_be_alive(tmp_path: Path):
    store = Store.open(tmp_path)
    heart = Heart()
    held = elsewhere(store, ELSEWHERE, heart).take(run_key("nightly"))
    assert held is not None
    assert [one.sure for one in Store.open(tmp_path).runs()] == [False]
    going = store.scheduled("nightly")
    assert isinstance(going, LeaseInfo)
    assert (going.host, going.sure) == ("elsewhere", True)
    held.release()


@pytest.mark.parametrize("process", [ELSEWHERE, BEFORE_THE_BOOT])
def test_a_run_of_a_host_that_is_gone_is_none_once_it_has_stood_still_for_long(
    process: Process, tmp_path: Path
):
    store, clock = Store.open(tmp_path), Clock()
    store._leases = Leases(store.location, 0.1, DEAD_AFTER, clock=clock)
    assert elsewhere(store, process, None).take(run_key("nightly")) is not None
    assert [one.sure for one in store.runs()] == [False]
    found: list[object] = []
    looking = threading.Thread(target=lambda: found.append(store.scheduled("nightly")))
    looking.start()
    before = clock.asked
    while looking.is_alive() and clock.asked < before + 4:  # it has been seen to stand still
        time.sleep(0.01)
    assert found == []  # it may be alive
    clock.seconds += DEAD_AFTER
    looking.join()
    assert isinstance(found[0], Lease)


def test_where_a_lease_cannot_be_noted_that_is_what_is_told(tmp_path: Path):
    store = Store.open(tmp_path / "store")
    (tmp_path / "store" / "leases").mkdir(exist_ok=True)
    with not_as_root(tmp_path / "store"):
        (tmp_path / "store" / "leases").chmod(0o555)
        with pytest.raises(StoreError, match=r"cannot be written to .*Permission denied"):
            store.lease("ab" * 32)
