"""Where grids stand, read from the store alone: done, missing, failed and why, damaged."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data import Catalog

_BY_STAGE = """
SELECT
    grid, stage, min(position) AS place,
    count(*) FILTER (status = 'done') AS done,
    count(*) FILTER (status = 'failed') AS failed,
    count(*) FILTER (status = 'missing') AS missing
FROM grid_stages GROUP BY grid, stage ORDER BY grid, place
"""
_FAILED = "SELECT stage, cell, error FROM stages WHERE status = 'failed' ORDER BY finished_at, cell"


def show_status(catalog: Catalog, console: Console) -> None:
    """Print a table a grid, and every failure and damaged file of the store."""
    rows = catalog.query(_BY_STAGE).to_pylist()
    if not rows:
        console.print("No grid was run on this store yet: `circuit-grid run` runs the demo.")
    for grid in dict.fromkeys(row["grid"] for row in rows):
        mine = [row for row in rows if row["grid"] == grid]
        done, total = sum(row["done"] for row in mine), sum(_total(row) for row in mine)
        state = "finished" if done == total else f"{done} of {total} stages done"
        console.print(f"[bold]{escape(grid)}[/]  {state}", highlight=False)
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("stage")
        for name in ("done", "missing", "failed"):
            table.add_column(name, justify="right")
        for row in mine:
            counts = [str(row[name]) if row[name] else "[dim]0[/]" for name in ("done", "missing")]
            failed = f"[red]{row['failed']}[/]" if row["failed"] else "[dim]0[/]"
            table.add_row(row["stage"], *counts, failed)
        console.print(table)
        console.print()
    for row in catalog.query(_FAILED).to_pylist():
        console.print(f"[red]failed[/]  {escape(row['cell'])}, {row['stage']}:", highlight=False)
        console.print(f"        {escape(row['error'])}", highlight=False, soft_wrap=True)
    for row in catalog.query("damaged").to_pylist():
        text = f"{escape(row['path'])}: {escape(row['reason'])}; the next run rebuilds it"
        console.print(f"[yellow]damaged[/] {text}", highlight=False, soft_wrap=True)


def _total(row: dict[str, int]) -> int:
    return row["done"] + row["missing"] + row["failed"]
