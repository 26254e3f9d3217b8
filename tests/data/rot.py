"""Bytes that rot on a disk: the file's state stays what it was, and the index trusts it."""

import time
from pathlib import Path

from data import TABLES, Store
from data.index import Index
from data.states import seconds_until_settled, state_of, states_of


def wait(store: Store) -> None:
    """Wait until what was written is old enough to be known for good."""
    states = [state for kind in TABLES for state in states_of(store.location, kind).values()]
    time.sleep(max((seconds_until_settled(state) for state in states if state), default=0.0))


def settle(store: Store) -> None:
    """The same, and have the index know all of it."""
    wait(store)
    for kind in TABLES:
        for artifact in store.artifacts(kind):
            assert store.find(kind, artifact.key) is not None
    store.save_index()


def rot(root: Path, kind: str, key: str, position: int = 20) -> None:
    """Flip a bit of an artifact's rows, and have the saved index know the file's new state.

    No process can keep the time of an inode as a failing disk does: so what is noted of it moves
    along, as if it had stayed.
    """
    store = Store.open(root, create=False)
    settle(store)
    index, path = Index(store.location), Path(store.path(kind, key))
    names = (f"{kind}/{key[:2]}/{key}.parquet", f"{kind}/{key[:2]}/{key}.json")
    state = state_of(store.location, *names)
    entry = index.get(kind, key, state)
    assert entry is not None, "it is not known to the index"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    after = state_of(store.location, *names)
    assert after is not None
    time.sleep(seconds_until_settled(after))
    index.put(kind, key, entry._replace(state=after))
    index.save()
    assert Store.open(root).find(kind, key) is not None, "the damage is to be hidden"
