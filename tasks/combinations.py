"""A sequence of pairs that is spelled out only where it is looked at."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, overload

from tasks.task import Pair


class Combinations(Sequence[Pair | None]):
    """Every combination of some choices, made into a pair by a function when it is asked for.

    ``build`` takes one value of each choice, in order, and returns None where the combination
    makes no pair (the same name twice).
    """

    def __init__(self, build: Callable[..., Pair | None], *choices: Sequence[Any]) -> None:
        self.build = build
        self.choices = choices

    def __len__(self) -> int:
        return math.prod(len(choice) for choice in self.choices)

    @overload
    def __getitem__(self, index: int) -> Pair | None: ...
    @overload
    def __getitem__(self, index: slice) -> list[Pair | None]: ...
    def __getitem__(self, index: int | slice) -> Pair | list[Pair | None] | None:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} combinations, none at {index}")
        remainder, values = index % len(self), []
        for choice in reversed(self.choices):
            remainder, position = divmod(remainder, len(choice))
            values.append(choice[position])
        return self.build(*reversed(values))
