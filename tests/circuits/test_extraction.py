"""From scores to circuits, against plain references: sorting, and growing by exhaustive search."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits import Circuit, ExtractionError, Graph, Scores
from circuits.extraction import edges_for_share


def scores_of(graph: Graph, values) -> Scores:
    matrix = np.zeros(graph.edge_mask.shape)
    matrix[graph.edge_mask] = values
    return Scores(graph, matrix, np.zeros_like(matrix), 3, "by hand")


@st.composite
def any_scores(draw):
    """Scores with many ties, both signs and a few edges without a score."""
    graph = Graph(draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.booleans()))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.choice([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0], size=graph.n_edges)
    if draw(st.booleans()):
        values = values + rng.normal(size=graph.n_edges)
    values[rng.random(graph.n_edges) < draw(st.sampled_from([0.0, 0.1, 0.6]))] = np.nan
    return scores_of(graph, values)


def worth(score: float, absolute: bool) -> float:
    return abs(score) if absolute else score


def scored_edges(scores: Scores) -> list[tuple[str, str, float]]:
    """(writer, reader's node, score) of scored edges, with their place in edge order as key."""
    return [
        (index, e.writer, e.reader.split("<")[0], scores.matrix[e.writer_index, e.reader_index])
        for index, e in enumerate(scores.graph.edges)
        if not math.isnan(scores.matrix[e.writer_index, e.reader_index])
    ]


def plain_prune(graph: Graph, chosen: set[int]) -> set[int]:
    """Keep what lies on a path from the input to the logits."""
    ends = {i: (e.writer, e.reader.split("<")[0]) for i, e in enumerate(graph.edges)}

    def reach(start: str, forwards: bool) -> set[str]:
        found, new = {start}, {start}
        while new:
            step = {
                (head if forwards else tail)
                for tail, head in (ends[i] for i in chosen)
                if (tail if forwards else head) in new
            }
            new = step - found
            found |= new
        return found

    down, up = reach("input", True), reach("logits", False)
    return {i for i in chosen if ends[i][0] in down and ends[i][1] in up}


def members(circuit: Circuit) -> set[int]:
    return set(np.flatnonzero(circuit.mask[circuit.graph.edge_mask]).tolist())


@settings(max_examples=60, deadline=None)
@given(any_scores(), st.booleans(), st.data())
def test_top_n_takes_the_best_edges_and_breaks_ties_by_edge_order(scores, absolute, data):
    n = data.draw(st.integers(1, scores.graph.n_edges))
    ranked = sorted(scored_edges(scores), key=lambda e: (-worth(e[3], absolute), e[0]))
    expected = plain_prune(scores.graph, {index for index, *_ in ranked[:n]})
    assert members(scores.top_n(n, absolute=absolute)) == expected


@settings(max_examples=60, deadline=None)
@given(any_scores(), st.booleans(), st.data())
def test_greedy_always_adds_the_best_edge_whose_reader_is_in_the_circuit(scores, absolute, data):
    n = data.draw(st.integers(1, scores.graph.n_edges))
    nodes, chosen = {"logits"}, set()
    while len(chosen) < n:
        candidates = [e for e in scored_edges(scores) if e[2] in nodes and e[0] not in chosen]
        if not candidates:
            break
        best = min(candidates, key=lambda e: (-worth(e[3], absolute), e[0]))
        chosen.add(best[0])
        nodes.add(best[1])
    expected = plain_prune(scores.graph, chosen)
    assert members(scores.greedy(n, absolute=absolute)) == expected


@settings(max_examples=40, deadline=None)
@given(any_scores(), st.booleans(), st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 1.0, 3.0]))
def test_threshold_takes_every_scored_edge_at_or_above_it(scores, absolute, value):
    chosen = {i for i, *_, score in scored_edges(scores) if worth(score, absolute) >= value}
    expected = plain_prune(scores.graph, chosen)
    assert members(scores.threshold(value, absolute=absolute)) == expected


@settings(max_examples=40, deadline=None)
@given(any_scores(), st.sampled_from([0.05, 0.2, 0.6]), st.integers(0, 1000))
def test_pruning_keeps_paths_from_input_to_logits_never_adds_and_is_idempotent(
    scores, density, seed
):
    graph = scores.graph
    mask = graph.edge_mask & (np.random.default_rng(seed).random(graph.edge_mask.shape) < density)
    circuit = Circuit(graph, mask)
    pruned = circuit.prune()
    assert not (pruned.mask & ~mask).any()
    assert pruned.prune() == pruned
    assert (circuit.mask == mask).all()
    assert members(pruned) == plain_prune(graph, members(circuit))


@settings(max_examples=20, deadline=None)
@given(any_scores(), st.data())
def test_larger_circuits_contain_smaller_ones(scores, data):
    small, large = sorted(data.draw(st.tuples(*[st.integers(1, scores.graph.n_edges)] * 2)))
    for algorithm in (scores.top_n, scores.greedy):
        assert members(algorithm(small)) <= members(algorithm(large))


def test_a_dead_end_is_pruned_through_a_chain():
    graph = Graph(3, 1)
    alive = ["input->a1.h0<v>", "a1.h0->logits"]
    leads_nowhere = ["input->a0.h0<q>", "a0.h0->m0", "m0->a2.h0<k>"]
    from_nowhere = ["m1->a2.h0<v>", "a2.h0->logits"]
    pruned = Circuit.from_edges(graph, alive + leads_nowhere).prune()
    assert set(pruned.edges) == set(alive)
    pruned = Circuit.from_edges(graph, alive + from_nowhere).prune()
    assert set(pruned.edges) == set(alive)
    assert Circuit.from_edges(graph, from_nowhere).prune().n_edges == 0


def test_all_edges_make_the_whole_graph():
    graph = Graph(2, 3)
    scores = scores_of(graph, np.random.default_rng(0).normal(size=graph.n_edges))
    for circuit in (scores.top_n(graph.n_edges), scores.greedy(graph.n_edges)):
        assert circuit.n_edges == graph.n_edges
        assert circuit.n_nodes == graph.n_nodes
        assert circuit.fraction == 1.0


@pytest.mark.parametrize("n", [0, -3, 10_000])
def test_a_size_the_graph_does_not_have_is_refused_with_the_range(n):
    scores = scores_of(Graph(2, 3), 1.0)
    for algorithm in (scores.top_n, scores.greedy):
        with pytest.raises(ExtractionError, match=rf"{n} edges.*1 to {scores.graph.n_edges}"):
            algorithm(n)


def test_a_share_of_the_edges_is_rounded_and_at_least_one():
    graph = Graph(12, 12)
    assert edges_for_share(graph, 0.001) == round(32.491)
    assert edges_for_share(graph, 0.5) == round(16_245.5)
    assert edges_for_share(graph, 1e-9) == 1
    assert edges_for_share(graph, 1.0) == 32_491
    for share in (0.0, -0.1, 1.01):
        with pytest.raises(ExtractionError, match=str(share)):
            edges_for_share(graph, share)


def test_a_circuit_keeps_the_scores_it_came_from():
    scores = scores_of(Graph(2, 2), 1.0)
    assert scores.top_n(5).scores is scores
    assert scores.greedy(5).scores is scores
