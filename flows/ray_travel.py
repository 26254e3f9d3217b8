"""A stage on its way to a worker of a Ray cluster, and what comes back of it."""

from __future__ import annotations

from typing import Any

import ray
from prefect_ray.task_runners import PrefectRayFuture

from flows.errors import WorkerDiedError
from flows.runner import Order

_DEATHS = (
    ray.exceptions.WorkerCrashedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.LocalRayletDiedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.TaskCancelledError,
)


class Sealed:
    """An order in which Prefect looks for no futures, and the mark that its worker leaves."""

    def __init__(self, order: Order, mark: str) -> None:
        self.order = order
        self.mark = mark


class RayFuture(PrefectRayFuture[Any]):
    """A stage on its way; one whose worker died says so as any other runner's would."""

    mark: str

    def result(self, timeout: float | None = None, raise_on_failure: bool = True) -> Any:
        """What the stage came to, or raises what it raised; WorkerDiedError without an answer."""
        try:
            return super().result(timeout, raise_on_failure)
        except _DEATHS as error:
            raise WorkerDiedError(_obituary(error)) from None


def _obituary(error: Exception) -> str:
    match error:
        case ray.exceptions.OutOfMemoryError():
            return "the worker that did it was ended by Ray: its machine ran out of memory"
        case ray.exceptions.NodeDiedError() | ray.exceptions.LocalRayletDiedError():
            return "the machine that did it left the Ray cluster"
    return "the worker process that did it ended"
