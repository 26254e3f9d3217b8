"""What comes of a run: every stage's status, what each cell ends in, and what failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from flows.config import Cell
from flows.judgement import Products
from flows.walk import Turn

Status = Literal["reused", "computed", "failed"]


@dataclass(frozen=True)
class Failure:
    """A turn that could not be finished: at which stage, and why, in a sentence."""

    turn: Turn
    stage: str
    sentence: str

    @property
    def told(self) -> str:
        """The sentence, after the stage's name unless it was the turn itself that failed."""
        return self.sentence if self.stage == "plan" else f"{self.stage}: {self.sentence}"


@dataclass
class Outcome:
    """What came of a run: every stage's status, each cell's products or failure."""

    statuses: dict[tuple[str, str], Status] = field(default_factory=dict)  # by stage name and key
    products: dict[Cell, Products] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    whole: bool = False  # everything had its turn

    def count(self, status: Status, stage: str | None = None) -> int:
        """How many stages ended so, of one name or of all."""
        return sum(
            found == status and stage in (None, name) for (name, _), found in self.statuses.items()
        )

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The names of the stages, in the order in which they were met."""
        return tuple(dict.fromkeys(name for name, _ in self.statuses))
