"""Which split a prompt belongs to, and in which order a seed draws prompts.

A prompt's split follows from a hash of its text alone, so splits are disjoint whatever the seed,
the size, the tokenizer, the machine or the task asking.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

from tasks.registry import nearest
from tasks.task import TaskError

SPLITS = ("train", "validation", "test")
ALL = "all"
_UPPER_BOUNDS = {"train": 0.6, "validation": 0.8, "test": 1.0}


def split_of(prompt: str) -> str:
    """Return the split of a clean prompt: 60 % train, 20 % validation, 20 % test."""
    digest = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return next((split for split, bound in _UPPER_BOUNDS.items() if share < bound), "test")


def check_split(split: str, allowed: tuple[str, ...] = SPLITS) -> None:
    """Raise TaskError, with the nearest name, if a split is none of the allowed ones."""
    if split not in allowed:
        raise TaskError(
            f"there is no split {split!r} here{nearest(split, allowed)} "
            f"(choose from {', '.join(allowed)})"
        )


def drawing_order(n: int, seed: str) -> Iterator[int]:
    """Yield 0 … n−1 in an order drawn by the seed, without holding all n in memory.

    The first k indices cost O(k): a Fisher–Yates shuffle that stores only what it has moved.
    """
    generator = random.Random(seed)
    moved: dict[int, int] = {}
    for position in range(n):
        chosen = generator.randrange(position, n)
        yield moved.get(chosen, chosen)
        moved[chosen] = moved.pop(position, position)
