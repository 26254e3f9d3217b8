"""One door to all datasets: a task by name, or a file by path."""

from __future__ import annotations

from pathlib import Path

from tasks import greater_than, ioi, sva, truths  # noqa: F401  (they register themselves)
from tasks.alignment import Aligner, Tokenizer
from tasks.files import read_dataset
from tasks.generation import generate
from tasks.registry import TASKS, get_task
from tasks.tables import READERS
from tasks.task import Dataset, TaskError


def load_dataset(
    source: str | Path,
    tokenizer: Tokenizer,
    split: str = "train",
    size: int | None = None,
    seed: int = 0,
    rule: str | None = None,
    prepend_bos: bool = True,
) -> Dataset:
    """Load examples of a task (by name) or of a file (by path), aligned for a tokenizer.

    ``split`` is train, validation or test; for files also all, or a name from their own column.
    ``size``: how many examples; without it 256 of a task, and every row of a file. ``rule`` makes
    answers of the labels of a file. The same arguments give the same rows everywhere. Raises
    TaskError for unknown names, malformed files, and too few prompts or none that align.
    """
    if size is not None and size < 1:
        raise TaskError(f"a dataset needs a size of at least 1, not {size}")
    aligner = Aligner(tokenizer, prepend_bos)
    if is_file(source):
        return read_dataset(Path(source), aligner, split, size, seed, rule)
    if rule is not None:
        raise TaskError(
            f"the rule {rule!r} is for the labels of dataset files, and {source} is a task with "
            f"answers of its own"
        )
    return generate(get_task(str(source)), aligner, split, size, seed)


def is_file(source: str | Path) -> bool:
    """Whether a dataset source means a file: a Path, or text that looks like one and is no task."""
    if isinstance(source, Path):
        return True
    if source in TASKS:
        return False
    path = Path(source)
    if path.suffix.lower() in READERS or path.exists():
        return True
    # "truth/gat" is a misspelt task: there are others whose names begin like this
    return path.name != source and not any(
        name.startswith(f"{path.parent}/") for name in TASKS.names()
    )


def default_metric(source: str | Path, rule: str | None = None) -> str:
    """Return the metric a task is judged by unless told otherwise; logit-diff for files.

    A file whose labels a rule turns into the answers of a task of the same name takes that
    task's. Raises TaskError for an unknown task.
    """
    if not is_file(source):
        return get_task(str(source)).metric
    return get_task(rule).metric if rule in TASKS and rule is not None else "logit-diff"
