"""Pictures after a run: a readable circuit of every task."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

from data import Catalog
from flows.finding import load_circuit

if TYPE_CHECKING:
    from flows.leaderboard import Row

READABLE_EDGES = 40  # more of them make a picture that nobody can read


def draw_best(catalog: Catalog, rows: list[Row], folder: Path) -> list[Path]:
    """Draw, for every model and task, a readable circuit of its best row; returns the files.

    The best row is that of greatest CPR; circuits of edges go before others, which are denser, and
    areas that compare before those over few sizes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    best: dict[tuple[str, str], Row] = {}
    for row in sorted(rows, key=_merit, reverse=True):
        best.setdefault((row["model"], row["task"]), row)
    several = len({model for model, _ in best}) > 1
    drawn = []
    for (model, task), row in best.items():
        sizes = catalog.query(
            "SELECT circuit, n_edges, n_units, level FROM circuit_sizes WHERE scores = $scores"
            " AND rule = $rule AND n_edges > 0"
            " ORDER BY n_edges, circuit",
            **{name: row[name] for name in ("scores", "rule")},
        ).to_pylist()
        if not sizes:
            continue
        readable = [one for one in sizes if one["n_edges"] <= READABLE_EDGES]
        chosen = readable[-1] if readable else sizes[0]
        words = [*([model] if several else []), task, row["label"], row["rule"]]
        name = "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", word).strip("-.") for word in words)
        circuit, title = load_circuit(catalog, chosen["circuit"])
        size = f"{chosen['n_units']}-{chosen['level']}s"
        drawn.append(circuit.draw(folder / f"{name}-{size}.svg", title=title))
    return drawn


def _merit(row: Row) -> tuple[bool, bool, float]:
    cpr = -math.inf if row["cpr"] is None else row["cpr"]
    return row["level"] == "edge", row["comparable"] is True, cpr
