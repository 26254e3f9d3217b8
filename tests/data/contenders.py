"""What processes of the tests do: take leases, work under them, and tell about it in a log.

A line of the log is one write at its end, so that the lines stand in the order of what they tell.
"""

import os
import random
import time
from pathlib import Path

from data import Store, provenance
from data.heart import Heart
from data.keys import stage_key
from data.leases import Leases
from data.location import Location
from tests.data.synthetic import members_table


def key_at(index: int) -> str:
    return stage_key("contended", 1, {"index": index}, {})


def tell(log: str, *words: object) -> None:
    """Add a line to the log."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, f"{' '.join(str(word) for word in words)}\n".encode())
    finally:
        os.close(descriptor)


def told(log: str | Path) -> list[list[str]]:
    """The lines of the log as words."""
    return [line.split() for line in Path(log).read_text().splitlines()]


def hear(log: str, word: str) -> None:
    """Wait until somebody tells a word."""
    while not any(line[0] == word for line in told(log)):
        time.sleep(0.01)


def work(address: str, log: str, n_keys: int, n_long: int, seconds: float, seed: int) -> None:
    """Publish every key that is not there, each under its lease, until all are.

    The work on the last `n_long` of them is not over before somebody tells that it may be.
    """
    store, chance, pid = Store.open(address), random.Random(seed), os.getpid()
    tell(log, "ready", pid)
    hear(log, "go")
    missing = set(range(n_keys))
    while missing:
        index = chance.choice(sorted(missing))
        key = key_at(index)
        if store.find("members", key) is not None:
            missing.discard(index)
            continue
        lease = store.lease(key)
        if lease is None:
            time.sleep(chance.uniform(0.0, 0.02))
            continue
        with lease:
            if store.find("members", key) is None:  # it may just have been published
                tell(log, "begin", index, pid)
                time.sleep(chance.uniform(0.5, 1.5) * seconds)
                if index >= n_keys - n_long:
                    hear(log, "over")
                store.write("members", key, members_table(key, range(index)), ABOUT)
                tell(log, "end", index, pid)


def hold(address: str, log: str, beat: float, dead_after: float, then_publish: bool) -> None:
    """Take the lease of the first key, keep it until told to go on, and say whether it is lost."""
    store = Store.open(address)
    lease = Leases(store.location, beat, dead_after).take(key_at(0))
    assert lease is not None
    with lease:
        tell(log, "holds", os.getpid())
        hear(log, "go")
        lost = lease.lost
        if then_publish:
            store.write("members", key_at(0), members_table(key_at(0), range(5)), ABOUT)
    tell(log, "lost" if lost else "kept", os.getpid())


def contend(address: str, log: str, times: int, beat: float, dead_after: float) -> None:
    """Take the lease of the first key so many times, for a moment each, and tell so."""
    leases, pid = Leases(Location.parse(address), beat, dead_after, heart=Heart()), os.getpid()
    for _ in range(times):
        while (lease := leases.take(key_at(0))) is None:
            time.sleep(random.uniform(0.0, 0.02))
        with lease:
            tell(log, "begin", 0, pid)
            time.sleep(0.01)
            tell(log, "end", 0, pid)


def publish(address: str, n_keys: int) -> None:
    """Publish so many keys, without leases."""
    store = Store.open(address)
    for index in range(n_keys):
        store.write("members", key_at(index), members_table(key_at(index), range(index)), ABOUT)


ABOUT = provenance("contended", "x", 1.0)
