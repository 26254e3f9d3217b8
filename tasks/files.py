"""Datasets from files: ``clean``, ``corrupted`` and one way of saying what the answers are.

Only patching needs ``corrupted``: a file for zero and mean interventions may go without the column.

==============================  ==================================================================
columns                         meaning
==============================  ==================================================================
correct_idx and incorrect_idx   answer token ids, one or a list each
answer_ids                      ``[correct, incorrect]``, each an id or a list of ids
correct and incorrect           answers as text, one or a list each, written exactly as they
                                continue the prompt (``" Mary"``, with its space)
label, with a rule              what a rule makes answers of (``rule="greater-than"``: the year)
==============================  ==================================================================

In CSV a list is written as JSON: ``"[1, 2]"``. A column ``split`` is honoured; without one a row
belongs to the split of its clean prompt. The split ``all`` takes every row.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.alignment import Aligner, tokenizer_name
from tasks.generation import BATCH, reasons
from tasks.registry import nearest
from tasks.rules import get_rule, rule_names
from tasks.splits import ALL, SPLITS, check_split, drawing_order, split_of
from tasks.tables import Row, read_rows
from tasks.task import Dataset, Example, Pair, TaskError

ANSWER_COLUMNS = (("correct_idx", "incorrect_idx"), ("answer_ids",), ("correct", "incorrect"))
_OTHERS = {"clean", "label", "split", *(name for names in ANSWER_COLUMNS for name in names)}
REPEATED = "the row repeats an earlier one"


def read_dataset(
    path: Path,
    aligner: Aligner,
    split: str = "train",
    size: int | None = None,
    seed: int = 0,
    rule: str | None = None,
) -> Dataset:
    """Read a dataset from a file: all rows of a split in order, or ``size`` drawn by the seed.

    Rows that the tokenizer cannot align, and repeated ones, are dropped and counted. Raises
    TaskError, naming file and row, for anything malformed, and where fewer than ``size`` are left.
    """
    rows = read_rows(path)
    columns = _answer_columns(path, rows, rule)
    has_corrupted = any("corrupted" in row.cells for row in rows)
    parsed = [
        _parse(path, row, columns, rule, aligner, has_corrupted)
        for row in _rows_of_split(path, rows, split)
    ]
    if size is not None:
        parsed = [parsed[index] for index in drawing_order(len(parsed), f"{split}/{seed}")]
    examples: dict[Example, None] = {}
    dropped: Counter[str] = Counter()
    for example in _align(parsed, aligner):
        if isinstance(example, str):
            dropped[example] += 1
        elif example in examples:
            dropped[REPEATED] += 1
        else:
            examples[example] = None
        if len(examples) == size:
            break
    if not examples:
        raise TaskError(
            f"the dataset file {path} has no usable row in the split {split!r} with the tokenizer "
            f"{tokenizer_name(aligner.tokenizer)}{reasons(dropped)}"
        )
    if size is not None and len(examples) < size:
        raise TaskError(
            f"the dataset file {path} has only {len(examples)} usable rows in the split {split!r}, "
            f"and {size} were asked for{reasons(dropped)}"
        )
    return Dataset(
        name=f"{path.stem}/{split}" + ("" if size is None else f"/{size}/{seed}"),
        split=split,
        seed=None if size is None else seed,
        examples=tuple(examples),
        dropped=dict(sorted(dropped.items())),
        task=path.stem,
    )


def _answer_columns(path: Path, rows: list[Row], rule: str | None) -> tuple[str, ...]:
    """Find the columns that hold the answers; every column needed must be there."""
    present = list(dict.fromkeys(column for row in rows for column in row.cells))
    _require(path, "clean", present)
    if nearest("corrupted", set(present) - _OTHERS):  # misspelt, if not there
        _require(path, "corrupted", present)
    if rule is not None:
        get_rule(rule)
        _require(path, "label", present)
        return ("label",)
    found = [columns for columns in ANSWER_COLUMNS if set(columns) & set(present)]
    if len(found) > 1:
        raise TaskError(
            f"the dataset file {path} says its answers in more than one way "
            f"({'; '.join(' and '.join(columns) for columns in found)}); keep one of them"
        )
    if not found and "label" in present:
        raise TaskError(
            f"the dataset file {path} has labels, which need a rule that makes answers of them: "
            f"pass rule= one of {', '.join(rule_names())}"
        )
    if not found:
        raise TaskError(
            f"the dataset file {path} has no answers: it needs correct_idx and incorrect_idx, "
            f"answer_ids, correct and incorrect, or label with a rule, and its columns are "
            f"{', '.join(present)}"
        )
    for column in found[0]:
        _require(path, column, present)
    return found[0]


def _require(path: Path, column: str, present: Sequence[str]) -> None:
    if column not in present:
        raise TaskError(
            f"the dataset file {path} has no column {column!r}{nearest(column, present)} "
            f"(its columns are {', '.join(present)})"
        )


def _rows_of_split(path: Path, rows: list[Row], split: str) -> list[Row]:
    if split == ALL:
        return rows
    if any("split" in row.cells for row in rows):
        names = [_text(path, row, "split") for row in rows]
        check_split(split, (*dict.fromkeys(names), ALL))
        return [row for row, name in zip(rows, names, strict=True) if name == split]
    check_split(split, (*SPLITS, ALL))
    chosen = [row for row in rows if split_of(_text(path, row, "clean")) == split]
    if not chosen:
        raise TaskError(
            f"the dataset file {path} has no row in the split {split!r} (rows fall to splits by "
            f"their prompt; of {len(rows)} none fell here): take split='all' or add a column "
            f"'split'"
        )
    return chosen


@dataclass(frozen=True)
class _Identified:
    """A row whose answers are token ids already."""

    clean: str
    corrupted: str
    correct: tuple[int, ...]
    incorrect: tuple[int, ...]


def _parse(
    path: Path,
    row: Row,
    columns: tuple[str, ...],
    rule: str | None,
    aligner: Aligner,
    has_corrupted: bool,
) -> Pair | _Identified:
    clean = _text(path, row, "clean")
    corrupted = _text(path, row, "corrupted") if has_corrupted else ""
    if rule is not None:
        label = _whole(_cell(path, row, "label"))
        try:
            return Pair(clean, corrupted, *get_rule(rule)(label))
        except ValueError as error:
            raise TaskError(f"{path}, {row.place}: {error}") from error
    if columns == ("correct", "incorrect"):
        return Pair(clean, corrupted, *(_texts(path, row, column) for column in columns))
    return _Identified(clean, corrupted, *_answer_ids(path, row, columns, len(aligner.tokenizer)))


def _align(parsed: Sequence[Pair | _Identified], aligner: Aligner) -> Iterator[Example | str]:
    """Align rows in their order, many at a time."""
    for start in range(0, len(parsed), BATCH):
        batch = parsed[start : start + BATCH]
        pairs = [row for row in batch if isinstance(row, Pair)]
        yield from aligner.align_all(pairs)
        identified = [row for row in batch if isinstance(row, _Identified)]
        aligner.prepare(text for row in identified for text in (row.clean, row.corrupted))
        for row in identified:
            inputs = aligner.inputs(row.clean, row.corrupted)
            yield (
                inputs
                if isinstance(inputs, str)
                else Example(row.clean, row.corrupted, *inputs, row.correct, row.incorrect)
            )


def _cell(path: Path, row: Row, column: str) -> Any:
    """Return a cell that is there: not missing, not empty, not NaN."""
    value = row.cells.get(column)
    if value is None or value == "" or value == [] or value != value:
        raise TaskError(f"{path}, {row.place}: the cell {column!r} is empty")
    return value


def _text(path: Path, row: Row, column: str) -> str:
    value = _cell(path, row, column)
    if not isinstance(value, str):
        raise TaskError(
            f"{path}, {row.place}: {column!r} must be text, not {type(value).__name__} {value!r}"
        )
    if not value.strip():
        raise TaskError(f"{path}, {row.place}: the cell {column!r} is empty")
    return value


def _whole(label: Any) -> str:
    """Return a label as text; a whole number that a table made a float loses its ``.0``."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def _parsed(path: Path, row: Row, column: str) -> Any:
    """Return a cell, read as JSON where it is the text of a list."""
    value = _cell(path, row, column)
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except json.JSONDecodeError as error:
            raise TaskError(
                f"{path}, {row.place}: {column!r} looks like a list but is not valid JSON: {value}"
            ) from error
    return value


def _texts(path: Path, row: Row, column: str) -> tuple[str, ...]:
    value = _parsed(path, row, column)
    texts = tuple(value) if isinstance(value, list) else (value,)
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise TaskError(
            f"{path}, {row.place}: {column!r} must be text or a list of it, not {value!r}"
        )
    return texts


def _answer_ids(
    path: Path, row: Row, columns: tuple[str, ...], vocabulary: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if columns == ("answer_ids",):
        both = _parsed(path, row, "answer_ids")
        if not isinstance(both, list) or len(both) != 2:
            raise TaskError(
                f"{path}, {row.place}: 'answer_ids' must be [correct, incorrect], each an id or "
                f"a list of ids, not {both!r}"
            )
        values = [("answer_ids", value) for value in both]
    else:
        values = [(column, _parsed(path, row, column)) for column in columns]
    correct, incorrect = (_ids(path, row, column, value, vocabulary) for column, value in values)
    if set(correct) & set(incorrect):
        raise TaskError(
            f"{path}, {row.place}: the token ids {sorted(set(correct) & set(incorrect))} are both "
            f"correct and incorrect answers"
        )
    return correct, incorrect


def _ids(path: Path, row: Row, column: str, value: Any, vocabulary: int) -> tuple[int, ...]:
    ids = []
    for item in value if isinstance(value, list) else [value]:
        is_whole = isinstance(item, float) and item.is_integer()
        is_digits = isinstance(item, str) and item.strip().lstrip("-").isdecimal()
        if isinstance(item, bool) or not (isinstance(item, int) or is_whole or is_digits):
            raise TaskError(
                f"{path}, {row.place}: {column!r} must be a token id or a list of them, "
                f"not {value!r}"
            )
        ids.append(int(item))
    outside = [token for token in ids if not 0 <= token < vocabulary]
    if outside or not ids:
        what = f"the token id {outside[0]}" if outside else "an empty list"
        raise TaskError(
            f"{path}, {row.place}: {column!r} holds {what}, and the tokenizer has ids from 0 to "
            f"{vocabulary - 1}"
        )
    return tuple(dict.fromkeys(ids))
