"""What a person names in the store: the one circuit or the one set of scores that is meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from circuits.circuit import Circuit
from circuits.scores import Scores
from data import Catalog
from flows.errors import GridError
from flows.units import UnitSpace, circuit_of, graph_of

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
    described = " and ".join(asked)
    if not fitting:
        words = {
            name: sorted({str(row[name]) for row in rows if row[name] is not None})
            for name in wanted
            if name != "size"
        }
        if "size" in wanted:
            sizes = {row["size_asked"] for row in rows} - {None}
            words["size"] = [f"{size:g}" if size < 1 else "1.0" for size in sorted(sizes)]
        known = "; ".join(f"{name}: {', '.join(found)}" for name, found in words.items())
        raise GridError(f"no circuit has {described}" + (f" (there are {known})" if known else ""))
    lines = "".join(f"\n  {_describe(row)}" for row in fitting[:_CANDIDATES])
    more = f"\n  … and {len(fitting) - _CANDIDATES} more" if len(fitting) > _CANDIDATES else ""
    have = (
        f"{len(fitting)} circuits have {described}"
        if asked
        else f"there are {len(fitting)} circuits"
    )
    options = ", ".join(f"--{name}" for name in filters if name not in wanted)
    raise GridError(f"{have}; say which by an id, or by {options}:{lines}{more}")


def size_of(text: str) -> int | float:
    """A size as a grid says it: whole numbers are units, with a point they are fractions.

    GridError for what is neither.
    """
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise GridError(
            f"there is no size {text!r}: write a fraction such as 0.1 or 1.0, or so many units"
        ) from None


def load_circuit(catalog: Catalog, circuit: str) -> tuple[Circuit, str]:
    """A stored circuit with the scores of its units, and a title that says what it is."""
    (about,) = catalog.query(
        "SELECT * FROM circuit_sizes WHERE circuit = $circuit", circuit=circuit
    ).to_pylist()
    scores, space = load_scores(catalog, about["scores"])
    edges = catalog.query("SELECT edge_id FROM members WHERE circuit = $circuit", circuit=circuit)
    neurons = catalog.query(
        "SELECT node_id, dimensions FROM member_neurons WHERE circuit = $circuit", circuit=circuit
    ).to_pylist()
    dimensions = {row["node_id"]: row["dimensions"] for row in neurons}
    is_scored = not np.isnan(scores.values).all()
    drawn = circuit_of(
        space, edges["edge_id"].to_numpy(), dimensions, scores if is_scored else None
    )
    share = f"{about['n_units']} of {space.n_units} {space.level}s"
    names = (about["task"], about["model"], about["label"], about["rule"], share)
    return drawn, " · ".join(name for name in names if name is not None)


def load_scores(catalog: Catalog, scores: str) -> tuple[Scores, UnitSpace]:
    """A stored set of scores, and the units that it is over."""
    (about,) = catalog.query(
        "SELECT attributions.*, d_model FROM attributions"
        " JOIN models ON models.model = attributions.model_id WHERE scores = $scores",
        scores=scores,
    ).to_pylist()
    (shape,) = catalog.query(
        "SELECT * FROM graphs WHERE graph = $graph", graph=about["graph"]
    ).to_pylist()
    space = UnitSpace(graph_of(shape), about["level"], about["d_model"])
    rows = catalog.query(
        "SELECT unit_id, score, standard_error FROM scores WHERE scores = $scores", scores=scores
    )
    ids = rows["unit_id"].to_numpy()
    found = Scores(
        space.graph,
        space.array(ids, rows["score"].to_numpy()),
        space.array(ids, rows["standard_error"].to_numpy()),
        about["n_examples"] or 0,
        about["method"],
        space.level,
    )
    return found, space


def find_scores_or_circuit(catalog: Catalog, prefix: str) -> tuple[str, str, str]:
    """What has an id that begins so: `circuit` or `scores`, the id, and a title.

    GridError where nothing has, or more than one thing.
    """
    rows = catalog.query(
        "SELECT 'circuit' AS kind, circuit AS id, model, task, label, rule, n_units, level"
        " FROM circuit_sizes UNION ALL"
        " SELECT 'scores', scores, model, task, label, NULL, n_units, level FROM attributions"
        " ORDER BY kind, model, task, label, rule, n_units, id"
    ).to_pylist()
    fitting = [row for row in rows if prefix and row["id"].startswith(prefix.lower())]
    if not fitting:
        raise GridError(
            f"no circuit and no scores have an id that begins with {prefix!r}, and there is no "
            f"such file: `circuit-grid query circuit-sizes` lists circuits with their ids"
        )
    if len(fitting) > 1:
        lines = "".join(f"\n  {row['id'][:12]}  {_title(row)}" for row in fitting[:_CANDIDATES])
        raise GridError(f"{len(fitting)} ids begin with {prefix!r}; say more of one:{lines}")
    (row,) = fitting
    return row["kind"], row["id"], _title(row)


def _title(row: dict[str, Any]) -> str:
    units = f"{row['n_units']} {row['level']}s"
    names = (row["kind"], row["task"], row["model"], row["label"], row["rule"], units)
    return " · ".join(str(name) for name in names if name is not None)


def _fits(row: dict[str, Any], name: str, value: Any) -> bool:
    if name == "size":
        return bool(value == row["units_asked" if isinstance(value, int) else "size_asked"])
    if name == "method":
        return value in (row["method"], row["label"])
    if name == "algorithm":
        return value in (row["algorithm"], row["rule"])
    return str(row[name]) == value


def _describe(row: dict[str, Any]) -> str:
    size = row["size_asked"] if row["size_asked"] is not None else row["units_asked"]
    asked = None if size is None else f"size {size}"
    if row["threshold"] is not None:
        asked = f"threshold {row['threshold']:g}"
    names = [row["model"], row["task"], row["label"], row["rule"], asked]
    said = " · ".join(name for name in names if name is not None)
    return f"{row['circuit'][:12]}  {said} · {row['n_units']} {row['level']}s"
