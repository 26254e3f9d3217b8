"""Where stages are done: the one surface behind which threads, processes and clusters look alike.

A runner has *places* (a device, the host, a cluster's workers), each with room for so many stages
at a time; the dispatcher never hands out more. What Prefect records as a task run is the runner's
`work` on one order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.utilities.annotations import quote

from flows.identity import ModelIdentity
from flows.stages import Found, Stage

if TYPE_CHECKING:
    from prefect import Task
    from prefect.futures import PrefectFuture

HOST = "host"  # the place of stages that run no model


@dataclass(frozen=True)
class Order:
    """One stage to be done on a store, and within which bounds.

    `memory_budget` (bytes) is what its work may hold beside the model; `most_examples`, if given,
    how many examples it may hold at a time. A process keeps at most `max_models` models a device,
    of at most `max_bytes` of weights together; `next_model` may be loaded meanwhile, where they
    leave room. `doubted` is a stage of which something was found damaged or gone: what is there of
    it is read before it is believed.
    """

    stage: Stage
    location: str
    memory_budget: int
    most_examples: int | None = None
    max_models: int = 1
    max_bytes: int | None = None
    next_model: ModelIdentity | None = None
    doubted: bool = False


@dataclass(frozen=True)
class Done:
    """A finished stage: its artifacts, and whether they were there already.

    `most_examples` is how many examples at a time it came down to where memory ran out, else None.
    """

    found: Found
    reused: bool = False
    most_examples: int | None = None


class Runner(ABC):
    """Does stages, several at a time; `close` it whatever happens."""

    name: ClassVar[str]
    one_model_a_place: bool = True  # a place turns to another model when it needs none

    @property
    @abstractmethod
    def task_runner(self) -> TaskRunner[Any]:
        """Prefect's task runner for the flow."""

    @abstractmethod
    def place_of(self, device: str | None) -> str:
        """Where stages of a device's models are done; those without a model for None."""

    @abstractmethod
    def room(self, place: str) -> int:
        """How many stages a place does at a time."""

    @abstractmethod
    def work(self, order: Order) -> Done | None:
        """Do a stage; None where another process has its lease. Runs where the task runner says."""

    def submit(self, task: Task[Any, Any], order: Order) -> PrefectFuture[Any]:
        """Hand a Prefect task of `work` to the task runner."""
        return task.submit(quote(order))  # nothing in it is a future: Prefect need not look

    def seconds(self, future: PrefectFuture[Any]) -> float:
        """For how long a stage has been under way, for its time limit; 0 where that has no say."""
        return 0.0

    @abstractmethod
    def abandon(self, future: PrefectFuture[Any]) -> None:
        """Stop what a future stands for, by killing the process that does it."""

    def close(self) -> None:  # noqa: B027 - not every runner holds something
        """Kill whatever is still being done, at once; does nothing the second time."""


class InlineRunner(Runner):
    """In this very process, one stage at a time: for notebooks, for debuggers, for short runs.

    What is defined in the process (a task, a metric) can be used; nothing here survives a crash or
    can be stopped in the middle, so time limits do not hold.
    """

    name = "inline"

    @property
    def task_runner(self) -> TaskRunner[Any]:
        """One thread beside the one that waits."""
        return ThreadPoolTaskRunner(max_workers=1)

    def place_of(self, device: str | None) -> str:
        """There is one place."""
        return HOST

    def room(self, place: str) -> int:
        """One at a time."""
        return 1

    def work(self, order: Order) -> Done | None:
        """Do it here."""
        from flows.doing import carry_out

        return carry_out(order)

    def abandon(self, future: PrefectFuture[Any]) -> None:
        """Nothing can be done about it."""
