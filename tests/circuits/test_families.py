"""Every family against the definitions: logits, scores of every method, circuits.

Tolerances are relative to the largest number: in float64 what rounding leaves, in float32 1e-5 as
far as the model itself is conditioned for it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from circuits import Circuit, attribute, evaluate_many
from tests import oracle as o
from tests.checkpoints import FAMILIES, GRAPHS, random_dataset, transformers_model

MIXED = random_dataset(3, seed=2)  # lengths and first differences
LEVEL_LENGTH = random_dataset(3, lengths=(6,), seed=2)  # what mean-positional takes
ELSEWHERE = random_dataset(4, lengths=(3, 8), seed=21)  # another dataset, to take means over
ELSEWHERE_LEVEL = random_dataset(4, lengths=(6,), seed=21)
SOME_NODES = ("input", "a0.h1", "m0", "a1.h2", "m1")

LEVELS = ("edge", "node", "neuron")
PATCHING = ("patching",)
# name: method, its options, levels, interventions
CASES = {
    "EAP": ("EAP", {}, LEVELS, o.INTERVENTIONS),
    "clean-corrupted": ("clean-corrupted", {}, LEVELS, PATCHING),
    "EAP-IG-inputs": (
        "EAP-IG-inputs",
        {"steps": 3, "quadrature": "trapezoid"},
        LEVELS,
        PATCHING,
    ),
    "EAP-IG-activations": (
        "EAP-IG-activations",
        {"steps": 2, "quadrature": "left"},
        LEVELS,
        o.INTERVENTIONS,
    ),
    "EAP-IG-activations, all": (
        "EAP-IG-activations",
        {"steps": 2, "quadrature": "gauss-legendre", "scope": "all"},
        LEVELS,
        o.INTERVENTIONS,
    ),
    "information-flow-routes": ("information-flow-routes", {}, ("edge", "node"), (None,)),
    "exact": ("exact", {}, LEVELS, o.INTERVENTIONS),
}
EXACT_LIMIT = 1e-9


def test_the_datasets_mix_what_batches_must_bear():
    assert len({e.length for e in MIXED}) == 3
    assert len({e.shared_prefix for e in MIXED}) > 1
    assert any(e.shared_prefix > 0 for e in MIXED)


def data_for(intervention):
    return LEVEL_LENGTH if intervention == "mean-positional" else MIXED


def engine_scores(model, method, options, level, intervention, metric="logit-diff", **more):
    settings = dict(options) | more
    if intervention is not None and intervention != "patching":
        settings["intervention"] = intervention
    if method == "exact" and level == "neuron":
        settings["nodes"] = SOME_NODES
    if method != "information-flow-routes":
        settings["metric"] = metric
    return attribute(model, data_for(intervention), method, level=level, **settings)


def oracle_scores(oracle, method, options, level, intervention, metric="logit-diff", **more):
    settings = {{"quadrature": "rule"}.get(k, k): v for k, v in options.items()}
    return o.scores(
        oracle,
        data_for(intervention),
        method,
        level=level,
        intervention=intervention or "patching",
        metric=metric,
        **settings,
        **more,
    )


def differences(found, expected):
    """The largest difference of scores and of standard errors, relative to the largest of each.

    Infinite where something is scored that was not asked for, or is not that should be.
    """
    scored = ~np.isnan(found.values)
    wanted = np.ones_like(scored)
    if found.method == "exact" and found.level == "neuron":
        writers = found.graph.writers
        wanted[[w not in SOME_NODES for w in writers]] = False
    if found.values.shape != expected.values.shape or (scored != wanted).any():
        return np.inf, np.inf
    largest = [np.abs(table[wanted]).max() for table in (expected.values, expected.standard_error)]
    return (
        np.abs(found.values - expected.values)[wanted].max() / largest[0],
        np.abs(found.standard_error - expected.standard_error)[wanted].max() / largest[1],
    )


@pytest.mark.parametrize(("family", "kv"), GRAPHS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_logits_equal_those_of_transformers(family, kv, dtype, model_of, checkpoint_of):
    model = model_of(family, kv, dtype)
    reference = transformers_model(checkpoint_of(family), getattr(torch, dtype))
    for example in MIXED:
        tokens = torch.tensor([example.clean_tokens])
        with torch.no_grad():
            expected, found = reference(tokens).logits, model.bridge(tokens)
        assert found.dtype == getattr(torch, dtype)
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(("family", "kv"), GRAPHS)
def test_the_graph_is_that_of_the_definitions(family, kv, model_of, oracle_of):
    model, oracle = model_of(family, kv), oracle_of(family, kv)
    assert list(model.graph.writers) == oracle.writers
    assert list(model.graph.readers) == oracle.readers
    assert (model.graph.edge_mask == oracle.edges).all()
    architecture = model.architecture
    assert architecture.parallel == oracle.parts.parallel
    assert (architecture.n_heads, architecture.n_kv_heads) == (oracle.n_heads, oracle.n_kv_heads)
    assert (architecture.d_model, architecture.d_vocab) == (oracle.d_model, 43)
    assert architecture.n_layers == 2


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("family", "kv"), GRAPHS)
def test_scores_equal_the_oracle(family, kv, case, model_of, oracle_of):
    """At every level, under every intervention, in one padded batch; standard errors too.

    Grouped graphs at edge level: the other levels know no readers.
    """
    model, oracle = model_of(family, kv), oracle_of(family, kv)
    method, options, levels, interventions = CASES[case]
    levels = levels if kv == "ungrouped" else ("edge",)
    wrong = []
    for level in levels:
        for intervention in interventions:
            found = engine_scores(model, method, options, level, intervention)
            expected = oracle_scores(oracle, method, options, level, intervention)
            assert (found.method, found.level, found.n_examples) == (method, level, 3)
            assert found.values.dtype == np.float64
            off, error_off = differences(found, expected)
            # squares are summed: a standard error keeps half the digits of a variance at worst
            if not (off <= EXACT_LIMIT and error_off <= 10 * EXACT_LIMIT):
                wrong.append(f"{level}, {intervention}: {off:.1e}, standard error {error_off:.1e}")
    assert wrong == []


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_with_other_metrics_and_another_intervention_dataset_equal_the_oracle(
    family, model_of, oracle_of
):
    model, oracle = model_of(family), oracle_of(family)
    wrong = []
    for case, metric, level, intervention in (
        ("EAP", "prob-diff", "edge", "mean"),
        ("EAP", "prob-diff", "neuron", "mean-positional"),
        ("EAP-IG-inputs", "kl", "edge", "patching"),
        ("EAP-IG-activations", "kl", "node", "mean"),
        ("EAP-IG-activations, all", "prob-diff", "edge", "mean-positional"),
        ("exact", "kl", "edge", "mean-positional"),
        ("exact", "prob-diff", "edge", "patching"),
    ):
        method, options, _, _ = CASES[case]
        there = {
            "mean": ELSEWHERE,
            "mean-positional": ELSEWHERE_LEVEL,
        }.get(intervention)
        found = engine_scores(
            model, method, options, level, intervention, metric, intervention_dataset=there
        )
        expected = oracle_scores(
            oracle, method, options, level, intervention, metric, intervention_examples=there
        )
        off, _ = differences(found, expected)
        if not off <= EXACT_LIMIT:
            wrong.append(f"{case}, {metric}, {level}, {intervention}: {off:.1e}")
    assert wrong == []


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_in_single_precision_equal_the_oracle(family, model_of, oracle_of):
    """To 1e-5, or to twice the error of the definitions carried out in float32."""
    model, truth, single = (
        model_of(family, dtype="float32"),
        oracle_of(family),
        oracle_of(family, dtype="float32"),
    )
    wrong = []
    for case, level, intervention in (
        ("EAP", "edge", "patching"),
        ("EAP-IG-inputs", "neuron", "patching"),
        ("EAP-IG-activations", "edge", "mean"),
        ("information-flow-routes", "edge", None),
        ("exact", "edge", "patching"),
        ("exact", "node", "mean"),
    ):
        method, options, _, _ = CASES[case]
        found = engine_scores(model, method, options, level, intervention)
        expected, plain = (
            oracle_scores(oracle, method, options, level, intervention)
            for oracle in (truth, single)
        )
        assert found.values.dtype == np.float64
        limit = max(1e-5, 2 * differences_of(plain.values, expected.values))
        off = differences_of(found.values, expected.values)
        if not off <= limit:
            wrong.append(f"{case}, {level}, {intervention}: {off:.1e}, not {limit:.1e}")
    assert wrong == []


@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_is_no_worse_than_the_definition_in_it(family, model_of, oracle_of):
    """Relative L2 error against float64: at most twice that of the oracle in the same dtype.

    Of the scores of one example; the median over examples, for the ratio of two rounding errors
    has a long tail.
    """
    truth, dataset, wrong = oracle_of(family), random_dataset(5, lengths=(4, 5, 6), seed=6), []
    alone = [replace(dataset, examples=(example,)) for example in dataset]
    for case, level, intervention in (
        ("EAP", "edge", "patching"),
        ("EAP-IG-inputs", "neuron", "patching"),
        ("EAP-IG-activations, all", "node", "mean"),
        ("information-flow-routes", "edge", None),
        ("exact", "edge", "patching"),
        ("exact", "node", "zero"),
    ):
        method, options, _, _ = CASES[case]
        settings = {{"quadrature": "rule"}.get(k, k): v for k, v in options.items()}
        how = {"level": level} | ({} if intervention is None else {"intervention": intervention})
        expected = [o.scores(truth, one, method, **how, **settings).values for one in alone]
        for dtype in ("bfloat16", "float16"):
            model, plain = model_of(family, dtype=dtype), oracle_of(family, dtype=dtype)
            ratios = []
            for one, right in zip(alone, expected, strict=True):
                found = attribute(model, one, method, **how, **options).values
                baseline = o.scores(plain, one, method, **how, **settings).values
                ratios.append(np.linalg.norm(found - right) / np.linalg.norm(baseline - right))
            if not np.median(ratios) <= 2:
                wrong.append(f"{case}, {level}, {intervention}, {dtype}: {np.median(ratios):.2f}")
    assert wrong == []


def differences_of(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("family", FAMILIES)
def test_exact_counts_the_answers_that_a_node_turns(family, model_of, oracle_of):
    """Accuracy has no gradient; some node turns some answer, or nothing is tested."""
    dataset, how = random_dataset(8, seed=3), {"level": "node", "metric": "accuracy"}
    found = attribute(model_of(family), dataset, "exact", intervention="mean", **how).values
    expected = o.scores(oracle_of(family), dataset, "exact", intervention="mean", **how).values
    assert np.count_nonzero(expected) >= 3
    assert np.abs(found - expected).max() <= 1e-12


def random_mask(graph, density, seed):
    chosen = np.random.default_rng(seed).random(graph.edge_mask.shape) < density
    return graph.edge_mask & chosen


@pytest.mark.parametrize(("family", "kv"), GRAPHS)
def test_circuits_score_as_in_the_definition(family, kv, model_of, oracle_of):
    """Of edges and of neurons, dead ends included, under every intervention and in one batch."""
    model, oracle = model_of(family, kv), oracle_of(family, kv)
    graph = model.graph
    rng = np.random.default_rng(5)
    shape = (len(graph.writers), model.architecture.d_model)
    circuits = [
        Circuit(graph, random_mask(graph, density, seed)) for seed, density in enumerate((0.2, 0.7))
    ]
    circuits += [
        Circuit(graph, random_mask(graph, density, 7), neurons=rng.random(shape) < share)
        for density, share in ((1.1, 0.5), (0.8, 0.9))
    ]
    wrong = []
    for intervention in o.INTERVENTIONS:
        for metric in ("logit-diff", "kl"):
            data = data_for(intervention)
            found = evaluate_many(model, circuits, data, metric, intervention=intervention)
            for number, (circuit, evaluation) in enumerate(zip(circuits, found, strict=True)):
                expected = o.evaluate(
                    oracle,
                    circuit.mask,
                    data,
                    metric,
                    neurons=circuit.neurons,
                    intervention=intervention,
                )
                off = np.abs(evaluation.values - expected).max() / max(1, np.abs(expected).max())
                if not off <= EXACT_LIMIT:
                    wrong.append(f"circuit {number}, {metric}, {intervention}: {off:.1e}")
    assert wrong == []


@pytest.mark.parametrize("intervention", o.INTERVENTIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_whole_graph_gives_the_clean_metric_and_the_empty_circuit_the_ablated(
    family, intervention, model_of, oracle_of
):
    model, oracle = model_of(family), oracle_of(family)
    data = data_for(intervention)
    edges = model.graph.edge_mask
    circuits = [Circuit(model.graph, edges), Circuit(model.graph, np.zeros_like(edges))]
    full, empty = evaluate_many(model, circuits, data, intervention=intervention)
    clean = [
        float(o.logit_diff(oracle.logits(e.clean_tokens), e.correct, e.incorrect, None))
        for e in data
    ]
    if intervention == "patching":
        ablated = [
            float(o.logit_diff(oracle.logits(e.corrupted_tokens), e.correct, e.incorrect, None))
            for e in data
        ]
    else:
        ablated = o.evaluate(
            oracle, np.zeros_like(edges), data, "logit-diff", intervention=intervention
        )
    assert full.values == pytest.approx(clean, rel=1e-9, abs=1e-10)
    assert empty.values == pytest.approx(ablated, rel=1e-9, abs=1e-10)
    assert full.faithfulness == pytest.approx(1.0)
    assert empty.faithfulness == pytest.approx(0.0, abs=1e-9)
