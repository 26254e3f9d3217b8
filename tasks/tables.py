"""Rows of a CSV, JSONL or Parquet file, each with the place it came from."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.registry import nearest
from tasks.task import TaskError


@dataclass(frozen=True)
class Row:
    """One row of a file: its cells by column, and where it stands, for messages."""

    place: str
    cells: dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Return all rows of a file, read by the ending of its name.

    Raises TaskError, naming the file and the row, for what cannot be read, has no rows, or has
    rows that do not fit the columns.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        hint = nearest(path.suffix.lower(), READERS) if path.suffix else ""
        raise TaskError(
            f"the dataset file {path} ends in none of {', '.join(READERS)}, "
            f"so it is not known how to read it{hint}"
        )
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise TaskError(f"the dataset file {path} {what}")
    try:
        rows = list(reader(path))
    except UnicodeDecodeError as error:
        raise TaskError(
            f"the dataset file {path} is not UTF-8 text (byte {error.start} cannot be read); "
            f"save it as UTF-8"
        ) from error
    except OSError as error:
        raise TaskError(
            f"the dataset file {path} cannot be read: {error.strerror or error}"
        ) from error
    if not rows:
        raise TaskError(f"the dataset file {path} has no rows")
    return rows


def _read_csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            columns = next(reader, [])
            if len(set(columns)) < len(columns):
                raise TaskError(f"the dataset file {path} has two columns of one name: {columns}")
            for cells in reader:
                place = f"line {reader.line_num}"
                if not cells:
                    continue
                if len(cells) != len(columns):
                    raise TaskError(
                        f"{path}, {place}: {len(cells)} cells in a file of {len(columns)} columns; "
                        f"put text with commas in double quotes"
                    )
                yield Row(place, dict(zip(columns, cells, strict=True)))
        except csv.Error as error:
            raise TaskError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from error


def _read_jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                cells = json.loads(line)
            except json.JSONDecodeError as error:
                raise TaskError(
                    f"{path}, line {number}: not valid JSON ({error.msg} at column {error.colno}); "
                    f"each line must be one JSON object"
                ) from error
            if not isinstance(cells, dict):
                raise TaskError(
                    f"{path}, line {number}: a JSON {type(cells).__name__} where each line must "
                    f"be one JSON object"
                )
            yield Row(f"line {number}", cells)


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, ValueError) as error:
        raise TaskError(f"the dataset file {path} is not valid Parquet: {error}") from error
    for number, cells in enumerate(table.to_pylist(), start=1):
        yield Row(f"row {number}", cells)


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
