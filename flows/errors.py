"""What goes wrong while a grid is read or run, in words for the person who asked."""

from __future__ import annotations


class GridError(ValueError):
    """What is wrong with a grid or a command, in sentences that name the place and the way out."""


class StageError(Exception):
    """Why a stage failed, as it travels between processes.

    `sentence` is for people; `story` is the traceback of what nobody foresaw, else None; `may_pass`
    says whether the same stage may succeed later (no memory, no disk), so that trying again helps.
    """

    def __init__(self, sentence: str, story: str | None = None, may_pass: bool = False) -> None:
        super().__init__(sentence, story, may_pass)
        self.sentence = sentence
        self.story = story
        self.may_pass = may_pass

    def __str__(self) -> str:
        return self.sentence


class WorkerDiedError(Exception):
    """The process that did a stage ended in the middle of it; the message says how."""
