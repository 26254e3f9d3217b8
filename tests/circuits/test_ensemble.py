"""Ensembles against their definitions, computed unit by unit; members' scales never count."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from circuits import AttributionError, Graph, Scores, attribute, load_model
from circuits.ensemble import COMBINATIONS, combine
from circuits.recovery import recovery, true_circuit
from circuits.scores import LEVELS
from tasks import load_dataset
from tests.checkpoints import random_dataset

GRAPHS = [Graph(1, 1), Graph(1, 2, True), Graph(2, 2), Graph(2, 4, n_kv_heads=2)]
any_level = pytest.mark.parametrize("level", LEVELS)
any_combination = pytest.mark.parametrize("how", COMBINATIONS)
properties = settings(max_examples=25, deadline=None)


def scores_of(graph: Graph, level: str, units, method: str = "", n_examples: int = 3) -> Scores:
    """Scores from one number a unit, in unit order."""
    units = np.asarray(units, dtype=float)
    if level == "edge":
        values = np.zeros(graph.edge_mask.shape)
        values[graph.edge_mask] = units
    else:
        values = units.reshape((graph.n_writers, -1) if level == "neuron" else graph.n_writers)
    return Scores(graph, values, np.zeros_like(values), n_examples, method, level)


def n_units(graph: Graph, level: str) -> int:
    writers = {"node": graph.n_writers, "neuron": graph.n_writers * 2}
    return writers.get(level, graph.n_edges)


@st.composite
def members(draw, level):
    """One to four sets of scores with ties, both signs, and a few units that are missing."""
    graph = draw(st.sampled_from(GRAPHS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    missing = draw(st.sampled_from([0.0, 0.2]))
    found = []
    for _ in range(draw(st.integers(1, 4))):
        values = rng.choice([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0], size=n_units(graph, level))
        if draw(st.booleans()):
            values = values + rng.integers(-8, 9, size=values.shape) / 16
        values[rng.random(values.shape) < missing] = np.nan
        found.append(scores_of(graph, level, values, n_examples=draw(st.integers(2, 9))))
    rows = np.stack([one.unit_values for one in found])
    common = rows[:, ~np.isnan(rows).any(axis=0)]
    assume(common.size and (common != 0).any(axis=1).all())
    return found


def plain(found: list[Scores], how: str) -> list[float]:
    """The combination in exact fractions, one unit at a time."""
    rows = [one.unit_values.tolist() for one in found]
    units = range(len(rows[0]))
    common = [u for u in units if not any(math.isnan(row[u]) for row in rows)]
    totals = [sum(abs(Fraction(row[u])) for u in common) for row in rows]
    result = [math.nan] * len(rows[0])
    for u in common:
        shares = [Fraction(row[u]) / total for row, total in zip(rows, totals, strict=True)]
        if how == "score-mean":
            result[u] = float(sum(shares) / len(shares))
            continue
        if how == "rank-mean":
            places = []
            for row in rows:
                below = sum(abs(row[other]) < abs(row[u]) for other in common)
                level = sum(abs(row[other]) == abs(row[u]) for other in common)
                places.append(Fraction(2 * below + level + 1, 2 * len(common)) if row[u] else 0)
            size = sum(places) / len(places)
        else:
            size = {"minimum": min, "maximum": max}[how](map(abs, shares))
        result[u] = float(-size if sum(shares) < 0 else size)
    return result


@any_combination
@any_level
@properties
@given(st.data())
def test_combinations_are_those_of_the_definition(level, how, data):
    found = data.draw(members(level))
    rows = np.stack([one.unit_values for one in found])
    shares = rows / np.nansum(np.abs(rows[:, ~np.isnan(rows).any(0)]), axis=1, keepdims=True)
    cancels = np.abs(np.nansum(shares, axis=0)) < 1e-12  # where rounding decides the sign
    combined = combine(found, how)
    expected = np.array(plain(found, how))
    np.testing.assert_allclose(
        combined.unit_values[~cancels], expected[~cancels], rtol=1e-9, atol=1e-15
    )
    np.testing.assert_allclose(
        np.abs(combined.unit_values), np.abs(expected), rtol=1e-9, atol=1e-15
    )
    assert combined.n_examples == min(one.n_examples for one in found)
    assert (combined.graph, combined.level) == (found[0].graph, level)
    if level == "edge":
        assert (combined.values[~combined.graph.edge_mask] == 0).all()
        assert (combined.standard_error[~combined.graph.edge_mask] == 0).all()
        assert np.isnan(combined.standard_error[combined.graph.edge_mask]).all()
    else:
        assert np.isnan(combined.standard_error).all()


@any_combination
@any_level
@properties
@given(st.data())
def test_neither_the_scale_of_a_member_nor_the_order_of_members_counts(level, how, data):
    found = data.draw(members(level))
    scales = data.draw(st.lists(st.sampled_from([-900, -2, 0, 7, 1021]), min_size=4, max_size=4))
    scaled = [
        replace(one, values=one.values * 2.0**scale)
        for one, scale in zip(found, scales, strict=False)
    ]
    combined = combine(found, how).unit_values
    np.testing.assert_allclose(combine(scaled, how).unit_values, combined, rtol=1e-12)
    turned = combine(found[::-1], how).unit_values
    np.testing.assert_allclose(np.abs(turned), np.abs(combined), rtol=1e-9, atol=1e-15)


@any_combination
@any_level
@properties
@given(st.data())
def test_copies_of_one_member_keep_its_circuits(level, how, data):
    member = data.draw(members(level))[0]
    assume(np.nansum(np.abs(member.unit_values)) > 0)
    n = data.draw(st.integers(1, member.n_units))
    for count in (1, 3):
        combined = combine([member] * count, how)
        assert combined.top_n(n) == member.top_n(n)
        if how != "rank-mean":  # a rank of 0 is as positive as any other
            assert (np.sign(combined.unit_values) * np.sign(member.unit_values) != -1).all()


def test_what_all_members_put_first_has_rank_one_and_ties_share_their_ranks():
    graph = Graph(1, 1)
    one, other = [9, -5, 5, 1, 0, 0, 0, 2], [-8, 3, 3, -3, 1, 1, 1, 0]
    combined = combine([scores_of(graph, "edge", one), scores_of(graph, "edge", other)])
    ranks = np.array(
        [[8, 6.5, 6.5, 4, 0, 0, 0, 5], [8, 6, 6, 6, 3, 3, 3, 0]]  # of 8, ascending
    )
    np.testing.assert_allclose(np.abs(combined.unit_values), ranks.mean(0) / 8)
    # 9/22 − 8/20 and −5/22 + 3/20, 1/22 − 3/20
    assert np.sign(combined.unit_values).tolist() == [1, -1, 1, -1, 1, 1, 1, 1]


@any_combination
def test_a_unit_that_no_member_scores_scores_nothing(how):
    graph = Graph(1, 1)
    one, other = [9, -5, 0, 1, 0, 0, 0, 2], [-8, 3, 0, -3, 1, 0, 1, 0]
    combined = combine([scores_of(graph, "edge", one), scores_of(graph, "edge", other)], how)
    assert np.flatnonzero(combined.unit_values[[2, 5]]).tolist() == []
    assert (combined.unit_values != 0).sum() == (3 if how == "minimum" else 6)


def test_the_noise_of_rounding_has_no_rank():
    """A millionth of the largest score and less; a little more is a score."""
    graph = Graph(1, 1)
    noisy = scores_of(graph, "edge", [4, -2, 4e-6, -1e-9, 0, 0, 5e-6, 1])
    combined = combine([noisy, noisy]).unit_values
    np.testing.assert_allclose(combined, np.array([8, -7, 0, 0, 0, 0, 5, 6]) / 8)


def test_a_known_edge_that_is_noise_to_all_members_ranks_with_the_edges_that_are_not():
    model = load_model("truth/backup", "cpu")
    dataset = load_dataset("truth/backup", model.tokenizer, "train", 24)
    truth = true_circuit("truth/backup", model.graph)
    found = [attribute(model, dataset, method) for method in ("exact", "EAP-IG-inputs")]
    combined = combine(found, "rank-mean")
    score = dict(combined.to_pandas().set_index("edge")["score"])
    noise = [dict(one.to_pandas().set_index("edge")["score"])["a2.h0->logits"] for one in found]
    assert 0 < max(map(abs, noise)) < 1e-6
    untrue = {score[edge.name] for edge in model.graph.edges if edge.name not in truth.edges}
    assert untrue == {score["a2.h0->logits"]} == {0.0}
    assert recovery(combined, truth).n_chosen == recovery(combined, truth).n_true - 1


@pytest.mark.parametrize("how", ["rank-mean", "minimum", "maximum"])
def test_the_sign_is_that_of_the_sum_and_positive_where_it_cancels_out(how):
    """The first unit is 2/4 and −2/4, the second 1/4 and 1/4 turned round, the third −1/4 twice."""
    graph = Graph(1, 1)
    one, other = ([2, -1, -1, 0, 0, 0, 0, 0], [-2, 1, -1, 0, 0, 0, 0, 0])
    for pair in ((one, other), (other, one)):
        combined = combine([scores_of(graph, "edge", units) for units in pair], how)
        assert np.sign(combined.unit_values[:3]).tolist() == [1, 1, -1]


def test_units_without_a_score_in_one_member_have_none():
    graph = Graph(1, 1)
    whole = scores_of(graph, "edge", np.arange(1.0, 9.0))
    part = scores_of(graph, "edge", [1, np.nan, 2, np.nan, 3, 4, 5, 6])
    for how in COMBINATIONS:
        missing = np.isnan(combine([whole, part, whole], how).unit_values)
        assert np.flatnonzero(missing).tolist() == [1, 3]
    alone = combine([scores_of(graph, "edge", [np.nan] * 7 + [-0.5])] * 2)
    assert alone.unit_values[7] == -1


def test_an_ensemble_of_methods_is_scores_like_any_other(model_of):
    model, dataset = model_of("llama", "grouped"), random_dataset(3, seed=2)
    found = [attribute(model, dataset, method) for method in ("EAP", "EAP-IG-inputs")]
    combined = combine(found, "minimum")
    assert combined.method == "minimum of EAP, EAP-IG-inputs"
    n_both = len(set(combined.greedy(20).edges) | set(combined.top_n(20).edges))
    assert 0 < n_both <= 40
    again = combine([combined, found[0]], "maximum")
    shares = [np.abs(one.values) / np.abs(one.values).sum() for one in (combined, found[0])]
    np.testing.assert_allclose(np.abs(again.values), np.maximum(*shares))


def test_members_that_cannot_be_combined_are_refused():
    graph = Graph(2, 2)
    scores = scores_of(graph, "edge", np.ones(graph.n_edges), "EAP")
    larger, nodes = Graph(3, 2), scores_of(graph, "node", np.ones(graph.n_writers))
    wide, wider = (scores_of(graph, "neuron", np.ones(graph.n_writers * width)) for width in (4, 5))
    with pytest.raises(AttributionError, match="no combination 'mean': choose from rank-mean"):
        combine([scores], "mean")
    with pytest.raises(AttributionError, match="needs members"):
        combine([])
    with pytest.raises(AttributionError, match=r"different graphs \(.*combine those of one model"):
        combine([scores, scores_of(larger, "edge", np.ones(larger.n_edges))])
    with pytest.raises(AttributionError, match=r"of edges.*of nodes"):
        combine([scores, nodes])
    with pytest.raises(AttributionError, match="widths 4 and 5: combine scores of nodes"):
        combine([wide, wider])
    half = np.where(np.arange(graph.n_edges) % 2, 1.0, np.nan)
    other = np.where(np.arange(graph.n_edges) % 2, np.nan, 1.0)
    with pytest.raises(AttributionError, match="no edge is scored by all members"):
        combine([scores_of(graph, "edge", half), scores_of(graph, "edge", other)])
    for value, message in ((0.0, "every edge 0"), (np.inf, "infinite")):
        with pytest.raises(
            AttributionError, match=rf"member 2 of the ensemble \(flat\).*{message}"
        ):
            combine([scores, scores_of(graph, "edge", np.full(graph.n_edges, value), "flat")])
