"""The rows of the leaderboard that belong to a run, and how people see them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.table import Table

from data import Catalog
from flows.config import PATCHING
from flows.judgement import Products

Row = dict[str, Any]

_ROOM_FOR_INTERVALS = 110  # columns
_GROUP = ("model", "task", "metric", "run under", "level")


def rows_of_run(catalog: Catalog, products: Iterable[Products]) -> list[Row]:
    """The leaderboard's rows of these cells, best first within a group that can be compared."""
    mine = {
        (extracted.circuits["circuits"].key, trial.baselines["baselines"].key)
        for one in products
        for extracted in one.extracted
        for trial in one.trials
        if extracted.circuits is not None and trial.baselines is not None
    }
    rows = catalog.query(
        "SELECT * FROM leaderboard ORDER BY model, task, split, metric, evaluated_under,"
        " means_over, level, comparable DESC NULLS LAST, cpr DESC NULLS LAST, label, rule, scores"
    ).to_pylist()
    return [row for row in rows if (row["extraction"], row["baseline"]) in mine]


def leaderboard_table(rows: list[Row], width: int) -> Table:
    """CPR, CMD and the seconds of attribution; what is the same everywhere is left out.

    Where a terminal of `width` columns has room, the intervals of CPR and CMD stand beside them.

    Rows stand together that can be compared: of one model, task, metric and intervention, and of
    one level, since a fraction of the edges is not one of the nodes. Where the areas of some
    are over much fewer sizes than those of others, the sizes are shown, and those rows stand last.
    """
    several_means = len({row["means_over"] for row in rows} - {None}) > 1
    rows = [row | {"run under": _run_under(row, several_means)} for row in rows]
    several = len({row["model"] for row in rows}) > 1
    judged = len({row["metric"] for row in rows}) > 1 or any(
        row["attribution_metric"] not in (None, row["metric"]) for row in rows
    )
    replaced = {row["evaluated_under"] for row in rows} != {PATCHING}
    names = ["model"] * several + ["task", "method", "extraction"]
    ranged = any(row["comparable"] is False for row in rows)
    names += ["metric"] * judged + ["run under"] * replaced + ["sizes"] * ranged
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    for name in names:
        table.add_column(name, overflow="fold")
    sure = {row["confidence"] for row in rows if row["confidence"] is not None}
    heading = f"{100 * min(sure):g} %" if len(sure) == 1 else "interval"
    interval = [heading] if sure and width >= _ROOM_FOR_INTERVALS else []
    for name in ("CPR ↑", *interval, "CMD ↓", *interval, "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    before = None
    for row in rows:
        group = tuple(row[name] for name in _GROUP)
        if before is not None and group != before:
            table.add_row()
        words = [row["task"] if group != before else "", row["label"], row["rule"]]
        words = [row["model"] if group != before else ""] * several + words
        words += [row["metric"]] * judged + [row["run under"]] * replaced
        words += [f"{row['smallest']:.2g} to {row['largest']:.2g}"] * ranged
        for name in ("cpr", "cmd"):
            words += [_number(row[name])]
            words += [_interval(row[f"{name}_low"], row[f"{name}_high"])] * len(interval)
        table.add_row(*words, _number(row["seconds"], 2))
        before = group
    return table


def _run_under(row: Row, with_means: bool) -> str:
    over = f" over {row['means_over']}" if with_means and row["means_over"] is not None else ""
    return f"{row['evaluated_under']}{over}"


def _interval(low: float | None, high: float | None) -> str:
    return "–" if low is None else f"{_number(low)} to {_number(high)}"


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:z.{digits}f}"
