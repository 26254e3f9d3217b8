"""What a task is made of: pairs of texts, examples aligned token by token, datasets of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import overload


class TaskError(ValueError):
    """A task, a metric, a dataset or a dataset file that cannot be used, told in one sentence."""


@dataclass(frozen=True)
class Pair:
    """A clean prompt, its counterfactual and the answers that tell them apart, all as text.

    `corrupted` is empty where there is no counterfactual; only patching needs one.
    Answers are written exactly as they continue the prompt: ``" Mary"`` with its space after
    ``"... gave a book to"``, ``"42"`` without one after ``"... to the year 17"``.
    """

    clean: str
    corrupted: str
    correct: tuple[str, ...]
    incorrect: tuple[str, ...]


@dataclass(frozen=True)
class Example:
    """A pair in a tokenizer's own ids: two inputs of one length and the ids of the answers.

    Without a counterfactual, `corrupted_tokens` is empty. Raises TaskError if the lengths
    differ, or if the answers are empty or overlap.
    """

    clean: str
    corrupted: str
    clean_tokens: tuple[int, ...]
    corrupted_tokens: tuple[int, ...]
    correct: tuple[int, ...]
    incorrect: tuple[int, ...]

    def __post_init__(self) -> None:
        lengths = {self.length, len(self.corrupted_tokens) or self.length}
        if len(lengths) > 1 or not self.clean_tokens:
            raise TaskError(
                f"an example needs clean and corrupted inputs of one length above zero, not "
                f"{len(self.clean_tokens)} and {len(self.corrupted_tokens)} tokens: {self.clean!r}"
            )
        if not self.correct or not self.incorrect or set(self.correct) & set(self.incorrect):
            raise TaskError(
                f"an example needs correct and incorrect answers with no token in common, not "
                f"{self.correct} and {self.incorrect}: {self.clean!r}"
            )

    @property
    def length(self) -> int:
        """The number of tokens of either input."""
        return len(self.clean_tokens)

    @property
    def has_counterfactual(self) -> bool:
        """Whether there is a corrupted input."""
        return bool(self.corrupted_tokens)

    @property
    def shared_prefix(self) -> int:
        """The first position at which the inputs differ; the length if they never do."""
        for position, (clean, corrupted) in enumerate(
            zip(self.clean_tokens, self.corrupted_tokens or self.clean_tokens, strict=True)
        ):
            if clean != corrupted:
                return position
        return self.length


@dataclass(frozen=True)
class Dataset:
    """Examples of one split in a fixed order, and how many pairs were dropped for which reason.

    ``seed`` is None where nothing was drawn (all rows of a file, in the order of the file).
    """

    name: str
    split: str
    seed: int | None
    examples: tuple[Example, ...]
    dropped: Mapping[str, int] = field(default_factory=dict, hash=False)
    task: str = ""

    def __repr__(self) -> str:
        dropped = f", {sum(self.dropped.values())} dropped" if self.dropped else ""
        return f"Dataset({self.name!r}, {len(self)} examples{dropped})"

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self.examples)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Dataset: ...
    def __getitem__(self, index: int | slice) -> Example | Dataset:
        if isinstance(index, slice):
            return replace(self, examples=self.examples[index])
        return self.examples[index]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the tokens and answers, row by row; names and texts do not count."""
        digest = hashlib.sha256()
        for example in self.examples:
            row = [
                example.clean_tokens,
                example.corrupted_tokens,
                example.correct,
                example.incorrect,
            ]
            digest.update(json.dumps(row, separators=(",", ":")).encode() + b"\n")
        return digest.hexdigest()


@dataclass(frozen=True)
class Task:
    """A behaviour: where its pairs come from and the metric it is judged by unless told otherwise.

    ``pairs()`` returns a finite sequence; an entry may be None where a combination makes no pair.
    """

    name: str
    metric: str
    pairs: Callable[[], Sequence[Pair | None]]
    description: str = ""
