"""The rows of the leaderboard that belong to a run, and how people see them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.table import Table

from data import Catalog
from flows.config import PATCHING
from flows.plan import Products

Row = dict[str, Any]

_GROUP = ("model", "task", "metric", "evaluated_under", "level")


def rows_of_run(catalog: Catalog, products: Iterable[Products]) -> list[Row]:
    """The leaderboard's rows of these cells, best first within a group that can be compared."""
    mine = {
        (extracted["circuits"].key, baseline["baselines"].key)
        for one in products
        for extracted in one.circuits
        for baseline in one.baselines
        if extracted is not None and baseline is not None
    }
    rows = catalog.query(
        "SELECT * FROM leaderboard ORDER BY model, task, split, metric, evaluated_under, level,"
        " cpr DESC NULLS LAST, label, rule, scores"
    ).to_pylist()
    return [row for row in rows if (row["extraction"], row["baseline"]) in mine]


def leaderboard_table(rows: list[Row]) -> Table:
    """CPR, CMD and the seconds of attribution; what is the same everywhere is left out.

    Rows stand together that can be compared: of one model, task, metric and intervention, and of
    one level, since a fraction of the edges is not one of the nodes.
    """
    several = len({row["model"] for row in rows}) > 1
    judged = len({row["metric"] for row in rows}) > 1 or any(
        row["attribution_metric"] not in (None, row["metric"]) for row in rows
    )
    replaced = {row["evaluated_under"] for row in rows} != {PATCHING}
    names = ["model"] * several + ["task", "method", "extraction"]
    names += ["metric"] * judged + ["run under"] * replaced
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    for name in names:
        table.add_column(name, overflow="fold")
    for name in ("CPR ↑", "CMD ↓", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    before = None
    for row in rows:
        group = tuple(row[name] for name in _GROUP)
        if before is not None and group != before:
            table.add_row()
        words = [row["task"] if group != before else "", row["label"], row["rule"]]
        words = [row["model"] if group != before else ""] * several + words
        words += [row["metric"]] * judged + [row["evaluated_under"]] * replaced
        table.add_row(*words, _number(row["cpr"]), _number(row["cmd"]), _number(row["seconds"], 2))
        before = group
    return table


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
