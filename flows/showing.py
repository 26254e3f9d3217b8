"""Rows for eyes, as wide as the terminal: nothing is broken within a word or a number.

What is the same in all rows stands above them, and what is empty is left out. Where the rest is too
wide, words are broken between words, and headings at underscores, to about three lines; then what
is the same in many rows that follow each other stands above those; then columns are left out,
details first, and a line says which. One row alone that is too wide is listed. Where there is no
terminal, a row is a line, however long.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Literal

import pyarrow as pa
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.wrapping import counted, say

_GAP = 2  # between two columns
_NOTHING = "–"
_LONGEST_LINE = 10_000  # where there is no terminal
_LEAST_ROWS = 3  # below a heading, on average
_MOST_LINES = 3  # of a cell, about
# Columns that are missed least, least first, those of a line together; after them the last columns
# of numbers, then of words.
_DETAILS = (
    ("n_evaluated", "examples", "n_examples"),
    ("n_nodes", "n_edges", "jaccard_nodes", "n_either"),
    ("log_*",),
    ("*low", "*high", "standard_error"),
    ("kind",),
    ("mean", "n_other", "expected"),
    ("n_true", "n_resamples", "n_best"),
    ("units_asked",),
    ("seconds", "max_seconds"),
    ("p_value", "n_common"),
    ("n_units", "fraction"),
    ("metric",),
    ("evaluated_under",),
)


@dataclass(frozen=True)
class _Column:
    """A column as it is printed."""

    name: str
    cells: tuple[str, ...]
    is_number: bool
    is_words: bool

    @property
    def width(self) -> int:
        """What it takes on one line, in characters."""
        return max(map(cell_len, (self.name, *self.cells)))

    @property
    def least(self) -> int:
        """What it takes where it is broken, in characters."""
        heading = max(map(cell_len, self._heading_parts))
        if not self.is_words:
            return max((heading, *map(cell_len, self.cells)))
        longest = max((cell_len(word) for cell in self.cells for word in cell.split()), default=0)
        lines = max((-(-cell_len(cell) // _MOST_LINES) for cell in self.cells), default=0)
        return max(heading, longest, lines)

    def heading(self, width: int) -> str:
        """Its name in so much room."""
        return self.name if cell_len(self.name) <= width else "\n".join(self._heading_parts)

    @property
    def _heading_parts(self) -> list[str]:
        *first, last = self.name.split("_")
        return [*(f"{part}_" for part in first), last]


def show_table(rows: pa.Table, console: Console) -> None:
    """Print rows as a table, and below it how many there are."""
    columns = [_column(rows, name) for name in rows.column_names]
    if rows.num_rows > 1:
        same = [one for one in columns if len(set(one.cells)) == 1]
        columns = [one for one in columns if one not in same] or columns
        if len(columns) < rows.num_columns:
            _head(same, 0, console)
    width = console.width if console.is_terminal else _LONGEST_LINE
    lifted, starts = _lifted(columns, width)
    level = [one for one in columns if one not in lifted]
    fitting = _fitting(level, width)
    if rows.num_rows == 1 and len(fitting) < len(columns):
        _list(columns, console)
        fitting = level
    else:
        widths = _widths(fitting, width)
        for start, end in zip(starts, [*starts[1:], rows.num_rows], strict=True):
            if lifted:
                console.print()
            _head(lifted, start, console)
            console.print(_table(fitting, widths, start, end), crop=False, no_wrap=True)
    console.print(f"[dim]{counted(rows.num_rows, 'row')}[/]", highlight=False)
    left_out = ", ".join(one.name for one in level if one not in fitting)
    if left_out:
        say(console, f"no room for {left_out}: `--format csv` has every column", style="dim")


def _head(columns: list[_Column], row: int, console: Console) -> None:
    """Print what is the same in all rows below, as it is in this one; what is empty is not said."""
    said = [f"{one.name} {one.cells[row]}" for one in columns if one.cells[row] != _NOTHING]
    if said:
        say(console, ", ".join(said), style="dim")


def _lifted(columns: list[_Column], width: int) -> tuple[list[_Column], list[int]]:
    """Which columns to lift out of a table that is too wide, and the rows where groups begin.

    The first columns, as far as it takes and as groups have `_LEAST_ROWS` rows; and what else does
    not vary within a group.
    """
    n_rows = len(columns[0].cells)
    lifted, starts = list[_Column](), [0]
    for n in range(1, len(columns) if n_rows else 0):
        level = [one for one in columns if one not in lifted]
        if _takes([one.least for one in level]) <= width:
            break
        outer = list(zip(*(one.cells for one in columns[:n]), strict=True))
        found = [row for row in range(n_rows) if row == 0 or outer[row] != outer[row - 1]]
        if len(found) * _LEAST_ROWS > n_rows:
            break
        starts = found
        group_of = [bisect_right(starts, row) for row in range(n_rows)]
        lifted = [
            one for one in columns if len(set(zip(group_of, one.cells, strict=True))) == len(starts)
        ]
    return lifted, starts


def _column(rows: pa.Table, name: str) -> _Column:
    kind = rows.schema.field(name).type
    is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    cells = tuple(_shown(value) for value in rows[name].to_pylist())
    is_word = is_number or pa.types.is_boolean(kind) or pa.types.is_timestamp(kind)
    return _Column(name, cells, is_number, not is_word)


def _fitting(columns: list[_Column], width: int) -> list[_Column]:
    """As many of the columns as fit, the most important ones; one at least."""
    kept = list(columns)
    for patterns in _DETAILS:
        if _takes([one.least for one in kept]) <= width:
            return kept
        kept = [one for one in kept if not _matches(one, patterns)] or kept
    while len(kept) > 1 and _takes([one.least for one in kept]) > width:
        numbers = [one for one in kept[1:] if one.is_number]
        kept.remove((numbers or kept)[-1])
    return kept


def _matches(column: _Column, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(column.name, pattern) for pattern in patterns)


def _takes(widths: list[int]) -> int:
    """What columns of these widths take together, in characters."""
    return sum(widths) + _GAP * (len(widths) - 1)


def _widths(columns: list[_Column], width: int) -> list[int]:
    """What each column gets: the widest give way, until all fit or none can give more."""
    widths = [one.width for one in columns]
    least = [one.least for one in columns]
    while _takes(widths) > width and widths != least:
        widest = max(
            (n for n in range(len(widths)) if widths[n] > least[n]), key=lambda n: widths[n]
        )
        widths[widest] -= 1
    return widths


def _table(columns: list[_Column], widths: list[int], start: int, end: int) -> Table:
    """The rows from `start` to `end`."""
    table = Table(box=None, pad_edge=False, header_style="bold", width=_takes(widths))
    for column, room in zip(columns, widths, strict=True):
        justify: Literal["left", "right"] = "right" if column.is_number else "left"
        heading = Text(column.heading(room))
        table.add_column(heading, justify=justify, width=room, overflow="fold")
    for cells in list(zip(*(column.cells for column in columns), strict=True))[start:end]:
        table.add_row(*map(Text, cells))
    return table


def _list(columns: list[_Column], console: Console) -> None:
    """One row, a line a column."""
    room = max(len(column.name) for column in columns)
    for column in columns:
        say(console, f"{column.name:{room}}  {column.cells[0]}", indent=room + 2)


def _shown(value: object) -> str:
    if value is None:
        return _NOTHING
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds")
    if isinstance(value, float):
        return f"{value:z.4g}"
    if isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef"):
        return value[:12]
    return str(value)
