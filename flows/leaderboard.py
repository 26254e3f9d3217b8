"""The rows of the leaderboard that belong to a run, and how people see them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.table import Table

from data import Catalog
from flows.plan import Products

Row = dict[str, Any]


def rows_of_run(catalog: Catalog, products: Iterable[Products]) -> list[Row]:
    """The leaderboard's rows of these cells, best first within a model, task and metric."""
    mine = {
        (found["circuits"].key, one.evaluated_on)
        for one in products
        for found in one.circuits
        if found is not None
    }
    rows = catalog.query(
        "SELECT * FROM leaderboard ORDER BY model, task, split, metric,"
        " cpr DESC NULLS LAST, method, algorithm, scores"
    ).to_pylist()
    return [row for row in rows if (row["extraction"], row["dataset"]) in mine]


def leaderboard_table(rows: list[Row]) -> Table:
    """CPR, CMD and the seconds of attribution; models are named only if there are several."""
    several = len({row["model"] for row in rows}) > 1
    judged = len({row["metric"] for row in rows}) > 1 or any(
        row["metric"] != row["attribution_metric"] for row in rows
    )
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    for name in ["model"] * several + ["task", "method", "extraction"] + ["metric"] * judged:
        table.add_column(name, overflow="fold")
    for name in ("CPR ↑", "CMD ↓", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    before = None
    for row in rows:
        group = (row["model"], row["task"], row["metric"])
        if before is not None and group != before:
            table.add_row()
        options = [str(row[name]) for name in ("steps", "quadrature") if row[name] is not None]
        method = f"{row['method']} ({', '.join(options)})" if options else row["method"]
        words = [row["task"] if group != before else "", method, row["algorithm"]]
        words = [row["model"] if group != before else ""] * several + words
        words += [row["metric"]] * judged
        table.add_row(*words, _number(row["cpr"]), _number(row["cmd"]), _number(row["seconds"], 2))
        before = group
    return table


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
