"""Answers to questions about the results: as a table for eyes, as CSV or JSON for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Literal

import pyarrow as pa
import pyarrow.csv
from rich.console import Console
from rich.markup import escape

from data import Catalog
from flows.errors import GridError
from flows.showing import show_table

Format = Literal["table", "csv", "json"]


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
        show_table(rows, console)


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
