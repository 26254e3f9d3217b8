"""Comparisons against their definitions, computed slowly on sets of names and lists of pairs."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from circuits import Circuit, EvaluationError, Graph, Scores, attribute
from circuits.comparison import (
    compare_circuits,
    compare_profiles,
    compare_scores,
    kendall_tau,
    match_scores,
    profile,
    rank_biased_overlap,
    weighted_iou,
)
from circuits.scores import LEVELS
from tests.checkpoints import random_dataset

D_MODEL = 2
GRAPHS = [Graph(1, 1), Graph(1, 2, True), Graph(2, 2), Graph(2, 4, n_kv_heads=2), Graph(3, 1)]
any_level = pytest.mark.parametrize("level", LEVELS)
properties = settings(max_examples=25, deadline=None)


# --- what is compared


def scores_of(graph: Graph, level: str, units: np.ndarray, method: str = "by hand") -> Scores:
    """Scores from one number a unit, in unit order."""
    if level == "edge":
        values = np.zeros(graph.edge_mask.shape)
        values[graph.edge_mask] = units
    else:
        values = units.reshape((graph.n_writers, -1) if level == "neuron" else graph.n_writers)
    return Scores(graph, values, np.zeros_like(values), 3, method, level)


def n_units(graph: Graph, level: str) -> int:
    writers = {"node": graph.n_writers, "neuron": graph.n_writers * D_MODEL}
    return writers.get(level, graph.n_edges)


def draw_values(draw, count: int) -> np.ndarray:
    """Ties, zeros, both signs, and a few that are missing."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.choice([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0], size=count)
    if draw(st.booleans()):
        values = values + rng.normal(size=count)
    values[rng.random(count) < draw(st.sampled_from([0.0, 0.1, 0.6]))] = np.nan
    return values


@st.composite
def two_scores(draw, level):
    graph = draw(st.sampled_from(GRAPHS))
    return tuple(
        scores_of(graph, level, draw_values(draw, n_units(graph, level))) for _ in range(2)
    )


def circuit_of(graph: Graph, level: str, chosen: np.ndarray) -> Circuit:
    """A circuit of the units that are chosen, without pruning."""
    if level == "edge":
        mask = np.zeros_like(graph.edge_mask)
        mask[graph.edge_mask] = chosen
        return Circuit(graph, mask)
    if level == "node":
        return Circuit.from_nodes(graph, np.array(graph.writers)[chosen].tolist())
    return Circuit.from_neurons(graph, chosen.reshape(graph.n_writers, -1))


@st.composite
def two_circuits(draw, level, graphs=GRAPHS):
    graph = draw(st.sampled_from(graphs))
    shape = (2, n_units(graph, level))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    chosen = rng.random(shape) < draw(st.sampled_from([0.0, 0.2, 0.5, 1.0]))
    return tuple(circuit_of(graph, level, one) for one in chosen)


def names(circuit: Circuit) -> set[object]:
    """The names of the units that a circuit has."""
    if circuit.level == "edge":
        return set(circuit.edges)
    if circuit.level == "node":
        return {edge.split("->")[0] for edge in circuit.edges}
    return {(circuit.graph.writers[u], i) for u, i in np.argwhere(circuit.neurons).tolist()}


def ratio(part: set, whole: set) -> float | None:
    return len(part) / len(whole) if whole else None


# --- circuits


@any_level
@properties
@given(st.data())
def test_overlaps_are_those_of_sets_of_names(level, data):
    a, b = data.draw(two_circuits(level))
    found, mine, others = compare_circuits(a, b), names(a), names(b)
    assert (found.n_a, found.n_b, found.n_shared) == (len(mine), len(others), len(mine & others))
    assert (found.n_a, found.n_b) == (a.n_units, b.n_units)
    assert found.jaccard == ratio(mine & others, mine | others)
    assert found.precision == ratio(mine & others, mine)
    assert found.recall == ratio(mine & others, others)
    edges = set(a.edges), set(b.edges)
    assert found.jaccard_edges == ratio(edges[0] & edges[1], edges[0] | edges[1])
    nodes = set(a.nodes), set(b.nodes)
    assert found.jaccard_nodes == ratio(nodes[0] & nodes[1], nodes[0] | nodes[1])


@any_level
def test_a_circuit_says_which_units_of_its_level_it_has_in_unit_order(level):
    graph = Graph(2, 4, n_kv_heads=2)
    chosen = np.random.default_rng(0).random(n_units(graph, level)) < 0.4
    circuit = circuit_of(graph, level, chosen)
    np.testing.assert_array_equal(circuit.unit_mask, chosen)
    assert (circuit.n_units, circuit.fraction) == (chosen.sum(), chosen.mean())
    with pytest.raises(ValueError, match="read-only"):
        circuit.unit_mask[0] = True


@any_level
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_chance_is_counted_over_all_sets_of_the_size(level, data):
    graphs = [Graph(1, 1), Graph(1, 1, True)] if level == "edge" else [Graph(1, 1), Graph(1, 2)]
    a, b = data.draw(two_circuits(level, graphs))
    found, units = compare_circuits(a, b), range(n_units(a.graph, level))
    mine = set(range(found.n_a))  # which ones they are does not matter
    shared = [len(mine & set(draw)) for draw in combinations(units, found.n_b)]
    assert found.expected == pytest.approx(sum(shared) / len(shared), abs=1e-12)
    at_least = sum(one >= found.n_shared for one in shared)
    assert found.p_value == pytest.approx(at_least / len(shared), rel=1e-12)


@pytest.mark.parametrize("n_shared", [3, 30, 120])
def test_p_values_of_circuits_of_a_real_size_are_the_exact_sum_of_binomials(n_shared):
    graph, n_a, n_b = Graph(12, 12), 325, 162
    in_a, in_b = np.zeros((2, graph.n_edges), dtype=bool)
    in_a[:n_a] = True
    in_b[n_a - n_shared : n_a - n_shared + n_b] = True
    found = compare_circuits(*(circuit_of(graph, "edge", one) for one in (in_a, in_b)))
    ways = (math.comb(n_a, k) * math.comb(graph.n_edges - n_a, n_b - k) for k in range(n_b + 1))
    tail = sum(way for k, way in enumerate(ways) if k >= n_shared)
    exact = Fraction(tail, math.comb(graph.n_edges, n_b))
    assert (graph.n_edges, found.n_shared) == (32_491, n_shared)
    assert found.p_value == pytest.approx(float(exact), rel=1e-9, abs=0)
    assert found.expected == pytest.approx(325 * 162 / 32_491)


@any_level
@properties
@given(st.data())
def test_comparing_circuits_the_other_way_round_exchanges_precision_and_recall(level, data):
    a, b = data.draw(two_circuits(level))
    there, back = compare_circuits(a, b), compare_circuits(b, a)
    exchanged = replace(
        back, n_a=back.n_b, n_b=back.n_a, precision=back.recall, recall=back.precision
    )
    assert replace(exchanged, p_value=there.p_value) == there
    assert back.p_value == pytest.approx(there.p_value, rel=1e-9)


@any_level
@properties
@given(st.data())
def test_a_circuit_shares_all_with_itself_and_nothing_with_the_others_units(level, data):
    a, _ = data.draw(two_circuits(level))
    found, size = compare_circuits(a, a), n_units(a.graph, level)
    if a.n_units:
        assert found.jaccard == found.jaccard_edges == found.jaccard_nodes == 1
        assert found.precision == found.recall == 1
        assert found.p_value == pytest.approx(1 / math.comb(size, a.n_units), rel=1e-9)
    else:
        assert found.jaccard is found.jaccard_edges is found.jaccard_nodes is None
        assert found.precision is found.recall is None
        assert (found.expected, found.p_value) == (0, 1)
    if level == "edge" and 0 < a.n_edges < a.graph.n_edges:
        others = compare_circuits(a, Circuit(a.graph, a.graph.edge_mask & ~a.mask))
        assert others.jaccard == others.precision == others.recall == 0
        assert others.p_value == 1


def test_circuits_that_have_no_units_in_common_to_compare_are_refused():
    empty = Circuit.from_edges(Graph(2, 3), [])
    for graph in (Graph(3, 3), Graph(2, 3, True), Graph(2, 3, n_kv_heads=1)):
        with pytest.raises(EvaluationError, match=r"circuits belong to different graphs.*profile"):
            compare_circuits(empty, Circuit.from_edges(graph, []))
    with pytest.raises(EvaluationError, match="of edges and of nodes: compare circuits of one"):
        compare_circuits(empty, Circuit.from_nodes(Graph(2, 3), ["m0"]))
    narrow, wide = (
        Circuit.from_neurons(Graph(1, 1), np.ones((3, width), dtype=bool)) for width in (4, 5)
    )
    with pytest.raises(EvaluationError, match="circuits are of neurons of widths 4 and 5"):
        compare_circuits(narrow, wide)


# --- scores


def common_pairs(a: Scores, b: Scores) -> list[tuple[float, float]]:
    """Both scores of every unit that has two, in unit order, found unit by unit."""
    if a.level == "edge":
        cells = [(e.writer_index, e.reader_index) for e in a.graph.edges]
    else:
        cells = list(np.ndindex(a.values.shape))
    pairs = [(float(a.values[cell]), float(b.values[cell])) for cell in cells]
    return [pair for pair in pairs if not any(map(math.isnan, pair))]


def plain_tau(pairs: list[tuple[float, float]]) -> float | None:
    """τ-b by its definition: every two units are looked at."""
    agreement = untied_left = untied_right = 0
    for (x, y), (u, v) in combinations(pairs, 2):
        agreement += ((x > u) - (x < u)) * ((y > v) - (y < v))
        untied_left += x != u
        untied_right += y != v
    both = untied_left * untied_right
    return agreement / math.sqrt(both) if both else None


def plain_rbo(pairs: list[tuple[float, float]], p: float) -> float | None:
    """The sum over depths, with the units at each found by counting those that outdo them."""
    sizes = [[abs(pair[side]) for pair in pairs] for side in (0, 1)]
    if any(len(set(side)) < 2 for side in sizes):
        return None
    n = max(sum(size > 0 for size in side) for side in sizes)
    total = Fraction(0)
    for depth in range(1, n + 1):
        first, second = (
            {
                unit
                for unit, size in enumerate(side)
                if size > 0 and sum(other > size for other in side) < depth
            }
            for side in sizes
        )
        agreement = Fraction(2 * len(first & second), len(first) + len(second))
        total += (1 - Fraction(p)) * Fraction(p) ** (depth - 1) * agreement
    return float(total / (1 - Fraction(p) ** n))


def plain_iou(pairs: list[tuple[float, float]]) -> float | None:
    sums = [sum(abs(pair[side]) for pair in pairs) for side in (0, 1)]
    if 0 in sums:
        return None
    shares = [(abs(x) / sums[0], abs(y) / sums[1]) for x, y in pairs]
    return sum(map(min, shares)) / sum(map(max, shares))


def agrees(found: float | None, expected: float | None) -> bool:
    if expected is None:
        return found is None
    return found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@any_level
@properties
@given(st.data())
def test_scores_compare_as_the_definitions_say(level, data):
    a, b = data.draw(two_scores(level))
    p = data.draw(st.sampled_from([0.3, 0.9, 0.99]))
    found, pairs = compare_scores(a, b, p=p), common_pairs(a, b)
    assert found.n_common == len(pairs)
    assert agrees(found.kendall_tau, plain_tau(pairs))
    assert agrees(found.rank_biased_overlap, plain_rbo(pairs, p))
    assert agrees(found.weighted_iou, plain_iou(pairs))
    sizes = [(abs(x), abs(y)) for x, y in pairs]
    assert agrees(kendall_tau(a, b, absolute=True), plain_tau(sizes))


@any_level
@properties
@given(st.data())
def test_comparisons_are_symmetric_and_do_not_depend_on_scale(level, data):
    a, b = data.draw(two_scores(level))
    found = compare_scores(a, b)
    scale = 2.0 ** data.draw(st.sampled_from([-900, -3, 0, 5, 1020]))
    scaled = replace(b, values=b.values * scale)
    for other in (compare_scores(b, a), compare_scores(a, scaled), compare_scores(scaled, a)):
        assert other.n_common == found.n_common
        assert agrees(other.kendall_tau, found.kendall_tau)
        assert agrees(other.rank_biased_overlap, found.rank_biased_overlap)
        assert agrees(other.weighted_iou, found.weighted_iou)


@any_level
@properties
@given(st.data())
def test_scores_are_one_with_themselves_and_their_negative_is_the_opposite_order(level, data):
    a, _ = data.draw(two_scores(level))
    scored = a.unit_values[~np.isnan(a.unit_values)]
    assume(len(np.unique(scored)) > 1)
    same, opposite = compare_scores(a, a), compare_scores(a, replace(a, values=-a.values))
    for found, tau in ((same, 1), (opposite, -1)):
        assert agrees(found.kendall_tau, tau)
        assert found.rank_biased_overlap == (1 if len(np.unique(np.abs(scored))) > 1 else None)
        assert agrees(found.weighted_iou, 1)


def test_scores_on_different_units_have_no_weight_in_common():
    graph = Graph(2, 2)
    left, right = np.zeros((2, graph.n_edges))
    left[:5], right[5:10] = 1.0, 3.0
    a, b = scores_of(graph, "edge", left), scores_of(graph, "edge", right)
    assert weighted_iou(a, b) == 0
    assert weighted_iou(a, a) == 1


@any_level
def test_what_nothing_decides_is_none(level):
    graph = Graph(2, 2)
    size = n_units(graph, level)
    some = np.arange(size, dtype=float)
    missing = np.full(size, np.nan)
    nothing, constant = np.zeros(size), np.ones(size)
    scores = scores_of(graph, level, some)
    found = compare_scores(scores, scores_of(graph, level, missing))
    assert found.n_common == 0
    assert found.kendall_tau is found.rank_biased_overlap is found.weighted_iou is None
    for tied in (nothing, constant):
        flat = scores_of(graph, level, tied)
        assert kendall_tau(scores, flat) is None
        for pair in ((scores, flat), (flat, scores), (flat, flat)):
            assert rank_biased_overlap(*pair) is None
    assert weighted_iou(scores, scores_of(graph, level, nothing)) is None
    assert weighted_iou(scores, scores_of(graph, level, constant)) is not None
    missing[3] = 1.0
    one = compare_scores(scores, scores_of(graph, level, missing))
    assert (one.n_common, one.kendall_tau) == (1, None)
    assert (one.rank_biased_overlap, one.weighted_iou) == (None, 1)


def nodes_of(*units: float) -> Scores:
    """Scores of the seven nodes of a graph; those not named score 0."""
    return scores_of(
        Graph(2, 2), "node", np.array([*units, *[0.0] * (7 - len(units))], dtype=float)
    )


def test_a_ranking_that_is_turned_round_agrees_as_far_as_its_halves_meet():
    """Seven units: at the depths 1 to 7 they share 0, 0, 0, 1, 3, 5, 7."""
    up, down = nodes_of(1, 2, 3, 4, 5, 6, 7), nodes_of(7, 6, 5, 4, 3, 2, 1)
    shared = [0, 0, 0, 1 / 4, 3 / 5, 5 / 6, 1]
    for p in (0.5, 0.9, 0.99):
        weights = [p**i for i in range(7)]
        expected = sum(w * a for w, a in zip(weights, shared, strict=True)) / sum(weights)
        assert rank_biased_overlap(up, down, p) == pytest.approx(expected, rel=1e-12)
    assert rank_biased_overlap(up, down) == pytest.approx(0.38, abs=0.01)
    # two units that change places: A = 0, 1 with the weights 2/3 and 1/3
    assert rank_biased_overlap(nodes_of(2, 1), nodes_of(1, 2), 0.5) == pytest.approx(1 / 3)


def test_ties_are_one_set_whatever_the_order_of_the_units():
    """Depth 1 of the first side is the tied pair: A = 2/3, then 1; and 0, 4/5, 1 the other way."""
    tied = nodes_of(2, 2, 1)
    for other in (nodes_of(3, 2, 1), nodes_of(2, 3, 1)):
        assert rank_biased_overlap(tied, other, 0.5) == pytest.approx((4 * 2 / 3 + 2 + 1) / 7)
    assert rank_biased_overlap(tied, nodes_of(1, 2, 3), 0.5) == pytest.approx(
        (4 * 0 + 2 * 2 / 4 + 1) / 7
    )


def test_units_that_score_nothing_on_both_sides_agree_on_nothing():
    first, second = nodes_of(0, 3, 2, 1), nodes_of(1, 0, 0, 0, 2, 3)
    assert rank_biased_overlap(first, second) == 0
    # one unit of one side, the best of the other's two: A = 1, then 2/3
    assert rank_biased_overlap(nodes_of(1), nodes_of(2, 1), 0.5) == pytest.approx((2 + 2 / 3) / 3)


def test_many_equal_ranks_are_exactly_one():
    graph = Graph(12, 12)
    values = np.random.default_rng(0).integers(-9999, 9999, graph.n_edges).astype(float)
    a = scores_of(graph, "edge", values)
    for p in (1e-9, 0.5, 0.99, 1 - 1e-9):
        assert rank_biased_overlap(a, replace(a, values=a.values / 3), p) == 1


def test_scores_that_cannot_be_compared_are_refused():
    graph = Graph(2, 3)
    scores = scores_of(graph, "edge", np.ones(graph.n_edges))
    larger = Graph(4, 3)
    with pytest.raises(EvaluationError, match=r"\(2 layers of 3 heads; 4 layers of 3 heads\)"):
        compare_scores(scores, scores_of(larger, "edge", np.ones(larger.n_edges)))
    grouped = Graph(2, 3, n_kv_heads=1)
    with pytest.raises(EvaluationError, match="1 keys and values a layer"):
        weighted_iou(scores, scores_of(grouped, "edge", np.ones(grouped.n_edges)))
    with pytest.raises(EvaluationError, match="of edges and of nodes"):
        kendall_tau(scores, scores_of(graph, "node", np.ones(graph.n_writers)))
    narrow, wide = (
        scores_of(graph, "neuron", np.ones(graph.n_writers * width)) for width in (4, 5)
    )
    with pytest.raises(EvaluationError, match="widths 4 and 5"):
        rank_biased_overlap(narrow, wide)
    infinite = np.ones(graph.n_edges)
    infinite[2] = np.inf
    with pytest.raises(EvaluationError, match="infinite"):
        compare_scores(scores, scores_of(graph, "edge", infinite))
    for p in (0.0, 1.0, -0.1, math.nan):
        with pytest.raises(EvaluationError, match="between 0 and 1"):
            compare_scores(scores, scores, p=p)


@any_level
def test_matched_scores_have_one_row_a_unit_and_ranks_among_those_scored_twice(level):
    graph = Graph(2, 4, n_kv_heads=2)
    rng = np.random.default_rng(0)
    left, right = rng.integers(-3, 4, size=(2, n_units(graph, level))).astype(float)
    left[[1, 4]], right[[2, 4]] = np.nan, np.nan
    a, b = scores_of(graph, level, left), scores_of(graph, level, right)
    table = match_scores(a, b)
    named = a.to_pandas().columns[:-2].tolist()
    assert table.columns.tolist() == [*named, "score_a", "score_b", "rank_a", "rank_b"]
    pd.testing.assert_frame_equal(table[named], a.to_pandas()[named])
    np.testing.assert_array_equal(table["score_a"], left)
    np.testing.assert_array_equal(table["score_b"], right)
    assert table.index[table["rank_a"].isna()].tolist() == [1, 2, 4]
    ranked = table.dropna()
    for side in ("a", "b"):
        by_size = sorted(ranked.index, key=lambda unit: (-abs(table[f"score_{side}"][unit]), unit))
        assert ranked[f"rank_{side}"][by_size].tolist() == list(range(1, len(ranked) + 1))


# --- models


def test_checkpoints_of_one_model_match_edge_by_edge_and_other_models_by_profile(engine, model_of):
    dataset = random_dataset(3, seed=2)
    first, later, other = (
        attribute(model, dataset, "EAP")
        for model in (engine()[0], engine(seed=1)[0], model_of("llama", "grouped"))
    )
    found, table = compare_scores(first, later), match_scores(first, later)
    assert found.n_common == len(table) == first.graph.n_edges
    by_rank = table["score_a"].corr(table["score_b"], method="kendall")
    assert found.kendall_tau == pytest.approx(by_rank)
    assert table.set_index("edge")["score_b"]["m0->logits"] == later.matrix[4, -1]
    with pytest.raises(EvaluationError, match=r"different graphs.*profile"):
        compare_scores(first, other)
    assert 0 < compare_profiles(profile(first), profile(other)) < 1


# --- profiles


def plain_profile(scores: Scores, bins: int) -> dict[tuple[str, str, int | None], Fraction]:
    """Shares from the names of the units: every layer cut into slices that no bin cuts."""
    graph, width = scores.graph, 1
    if scores.level == "edge":
        places = [[("written", e.writer), ("read", e.reader)] for e in graph.edges]
    else:
        width = scores.values.size // graph.n_writers
        places = [[("written", graph.writers[i // width])] for i in range(scores.n_units)]
    sizes = [abs(Fraction(v)) if not math.isnan(v) else 0 for v in scores.unit_values.tolist()]
    total, shares = sum(sizes), {}
    for unit, size in zip(places, sizes, strict=True):
        for side, name in unit:
            share = Fraction(size) / total / len(unit)
            if name in ("input", "logits"):
                key = (side, name, None)
                shares[key] = shares.get(key, 0) + share
                continue
            kind = "mlp" if name[0] == "m" else name[-2] if side == "read" else "head"
            layer = int(name[1:].split(".")[0])
            for piece in range(bins):  # of the layer, each 1/(layers · bins) of the depth
                key = (side, kind, (layer * bins + piece) // graph.n_layers)
                shares[key] = shares.get(key, 0) + share / bins
    return shares


@any_level
@properties
@given(st.data())
def test_a_profile_says_where_the_scores_lie_by_the_names_of_the_units(level, data):
    a, _ = data.draw(two_scores(level))
    assume(np.nansum(np.abs(a.unit_values)) > 0)
    bins = data.draw(st.sampled_from([1, 2, 3, 10]))
    found, expected = profile(a, bins), plain_profile(a, bins)
    assert found.columns.tolist() == ["side", "kind", "from_depth", "to_depth", "share"]
    for row in found.itertuples():
        place = None if math.isnan(row.from_depth) else round(row.from_depth * bins)
        assert row.share == pytest.approx(
            float(expected.pop((row.side, row.kind, place), 0)), abs=1e-12
        )
        if place is not None:
            assert row.to_depth == pytest.approx((place + 1) / bins)
    assert not expected
    assert found["share"].sum() == pytest.approx(1)
    kinds = {"written": ["input", "head", "mlp"], "read": ["q", "k", "v", "mlp", "logits"]}
    for side, rows in found.groupby("side"):
        assert list(rows["kind"].unique()) == kinds[side]
        assert rows["share"].sum() == pytest.approx(0.5 if level == "edge" else 1)
    assert len(found) == (2 + 6 * bins if level == "edge" else 1 + 2 * bins)


@any_level
@properties
@given(st.data())
def test_profiles_overlap_as_distributions_do(level, data):
    a, b = data.draw(two_scores(level))
    assume(min(np.nansum(np.abs(s.unit_values)) for s in (a, b)) > 0)
    left, right = profile(a), profile(b)
    distance = sum(abs(x - y) for x, y in zip(left["share"], right["share"], strict=True)) / 2
    assert compare_profiles(left, right) == pytest.approx(1 - distance, abs=1e-12)
    assert compare_profiles(right, left) == compare_profiles(left, right)
    assert compare_profiles(left, left) == pytest.approx(1)
    scaled = replace(a, values=a.values * -(2.0**1020))
    assert compare_profiles(left, profile(scaled)) == pytest.approx(1)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 10), st.integers(0, 999))
def test_a_model_whose_layers_are_split_in_two_keeps_its_profile(n_layers, n_heads, bins, seed):
    small, large = Graph(n_layers, n_heads), Graph(2 * n_layers, 2 * n_heads, True)
    rng = np.random.default_rng(seed)
    embedding, heads, mlps = rng.random(), rng.random((n_layers, n_heads)), rng.random(n_layers)
    short = [embedding] + [x for h, m in zip(heads, mlps, strict=True) for x in (*h, m)]
    long = [embedding]
    for layer in range(2 * n_layers):
        long += [*np.repeat(heads[layer // 2] / 4, 2), mlps[layer // 2] / 2]
    one, other = scores_of(small, "node", np.array(short)), scores_of(large, "node", np.array(long))
    pd.testing.assert_frame_equal(profile(one, bins), profile(other, bins))
    assert compare_profiles(profile(one, bins), profile(other, bins)) == pytest.approx(1)


def test_profiles_of_scores_in_different_places_do_not_overlap():
    shallow, deep = Graph(2, 2), Graph(6, 4, n_kv_heads=2)
    first = np.zeros(shallow.n_writers)
    first[shallow.writers.index("a0.h1")] = -2.0
    for name, expected in (("a5.h0", 0), ("m0", 0), ("input", 0), ("a2.h3", 1 / 3)):
        other = np.zeros(deep.n_writers)
        other[deep.writers.index(name)] = 1.0
        overlap = compare_profiles(
            profile(scores_of(shallow, "node", first), 6),
            profile(scores_of(deep, "node", other), 6),
        )
        assert overlap == pytest.approx(expected)


def test_part_of_a_profile_is_compared_on_its_own():
    graph = Graph(2, 2)
    by_writer = np.array([1.0 if e.writer == "input" else 0.0 for e in graph.edges])
    logits = np.array([1.0 if e.name == "input->logits" else 0.0 for e in graph.edges])
    whole = [profile(scores_of(graph, "edge", values)) for values in (by_writer, logits)]
    written, read = (
        compare_profiles(*(one[one["side"] == side] for one in whole))
        for side in ("written", "read")
    )
    assert written == pytest.approx(1)
    assert read == pytest.approx(1 / by_writer.sum())
    assert compare_profiles(*whole) == pytest.approx((written + read) / 2)


@any_level
def test_a_profile_of_nothing_is_nan_and_compares_to_none(level):
    graph = Graph(2, 2)
    size = n_units(graph, level)
    some = profile(scores_of(graph, level, np.ones(size)))
    for values in (np.zeros(size), np.full(size, np.nan)):
        nothing = profile(scores_of(graph, level, values))
        assert nothing["share"].isna().all()
        assert compare_profiles(nothing, some) is compare_profiles(some, nothing) is None
    assert compare_profiles(some.iloc[:0], some.iloc[:0]) is None


def test_profiles_that_do_not_match_are_refused():
    graph = Graph(2, 2)
    edges = scores_of(graph, "edge", np.ones(graph.n_edges))
    nodes = scores_of(graph, "node", np.ones(graph.n_writers))
    with pytest.raises(EvaluationError, match="different rows: compare profiles of one level"):
        compare_profiles(profile(edges), profile(nodes))
    with pytest.raises(EvaluationError, match="one number of bins"):
        compare_profiles(profile(edges, 4), profile(edges, 5))
    with pytest.raises(EvaluationError, match="at least one bin of depth, not 0"):
        profile(edges, 0)
    with pytest.raises(EvaluationError, match="infinite"):
        profile(replace(nodes, values=nodes.values * np.inf))
