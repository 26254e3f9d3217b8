"""Recovery of a known circuit, against all orders of what ties and quadratic definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from circuits import Circuit, EvaluationError, Graph, Scores
from circuits.recovery import is_truth, recovery, true_circuit, truth_names

GRAPH = Graph(2, 2)  # 7 writers
NAN = float("nan")


def of_nodes(values, graph=GRAPH):
    array = np.array(values, dtype=float)
    return Scores(graph, array, np.full_like(array, NAN), 1, level="node")


def of_edges(values, graph):
    matrix = np.zeros(graph.edge_mask.shape)
    matrix[graph.edge_mask] = values
    return Scores(graph, matrix, np.full_like(matrix, NAN), 1)


def truth_of(true, graph=GRAPH):
    return Circuit.from_nodes(graph, [w for w, one in zip(graph.writers, true, strict=True) if one])


def orders(values, absolute):
    """Every order of the units, best first, that the scores allow; units without a score last."""
    keys = [-math.inf if math.isnan(v) else abs(v) if absolute else v for v in values]
    groups = [
        [i for i, k in enumerate(keys) if k == key] for key in sorted(set(keys), reverse=True)
    ]
    for permuted in itertools.product(*(itertools.permutations(group) for group in groups)):
        yield list(itertools.chain(*permuted))


def figures(order, values, true):
    """The definitions for one order without ties: (precision, recall, AUROC, average precision)."""
    n_true = sum(true)
    best = [i for i in order[:n_true] if not math.isnan(values[i]) and values[i] != 0]
    found = sum(true[i] for i in best)
    pairs = [true[a] and not true[b] for a, b in itertools.combinations(order, 2)]
    hits = [k for k, i in enumerate(order) if true[i]]
    n_pairs = n_true * (len(true) - n_true)
    return (
        found / len(best) if best else NAN,
        found / n_true,
        sum(pairs) / n_pairs if n_pairs else NAN,
        np.mean([(rank + 1) / (place + 1) for rank, place in enumerate(hits)]),
    )


def check(scores, truth, values, true, absolute):
    found = recovery(scores, truth, absolute)
    expected = np.mean([figures(o, values, true) for o in orders(values, absolute)], axis=0)
    got = (found.precision, found.recall, found.auroc, found.auprc)
    np.testing.assert_allclose([NAN if v is None else v for v in got], expected, atol=1e-12)
    assert (found.n_true, found.n_units) == (sum(true), len(true))


few_values = st.sampled_from([0.0, 1.0, -1.0, 2.0, -2.0, 3.0, NAN])


@given(
    units=st.lists(st.tuples(few_values, st.booleans()), min_size=7, max_size=7).filter(
        lambda units: any(true for _, true in units)
    ),
    absolute=st.booleans(),
)
def test_every_figure_is_its_mean_over_all_orders_of_the_nodes_that_tie(units, absolute):
    values, true = (list(column) for column in zip(*units, strict=True))
    check(of_nodes(values), truth_of(true), values, true, absolute)


@given(
    units=st.lists(st.tuples(few_values, st.booleans()), min_size=8, max_size=8).filter(
        lambda units: (
            any(true for _, true in units)
            and max(map([abs(v) for v, _ in units].count, [0.0, 1.0, 2.0, 3.0])) < 6
            and sum(math.isnan(v) for v, _ in units) < 6
        )
    ),
)
def test_every_figure_is_its_mean_over_all_orders_of_the_edges_that_tie(units):
    graph = Graph(1, 1)
    values, true = (list(column) for column in zip(*units, strict=True))
    truth = Circuit.from_edges(graph, [e.name for e, t in zip(graph.edges, true, strict=True) if t])
    check(of_edges(values, graph), truth, values, true, absolute=True)


def test_on_many_edges_auroc_is_the_share_of_pairs_in_order_and_a_tie_is_half():
    graph, rng = Graph(3, 3), np.random.default_rng(0)
    values = rng.integers(-20, 20, graph.n_edges).astype(float)
    true = rng.random(graph.n_edges) < 0.2
    mask = np.zeros_like(graph.edge_mask)
    mask[graph.edge_mask] = true
    sizes = np.abs(values)
    above = sizes[true][:, None] - sizes[~true][None, :]
    expected = ((above > 0) + 0.5 * (above == 0)).mean()
    found = recovery(of_edges(values, graph), Circuit(graph, mask))
    assert found.auroc == pytest.approx(expected, abs=1e-12)
    # and average precision is the mean of what shuffled orders of the ties give
    shuffled = []
    for _ in range(400):
        order = rng.permutation(graph.n_edges)
        order = order[np.argsort(-sizes[order], kind="stable")]
        places = np.flatnonzero(true[order])
        shuffled.append(((np.arange(len(places)) + 1) / (places + 1)).mean())
    error = np.std(shuffled) / np.sqrt(len(shuffled))
    assert abs(found.auprc - np.mean(shuffled)) < 4 * error


def test_a_perfect_ranking_a_reversed_one_and_no_ranking():
    true = [True, False, True, False, False, False, False]
    perfect = recovery(of_nodes([9, 1, -8, 2, 0, 0, 0]), truth_of(true))
    assert (perfect.precision, perfect.recall, perfect.auroc, perfect.auprc) == (1, 1, 1, 1)
    reverse = recovery(of_nodes([1, 5, 2, 6, 7, 8, 9]), truth_of(true))
    assert (reverse.precision, reverse.recall, reverse.auroc) == (0, 0, 0)
    flat = recovery(of_nodes([3] * 7), truth_of(true))
    assert (flat.precision, flat.auroc) == (pytest.approx(2 / 7), 0.5)


def test_what_scores_nothing_is_not_chosen():
    true = [True, True, True, False, False, False, False]
    found = recovery(of_nodes([5, 0, 0, 0, 0, 0, 0]), truth_of(true))
    assert (found.n_chosen, found.precision, found.recall) == (1, 1.0, pytest.approx(1 / 3))
    nothing = recovery(of_nodes([0, 0, NAN, 0, 0, NAN, 0]), truth_of(true))
    assert (nothing.n_chosen, nothing.precision, nothing.recall) == (0, None, 0.0)


def test_unscored_units_rank_behind_those_that_score_0():
    true = [True, False, False, False, False, False, False]
    assert recovery(of_nodes([0, NAN, NAN, NAN, NAN, NAN, NAN]), truth_of(true)).auroc == 1
    assert recovery(of_nodes([NAN, 0, 0, 0, 0, 0, 0]), truth_of(true)).auroc == 0


def test_rounding_counts_as_0():
    true = [True, True, False, False, False, False, False]
    exact, rounded = ([1, tiny, 0, 0, 0, 0, 0] for tiny in (0.0, 5e-7))
    assert recovery(of_nodes(rounded), truth_of(true)) == recovery(of_nodes(exact), truth_of(true))
    small = recovery(of_nodes([1, 5e-6, 0, 0, 0, 0, 0]), truth_of(true))
    assert (small.n_chosen, small.auroc) == (2, 1.0)


def test_a_signed_ranking_puts_harmful_units_last():
    true = [True, False, False, False, False, False, True]
    scores = of_nodes([-5, 1, 0, 0, 0, 0, 2])
    assert recovery(scores, truth_of(true)).auroc == 1
    assert recovery(scores, truth_of(true), absolute=False).auroc == pytest.approx(0.5)


def test_figures_without_a_value_are_none():
    nothing = recovery(of_nodes(range(7)), Circuit(GRAPH, np.zeros_like(GRAPH.edge_mask)))
    assert (nothing.precision, nothing.recall, nothing.auroc, nothing.auprc) == (None,) * 4
    everything = recovery(of_nodes(range(1, 8)), truth_of([True] * 7))
    assert (everything.recall, everything.auroc, everything.auprc) == (1.0, None, 1.0)


def test_scores_of_another_graph_and_of_neurons_are_refused():
    truth = truth_of([True] * 7)
    with pytest.raises(EvaluationError, match=r"3 layers and 2 heads, and the known .* 2 and 2"):
        recovery(of_nodes([0] * 10, Graph(3, 2)), truth)
    values = np.ones((7, 4))
    neurons = Scores(GRAPH, values, values, 1, level="neuron")
    with pytest.raises(EvaluationError, match=r"which neurons it keeps.*edges or nodes"):
        recovery(neurons, truth)
    kept = np.zeros((7, 4), dtype=bool)
    kept[0] = True
    assert recovery(neurons, Circuit.from_neurons(GRAPH, kept)).n_true == 4
    with pytest.raises(EvaluationError, match=r"4 wide.* 5 wide"):
        recovery(neurons, Circuit.from_neurons(GRAPH, np.ones((7, 5), dtype=bool)))


def test_the_truths_have_names_and_circuits_of_their_own_graphs():
    assert truth_names() == ("truth/backup", "truth/gate", "truth/induction")
    assert is_truth("truth/gate")
    assert not is_truth("bundled/behaviours")
    assert true_circuit("truth/gate", Graph(2, 4)).n_edges == 5
    with pytest.raises(EvaluationError, match="2 layers and 4 heads, not of one of 2 and 2"):
        true_circuit("truth/gate", GRAPH)
    with pytest.raises(EvaluationError, match=r"no circuit is known for 'ioi'.*truth/backup, tru"):
        true_circuit("ioi", GRAPH)
