"""From scores to circuits, against plain references: sorting, and growing by exhaustive search.

The references know a graph by the names of its edges alone.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits import Circuit, ExtractionError, Graph, Scores
from circuits.extraction import edges_for_share, units_for_share


def scores_of(graph: Graph, values) -> Scores:
    matrix = np.zeros(graph.edge_mask.shape)
    matrix[graph.edge_mask] = values
    return Scores(graph, matrix, np.zeros_like(matrix), 3, "by hand")


@st.composite
def any_graph(draw):
    """Small graphs, with heads on their own and in groups."""
    n_heads, n_kv_heads = draw(
        st.sampled_from([(1, 1), (2, 2), (3, 3), (2, 1), (4, 2), (6, 3), (3, 1)])
    )
    return Graph(draw(st.integers(1, 3)), n_heads, draw(st.booleans()), n_kv_heads)


@st.composite
def any_values(draw, shape):
    """Values with many ties, both signs and a few that are missing."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.choice([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0], size=shape)
    if draw(st.booleans()):
        values = values + rng.normal(size=shape)
    values[rng.random(shape) < draw(st.sampled_from([0.0, 0.1, 0.6]))] = np.nan
    return values


@st.composite
def any_scores(draw):
    graph = draw(any_graph())
    return scores_of(graph, draw(any_values(graph.n_edges)))


@st.composite
def scores_of_nodes_or_neurons(draw):
    graph = draw(any_graph())
    level = draw(st.sampled_from(["node", "neuron"]))
    shape = (graph.n_writers,) if level == "node" else (graph.n_writers, 3)
    values = draw(any_values(shape))
    return Scores(graph, values, np.zeros_like(values), 3, "by hand", level)


def fed_by(graph: Graph, reader: str) -> set[str]:
    """The nodes that a reader feeds, from its name."""
    node = reader.split("<")[0]
    if ".kv" not in node:
        return {node}
    layer, number = node.split(".kv")
    size = graph.n_heads // graph.n_kv_heads
    return {f"{layer}.h{int(number) * size + i}" for i in range(size)}


def worth(score: float, absolute: bool) -> float:
    return abs(score) if absolute else score


def scored_edges(scores: Scores) -> list[tuple[int, str, set[str], float]]:
    """Place in edge order, writer, the nodes it feeds and score, of every scored edge."""
    return [
        (
            *(index, e.writer, fed_by(scores.graph, e.reader)),
            float(scores.matrix[e.writer_index, e.reader_index]),
        )
        for index, e in enumerate(scores.graph.edges)
        if not math.isnan(scores.matrix[e.writer_index, e.reader_index])
    ]


def plain_prune(graph: Graph, chosen: set[int]) -> set[int]:
    """Keep what lies on a path from the input to the logits."""
    ends = {i: (graph.edges[i].writer, fed_by(graph, graph.edges[i].reader)) for i in chosen}
    steps = [(tail, head) for tail, heads in ends.values() for head in heads]

    def reach(start: str, steps: list[tuple[str, str]]) -> set[str]:
        found, new = {start}, {start}
        while new:
            new = {head for tail, head in steps if tail in new} - found
            found |= new
        return found

    down = reach("input", steps)
    up = reach("logits", [(head, tail) for tail, head in steps])
    return {i for i in chosen if ends[i][0] in down and ends[i][1] & up}


def plain_circuit(scores: Scores, chosen: set[int]) -> tuple[set[int], set[int]]:
    """The edges between the nodes of chosen nodes or neurons, pruned; what is left of them."""
    graph = scores.graph
    width = scores.values.size // graph.n_writers
    nodes = {graph.writers[i // width] for i in chosen} | {"logits"}
    between = {
        i
        for i, e in enumerate(graph.edges)
        if e.writer in nodes and fed_by(graph, e.reader) & nodes
    }
    kept = plain_prune(graph, between)
    alive = {graph.edges[i].writer for i in kept}
    return kept, {i for i in chosen if graph.writers[i // width] in alive}


def chosen_units(circuit: Circuit) -> set[int]:
    """The nodes that write, or the neurons, of a circuit."""
    if circuit.neurons is not None:
        return set(np.flatnonzero(circuit.neurons).tolist())
    return set(np.flatnonzero(circuit.mask.any(axis=1)).tolist())


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
        candidates = [e for e in scored_edges(scores) if e[2] & nodes and e[0] not in chosen]
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
    assert pruned.nodes == tuple(
        node
        for node in graph.nodes
        if any(e.writer == node or e.reader.split("<")[0] == node for e in pruned.members)
    )


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


@settings(max_examples=60, deadline=None)
@given(scores_of_nodes_or_neurons(), st.booleans(), st.sampled_from([None, True, False]), st.data())
def test_top_n_of_nodes_and_neurons_takes_the_best_and_every_edge_between(
    scores, absolute, keep_unscored, data
):
    n = data.draw(st.integers(1, scores.n_units))
    values = scores.values.ravel().tolist()
    scored = [i for i, value in enumerate(values) if not math.isnan(value)]
    best = sorted(scored, key=lambda i: (-worth(values[i], absolute), i))[:n]
    stay = set() if keep_unscored is False else set(range(len(values))) - set(scored)
    circuit = scores.top_n(n, absolute, keep_unscored)
    edges, units = plain_circuit(scores, {*best, *stay})
    assert members(circuit) == edges
    assert chosen_units(circuit) == units
    assert circuit.n_units == len(units) <= n + len(stay)
    assert circuit.fraction == len(units) / len(values)
    assert circuit.level == scores.level
    assert circuit.scores is scores


@settings(max_examples=60, deadline=None)
@given(
    scores_of_nodes_or_neurons(),
    st.booleans(),
    st.sampled_from([None, True, False]),
    st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 1.0, 3.0]),
)
def test_threshold_of_nodes_and_neurons_takes_every_one_at_or_above_it(
    scores, absolute, keep_unscored, value
):
    chosen = {
        i
        for i, score in enumerate(scores.values.ravel().tolist())
        if (keep_unscored is not False if math.isnan(score) else worth(score, absolute) >= value)
    }
    circuit = scores.threshold(value, absolute, keep_unscored)
    edges, units = plain_circuit(scores, chosen)
    assert (members(circuit), chosen_units(circuit)) == (edges, units)


@settings(max_examples=40, deadline=None)
@given(any_scores(), st.booleans(), st.data())
def test_unscored_edges_stay_in_where_that_is_asked_for(scores, absolute, data):
    graph = scores.graph
    n = data.draw(st.integers(1, graph.n_edges))
    scored = scored_edges(scores)
    unscored = set(range(graph.n_edges)) - {index for index, *_ in scored}
    ranked = sorted(scored, key=lambda e: (-worth(e[3], absolute), e[0]))
    best = {index for index, *_ in ranked[:n]}
    top = scores.top_n(n, absolute, keep_unscored=True)
    assert members(top) == plain_prune(graph, best | unscored)
    above = {index for index, *_, score in scored if worth(score, absolute) >= 0.5}
    kept = scores.threshold(0.5, absolute, keep_unscored=True)
    assert members(kept) == plain_prune(graph, above | unscored)

    nodes, chosen = {"logits"}, set()
    while True:
        free = [i for i in unscored if fed_by(graph, graph.edges[i].reader) & nodes]
        if any(graph.edges[i].writer not in nodes for i in free):
            nodes |= {graph.edges[i].writer for i in free}
            continue
        candidates = [e for e in scored if e[2] & nodes and e[0] not in chosen]
        if not candidates or len(chosen) == n:
            break
        taken = min(candidates, key=lambda e: (-worth(e[3], absolute), e[0]))
        chosen.add(taken[0])
        nodes.add(taken[1])
    grown = scores.greedy(n, absolute, keep_unscored=True)
    assert members(grown) == plain_prune(graph, chosen | unscored)


@settings(max_examples=40, deadline=None)
@given(any_graph(), st.sampled_from([0.1, 0.4, 0.9]), st.integers(0, 1000))
def test_pruning_drops_nodes_without_neurons_and_neurons_without_nodes(graph, density, seed):
    rng = np.random.default_rng(seed)
    mask = graph.edge_mask & (rng.random(graph.edge_mask.shape) < 0.6)
    neurons = rng.random((graph.n_writers, 3)) < density
    circuit = Circuit(graph, mask, neurons=neurons, level="neuron")
    pruned = circuit.prune()
    with_neuron = {name for name, own in zip(graph.writers, neurons, strict=True) if own.any()}
    carrying = {i for i in members(circuit) if graph.edges[i].writer in with_neuron}
    assert members(pruned) == plain_prune(graph, carrying)
    alive = {edge.writer for edge in pruned.members}
    for writer, own, left in zip(graph.writers, neurons, pruned.neurons, strict=True):
        assert (left == (own if writer in alive else False)).all()
    assert pruned.prune() == pruned
    assert (circuit.neurons == neurons).all()


@settings(max_examples=20, deadline=None)
@given(scores_of_nodes_or_neurons(), st.data())
def test_larger_circuits_of_nodes_and_neurons_contain_smaller_ones(scores, data):
    small, large = sorted(data.draw(st.tuples(*[st.integers(1, scores.n_units)] * 2)))
    small, large = scores.top_n(small), scores.top_n(large)
    assert members(small) <= members(large)
    assert chosen_units(small) <= chosen_units(large)


@pytest.mark.parametrize("n_kv_heads", [4, 2, 1])
def test_all_nodes_and_all_neurons_make_the_whole_graph(n_kv_heads):
    graph = Graph(2, 4, n_kv_heads=n_kv_heads)
    for level, shape in (("node", (graph.n_writers,)), ("neuron", (graph.n_writers, 3))):
        values = np.random.default_rng(0).normal(size=shape)
        circuit = Scores(graph, values, np.zeros(shape), 3, level=level).top_n(values.size)
        assert (circuit.mask == graph.edge_mask).all()
        assert (circuit.fraction, circuit.n_nodes) == (1.0, graph.n_nodes)


def test_a_circuit_of_nodes_without_the_input_is_empty():
    graph = Graph(2, 2)
    values = np.arange(graph.n_writers, dtype=float)
    scores = Scores(graph, values, np.zeros_like(values), 3, level="node")
    assert (scores.top_n(6).n_units, scores.top_n(6).n_edges) == (0, 0)
    assert scores.top_n(7).n_units == 7


def test_a_node_that_was_not_scored_stays_in_unless_told_otherwise():
    graph = Graph(1, 2)
    values = np.array([np.nan, 0.5, 2.0, 1.0])
    scores = Scores(graph, values, np.zeros_like(values), 3, level="node")
    assert scores.top_n(1).nodes == ("input", "a0.h1", "logits")
    assert scores.threshold(1.0).nodes == ("input", "a0.h1", "m0", "logits")
    assert scores.top_n(1, keep_unscored=False).n_units == 0


def test_greedy_follows_edges_alone():
    graph = Graph(1, 2)
    for level, shape in (("node", (4,)), ("neuron", (4, 3))):
        scores = Scores(graph, np.ones(shape), np.zeros(shape), 3, level=level)
        with pytest.raises(ExtractionError, match=rf"scores of {level}s: use top_n"):
            scores.greedy(2)


@pytest.mark.parametrize("n", [0, 8, 21])
def test_a_size_of_nodes_or_neurons_that_is_not_there_is_refused_with_the_range(n):
    graph = Graph(2, 2)
    for level, shape in (("node", (7,)), ("neuron", (7, 3))):
        scores = Scores(graph, np.ones(shape), np.zeros(shape), 3, level=level)
        if 1 <= n <= scores.n_units:
            assert scores.top_n(n).n_units == n
            continue
        with pytest.raises(ExtractionError, match=rf"{n} {level}s.*1 to {scores.n_units}"):
            scores.top_n(n)


def test_a_share_is_of_the_units_of_the_level():
    graph = Graph(12, 12)
    for level, shape, units in (("node", (157,), 157), ("neuron", (157, 64), 157 * 64)):
        scores = Scores(graph, np.full(shape, np.nan), np.zeros(shape), 3, level=level)
        assert units_for_share(scores, 0.05) == round(0.05 * units)
        assert units_for_share(scores, 1.0) == units
        assert units_for_share(scores, 1e-9) == 1
        with pytest.raises(ExtractionError, match=rf"{level}s lies above 0.*not 0\.0"):
            units_for_share(scores, 0.0)
    assert units_for_share(scores_of(graph, 1.0), 0.5) == edges_for_share(graph, 0.5)


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
