"""Scores and the sums they come from: every level, what was not scored, adding and joining."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits import AttributionError, Graph, PartialScores, Scores
from circuits.scores import LEVELS

D_MODEL = 5
GRAPHS = [Graph(1, 2), Graph(2, 3, True), Graph(2, 4, n_kv_heads=2)]


def shape_of(graph: Graph, level: str) -> tuple[int, ...]:
    return {
        "edge": (graph.n_writers, graph.n_readers),
        "node": (graph.n_writers,),
        "neuron": (graph.n_writers, D_MODEL),
    }[level]


def units(graph: Graph, level: str) -> np.ndarray:
    return graph.edge_mask if level == "edge" else np.ones(shape_of(graph, level), dtype=bool)


def per_example(graph: Graph, level: str, n_examples: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(n_examples, *shape_of(graph, level)))
    return values * units(graph, level)


def sums(graph: Graph, level: str, values: np.ndarray) -> PartialScores:
    return PartialScores(graph, values.sum(0), (values**2).sum(0), len(values), level)


any_level = pytest.mark.parametrize("level", LEVELS)


@any_level
@settings(max_examples=15, deadline=None)
@given(st.sampled_from(GRAPHS), st.integers(2, 6), st.integers(0, 999), st.data())
def test_sums_of_shards_add_up_to_the_mean_and_its_standard_error(
    level, graph, n_examples, seed, data
):
    values = per_example(graph, level, n_examples, seed)
    unscored = units(graph, level) & (np.random.default_rng(seed).random(values[0].shape) < 0.3)
    values[:, unscored] = np.nan
    cut = data.draw(st.integers(1, n_examples - 1))
    total = PartialScores.zero(graph, level, D_MODEL)
    for shard in (values[:cut], values[cut:]):
        total += sums(graph, level, shard)
    scores = total.finish("EAP")
    assert (scores.level, scores.n_examples, scores.method) == (level, n_examples, "EAP")
    np.testing.assert_allclose(scores.values, values.mean(0), atol=1e-12)
    expected = values.std(0, ddof=1) / np.sqrt(n_examples)
    np.testing.assert_allclose(scores.standard_error, expected, atol=1e-7)
    assert (np.isnan(scores.values) == unscored).all()
    assert scores.values.dtype == np.float64


@any_level
def test_one_example_has_no_standard_error(level):
    graph = GRAPHS[2]
    scores = sums(graph, level, per_example(graph, level, 1)).finish()
    assert (np.isnan(scores.standard_error) == units(graph, level)).all()
    assert (scores.standard_error[~units(graph, level)] == 0).all()


@any_level
def test_no_example_gives_no_scores(level):
    with pytest.raises(AttributionError, match="no example"):
        PartialScores.zero(GRAPHS[0], level, D_MODEL).finish()


@any_level
@settings(max_examples=15, deadline=None)
@given(st.sampled_from(GRAPHS), st.integers(0, 999))
def test_joining_chunks_of_units_gives_what_scoring_them_at_once_gives(level, graph, seed):
    values = per_example(graph, level, 3, seed)
    real = units(graph, level)
    chunk = np.random.default_rng(seed).integers(0, 4, size=real.shape)  # chunk 3 is never scored
    parts = [sums(graph, level, np.where(real & (chunk != i), np.nan, values)) for i in range(3)]
    whole = sums(graph, level, np.where(real & (chunk == 3), np.nan, values))
    for first, second, third in (parts, parts[::-1]):
        joined = first.join(second).join(third)
        np.testing.assert_array_equal(joined.total, whole.total)
        np.testing.assert_array_equal(joined.total_of_squares, whole.total_of_squares)
        assert (joined.n_examples, joined.level) == (3, level)


@any_level
def test_sums_that_do_not_go_together_are_neither_added_nor_joined(level):
    graph = GRAPHS[0]
    some = sums(graph, level, per_example(graph, level, 2))
    others = sums(GRAPHS[1], level, per_example(GRAPHS[1], level, 2))
    kind = "node" if level != "node" else "edge"
    for verb, combine in (("added", some.__add__), ("joined", some.join)):
        with pytest.raises(AttributionError, match=f"different graphs cannot be {verb}"):
            combine(others)
        with pytest.raises(AttributionError, match=f"{level}s .* and of {kind}s .*{verb}"):
            combine(sums(graph, kind, per_example(graph, kind, 2)))


def test_a_unit_is_not_joined_twice_nor_over_other_examples():
    graph = GRAPHS[0]
    values = per_example(graph, "node", 2)
    some = sums(graph, "node", np.where([True, True, False, False], values, np.nan))
    overlapping = sums(graph, "node", np.where([False, True, True, True], values, np.nan))
    with pytest.raises(AttributionError, match="1 nodes have sums on both sides"):
        some.join(overlapping)
    rest = np.where([False, False, True, True], per_example(graph, "node", 3), np.nan)
    with pytest.raises(AttributionError, match="2 and over 3 examples"):
        some.join(sums(graph, "node", rest))
    with pytest.raises(AttributionError, match="score the same nodes on all examples"):
        some + overlapping


def test_only_scores_of_edges_are_a_matrix():
    graph = GRAPHS[0]
    edges = sums(graph, "edge", per_example(graph, "edge", 2)).finish()
    assert edges.matrix is edges.values
    for level in ("node", "neuron"):
        with pytest.raises(AttributionError, match=f"scores of {level}s, not of edges"):
            _ = sums(graph, level, per_example(graph, level, 2)).finish().matrix


@any_level
def test_scores_of_another_shape_or_level_are_refused(level):
    graph, right = GRAPHS[0], np.zeros(shape_of(GRAPHS[0], level))
    more, wider = np.zeros((graph.n_writers + 1, *right.shape[1:])), np.zeros((graph.n_writers, 7))
    for values, errors in ((more, more), (right, wider), (right[..., None], right[..., None])):
        with pytest.raises(AttributionError, match=f"scores of {level}s in this graph are"):
            Scores(graph, values, errors, 2, level=level)
    with pytest.raises(AttributionError, match="'layer': choose from edge, node, neuron"):
        Scores(graph, right, right, 2, level="layer")


def test_a_table_of_nodes_has_every_writer():
    graph = Graph(2, 2)
    scores = sums(graph, "node", per_example(graph, "node", 3)).finish()
    table = scores.to_pandas()
    assert list(table.columns) == ["node", "kind", "layer", "score", "standard_error"]
    assert table["node"].tolist() == list(graph.writers)
    kinds = ["input", "head", "head", "mlp", "head", "head", "mlp"]
    assert table["kind"].tolist() == kinds
    assert table["layer"].tolist() == [-1, 0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(table["score"], scores.values)
    np.testing.assert_array_equal(table["standard_error"], scores.standard_error)


def test_a_table_of_neurons_names_the_dimensions_of_every_writer():
    graph = Graph(1, 2)
    scores = sums(graph, "neuron", per_example(graph, "neuron", 3)).finish()
    table = scores.to_pandas().set_index("neuron")
    assert len(table) == graph.n_writers * D_MODEL
    assert table.loc["a0.h1[3]", ["node", "dimension"]].tolist() == ["a0.h1", 3]
    row = graph.writers.index("a0.h1")
    assert table.loc["a0.h1[3]", "score"] == scores.values[row, 3]
    assert table.loc["a0.h1[3]", "standard_error"] == scores.standard_error[row, 3]


def test_a_table_of_edges_has_every_edge_scored_or_not():
    graph = Graph(2, 4, n_kv_heads=2)
    values = per_example(graph, "edge", 3)
    values[:, 0, 0] = np.nan
    scores = sums(graph, "edge", values).finish()
    table = scores.to_pandas().set_index("edge")
    assert len(table) == graph.n_edges
    row, column = graph.writers.index("m0"), graph.readers.index("a1.kv1<v>")
    assert table.loc["m0->a1.kv1<v>", "score"] == scores.matrix[row, column]
    assert table.loc["m0->a1.kv1<v>", ["writer", "reader", "kind"]].tolist() == [
        *("m0", "a1.kv1<v>", "v")
    ]
    assert np.isnan(table.loc["input->a0.h0<q>", "score"])
    assert repr(scores) == (
        f"Scores(unnamed, {graph.n_edges - 1} of {graph.n_edges} edges, 3 examples)"
    )
