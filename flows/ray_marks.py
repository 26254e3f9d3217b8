"""Since when a task on a Ray cluster is being done: its worker leaves a mark, the run looks for it.

Ray itself tells when a task began by its dashboard's service alone, which many clusters go without.
Marks lie where the cluster keeps its own notes. What counts is since when the run has seen a mark:
the clocks of other machines are not believed.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ray.experimental.internal_kv import _internal_kv_del, _internal_kv_exists, _internal_kv_put

_NAMESPACE = b"circuit-grid"


@contextmanager
def marked(mark: str) -> Iterator[None]:
    """In a worker: leave the mark as long as the task is being done."""
    _internal_kv_put(mark, b"", namespace=_NAMESPACE)
    try:
        yield
    finally:
        _internal_kv_del(mark, namespace=_NAMESPACE)


class Marks:
    """The marks of one run's tasks."""

    def __init__(self) -> None:
        self._run = f"{secrets.token_hex(8)}/"
        self._numbers = itertools.count()
        self._seen: dict[str, float] = {}

    def new(self) -> str:
        """A mark for a task that will be sent."""
        return f"{self._run}{next(self._numbers)}"

    def seconds(self, mark: str) -> float:
        """For how long a task has been under way; 0 for one that waits, or whose worker starts."""
        if mark not in self._seen:
            if not _internal_kv_exists(mark, namespace=_NAMESPACE):
                return 0.0
            self._seen[mark] = time.monotonic()
        return time.monotonic() - self._seen[mark]

    def clear(self) -> None:
        """Remove what killed workers left."""
        _internal_kv_del(self._run, del_by_prefix=True, namespace=_NAMESPACE)
