"""Pictures of stored circuits: finding the one that is meant, and one of each task after a run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from circuits.circuit import Circuit
from circuits.graph import Graph
from circuits.scores import Scores
from data import Catalog
from flows.errors import GridError

if TYPE_CHECKING:
    from flows.leaderboard import Row

READABLE_EDGES = 40  # more of them make a picture that nobody can read
_CANDIDATES = 8  # so many are listed where several are meant
_ORDER = "ORDER BY model, task, method, steps, quadrature, algorithm, n_edges, circuit"
_COLUMNS = "circuit, model, task, method, steps, quadrature, algorithm, size_asked, edges_asked"


def find_circuit(catalog: Catalog, prefix: str | None, filters: Mapping[str, Any]) -> str:
    """The id of the one circuit that an id's beginning and names describe.

    `filters` holds values of model, task, method, algorithm and size (a fraction, or edges), None
    where any will do. GridError where no circuit or more than one fits, with the candidates.
    """
    rows = catalog.query(f"SELECT {_COLUMNS}, n_edges FROM circuit_sizes {_ORDER}").to_pylist()
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
    """A stored circuit with the scores of its edges, and a title that says what it is."""
    about = catalog.query(
        "SELECT * FROM circuit_sizes WHERE circuit = $circuit", circuit=circuit
    ).to_pylist()[0]
    shape = catalog.query(
        "SELECT n_layers, n_heads, parallel FROM graphs WHERE graph = $graph", graph=about["graph"]
    ).to_pylist()[0]
    graph = Graph(**shape)
    edges = catalog.query(
        "SELECT edge_id, score FROM circuit_edges WHERE circuit = $circuit", circuit=circuit
    ).to_pydict()
    members = np.zeros(graph.n_edges, dtype=bool)
    members[edges["edge_id"]] = True
    values = np.full(graph.n_edges, np.nan)
    values[edges["edge_id"]] = [np.nan if score is None else score for score in edges["score"]]
    mask, matrix = np.zeros_like(graph.edge_mask), np.zeros(graph.edge_mask.shape)
    mask[graph.edge_mask], matrix[graph.edge_mask] = members, values
    scores = Scores(graph, matrix, np.full_like(matrix, np.nan), 0, about["method"])
    share = f"{about['n_edges']} of {graph.n_edges} edges"
    title = (
        f"{about['task']} · {about['model']} · {_method(about)} · {about['algorithm']} · {share}"
    )
    return Circuit(graph, mask, scores), title


def draw_best(catalog: Catalog, rows: list[Row], folder: Path) -> list[Path]:
    """Draw, for every model and task, a readable circuit of its best row; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    best: dict[tuple[str, str], Row] = {}
    for row in rows:
        best.setdefault((row["model"], row["found_on"]), row)
    several = len({model for model, _ in best}) > 1
    drawn = []
    for (model, task), row in best.items():
        sizes = catalog.query(
            "SELECT circuit, n_edges FROM circuit_sizes WHERE scores = $scores"
            " AND algorithm = $algorithm AND absolute = $absolute AND n_edges > 0"
            " ORDER BY n_edges, circuit",
            **{name: row[name] for name in ("scores", "algorithm", "absolute")},
        ).to_pylist()
        if not sizes:
            continue
        readable = [one for one in sizes if one["n_edges"] <= READABLE_EDGES]
        chosen = readable[-1] if readable else sizes[0]
        words = [*([model] if several else []), task, row["method"], row["algorithm"]]
        name = "-".join(re.sub(r"[^A-Za-z0-9.]+", "-", word).strip("-.") for word in words)
        circuit, title = load_circuit(catalog, chosen["circuit"])
        drawn.append(circuit.draw(folder / f"{name}-{chosen['n_edges']}-edges.svg", title=title))
    return drawn


def _fits(row: dict[str, Any], name: str, value: Any) -> bool:
    if name == "size":
        return bool(value in (row["size_asked"], row["edges_asked"]))
    return str(row[name]) == value


def _method(row: dict[str, Any]) -> str:
    options = [str(row[name]) for name in ("steps", "quadrature") if row[name] is not None]
    return f"{row['method']} ({', '.join(options)})" if options else str(row["method"])


def _describe(row: dict[str, Any]) -> str:
    asked = row["size_asked"] if row["size_asked"] is not None else row["edges_asked"]
    names = [row["model"], row["task"], _method(row), row["algorithm"], f"size {asked}"]
    return f"{row['circuit'][:12]}  {' · '.join(names)} · {row['n_edges']} edges"
