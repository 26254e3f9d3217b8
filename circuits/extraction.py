"""From scores to a circuit.

- `top_n` keeps the n best edges of the graph, wherever they are.
- `threshold` keeps every edge that scores at least t.
- `greedy` grows the circuit from the logits: always the best edge whose reader is already in it
  (Hanna et al. 2024, arXiv:2403.17806).

"Best" is by |score|, or by the signed score where `absolute=False`. Ties go to the edge that comes
first in edge order, so results repeat. Edges without a score (NaN) are never taken. Every circuit
is pruned before it is returned, so it can have fewer edges than were asked for.
"""

from __future__ import annotations

import heapq
import math

import numpy as np
from jaxtyping import Float

from circuits.circuit import Circuit, edge_values
from circuits.errors import ExtractionError
from circuits.graph import Graph
from circuits.scores import Scores


def edges_for_share(graph: Graph, share: float) -> int:
    """How many edges a share (0 < share ≤ 1) of the graph's edges is: at least one."""
    if not 0 < share <= 1:
        raise ExtractionError(f"a share of the edges lies above 0 and at most at 1, not {share}")
    return max(1, round(share * graph.n_edges))


def top_n(scores: Scores, n: int, absolute: bool = True) -> Circuit:
    """The n best edges, pruned. Raises `ExtractionError` unless 1 ≤ n ≤ the graph's edges."""
    _check_size(scores.graph, n)
    ranking = _ranking(scores, absolute)
    order = np.argsort(-ranking, kind="stable")[:n]
    return _circuit(scores, order[np.isfinite(ranking[order])])


def threshold(scores: Scores, value: float, absolute: bool = True) -> Circuit:
    """Every edge with a score (an |score|) of at least `value`, pruned."""
    if math.isnan(value):
        raise ExtractionError("the threshold is not a number (NaN)")
    ranking = _ranking(scores, absolute)
    return _circuit(scores, np.flatnonzero((ranking >= value) & (ranking > -np.inf)))


def greedy(scores: Scores, n: int, absolute: bool = True) -> Circuit:
    """The n edges found from the logits upwards, best first, pruned.

    Raises `ExtractionError` unless 1 ≤ n ≤ the graph's edges.
    """
    graph = scores.graph
    _check_size(graph, n)
    ranking = _ranking(scores, absolute)
    incoming: dict[int, list[int]] = {}
    for index, edge in enumerate(graph.edges):
        incoming.setdefault(int(graph.reader_nodes[edge.reader_index]), []).append(index)

    def candidates(node: int) -> list[tuple[float, int]]:
        return [(-ranking[i], i) for i in incoming.get(node, []) if np.isfinite(ranking[i])]

    logits = graph.n_writers
    reached = {logits}
    frontier = candidates(logits)
    heapq.heapify(frontier)
    taken: list[int] = []
    while frontier and len(taken) < n:
        _, index = heapq.heappop(frontier)
        taken.append(index)
        writer = graph.edges[index].writer_index
        if writer not in reached:
            reached.add(writer)
            for candidate in candidates(writer):
                heapq.heappush(frontier, candidate)
    return _circuit(scores, np.array(taken, dtype=int))


ALGORITHMS = {"top-n": top_n, "greedy": greedy, "threshold": threshold}


def _ranking(scores: Scores, absolute: bool) -> Float[np.ndarray, " edges"]:
    """What edges are ordered by, largest first; an edge without a score comes last, at −∞."""
    values = edge_values(scores.graph, scores.matrix)
    return np.where(np.isnan(values), -np.inf, np.abs(values) if absolute else values)


def _check_size(graph: Graph, n: int) -> None:
    if not 1 <= n <= graph.n_edges:
        raise ExtractionError(
            f"a circuit of {n} edges was asked for, but the graph has {graph.n_edges}: "
            f"ask for 1 to {graph.n_edges}"
        )


def _circuit(scores: Scores, indices: np.ndarray) -> Circuit:
    graph = scores.graph
    chosen = np.zeros(graph.n_edges, dtype=bool)
    chosen[indices] = True
    mask = np.zeros_like(graph.edge_mask)
    mask[graph.edge_mask] = chosen
    return Circuit(graph, mask, scores).prune()
