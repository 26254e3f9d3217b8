"""A task's pairs, drawn in the order of a seed, become a dataset for one tokenizer.

The first n examples of a larger dataset are the smaller dataset: size only says where to stop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import islice

from tasks.alignment import Aligner, tokenizer_name
from tasks.splits import check_split, drawing_order, split_of
from tasks.task import Dataset, Example, Pair, Task, TaskError

DEFAULT_SIZE = 256
HOPELESS_AFTER = 2000  # so many pairs without one that aligns, and the tokenizer is given up
BATCH = 64


def draw(task: Task, split: str, seed: int) -> Iterator[Pair]:
    """Yield the pairs of a split in the order of a seed, no clean prompt twice."""
    pairs = task.pairs()
    seen: set[str] = set()
    for index in drawing_order(len(pairs), f"{task.name}/{split}/{seed}"):
        pair = pairs[index]
        if pair is not None and split_of(pair.clean) == split and pair.clean not in seen:
            seen.add(pair.clean)
            yield pair


def generate(
    task: Task,
    aligner: Aligner,
    split: str = "train",
    size: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Draw ``size`` aligned examples of a task (256 unless told otherwise).

    Pairs that the tokenizer cannot align are dropped and counted. Raises TaskError if the split
    is unknown, if it has fewer distinct prompts than asked for, or if no pair can be aligned.
    """
    check_split(split)
    size = DEFAULT_SIZE if size is None else size
    examples: list[Example] = []
    dropped: Counter[str] = Counter()
    n_pairs = len(task.pairs())
    if size > n_pairs:
        raise TaskError(
            f"the task {task.name} makes {n_pairs} pairs in all its splits together, and {size} "
            f"were asked for: ask for fewer"
        )
    drawn = draw(task, split, seed)
    while len(examples) < size and (batch := list(islice(drawn, min(BATCH, size - len(examples))))):
        for example in aligner.align_all(batch):
            if isinstance(example, str):
                dropped[example] += 1
            else:
                examples.append(example)
        if not examples and dropped.total() >= HOPELESS_AFTER:
            break
    tokenizer = tokenizer_name(aligner.tokenizer)
    if not examples:
        raise TaskError(
            f"the tokenizer {tokenizer} cannot express the task {task.name}: of "
            f"{dropped.total()} pairs of the split {split!r} none is usable{reasons(dropped)}"
        )
    if len(examples) < size:
        raise TaskError(
            f"the task {task.name} has only {len(examples)} distinct prompts in the split "
            f"{split!r} with the tokenizer {tokenizer}, and {size} were asked for"
            f"{reasons(dropped)}"
        )
    return Dataset(
        name=f"{task.name}/{split}/{size}/{seed}",
        split=split,
        seed=seed,
        examples=tuple(examples),
        dropped=dict(sorted(dropped.items())),
        task=task.name,
    )


def reasons(dropped: Counter[str]) -> str:
    """Return the counts of dropped pairs by reason, in brackets, or nothing."""
    if not dropped:
        return ""
    counts = ", ".join(f"{reason}: {count}" for reason, count in sorted(dropped.items()))
    return f" (dropped {counts})"
