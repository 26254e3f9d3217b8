"""What the dispatcher asks of a run, and what it tells it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from flows.config import ModelChoice
from flows.errors import Lost
from flows.identity import ModelIdentity
from flows.runner import Done
from flows.stages import Found, Stage
from flows.walk import Turn, Walk

if TYPE_CHECKING:
    from prefect import Task


class Supervisor(Protocol):
    """A run, as the dispatcher sees it."""

    # asked

    def begin(self, turn: Turn) -> Walk:
        """The walk of a turn; its stages are asked for by `next` and `send`."""

    def find(self, turn: Turn, stage: Stage) -> Found | None:
        """A stage's artifacts if it is finished, noted as reused. Raises for one that failed."""

    def is_lost(self, lost: Lost) -> bool:
        """Whether an artifact still cannot be read; if so, `find` finds it missing from now on."""

    def leased(self) -> Mapping[str, str]:
        """Which keys other processes are at, and who: `host:pid`."""

    def task_of(self, stage: Stage) -> Task[Any, Any]:
        """The Prefect task that stands for doing a stage."""

    def identity(self, model: ModelChoice) -> ModelIdentity | None:
        """What a model's name stands for; None if it stands for nothing."""

    # told

    def started(self, turn: Turn, stage: Stage) -> None:
        """A stage has been handed out."""

    def done(self, wanted_by: list[Turn], stage: Stage, done: Done) -> None:
        """A stage is finished."""

    def put_off(self, turn: Turn, stage: Stage, sentence: str, seconds: float) -> None:
        """A stage failed and will be tried again in so many seconds."""

    def elsewhere(self, turn: Turn, stage: Stage, holder: str) -> None:
        """Another process is doing a stage."""

    def failed(self, wanted_by: list[Turn], stage: Stage, error: Exception) -> Exception:
        """A stage has failed for good; what its turns are told."""

    def ended(self, turn: Turn, products: Any) -> None:
        """A turn came to its end."""

    def refused(self, turn: Turn, sentence: str, seconds: float) -> None:
        """A turn's walk was cut short, for this reason, and begins again in so many seconds."""

    def gave_up(self, turn: Turn, error: Exception) -> None:
        """A turn cannot be finished; raises what is not a turn's own failure."""

    def now_and_then(self) -> None:
        """Between two events."""
