"""Running circuits: against the definition carried out slowly, and at both ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circuits import (
    Bootstrap,
    Circuit,
    EvaluationError,
    Graph,
    attribute,
    baselines,
    bootstrap_faithfulness,
    evaluate,
    evaluate_many,
)
from tasks import Metric, get_metric
from tests.checkpoints import random_dataset, transformers_model
from tests.oracle import METRICS, Oracle
from tests.oracle import evaluate as definition

VARIANTS = {
    "plain": {},
    "one head": {"n_heads": 1},
    "one layer": {"n_layers": 1},
    "three layers, scaled by layer": {"n_layers": 3, "scale_by_layer": True},
    "untied, gelu": {"tied": False, "activation": "gelu"},
    "relu": {"activation": "relu"},
}
ONE_AT_A_TIME = 1  # byte


def oracle_evaluate(reference, mask, examples, metric):
    return definition(Oracle.of(reference), mask, examples, metric)


def random_circuit(graph: Graph, density: float, seed: int) -> Circuit:
    chosen = np.random.default_rng(seed).random(graph.edge_mask.shape) < density
    return Circuit(graph, graph.edge_mask & chosen)


def whole(graph: Graph) -> Circuit:
    return Circuit(graph, graph.edge_mask)


def nothing(graph: Graph) -> Circuit:
    return Circuit(graph, np.zeros_like(graph.edge_mask))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_circuits_score_as_in_the_definition(engine, variant, metric):
    """In one padded batch of mixed lengths and mixed first differences, dead ends included."""
    model, directory = engine("float64", **VARIANTS[variant])
    dataset = random_dataset(5, seed=8)
    reference = transformers_model(directory)
    circuits = [random_circuit(model.graph, d, i) for i, d in enumerate((0.05, 0.3, 0.7, 0.95))]
    for circuit, found in zip(
        circuits, evaluate_many(model, circuits, dataset, metric), strict=True
    ):
        expected = oracle_evaluate(reference, circuit.mask, dataset, metric)
        assert found.values == pytest.approx(expected, rel=1e-9, abs=1e-11)
        assert found.mean == pytest.approx(expected.mean(), rel=1e-9, abs=1e-11)
        error = expected.std(ddof=1) / np.sqrt(len(expected))
        assert found.standard_error == pytest.approx(error, rel=1e-7, abs=1e-10)


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    density=st.floats(0.01, 0.99),
    seed=st.integers(0, 10_000),
    shared_prefix=st.sampled_from([None, 0, 1, 5]),
    dtype=st.sampled_from(["float64", "float32"]),
)
def test_random_circuits_on_random_data_score_as_in_the_definition(
    engine, density, seed, shared_prefix, dtype
):
    model, directory = engine(dtype)
    dataset = random_dataset(3, lengths=(6, 7, 9), shared_prefix=shared_prefix, seed=seed)
    circuit = random_circuit(model.graph, density, seed)
    found = evaluate(model, circuit, dataset).values
    expected = oracle_evaluate(transformers_model(directory), circuit.mask, dataset, "logit-diff")
    tolerance = {"float64": 1e-10, "float32": 1e-4}[dtype]
    assert np.abs(found - expected).max() <= tolerance * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("metric", METRICS)
def test_the_whole_graph_gives_the_clean_metric_and_the_empty_circuit_the_corrupted(engine, metric):
    model, directory = engine()
    dataset = random_dataset(6, seed=9)
    oracle = Oracle.of(transformers_model(directory))
    full, empty = evaluate_many(model, [whole(model.graph), nothing(model.graph)], dataset, metric)
    ends = baselines(model, dataset, metric)
    for found, side, base in (
        (full, "clean_tokens", ends.clean),
        (empty, "corrupted_tokens", ends.corrupted),
    ):
        expected = [
            float(
                METRICS[metric](
                    oracle.logits(getattr(example, side)),
                    example.correct,
                    example.incorrect,
                    oracle.logits(example.clean_tokens),
                )
            )
            for example in dataset
        ]
        assert found.values == pytest.approx(expected, rel=1e-9, abs=1e-11)
        assert base == pytest.approx(expected, rel=1e-9, abs=1e-11)
    if metric == "logit-diff":
        assert full.faithfulness == pytest.approx(1.0)
        assert empty.faithfulness == pytest.approx(0.0, abs=1e-12)


def test_the_whole_graph_gives_the_clean_metric_in_single_precision(engine):
    model, _ = engine("float32")
    dataset = random_dataset(6, seed=9)
    full, empty = evaluate_many(model, [whole(model.graph), nothing(model.graph)], dataset)
    assert full.values == pytest.approx(full.baselines.clean, rel=1e-4, abs=1e-4)
    assert empty.values == pytest.approx(empty.baselines.corrupted, rel=1e-5, abs=1e-5)


def test_values_do_not_depend_on_batches_nor_on_the_circuits_beside(engine):
    model, _ = engine()
    dataset = random_dataset(7, seed=10)
    circuits = [random_circuit(model.graph, d, 3) for d in (0.2, 0.6)]
    together = evaluate_many(model, circuits, dataset)
    small = evaluate_many(model, circuits, dataset, memory_budget=ONE_AT_A_TIME)
    for circuit, one, other in zip(circuits, together, small, strict=True):
        alone = evaluate(model, circuit, dataset)
        assert alone.values == pytest.approx(one.values, rel=1e-12, abs=1e-14)
        assert other.values == pytest.approx(one.values, rel=1e-11, abs=1e-13)


def test_the_interval_of_faithfulness_is_that_of_its_values(engine):
    model, _ = engine()
    found = evaluate(model, random_circuit(model.graph, 0.8, 3), random_dataset(9, seed=1))
    bootstrap = Bootstrap(n_resamples=50, confidence=0.5, seed=2)
    runs = found.baselines
    expected = bootstrap_faithfulness(found.values, runs.clean, runs.corrupted, bootstrap)
    assert expected is not None
    assert found.faithfulness_interval(bootstrap) == expected
    assert expected.estimate == pytest.approx(found.faithfulness)


def test_circuits_may_come_from_a_generator(engine):
    model, _ = engine()
    dataset, circuit = random_dataset(3, seed=10), random_circuit(model.graph, 0.6, 3)
    found = evaluate_many(model, (one for one in (circuit, circuit)), dataset)
    assert len(found) == 2
    assert found[1].values == pytest.approx(evaluate(model, circuit, dataset).values, rel=1e-12)


def test_circuits_side_by_side_fit_the_memory_budget_in_groups(engine):
    """However many fit together, each has the values it has alone."""
    model, _ = engine()
    dataset = random_dataset(2, lengths=(7,), seed=10)
    circuits = [random_circuit(model.graph, d, 3) for d in (0.1, 0.2, 0.4, 0.6, 0.9)]
    alone = [evaluate(model, one, dataset).values for one in circuits]
    for budget in (1, 300_000, 500_000, 1 << 30):
        found = evaluate_many(model, circuits, dataset, memory_budget=budget)
        for one, expected in zip(found, alone, strict=True):
            assert one.values == pytest.approx(expected, rel=1e-11, abs=1e-13)


def test_values_keep_the_order_of_the_dataset(engine):
    model, _ = engine()
    dataset = random_dataset(6, seed=11)
    backwards = replace(dataset, examples=dataset.examples[::-1])
    circuit = random_circuit(model.graph, 0.5, 4)
    forwards = evaluate(model, circuit, dataset)
    reverse = evaluate(model, circuit, backwards)
    assert reverse.values == pytest.approx(forwards.values[::-1], rel=1e-12)
    for i in (0, 3):
        one = evaluate(model, circuit, dataset[i : i + 1])
        assert one.values[0] == pytest.approx(forwards.values[i], rel=1e-11)
        assert np.isnan(one.standard_error)


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(density=st.floats(0.02, 0.5), seed=st.integers(0, 10_000))
def test_pruning_changes_no_value_under_patching(engine, density, seed):
    model, _ = engine()
    dataset = random_dataset(3, seed=seed)
    circuit = random_circuit(model.graph, density, seed)
    found, pruned = evaluate_many(model, [circuit, circuit.prune()], dataset)
    assert pruned.values == pytest.approx(found.values, rel=1e-10, abs=1e-12)


def test_evaluation_leaves_the_circuit_and_the_model_unchanged(engine):
    model, _ = engine()
    dataset = random_dataset(3)
    circuit = random_circuit(model.graph, 0.1, 5)  # has dead ends
    before = circuit.mask.copy()
    assert circuit.prune() != circuit
    scores = attribute(model, dataset, "EAP").matrix
    first = evaluate(model, circuit, dataset).values
    assert (circuit.mask == before).all()
    assert (attribute(model, dataset, "EAP").matrix == scores).all()
    assert (evaluate(model, circuit, dataset).values == first).all()


def test_one_edge_taken_from_the_whole_graph_is_the_effect_of_that_edge(engine):
    """Only that edge is corrupted: the reader's other inputs flow as they do in the clean run."""
    model, directory = engine()
    dataset = random_dataset(3, seed=12)
    mask = model.graph.edge_mask.copy()
    u, v = model.graph.writers.index("m0"), model.graph.readers.index("a1.h1<k>")
    mask[u, v] = False
    found = evaluate(model, Circuit(model.graph, mask), dataset).values
    expected = oracle_evaluate(transformers_model(directory), mask, dataset, "logit-diff")
    assert found == pytest.approx(expected, rel=1e-10)
    assert np.abs(found - baselines(model, dataset).clean).max() > 1e-4


def test_faithfulness_is_undefined_where_nothing_was_corrupted(engine):
    model, _ = engine()
    dataset = random_dataset(3)
    same = replace(
        dataset, examples=tuple(replace(e, corrupted_tokens=e.clean_tokens) for e in dataset)
    )
    result = evaluate(model, random_circuit(model.graph, 0.3, 6), same)
    assert result.faithfulness is None
    assert result.values == pytest.approx(result.baselines.clean, rel=1e-12)


def test_a_circuit_of_another_graph_is_refused(engine):
    model, _ = engine()
    other = whole(Graph(3, 3))
    with pytest.raises(EvaluationError, match="3 layers"):
        evaluate(model, other, random_dataset(2))


def test_an_unknown_metric_is_answered_with_the_nearest(engine):
    model, _ = engine()
    with pytest.raises(ValueError, match="'accuracy'"):
        evaluate(model, whole(model.graph), random_dataset(2), metric="acuracy")


def test_an_empty_dataset_is_refused(engine):
    model, _ = engine()
    with pytest.raises(ValueError, match="example"):
        evaluate(model, whole(model.graph), replace(random_dataset(1), examples=()))


@pytest.mark.parametrize("memory_budget", [ONE_AT_A_TIME, 2 << 30])
def test_nan_in_the_metric_names_the_example(engine, memory_budget):
    plain = get_metric("logit-diff")

    def function(logits, answers, reference):
        values = plain.function(logits, answers, None)
        return torch.where(answers.correct[:, 0] == 41, torch.nan, values)

    model, _ = engine()
    examples = [replace(e, correct=(40,), incorrect=(39,)) for e in random_dataset(5, seed=13)]
    examples[3] = replace(examples[3], correct=(41,))
    dataset = replace(random_dataset(1), examples=tuple(examples))
    with pytest.raises(EvaluationError, match=r"sometimes-nan.*example 3\b"):
        evaluate(
            model,
            whole(model.graph),
            dataset,
            Metric("sometimes-nan", function),
            memory_budget=memory_budget,
        )
