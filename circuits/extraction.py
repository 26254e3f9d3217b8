"""From scores to a circuit.

- `top_n` keeps the n best edges, nodes or neurons of the graph, wherever they are.
- `threshold` keeps every one that scores at least t.
- `greedy` grows a circuit of edges from the logits: always the best edge whose reader is already in
  it (Hanna et al. 2024, arXiv:2403.17806).

"Best" is by |score|, or by the signed score where `absolute=False`. Ties go to the unit that comes
first (edges in edge order, neurons by writer and dimension), so results repeat. Units without a
score (NaN) compete for no place: edges without one stay out, nodes and neurons without one stay in
beside the n best; `keep_unscored` says otherwise.

A circuit of nodes gets every edge between its nodes, and so does one of neurons, whose nodes are
those that have a neuron in it. `input` is a node like any other: a circuit without it carries
nothing. Every circuit is pruned before it is returned, so it can have fewer units than were asked
for.
"""

from __future__ import annotations

import heapq
import math
from typing import TypeGuard

import numpy as np
from jaxtyping import Bool, Float

from circuits.circuit import Circuit, edges_between
from circuits.errors import ExtractionError
from circuits.graph import Graph
from circuits.scores import Scores


def units_for_share(scores: Scores, share: float) -> int:
    """How many edges, nodes or neurons a share (0 < share ≤ 1) of all is: at least one."""
    return _share_of(scores.n_units, share, scores.level)


def edges_for_share(graph: Graph, share: float) -> int:
    """How many edges a share (0 < share ≤ 1) of the graph's edges is: at least one."""
    return _share_of(graph.n_edges, share, "edge")


def top_n(
    scores: Scores, n: int, absolute: bool = True, keep_unscored: bool | None = None
) -> Circuit:
    """The n best units, pruned. Raises `ExtractionError` unless 1 ≤ n ≤ the units of the graph.

    `keep_unscored` says whether units without a score stay in, beside the n (None: nodes and
    neurons do, edges do not).
    """
    check_size(scores, n)
    ranking, kept = _ranking(scores, absolute), _kept(scores, keep_unscored)
    scored = np.flatnonzero(~np.isnan(ranking))
    kept[scored[np.argsort(-ranking[scored], kind="stable")[:n]]] = True
    return _circuit(scores, kept)


def threshold(
    scores: Scores, value: float, absolute: bool = True, keep_unscored: bool | None = None
) -> Circuit:
    """Every unit with a score (an |score|) of at least `value`, pruned.

    `keep_unscored` as in `top_n`.
    """
    if not isinstance(value, int | float | np.number) or math.isnan(value):
        raise ExtractionError(f"a threshold is a number, not {value!r}")
    kept = _kept(scores, keep_unscored)
    return _circuit(scores, kept | (_ranking(scores, absolute) >= value))


def greedy(
    scores: Scores, n: int, absolute: bool = True, keep_unscored: bool | None = None
) -> Circuit:
    """The n edges found from the logits upwards, best first, pruned.

    An edge into a shared key or value is found as soon as one head of the group is in. With
    `keep_unscored` an edge without a score is in, beside the n, as soon as its reader is. Raises
    `ExtractionError` unless 1 ≤ n ≤ the graph's edges, and for scores of nodes or neurons.
    """
    if scores.level != "edge":
        raise ExtractionError(
            f"greedy extraction follows edges, and these are scores of {scores.level}s: "
            f"use top_n or threshold"
        )
    check_size(scores, n)
    graph, ranking, unscored = (
        scores.graph,
        _ranking(scores, absolute),
        _kept(scores, keep_unscored),
    )
    writers, readers = (ends.tolist() for ends in np.nonzero(graph.edge_mask))
    incoming: list[list[int]] = [[] for _ in range(graph.n_readers)]
    for index, reader in enumerate(readers):
        incoming[reader].append(index)
    entrances = [column.nonzero()[0].tolist() for column in graph.reads.T]

    taken = np.zeros(graph.n_edges, dtype=bool)
    frontier: list[tuple[float, int]] = []
    open_readers, reached = set(), set()

    def reach(node: int) -> None:
        """Take a node in: its edges may be chosen, and those that need no choice are taken."""
        waiting = [node]
        while waiting:
            node = waiting.pop()
            fresh = [reader for reader in entrances[node] if reader not in open_readers]
            reached.add(node)
            open_readers.update(fresh)
            for index in (index for reader in fresh for index in incoming[reader]):
                if unscored[index]:
                    taken[index] = True
                    if writers[index] not in reached:
                        waiting.append(writers[index])
                elif not np.isnan(ranking[index]):
                    heapq.heappush(frontier, (-ranking[index], index))

    reach(graph.n_writers)
    for _ in range(n):
        if not frontier:
            break
        _, index = heapq.heappop(frontier)
        taken[index] = True
        if writers[index] not in reached:
            reach(writers[index])
    return _circuit(scores, taken)


ALGORITHMS = {"top-n": top_n, "greedy": greedy, "threshold": threshold}


def check_size(scores: Scores, n: object) -> None:
    """Raise `ExtractionError` unless n is a whole number of 1 to the units of the graph."""
    if not is_whole(n):
        raise ExtractionError(
            f"how many {scores.level}s a circuit has is a whole number, not {n!r}: "
            f"units_for_share(scores, share) gives it for a share"
        )
    if not 1 <= n <= scores.n_units:
        raise ExtractionError(
            f"a circuit of {n} {scores.level}s was asked for, but the graph has {scores.n_units}: "
            f"ask for 1 to {scores.n_units}"
        )


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number, and no truth value."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _share_of(n_units: int, share: float, level: str) -> int:
    if not 0 < share <= 1:
        raise ExtractionError(f"a share of the {level}s lies above 0 and at most at 1, not {share}")
    return max(1, round(share * n_units))


def _ranking(scores: Scores, absolute: bool) -> Float[np.ndarray, " units"]:
    """What units are ordered by, largest first; NaN without a score."""
    return np.abs(scores.unit_values) if absolute else scores.unit_values


def _kept(scores: Scores, keep_unscored: bool | None) -> Bool[np.ndarray, " units"]:
    """The units that stay in without a score."""
    keep = scores.level != "edge" if keep_unscored is None else keep_unscored
    return np.isnan(scores.unit_values) & keep


def _circuit(scores: Scores, chosen: Bool[np.ndarray, " units"]) -> Circuit:
    """The circuit of these units, pruned."""
    graph = scores.graph
    if scores.level == "edge":
        mask = np.zeros_like(graph.edge_mask)
        mask[graph.edge_mask] = chosen
        return Circuit(graph, mask, scores).prune()
    if scores.level == "node":
        return Circuit(graph, edges_between(graph, chosen), scores, level="node").prune()
    return Circuit.from_neurons(graph, chosen.reshape(scores.values.shape), scores).prune()
