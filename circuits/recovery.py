"""Scores against a circuit that is known: how much of it they find, and what they find besides.

Some bundled models have weights that were set by hand (`training/truths.py`), so that their circuit
on a task of the same name is known: the *truths*. An edge is true if there is a set of other edges
such that, with these corrupted, corrupting it too changes the metric on a prompt of the task, under
patching. So it makes no difference which of the edges that are not listed are corrupted, whatever
else is.

The units (edges, or nodes: those that a true edge touches) are ranked by their scores:

- precision and recall of the |truth| best units. A unit that scores 0 is none of the best, so a
  method that finds few edges and no wrong one has precision 1 and a low recall;
- AUROC, the chance that a true unit ranks above one that is not, a tie counting one half (the
  statistic of Mann and Whitney);
- AUPRC, the average precision: the mean over true units of the precision at the unit's rank.

Ties are exact: every figure is the mean over all orders of the units that tie. A score below a
millionth of the largest one is rounding and counts as 0; a unit without a score ranks last.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

import data.bundled
from circuits.circuit import Circuit
from circuits.comparable import resolved
from circuits.errors import EvaluationError
from circuits.graph import Graph
from circuits.scores import Scores, unit_values

_LISTING = "truth.json"


@dataclass(frozen=True)
class Recovery:
    """How well scores recover a known circuit; None where a figure is 0/0.

    `n_chosen` of the `n_true` best units score other than 0. Precision is undefined where none
    does, recall and AUPRC where nothing is true, AUROC where nothing or everything is.
    """

    n_true: int
    n_units: int
    n_chosen: int
    precision: float | None
    recall: float | None
    auroc: float | None
    auprc: float | None


def truth_names() -> tuple[str, ...]:
    """The names of the models whose circuit is known, which are those of their tasks as well."""
    return tuple(
        name for name, path in data.bundled.models().items() if (path / _LISTING).is_file()
    )


def is_truth(name: str) -> bool:
    """Whether the circuit of the model, and on the task, of this name is known."""
    return name in truth_names()


def true_circuit(name: str, graph: Graph) -> Circuit:
    """The known circuit of a truth: its true edges.

    Raises `EvaluationError` where no circuit is known by that name, or it is one of another graph.
    """
    if not is_truth(name):
        raise EvaluationError(
            f"no circuit is known for {name!r}: the models and tasks with a known circuit are "
            f"{', '.join(truth_names())}"
        )
    listing = _listing(name)
    own = Graph(listing["n_layers"], listing["n_heads"])
    if graph != own:
        raise EvaluationError(
            f"the circuit of {name!r} is one of a model of {own.n_layers} layers and "
            f"{own.n_heads} heads, not of one of {graph.n_layers} and {graph.n_heads}: take the "
            f"graph of load_model({name!r})"
        )
    return Circuit.from_edges(graph, [entry["edge"] for entry in listing["edges"]])


def recovery(scores: Scores, truth: Circuit, absolute: bool = True) -> Recovery:
    """How well scores recover a known circuit, by |score| or by the signed score.

    At node level the true units are the writers that an edge of the circuit touches. Raises
    `EvaluationError` where the circuit is one of another graph, and for scores of neurons where the
    circuit does not say which neurons it keeps.
    """
    true = _true_units(scores, truth)
    keys = _keys(scores.unit_values, absolute)
    n_true, n_units = int(true.sum()), len(true)
    expected, n_chosen = _best(keys, true)
    return Recovery(
        n_true=n_true,
        n_units=n_units,
        n_chosen=n_chosen,
        precision=expected / n_chosen if n_chosen else None,
        recall=expected / n_true if n_true else None,
        auroc=_auroc(keys, true) if 0 < n_true < n_units else None,
        auprc=_average_precision(keys, true) if n_true else None,
    )


@cache
def _listing(name: str) -> dict[str, Any]:
    text = (data.bundled.model_path(name) / _LISTING).read_text(encoding="utf-8")
    listing: dict[str, Any] = json.loads(text)
    return listing


def _true_units(scores: Scores, truth: Circuit) -> Bool[np.ndarray, " units"]:
    graph, own = scores.graph, truth.graph
    if graph != own:
        raise EvaluationError(
            f"the scores are those of a model of {graph.n_layers} layers and {graph.n_heads} "
            f"heads, and the known circuit is one of {own.n_layers} and {own.n_heads}: they have "
            f"no units in common"
        )
    if scores.level == "edge":
        return unit_values(graph, "edge", truth.mask)
    if scores.level == "node":
        return truth.node_mask[:-1]
    if truth.neurons is None:
        raise EvaluationError(
            "the known circuit does not say which neurons it keeps, so scores of neurons cannot "
            "be compared with it: use scores of edges or nodes"
        )
    if truth.neurons.shape != scores.values.shape:
        raise EvaluationError(
            f"the scores are those of neurons of a model {scores.values.shape[1]} wide, and the "
            f"known circuit is one of a model {truth.neurons.shape[1]} wide"
        )
    return truth.neurons.reshape(-1)


def _keys(values: Float[np.ndarray, " units"], absolute: bool) -> Float[np.ndarray, " units"]:
    """What units are ranked by: the larger the better, −∞ where there is no score."""
    keys = resolved(values)
    return np.where(np.isnan(keys), -np.inf, np.abs(keys) if absolute else keys)


def _best(keys: Float[np.ndarray, " units"], true: Bool[np.ndarray, " units"]) -> tuple[float, int]:
    """Of as many best units as are true: how many are true, and how many score other than 0.

    The first is the mean over all orders of the units that tie at the last place. The second is
    the same in each: of units that tie, all score 0 or none does.
    """
    n = int(true.sum())
    if n == 0:
        return 0.0, 0
    last = np.sort(keys)[-n]
    counted = np.isfinite(keys) & (keys != 0)
    above, level = keys > last, keys == last
    found, chosen = int((above & counted & true).sum()), int((above & counted).sum())
    if last == 0 or not np.isfinite(last):
        return float(found), chosen
    left = n - int(above.sum())
    return found + left * int((level & true).sum()) / int(level.sum()), chosen + left


def _auroc(keys: Float[np.ndarray, " units"], true: Bool[np.ndarray, " units"]) -> float:
    """The chance that a true unit ranks above another, by the sum of the true units' ranks."""
    n_true = int(true.sum())
    n_false = len(true) - n_true
    above = float(rankdata(keys)[true].sum()) - n_true * (n_true + 1) / 2
    return above / (n_true * n_false)


def _average_precision(
    keys: Float[np.ndarray, " units"], true: Bool[np.ndarray, " units"]
) -> float:
    """The mean over true units of the precision at their rank, over all orders of those that tie.

    Of g units that tie, t of them true, behind n others, p of them true, the i-th is true with the
    chance t/g, and if it is, (i − 1)(t − 1)/(g − 1) of those before it in the tie are, on average.
    """
    order = np.argsort(-keys, kind="stable")
    _, starts, sizes = np.unique(-keys[order], return_index=True, return_counts=True)
    hits = np.add.reduceat(true[order].astype(float), starts)
    g, t = np.repeat(sizes, sizes), np.repeat(hits, sizes)
    n = np.repeat(starts, sizes)
    p = np.repeat(np.cumsum(hits) - hits, sizes)
    before = np.arange(len(keys)) - n  # i − 1
    in_tie = before * (t - 1) / np.maximum(g - 1, 1)
    return float((t / g * (p + 1 + in_tie) / (n + before + 1)).sum() / true.sum())
