"""Stages on this machine: a worker process a device, and one for what needs no model.

A thread stands by each stage under way and waits for its worker, so that Prefect sees task runs and
the run's own process stays free to plan and to answer signals.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.errors import WorkerDiedError
from flows.estimates import kind_of_device
from flows.runner import HOST, Done, Order, Runner
from flows.worker import Worker

if TYPE_CHECKING:
    from uuid import UUID

    from prefect import Task
    from prefect.futures import PrefectFuture


class ThreadsRunner(Runner):
    """A stage at a time on each device, and one beside them on the host."""

    name = "threads"

    def __init__(self) -> None:
        self._workers: dict[str, Worker] = {}
        self._places: dict[UUID, str] = {}  # by task run
        self._opening = threading.Lock()
        self._closed = False

    @property
    def task_runner(self) -> TaskRunner[Any]:
        """As many threads as the places have room for: the dispatcher hands out no more."""
        return ThreadPoolTaskRunner()

    @property
    def workers(self) -> dict[str, int]:
        """The worker processes that are running, by place."""
        return {place: one.pid for place, one in self._workers.items() if one.pid is not None}

    def place_of(self, device: str | None) -> str:
        """The device itself, under one name, whatever a grid calls it."""
        if device is None:
            return HOST
        if device == "auto":
            device = "cuda" if kind_of_device("auto") == "cuda" else "cpu"
        return "cuda:0" if device == "cuda" else device

    def room(self, place: str) -> int:
        """One at a time: a device is not shared, and cores are not either."""
        return 1

    def work(self, order: Order) -> Done | None:
        """Have the worker of the stage's place do it."""
        return self._worker(self._place_of_order(order)).do(order)

    def submit(self, task: Task[Any, Any], order: Order) -> PrefectFuture[Any]:
        """Hand it to a thread, and remember at which place it is."""
        future = super().submit(task, order)
        self._places[future.task_run_id] = self._place_of_order(order)
        future.add_done_callback(lambda done: self._places.pop(done.task_run_id, None))
        return future

    def seconds(self, future: PrefectFuture[Any]) -> float:
        """Since the worker began with it."""
        place = self._places.get(future.task_run_id)
        return 0.0 if place is None else self._worker(place).seconds  # else it has just ended

    def abandon(self, future: PrefectFuture[Any]) -> None:
        """Kill the worker; the place's next stage gets another."""
        place = self._places.get(future.task_run_id)
        if place is not None:
            self._worker(place).kill()

    def close(self) -> None:
        """Kill all workers, for good."""
        with self._opening:
            self._closed = True
            for worker in self._workers.values():
                worker.close()

    def _place_of_order(self, order: Order) -> str:
        return self.place_of(None if order.stage.runs is None else order.stage.runs.device)

    def _worker(self, place: str) -> Worker:
        with self._opening:
            if self._closed:
                raise WorkerDiedError("the run is ending")
            if place not in self._workers:
                self._workers[place] = Worker(place)
            return self._workers[place]
