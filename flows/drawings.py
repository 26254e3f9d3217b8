"""Pictures of stored circuits: finding the one that is meant, and one of each task after a run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from circuits.circuit import Circuit
from circuits.scores import Scores
from data import Catalog
from flows.errors import GridError
from flows.units import UnitSpace, circuit_of, graph_of

if TYPE_CHECKING:
    from flows.leaderboard import Row

READABLE_EDGES = 40  # more of them make a picture that nobody can read
_CANDIDATES = 8  # so many are listed where several are meant
_ORDER = "ORDER BY model, task, label, rule, n_units, circuit"
_COLUMNS = (
    "circuit, model, task, method, label, level, algorithm, rule,"
    " size_asked, units_asked, threshold, n_units"
)


def find_circuit(catalog: Catalog, prefix: str | None, filters: Mapping[str, Any]) -> str:
    """The id of the one circuit that an id's beginning and names describe.

    `filters` holds values of model, task, method (with its options or without), level, algorithm
    and size (a fraction, or units), None where any will do. GridError where no circuit or more than
    one fits, with the candidates.
    """
    rows = catalog.query(f"SELECT {_COLUMNS} FROM circuit_sizes {_ORDER}").to_pylist()
    if not rows:
        raise GridError("the store has no circuits yet: `circuit-grid run` makes some")
    wanted = {name: value for name, value in filters.items() if value is not None}
    fitting = [
        row
        for row in rows
        if row["circuit"].startswith((prefix or "").lower())
        and all(_fits(row, name, value) for name, value in wanted.items())
    ]
    if len(fitting) == 1:
        return str(fitting[0]["circuit"])
    asked = [f"{name} {value}" for name, value in wanted.items()]
    asked += [f"an id that begins with {prefix}"] if prefix else []
    described = " and ".join(asked) or "no description"
    if not fitting:
        known = "; ".join(
            f"{name}: {', '.join(sorted({str(row[name]) for row in rows}))}"
            for name in wanted
            if name != "size"
        )
        raise GridError(f"no circuit has {described}" + (f" (there are {known})" if known else ""))
    lines = "".join(f"\n  {_describe(row)}" for row in fitting[:_CANDIDATES])
    more = f"\n  … and {len(fitting) - _CANDIDATES} more" if len(fitting) > _CANDIDATES else ""
    raise GridError(f"{len(fitting)} circuits have {described}; say more:{lines}{more}")


def load_circuit(catalog: Catalog, circuit: str) -> tuple[Circuit, str]:
    """A stored circuit with the scores of its units, and a title that says what it is."""
    (about,) = catalog.query(
        "SELECT circuit_sizes.*, d_model FROM circuit_sizes"
        " JOIN attributions USING (scores) JOIN models ON models.model = attributions.model_id"
        " WHERE circuit = $circuit",
        circuit=circuit,
    ).to_pylist()
    (shape,) = catalog.query(
        "SELECT * FROM graphs WHERE graph = $graph", graph=about["graph"]
    ).to_pylist()
    space = UnitSpace(graph_of(shape), about["level"], about["d_model"])
    edges = catalog.query("SELECT edge_id FROM members WHERE circuit = $circuit", circuit=circuit)
    neurons = catalog.query(
        "SELECT node_id, dimensions FROM member_neurons WHERE circuit = $circuit", circuit=circuit
    ).to_pylist()
    rows = catalog.query(
        "SELECT unit_id, score, standard_error, n_examples FROM scores WHERE scores = $scores",
        scores=about["scores"],
    )
    ids = rows["unit_id"].to_numpy()
    scores = Scores(
        space.graph,
        space.array(ids, rows["score"].to_numpy()),
        space.array(ids, rows["standard_error"].to_numpy()),
        rows["n_examples"][0].as_py(),
        about["method"],
        space.level,
    )
    dimensions = {row["node_id"]: row["dimensions"] for row in neurons}
    drawn = circuit_of(space, edges["edge_id"].to_numpy(), dimensions, scores)
    share = f"{about['n_units']} of {space.n_units} {space.level}s"
    names = (about["task"], about["model"], about["label"], about["rule"], share)
    return drawn, " · ".join(names)


def draw_best(catalog: Catalog, rows: list[Row], folder: Path) -> list[Path]:
    """Draw, for every model and task, a readable circuit of its best row; returns the files.

    The best row is that of greatest CPR; circuits of edges go before others, which are denser.
    """
    folder.mkdir(parents=True, exist_ok=True)
    best: dict[tuple[str, str], Row] = {}
    for row in sorted(rows, key=_merit, reverse=True):
        best.setdefault((row["model"], row["found_on"]), row)
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


def _merit(row: Row) -> tuple[bool, float]:
    return row["level"] == "edge", -math.inf if row["cpr"] is None else row["cpr"]


def _fits(row: dict[str, Any], name: str, value: Any) -> bool:
    if name == "size":
        return bool(value in (row["size_asked"], row["units_asked"]))
    if name == "method":
        return value in (row["method"], row["label"])
    if name == "algorithm":
        return value in (row["algorithm"], row["rule"])
    return str(row[name]) == value


def _describe(row: dict[str, Any]) -> str:
    asked = f"size {row['size_asked'] if row['size_asked'] is not None else row['units_asked']}"
    if row["threshold"] is not None:
        asked = f"threshold {row['threshold']:g}"
    names = [row["model"], row["task"], row["label"], row["rule"], asked]
    return f"{row['circuit'][:12]}  {' · '.join(names)} · {row['n_units']} {row['level']}s"
