"""Examples as tensors: padded on the right, cut into batches that fit a byte budget.

Before the first position where clean and corrupted tokens differ, every activation is the same in
both runs and in every run between them. A batch therefore keeps its shared prefix apart: it is run
once, and all else happens on the suffix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from circuits.architecture import Architecture
from circuits.errors import CircuitError
from circuits.memory import cap_at_hand
from tasks import Answers, Example

DEFAULT_MEMORY_BUDGET = 2 << 30  # bytes
BytesOf = Callable[[int, int, int], int]  # of (n_examples, n_prefix, longest)


@dataclass(frozen=True, eq=False)
class Batch:
    """Some examples of a dataset on a device; `pos` counts from the end of the shared prefix."""

    indices: tuple[int, ...]  # which examples of the dataset these are
    prefix: Int[Tensor, "batch prefix"]
    clean: Int[Tensor, "batch pos"]
    corrupted: Int[Tensor, "batch pos"]
    real: Bool[Tensor, "batch pos"]  # False on padding
    last: Int[Tensor, " batch"]  # the answer position
    answers: Answers
    budget: int = 0  # bytes for the batch and all that is run beside it; 0: nothing beside it

    @property
    def rows(self) -> Int[Tensor, " batch"]:
        """The row of each example, to index with beside `last`."""
        return torch.arange(self.size, device=self.last.device)

    @property
    def size(self) -> int:
        """How many examples the batch has."""
        return len(self.indices)

    def first_unsound(self, sound: Bool[Tensor, " batch"]) -> int:
        """The row to blame where not all are sound: of the longest prompts, the first.

        What is not finite at a position may lie beyond a shorter prompt's end and spoil it there.
        """
        return int(torch.where(sound, -1, self.last).argmax())


def shared_prefix(examples: Sequence[Example]) -> int:
    """How many positions at the start all examples share between clean and corrupted.

    Every example keeps at least its answer position outside the prefix.
    """
    return min(min(example.shared_prefix, example.length - 1) for example in examples)


def make_batch(
    examples: Sequence[Example],
    indices: Sequence[int],
    device: torch.device,
    *,
    suffix_only: bool = True,
    budget: int = 0,
) -> Batch:
    """The batch of the examples at `indices`; `suffix_only=False` keeps whole prompts."""
    chosen = [examples[i] for i in indices]
    n_prefix = shared_prefix(chosen) if suffix_only else 0
    longest = max(example.length for example in chosen)

    def padded(rows: list[tuple[int, ...]]) -> Tensor:
        ids = [row + (row[-1],) * (longest - len(row)) for row in rows]
        return torch.tensor(ids, dtype=torch.long, device=device)

    clean = padded([example.clean_tokens for example in chosen])
    # without a counterfactual nothing reads these rows: see `check_counterfactuals`
    corrupted = padded([example.corrupted_tokens or example.clean_tokens for example in chosen])
    last = torch.tensor([example.length - 1 - n_prefix for example in chosen], device=device)
    positions = torch.arange(longest - n_prefix, device=device)
    return Batch(
        indices=tuple(indices),
        prefix=clean[:, :n_prefix],
        clean=clean[:, n_prefix:],
        corrupted=corrupted[:, n_prefix:],
        real=positions[None, :] <= last[:, None],
        last=last,
        answers=Answers.of(chosen, device),
        budget=budget,
    )


def plain_batch(tokens: Int[Tensor, "batch pos"]) -> Batch:
    """Whole prompts of one length, with neither counterfactual nor answers."""
    n, length = tokens.shape
    nothing = tokens.new_zeros(n, 0)
    none = nothing.bool()
    return Batch(
        indices=tuple(range(n)),
        prefix=nothing,
        clean=tokens,
        corrupted=tokens,
        real=torch.ones_like(tokens, dtype=torch.bool),
        last=torch.full((n,), length - 1, device=tokens.device),
        answers=Answers(nothing, none, nothing, none),
    )


def batches(
    examples: Sequence[Example],
    device: torch.device,
    memory_budget: int,
    bytes_of: BytesOf,
    *,
    suffix_only: bool = True,
) -> Iterator[Batch]:
    """Cut examples into batches, alike ones together, each within the budget if one example is.

    `bytes_of(n_examples, n_prefix, longest)` says what a batch takes. Inside `at_most` the largest
    batch has no more examples than that; all others, and what is run beside them, shrink with it.
    """
    if memory_budget < 1:
        raise CircuitError(f"memory_budget is a number of bytes from 1, not {memory_budget}")
    prefixes = [shared_prefix([example]) if suffix_only else 0 for example in examples]
    lengths = [example.length for example in examples]
    order = sorted(range(len(examples)), key=lambda i: (prefixes[i], lengths[i]))
    groups: list[list[int]] = []
    longest = 0
    for index in order:  # the first of a batch has its shortest prefix
        current = groups[-1] if groups else []
        n_prefix = prefixes[current[0] if current else index]
        longest = max(longest, lengths[index])
        if not current or bytes_of(len(current) + 1, n_prefix, longest) > memory_budget:
            groups.append([])
            longest = lengths[index]
        groups[-1].append(index)
    cap = cap_at_hand()
    largest = max(map(len, groups), default=0)
    most = cap.allow(largest)
    for group in groups:
        size = max(1, len(group) * most // largest)
        budget = 0 if cap.n_examples == 1 else memory_budget * size // len(group)
        for start in range(0, len(group), size):
            batch = group[start : start + size]
            cap.largest = max(cap.largest, len(batch))
            yield make_batch(examples, batch, device, suffix_only=suffix_only, budget=budget)


def at_a_time(n: int) -> int:
    """How many circuits wait together where there is room for `n`: 1 at least.

    Inside `at_most` no more than examples run together.
    """
    cap = cap_at_hand().n_examples
    return max(1, n if cap is None else min(n, cap))


def check_counterfactuals(
    intervention: str | None, examples: Sequence[Example], first_example: int = 0
) -> None:
    """Refuse examples without a corrupted input under patching, the one that reads it."""
    if intervention != "patching":
        return
    for index, example in enumerate(examples, first_example):
        if not example.has_counterfactual:
            raise CircuitError(
                f"example {index} has no corrupted prompt, which patching puts in its place: use "
                f"the intervention zero or mean, or give the dataset a column 'corrupted'"
            )


def check_examples(
    examples: Sequence[Example],
    architecture: Architecture,
    first_example: int = 0,
    of: str = "",
) -> None:
    """Refuse examples the model cannot take: too long a prompt, a token it does not have.

    `first_example` is the place of the first one in its dataset and `of` which dataset that is, for
    the message.
    """
    if not examples:
        raise CircuitError(f"the dataset{of} has no examples")
    for index, example in enumerate(examples, first_example):
        if example.length > architecture.n_positions:
            raise CircuitError(
                f"example {index}{of} has {example.length} tokens, but the model takes at most "
                f"{architecture.n_positions}"
            )
        ids = (
            *example.clean_tokens,
            *example.corrupted_tokens,
            *example.correct,
            *example.incorrect,
        )
        if min(ids) < 0 or max(ids) >= architecture.d_vocab:
            raise CircuitError(
                f"example {index}{of} has a token id outside 0–{architecture.d_vocab - 1}: was the "
                f"dataset made with another tokenizer?"
            )
