"""Which run of a grid goes on for sure: on this host, on another, on one that is gone."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from data import Store, StoreError
from data.heart import Heart
from data.leases import DEAD_AFTER, Leases
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
    assert store.run_of("nightly") is None
    with store.running("nightly"), store.running("another"):
        going = Store.open(tmp_path).run_of("nightly")
        assert going is not None
        assert (going.host, going.pid) == (this_process().host, os.getpid())
    assert store.run_of("nightly") is None


def test_a_run_elsewhere_is_known_once_it_is_seen_to_be_alive(tmp_path: Path):
    store = Store.open(tmp_path)
    heart = Heart()
    held = elsewhere(store, ELSEWHERE, heart).take(run_key("nightly"))
    assert held is not None
    assert [one.sure for one in Store.open(tmp_path).runs()] == [False]
    going = store.run_of("nightly")
    assert going is not None
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
    looking = threading.Thread(target=lambda: found.append(store.run_of("nightly")))
    looking.start()
    looking.join(0.5)
    assert found == []  # it may be alive
    clock.seconds += DEAD_AFTER
    looking.join()
    assert found == [None]


def test_where_a_lease_cannot_be_noted_that_is_what_is_told(tmp_path: Path):
    store = Store.open(tmp_path / "store")
    (tmp_path / "store" / "leases").mkdir(exist_ok=True)
    with not_as_root(tmp_path / "store"):
        (tmp_path / "store" / "leases").chmod(0o555)
        with pytest.raises(StoreError, match=r"cannot be written to .*Permission denied"):
            store.lease("ab" * 32)
