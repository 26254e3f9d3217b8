"""Two circuits or two sets of scores side by side, from the store or from files, for people."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from circuits.circuit import Circuit
from circuits.scores import Scores
from data import Catalog, Store
from flows.errors import GridError
from flows.finding import find_scores_or_circuit, load_circuit, load_scores


@dataclass(frozen=True)
class Side:
    """What is compared: a circuit, scores, or both, and what people call it."""

    title: str
    circuit: Circuit | None
    scores: Scores | None


def side_of(name: str, store: str) -> Side:
    """The file of this name, or else what has an id in the store that begins so.

    Raises GridError where there is neither, and `circuits.InterchangeError` for a malformed file.
    """
    if Path(name).suffix or "/" in name or Path(name).exists():
        from circuits.interchange import load_circuit_file

        found = load_circuit_file(name)
        return Side(name, found.circuit, found.level_scores)
    catalog = Catalog(Store.open(store, create=False))
    kind, key, title = find_scores_or_circuit(catalog, name)
    if kind == "circuit":
        circuit, title = load_circuit(catalog, key)
        return Side(title, circuit, circuit.scores)
    return Side(title, None, load_scores(catalog, key)[0])


def compared(a: Side, b: Side) -> pa.Table:
    """A row a measure: of circuits, of scores and of profiles, as far as both sides have them.

    Where graphs differ, profiles alone. GridError where nothing can be compared, and
    `circuits.EvaluationError` for circuits of different graphs that have no scores.
    """
    from circuits.comparison import compare_circuits, compare_profiles, compare_scores, profile

    rows: list[tuple[str, str, float | None]] = []
    one_graph = _graph(a) == _graph(b)
    both_scored = a.scores is not None and b.scores is not None
    if a.circuit is not None and b.circuit is not None and (one_graph or not both_scored):
        of_circuits = compare_circuits(a.circuit, b.circuit)
        units = f"{a.circuit.level}s"
        rows += [
            ("circuits", f"{units} of the first", of_circuits.n_a),
            ("circuits", f"{units} of the second", of_circuits.n_b),
            ("circuits", f"{units} shared", of_circuits.n_shared),
            ("circuits", f"{units} shared by chance", of_circuits.expected),
            ("circuits", "p-value", of_circuits.p_value),
            ("circuits", "Jaccard index of edges", of_circuits.jaccard_edges),
            ("circuits", "Jaccard index of nodes", of_circuits.jaccard_nodes),
            ("circuits", "share of the first in the second", of_circuits.precision),
            ("circuits", "share of the second in the first", of_circuits.recall),
        ]
    if a.scores is not None and b.scores is not None:
        if one_graph:
            of_scores = compare_scores(a.scores, b.scores)
            rows += [
                ("scores", f"{a.scores.level}s scored in both", of_scores.n_common),
                ("scores", "Kendall's tau", of_scores.kendall_tau),
                ("scores", "rank-biased overlap", of_scores.rank_biased_overlap),
                ("scores", "weighted IoU", of_scores.weighted_iou),
            ]
        overlap = compare_profiles(profile(a.scores), profile(b.scores))
        rows.append(("profiles", "overlap by depth and kind", overlap))
    if not rows:
        raise GridError(
            f"{a.title} and {b.title} have nothing in common to compare: "
            f"give two circuits or two sets of scores"
        )
    columns = {
        "of": [of for of, _, _ in rows],
        "measure": [measure for _, measure, _ in rows],
        "value": pa.array([value for _, _, value in rows], pa.float64()),
    }
    return pa.table(columns)


def _graph(side: Side) -> object:
    found = side.circuit or side.scores
    assert found is not None
    return found.graph
