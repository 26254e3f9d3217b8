"""What goes wrong while a grid is read or run, in words for the person who asked."""

from __future__ import annotations

from dataclasses import dataclass


class GridError(ValueError):
    """What is wrong with a grid or a command, in sentences that name the place and the way out."""


@dataclass(frozen=True)
class Lost:
    """An artifact that was found by a plan and could not be read by who needed it.

    `reason` says why, as half a sentence: `is not in the store`.
    """

    kind: str
    key: str
    reason: str

    @property
    def again(self) -> str:
        """That it is made again, for people."""
        return f"{self.kind} {self.key} {self.reason}; it is built again first."


class StageError(Exception):
    """Why a stage failed, as it travels between processes.

    `sentence` is for people; `story` is the traceback of what nobody foresaw, else None; `may_pass`
    says whether the same stage may succeed later (no memory, no disk), so that trying again helps;
    `lost` is the input that it lacks, if that is why.
    """

    def __init__(
        self,
        sentence: str,
        story: str | None = None,
        may_pass: bool = False,
        lost: Lost | None = None,
    ) -> None:
        super().__init__(sentence, story, may_pass, lost)
        self.sentence = sentence
        self.story = story
        self.may_pass = may_pass
        self.lost = lost

    def __str__(self) -> str:
        return self.sentence


class WorkerDiedError(Exception):
    """The process that did a stage ended in the middle of it; the message says how."""
