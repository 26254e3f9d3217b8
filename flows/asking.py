"""Answers to questions about the results: as a table for eyes, as CSV or JSON for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import pyarrow as pa
import pyarrow.csv
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from data import Catalog
from flows.errors import GridError
from flows.wrapping import counted

Format = Literal["table", "csv", "json"]
_LEAST_WIDTH = 12  # of a column of words
_LONGEST_LINE = 10_000


def parameters_of(values: list[str]) -> dict[str, object]:
    """The values of a query's parameters, from `name=value`; GridError for anything else."""
    found: dict[str, object] = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise GridError(f"a query's parameters are given as name=value, not `{value}`")
        found[name.lstrip("$")] = text
    return found


def show_queries(catalog: Catalog, console: Console) -> None:
    """List the named queries with their parameters, then the views for SQL of one's own."""
    for name, one in catalog.queries.items():
        console.print(f"[bold]{name}[/]  {escape(one.description)}", highlight=False)
        for parameter in one.parameters:
            default = "" if parameter.required else f" (default {parameter.default or 'any'})"
            text = f"    {parameter.name}=…  {parameter.meaning}{default}"
            console.print(escape(text), highlight=False)
    console.print("\nViews for SQL, such as `circuit-grid query 'SELECT * FROM benchmark'`:")
    for name, description in catalog.views.items():
        console.print(f"[bold]{name}[/]  {escape(description)}", highlight=False)


def nothing_fits(catalog: Catalog, question: str, given: Mapping[str, object]) -> str:
    """What to say where no row has the values given, and what those are that a query needs."""
    query = catalog.queries.get(question.strip())
    needed = () if query is None else (one for one in query.parameters if one.required)
    meanings = {one.name: one.meaning for one in needed}
    each = (
        f"{name}={value}" + (f" ({meanings[name]})" if name in meanings else "")
        for name, value in given.items()
    )
    return f"nothing in the store fits {' and '.join(each)}"


def show_rows(rows: pa.Table, form: Format, console: Console) -> None:
    """Print rows; a table shortens numbers, CSV and JSON give them whole."""
    if form == "csv":
        pa.csv.write_csv(_plain(rows), sys.stdout.buffer)
        sys.stdout.buffer.flush()
    elif form == "json":
        print(json.dumps(_finite(rows.to_pylist()), default=str, ensure_ascii=False, indent=1))
    else:
        _show_table(rows, console)


def _show_table(rows: pa.Table, console: Console) -> None:
    """Rows for eyes: what is the same in all of them stands above, what is empty is left out.

    Words are folded to the terminal's width, but no further than to `_LEAST_WIDTH`: lines that are
    still too long run on.
    """
    values = {name: rows[name].to_pylist() for name in rows.column_names}
    same = {
        name: column[0]
        for name, column in values.items()
        if rows.num_rows > 1 and all(value == column[0] for value in column)
    }
    table = Table(box=None, pad_edge=False, header_style="bold")
    varying = [field for field in rows.schema if field.name not in same]
    for field in varying:
        number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        longest = max((len(_shown(one)) for one in values[field.name]), default=0)
        table.add_column(
            field.name,
            justify="right" if number else "left",
            overflow="fold",
            min_width=None if number else min(_LEAST_WIDTH, longest),
            no_wrap=number or pa.types.is_boolean(field.type),
        )
    for row in rows.to_pylist():
        table.add_row(*(escape(_shown(row[field.name])) for field in varying))
    said = [f"{name} {_shown(value)}" for name, value in same.items() if value is not None]
    if said and varying:
        console.print(escape(", ".join(said)), highlight=False, style="dim")
    boundless = console.options.update(max_width=_LONGEST_LINE)
    needed = Measurement.get(console, boundless, table).minimum
    if needed > console.width:
        table.width = needed
    console.print(table, crop=False)
    console.print(f"[dim]{counted(rows.num_rows, 'row')}[/]", highlight=False)


def _shown(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, datetime):
        return value.isoformat(" ", "seconds")
    if isinstance(value, float):
        return f"{value:z.4g}"
    if isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef"):
        return value[:12]
    return str(value)


def _plain(rows: pa.Table) -> pa.Table:
    """Rows that CSV can hold: lists and structures as JSON text, dictionaries decoded."""
    columns = []
    for column in rows.columns:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        elif pa.types.is_nested(column.type):
            column = pa.array([json.dumps(value) for value in column.to_pylist()], pa.string())
        columns.append(column)
    return pa.table(columns, names=rows.column_names)


def _finite(value: object) -> object:
    """NaN and infinities as null: JSON has no word for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list) else value
