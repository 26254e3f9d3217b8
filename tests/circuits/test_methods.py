"""Methods, levels and interventions: identities between them, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from circuits import (
    AttributionError,
    Circuit,
    CircuitError,
    attribute,
    attribute_partial,
    evaluate,
    evaluate_many,
    load_model,
    mean_activations,
)
from tasks import TaskError
from tests import oracle as o
from tests.checkpoints import (
    GRAPHS,
    GROUPED_FAMILIES,
    affine,
    change_parameters,
    random_dataset,
    tiny,
    transformers_model,
)

MIXED = random_dataset(4, seed=2)
LEVEL_LENGTH = random_dataset(4, lengths=(6,), seed=2)
KINDS = ("gpt2", "gptj", "llama", "olmo2", "gemma2")  # of wiring: pre-norms, parallel, post-norms
ONE_AT_A_TIME = 1  # byte
BY_GRADIENTS = {
    "EAP": {},
    "clean-corrupted": {},
    "EAP-IG-inputs": {"steps": 2, "quadrature": "midpoint"},
    "EAP-IG-activations": {"steps": 2, "quadrature": "left"},
    "EAP-IG-activations, all": {"steps": 2, "quadrature": "left", "scope": "all"},
}


def close(found, expected, tolerance):
    return np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def interventions_of(method):
    patching_alone = method in ("clean-corrupted", "EAP-IG-inputs")
    return ("patching",) if patching_alone else o.INTERVENTIONS


def data_for(intervention):
    return LEVEL_LENGTH if intervention == "mean-positional" else MIXED


# --- identities


@pytest.mark.parametrize("case", BY_GRADIENTS)
@pytest.mark.parametrize("family", KINDS)
def test_node_score_equals_sum_of_its_outgoing_edges_and_of_its_neurons(family, case, model_of):
    model, method = model_of(family), case.split(",")[0]
    for intervention in set(interventions_of(method)) & {"patching", "mean-positional"}:
        edge, node, neuron = (
            attribute(
                model,
                data_for(intervention),
                method,
                level=level,
                intervention=intervention,
                **BY_GRADIENTS[case],
            ).values
            for level in ("edge", "node", "neuron")
        )
        assert close(edge.sum(1), node, 1e-10)
        assert close(neuron.sum(1), node, 1e-10)
        assert np.count_nonzero(node) == len(model.graph.writers)


@pytest.mark.parametrize("case", BY_GRADIENTS)
@pytest.mark.parametrize("family", GROUPED_FAMILIES)
def test_grouped_edges_are_sums_of_the_ungrouped_ones(family, case, model_of):
    grouped, ungrouped = model_of(family, "grouped"), model_of(family)
    method, dataset = case.split(",")[0], random_dataset(2, seed=2)
    found, parts = (
        attribute(model, dataset, method, **BY_GRADIENTS[case]).matrix
        for model in (grouped, ungrouped)
    )
    expected = np.zeros_like(found)
    for column, reader in enumerate(ungrouped.graph.readers):
        name = reader
        if reader[-2:] in ("k>", "v>"):
            layer, rest = reader.split(".h")
            name = f"{layer}.kv{int(rest[0]) // 2}<{reader[-2]}>"
        expected[:, grouped.graph.readers.index(name)] += parts[:, column]
    assert close(found, expected, 1e-10)
    neurons = [
        attribute(model, dataset, method, level="neuron", **BY_GRADIENTS[case]).values
        for model in (grouped, ungrouped)
    ]
    assert close(*neurons, 1e-10)


@pytest.mark.parametrize("family", ["gpt2", "phi", "gemma2"])
def test_eap_equals_exact_where_the_model_is_affine(family, tmp_path):
    """Under every corruption of one edge, node or neuron, post-norms and parallel blocks too."""
    model = load_model(affine(family, tmp_path), "cpu", "float64")
    for intervention in o.INTERVENTIONS:
        for level in ("edge", "node", "neuron"):
            how = {"level": level, "intervention": intervention}
            estimate = attribute(model, data_for(intervention), "EAP", **how).values
            if level == "neuron":
                how["nodes"] = model.graph.writers
            exact = attribute(model, data_for(intervention), "exact", **how).values
            assert close(estimate, exact, 1e-8), (intervention, level)
            assert np.count_nonzero(np.abs(exact) > 1e-3 * np.abs(exact).max()) > 8


def test_integrated_gradients_of_a_component_add_up_to_its_exact_effect(model_of):
    """Of those that one writer makes up: the embedding and the MLPs."""
    model, dataset = model_of("gpt2"), random_dataset(2, lengths=(4,))
    alone = [model.graph.writers.index(name) for name in ("input", "m0", "m1")]
    for intervention in ("patching", "mean"):
        how = {"level": "node", "intervention": intervention}
        exact = attribute(model, dataset, "exact", **how).values
        integral = attribute(
            model, dataset, "EAP-IG-activations", steps=40, quadrature="gauss-legendre", **how
        ).values
        assert integral[alone] == pytest.approx(exact[alone], rel=1e-4, abs=1e-5)


def test_activations_and_inputs_agree_on_edges_out_of_the_embedding(model_of):
    """The embedding is a component: its path is that of the input embeddings."""
    model = model_of("llama")
    how = {"steps": 3, "quadrature": "left"}
    inputs = attribute(model, MIXED, "EAP-IG-inputs", **how).matrix
    activations = attribute(model, MIXED, "EAP-IG-activations", **how).matrix
    assert close(activations[0], inputs[0], 1e-10)
    assert not close(activations[1:], inputs[1:], 1e-2)


# --- batches, prefixes, parts of the work


ALL_CASES = BY_GRADIENTS | {"information-flow-routes": {}, "exact": {}}


def partial_scores(model, examples, case, intervention, level="edge", **more):
    settings = ALL_CASES[case] | more
    means = None
    if intervention in ("mean", "mean-positional"):
        dataset = replace(MIXED, examples=tuple(data_for(intervention)))
        means = mean_activations(model, dataset, intervention)
    if case != "information-flow-routes":
        settings |= {"intervention": intervention, "means": means}
    return attribute_partial(model, examples, case.split(",")[0], level=level, **settings)


@pytest.mark.parametrize("case", ALL_CASES)
@pytest.mark.parametrize("family", ["gptj", "gemma3"])
def test_scores_do_not_depend_on_batches_or_shards(family, case, model_of):
    model, method = model_of(family), case.split(",")[0]
    ways = [("patching", "edge"), ("mean", "node")]
    for intervention, level in ways if "mean" in interventions_of(method) else ways[:1]:
        examples = tuple(data_for(intervention))
        how = (case, intervention, level)
        whole = partial_scores(model, examples, *how).finish()
        alone = partial_scores(model, examples, *how, memory_budget=ONE_AT_A_TIME).finish()
        shards = (
            partial_scores(model, examples[:3], *how)
            + partial_scores(model, examples[3:], *how, first_example=3)
        ).finish()
        for other in (alone, shards):
            assert other.n_examples == 4
            assert close(other.values, whole.values, 1e-10), how
            assert close(other.standard_error, whole.standard_error, 1e-8), how


@pytest.mark.parametrize("case", ALL_CASES)
@pytest.mark.parametrize("family", ["mistral", "gptj", "gemma3"])
def test_suffix_alone_gives_the_scores_of_the_whole_prompt(family, case, model_of):
    """Windows and rotations included: positions count from the start of the prompt."""
    model = model_of(family)
    examples = random_dataset(3, lengths=(7, 8, 9), shared_prefix=5, seed=3).examples
    suffix, whole = (
        partial_scores(model, examples, case, "patching", suffix_only=only).finish()
        for only in (True, False)
    )
    assert close(suffix.values, whole.values, 1e-10)


@pytest.mark.parametrize("level", ["edge", "node"])
def test_exact_can_be_asked_for_some_units_alone(level, model_of):
    model = model_of("llama")
    whole = attribute(model, MIXED, "exact", level=level).values
    if level == "node":
        names = ("a1.h0", "m0", "input")
        found = attribute(model, MIXED, "exact", level="node", nodes=names).values
        wanted = np.isin(model.graph.writers, names)
        assert close(found[wanted], whole[wanted], 1e-12)
        assert np.isnan(found[~wanted]).all()
        return
    names = ["input->a0.h1<k>", "m0->a1.h3<v>", "a1.h2->logits", "input->logits"]
    mask = np.zeros_like(model.graph.edge_mask)
    for name in names:
        writer, reader = name.split("->")
        mask[model.graph.writers.index(writer), model.graph.readers.index(reader)] = True
    for edges in (names, mask, Circuit(model.graph, mask)):
        scores = attribute(model, MIXED, "exact", edges=edges)
        assert close(scores.matrix[mask], whole[mask], 1e-12)
        assert np.isnan(scores.matrix[model.graph.edge_mask & ~mask]).all()


def test_random_scores_are_the_seed_s_and_the_same_for_every_dataset(model_of):
    model = model_of("gpt2")
    graph, d_model = model.graph, 24
    shapes = {
        "edge": graph.n_edges,
        "node": len(graph.writers),
        "neuron": (len(graph.writers), d_model),
    }
    for level, shape in shapes.items():
        for settings, seed in (({}, 0), ({"seed": 3}, 3)):
            expected = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)
            for dataset in (MIXED, LEVEL_LENGTH):
                found = attribute(model, dataset, "random", level=level, **settings).values
                numbers = found[graph.edge_mask] if level == "edge" else found
                assert (numbers == expected).all()


def test_a_callable_metric_is_taken_as_higher_is_better(model_of, oracle_of, monkeypatch):
    def first_answer(logits, answers):
        return logits[torch.arange(len(logits)), answers.correct[:, 0]]

    def squared_change(logits, answers, clean_logits):
        return -((logits - clean_logits) ** 2).sum(-1)

    monkeypatch.setitem(o.METRICS, "first", lambda logits, c, i, clean: logits[..., c[0]])
    monkeypatch.setitem(
        o.METRICS, "change", lambda logits, c, i, clean: -((logits - clean) ** 2).sum(-1)
    )
    monkeypatch.setitem(o.HIGHER_IS_BETTER, "first", True)
    monkeypatch.setitem(o.HIGHER_IS_BETTER, "change", True)
    model, oracle = model_of("llama"), oracle_of("llama")
    for name, metric in (("first", first_answer), ("change", squared_change)):
        for method in ("EAP-IG-inputs", "exact"):
            settings = {"steps": 2, "quadrature": "left"} if method != "exact" else {}
            found = attribute(model, MIXED, method, metric=metric, **settings).matrix
            steps = {"steps": 2, "rule": "left"} if method != "exact" else {}
            expected = o.scores(oracle, MIXED, method, metric=name, **steps).matrix
            assert close(found, expected, 1e-9), (name, method)


# --- means


@pytest.mark.parametrize(
    ("family", "kv"), [graph for graph in GRAPHS if graph[0] in (*KINDS, "gemma3")]
)
def test_mean_activations_are_plain_averages_over_real_positions(family, kv, model_of, oracle_of):
    """Of all of them, not of the last alone; and every writer has a mean of its own."""
    model, oracle = model_of(family, kv), oracle_of(family, kv)
    for kind, dataset in (("mean", MIXED), ("mean-positional", LEVEL_LENGTH)):
        expected = oracle.means(dataset, kind)
        for settings in ({}, {"memory_budget": ONE_AT_A_TIME}):
            found = mean_activations(model, dataset, kind, **settings)
            assert found.kind == kind
            positions = sum(e.length for e in dataset) if kind == "mean" else len(dataset)
            assert found.n_positions == positions
            assert found.embedding.dtype == np.float64
            assert found.embedding.shape == (1 if kind == "mean" else 6, oracle.d_model)
            assert close(found.embedding, expected.embedding.numpy(), 1e-10)
            for layer in range(2):
                heads = found.heads[layer].transpose(1, 0, 2)
                assert close(heads, expected.z[layer].numpy(), 1e-10)
                assert close(found.mlps[layer], expected.mlps[layer].numpy(), 1e-10)


def test_means_are_taken_over_the_clean_inputs_of_the_intervention_dataset(model_of):
    model = model_of("llama")
    elsewhere = random_dataset(3, seed=33)
    swapped = replace(
        MIXED,
        examples=tuple(replace(e, corrupted_tokens=e.clean_tokens) for e in MIXED),
    )
    own, other, there, unpaired = (
        attribute(model, dataset, "EAP", intervention="mean", intervention_dataset=means).matrix
        for dataset, means in (
            (MIXED, None),
            (MIXED, MIXED),
            (MIXED, elsewhere),
            (swapped, None),  # what is corrupted plays no part
        )
    )
    assert (own == other).all()
    assert close(unpaired, own, 1e-12)
    assert not close(there, own, 0.05)


def test_circuits_are_run_on_given_means_as_on_those_of_a_dataset(model_of):
    model = model_of("gemma2")
    mask = model.graph.edge_mask & (np.random.default_rng(0).random((11, 27)) < 0.6)
    circuit, elsewhere = Circuit(model.graph, mask), random_dataset(3, seed=33)
    means = mean_activations(model, elsewhere, "mean")
    (given,) = evaluate_many(model, [circuit], MIXED, intervention="mean", means=means)
    taken = evaluate(model, circuit, MIXED, intervention="mean", intervention_dataset=elsewhere)
    own = evaluate(model, circuit, MIXED, intervention="mean")
    assert given.values == pytest.approx(taken.values, rel=1e-12)
    assert np.abs(own.values - taken.values).max() > 1e-3
    (unsaid,) = evaluate_many(model, [circuit], MIXED, intervention="mean")
    assert (unsaid.values == own.values).all()
    with pytest.raises(CircuitError, match="mean-positional"):
        evaluate_many(model, [circuit], MIXED, intervention="mean-positional", means=means)


def test_means_by_position_need_inputs_of_one_length(model_of):
    model = model_of("gpt2")
    lengths = sorted({e.length for e in MIXED})
    named = ", ".join(map(str, lengths[:-1])) + r".*" + str(lengths[-1])
    with pytest.raises(CircuitError, match=named):
        mean_activations(model, MIXED, "mean-positional")
    with pytest.raises(CircuitError, match=named):
        attribute(model, MIXED, "EAP", intervention="mean-positional")
    with pytest.raises(CircuitError, match=named):
        evaluate(
            model,
            Circuit(model.graph, model.graph.edge_mask),
            MIXED,
            intervention="mean-positional",
        )
    longer = random_dataset(2, lengths=(8,))
    with pytest.raises(AttributionError, match=r"6.*8|8.*6"):
        attribute(
            model,
            LEVEL_LENGTH,
            "EAP",
            intervention="mean-positional",
            intervention_dataset=longer,
        )


# --- faults that published implementations have


def test_information_flow_is_zero_and_not_nan_where_nothing_is_near(tmp_path):
    """Padding with a zero embedding, and a real position at which the whole stream is zero."""
    directory = tiny("llama", tmp_path)
    example = random_dataset(1, lengths=(9,), shared_prefix=0)[0]
    silent = example.clean_tokens[0]

    def silence(name, tensor):
        if "embed_tokens" not in name:
            return None
        changed = tensor.clone()
        changed[[0, silent]] = 0.0
        return changed

    change_parameters(directory, silence)
    dataset = replace(MIXED, examples=(example, *MIXED.examples))
    oracle = o.Oracle.of(transformers_model(directory))
    assert (oracle.whole_run(example.clean_tokens).values[:, 0] == 0).all()
    model = load_model(directory, "cpu", "float64")
    found = attribute(model, dataset, "information-flow-routes")
    expected = o.scores(oracle, dataset, "information-flow-routes")
    assert np.isfinite(found.matrix).all()
    assert close(found.matrix, expected.matrix, 1e-9)
    assert expected.matrix.sum(0).max() < 1


@pytest.mark.parametrize("family", ["gptj", "phi"])
def test_exact_in_parallel_blocks_undoes_each_corruption_before_the_next(family, model_of):
    """Asked for together or one by one, an edge has one score."""
    model = model_of(family)
    names = ["input->m0", "m0->a1.h1<q>", "a0.h0->m1", "m1->logits"]
    together = attribute(model, MIXED, "exact", edges=names).matrix
    for name in names:
        alone = attribute(model, MIXED, "exact", edges=[name]).matrix
        scored = ~np.isnan(alone) & model.graph.edge_mask
        assert scored.sum() == 1
        assert close(alone[scored], together[scored], 1e-12)


@pytest.mark.parametrize("case", ALL_CASES)
def test_models_with_one_head_are_scored(case, engine):
    model, directory = engine("float64", n_heads=1)
    oracle, method = o.Oracle.of(transformers_model(directory)), case.split(",")[0]
    settings = {{"quadrature": "rule"}.get(k, k): v for k, v in ALL_CASES[case].items()}
    for level in ("edge", "node"):
        found = attribute(model, MIXED, method, level=level, **ALL_CASES[case]).values
        expected = o.scores(oracle, MIXED, method, level=level, **settings).values
        assert close(found, expected, 1e-9)


# --- refusals

ROOT = Path(__file__).parents[2]
EDGE_OF_ANOTHER_MODEL = "input->m7"


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        *(
            (method, {"intervention": intervention}, rf"{method}.*{intervention}")
            for method in ("clean-corrupted", "EAP-IG-inputs")
            for intervention in ("zero", "mean", "mean-positional")
        ),
        ("information-flow-routes", {"intervention": "zero"}, r"information-flow-routes"),
        ("random", {"intervention": "mean"}, r"random"),
        ("information-flow-routes", {"level": "neuron"}, r"information-flow-routes.*neuron"),
        ("EAP-IG-activations", {"metric": "accuracy"}, r"accuracy"),
        ("EAP", {"metric": "accuracy", "intervention": "zero"}, r"accuracy"),
        ("exact", {"level": "neuron"}, r"nodes"),
        ("exact", {"steps": 3}, r"steps"),
        ("random", {"steps": 3}, r"steps"),
        ("EAP", {"scope": "all"}, r"scope"),
        ("EAP-IG-activations", {"scope": "al"}, r"all"),
        ("EAP", {"seed": 1}, r"seed"),
        ("EAP", {"edges": ["input->logits"]}, r"edges"),
        ("EAP", {"level": "node", "nodes": ["m0"]}, r"nodes"),
        ("exact", {"level": "node", "edges": ["input->logits"]}, r"edges"),
        ("exact", {"nodes": ["m0"]}, r"nodes"),
        ("exact", {"edges": [EDGE_OF_ANOTHER_MODEL]}, r"m7"),
        ("exact", {"edges": ["m1->a0.h0<q>"]}, r"m1->a0\.h0<q>"),
        ("exact", {"level": "node", "nodes": ["m7"]}, r"m7"),
        ("EAP", {"intervention": "zeros"}, r"zero"),
        ("EAP", {"level": "neurons"}, r"neuron"),
    ],
)
def test_what_a_method_does_not_take_is_refused_by_name(model_of, method, settings, message):
    with pytest.raises(CircuitError, match=message) as raised:
        attribute(model_of("gpt2"), MIXED, method, **settings)
    assert "\n" not in str(raised.value)


def test_a_dataset_or_means_that_would_be_ignored_are_refused(model_of):
    model, elsewhere = model_of("gpt2"), random_dataset(3, seed=33)
    circuit = Circuit(model.graph, model.graph.edge_mask)
    means = mean_activations(model, elsewhere, "mean")
    for call in (
        lambda: attribute(model, MIXED, "EAP", intervention_dataset=elsewhere),
        lambda: attribute(model, MIXED, "exact", intervention="zero", intervention_dataset=MIXED),
        lambda: attribute(model, MIXED, "random", intervention_dataset=elsewhere),
        lambda: evaluate(model, circuit, MIXED, intervention_dataset=elsewhere),
    ):
        with pytest.raises(CircuitError, match=r"intervention_dataset .*mean"):
            call()
    with pytest.raises(AttributionError, match=r"means .* nothing under zero"):
        attribute_partial(model, MIXED.examples, "EAP", intervention="zero", means=means)
    with pytest.raises(CircuitError, match=r"means .* nothing under patching"):
        evaluate_many(model, [circuit], MIXED, means=means)
    with pytest.raises(CircuitError, match="not both"):
        evaluate_many(
            model, [circuit], MIXED, intervention="mean", means=means, intervention_dataset=MIXED
        )


def test_means_of_another_model_are_refused(model_of):
    model, other = model_of("gpt2"), model_of("gptj")  # of one shape
    circuit = Circuit(model.graph, model.graph.edge_mask)
    means = mean_activations(model, MIXED, "mean")
    for wrong in (
        mean_activations(other, MIXED, "mean"),
        replace(means, heads=means.heads[:, :, :1], model=None),
        replace(means, heads=means.heads[:1], mlps=means.mlps[:1], model=None),
        replace(means, embedding=means.embedding[:, :8], mlps=means.mlps[..., :8], model=None),
    ):
        with pytest.raises(AttributionError, match="means are of another model"):
            attribute_partial(model, MIXED.examples, "EAP", intervention="mean", means=wrong)
        with pytest.raises(CircuitError, match="means are of another model"):
            evaluate_many(model, [circuit], MIXED, intervention="mean", means=wrong)


def test_a_circuit_of_another_graph_does_not_restrict_exact(model_of):
    model = model_of("gptj")
    for other in ("gpt2", "llama"):
        graph = model_of(other).graph
        with pytest.raises(AttributionError, match="another graph"):
            attribute(model, MIXED, "exact", edges=Circuit(graph, graph.edge_mask))


def test_examples_are_counted_while_scores_are_made(model_of):
    model, told = model_of("gpt2"), []

    def progress(done, total):
        told.append((done, total))

    for method, level, more in (
        ("exact", "edge", {"edges": ["input->logits", "m0->m1"]}),
        ("EAP", "node", {}),
    ):
        told.clear()
        how = {"level": level, "memory_budget": ONE_AT_A_TIME} | more
        attribute_partial(model, MIXED.examples, method, progress=progress, **how)
        assert [total for _, total in told] == [4] * len(told)
        done = [number for number, _ in told]
        assert done == sorted(done)
        assert done[-1] == 4
        if method == "exact":
            assert done[:3] == [0.5, 1.0, 1.0]


def flat(logits, answers):
    return logits.detach()[:, 0]


def whole_numbers(logits, answers):
    return logits.argmax(-1)


def with_settings(logits, answers, temperature=1.0, *, word=5):
    return (logits / temperature).log_softmax(-1)[:, word]


def needs_more(logits, answers, *, word):
    return logits[:, word]


def test_arguments_with_a_default_are_a_metric_s_own(model_of):
    model = model_of("gpt2")
    found, expected, other = (
        attribute(model, MIXED, "EAP", metric=metric).matrix
        for metric in (
            with_settings,
            lambda logits, answers: logits.log_softmax(-1)[:, 5],
            partial(with_settings, word=7),
        )
    )
    assert close(found, expected, 1e-12)
    assert not close(other, expected, 1e-2)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("EAP", {"metric": flat}, "flat"),
        ("EAP-IG-activations", {"metric": flat}, "flat"),
        ("exact", {"metric": whole_numbers}, "floating-point"),
        ("EAP", {"metric": needs_more}, r"needs_more .*\(word\)"),
        ("EAP", {"metric": lambda logits: logits}, r"\(logits, answers\)"),
        ("EAP", {"metric": max}, "max"),
        ("EAP-IG-inputs", {"metric": "kl", "steps": 1, "quadrature": "right"}, "kl.*zero"),
        ("EAP-IG-activations", {"metric": "kl", "steps": 1, "quadrature": "right"}, "kl.*zero"),
        ("information-flow-routes", {"metric": "kl"}, "information-flow-routes.*kl"),
        ("random", {"metric": "logit-diff"}, "random.*logit-diff"),
        ("random", {"seed": -1}, "seed.*-1"),
        ("EAP-IG-inputs", {"steps": True}, "steps.*True"),
        ("EAP-IG-inputs", {"steps": 0}, "steps.*0"),
        ("EAP-IG-inputs", {"steps": 5000}, "1000.*5000"),
        ("exact", {"edges": []}, "no edge"),
        ("exact", {"level": "node", "nodes": []}, "no node"),
        ("exact", {"edges": "input->logits"}, r"\['input->logits'\]"),
        ("exact", {"level": "node", "nodes": "m0"}, r"\['m0'\]"),
        ("EAP", {"memory_budget": 0}, "memory_budget.*0"),
        ("eap", {}, "'EAP'"),
    ],
)
def test_what_has_no_meaning_is_refused_in_a_sentence(model_of, method, settings, message):
    with pytest.raises((CircuitError, TaskError), match=message) as raised:
        attribute(model_of("gpt2"), MIXED, method, **settings)
    assert "\n" not in str(raised.value)


WRONG_TYPES = """
from circuits import Circuit, attribute, evaluate_many, load_model
from tests.checkpoints import random_dataset

model, dataset = load_model(DIRECTORY, "cpu"), random_dataset(2)
for call in (
    lambda: attribute(model, dataset, "random", seed=1.5),
    lambda: attribute(model, dataset, "EAP-IG-inputs", steps=2.5),
    lambda: attribute(model, dataset, "EAP-IG-inputs", steps="5"),
    lambda: attribute(model, dataset, None),
    lambda: evaluate_many(model, Circuit(model.graph, model.graph.edge_mask), dataset),
    lambda: attribute(model, dataset, "random").top_n(1.0),
    lambda: attribute(model, dataset, "random").top_n(True),
    lambda: attribute(model, dataset, "random").threshold("0.1"),
    lambda: Circuit(model.graph, model.graph.edge_mask.astype(float)),
    lambda: Circuit(model.graph, model.graph.edge_mask, neurons=model.graph.edge_mask[:, 0]),
    lambda: Circuit.from_edges(model.graph, "m0->m1"),
):
    try:
        call()
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_wrong_types_are_told_in_a_sentence(checkpoint_of):
    """In a process of its own, where annotations are not checked: as people run it."""
    script = WRONG_TYPES.replace("DIRECTORY", repr(str(checkpoint_of("gpt2"))))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True
    )
    said = done.stdout.splitlines()
    expected = [
        ("AttributionError", "seed"), ("AttributionError", "2.5"), ("AttributionError", "'5'"),
        ("AttributionError", "None"), ("EvaluationError", "list of circuits"),
        ("ExtractionError", "1.0"), ("ExtractionError", "True"), ("ExtractionError", "'0.1'"),
        ("CircuitError", "float64"), ("CircuitError", "d_model"), ("CircuitError", "['m0->m1']"),
    ]  # fmt: skip
    assert len(said) == len(expected), done.stderr
    for line, (kind, words) in zip(said, expected, strict=True):
        assert line.startswith(f"{kind} "), line
        assert words in line, line


def test_only_patching_needs_a_counterfactual(model_of):
    model = model_of("gpt2")
    clean = replace(
        MIXED, examples=tuple(replace(e, corrupted="", corrupted_tokens=()) for e in MIXED)
    )
    circuit = Circuit(model.graph, model.graph.edge_mask)
    for method, intervention in (
        ("EAP", "zero"),
        ("EAP-IG-activations", "mean"),
        ("exact", "zero"),
        ("information-flow-routes", None),
        ("random", None),
    ):
        found, expected = (
            attribute(model, dataset, method, intervention=intervention).matrix
            for dataset in (clean, MIXED)
        )
        assert close(found, expected, 1e-12)
    found, expected = (
        evaluate(model, circuit, dataset, intervention="zero").values for dataset in (clean, MIXED)
    )
    assert found == pytest.approx(expected, rel=1e-12)
    some = replace(clean, examples=(MIXED[0], *clean.examples[1:]))
    for call in (
        lambda: attribute(model, some, "EAP"),
        lambda: attribute(model, some, "clean-corrupted"),
        lambda: evaluate(model, circuit, some),
    ):
        with pytest.raises(CircuitError, match=r"example 1 has no corrupted prompt.*zero or mean"):
            call()


def test_what_can_be_refused_at_once_is_not_paid_for_with_means(model_of, monkeypatch):
    model = model_of("gpt2")
    circuit = Circuit(model_of("llama").graph, model_of("llama").graph.edge_mask)

    def never(*_, **__):
        raise AssertionError("the model was run")

    monkeypatch.setattr("circuits.attribution.mean_activations", never)
    monkeypatch.setattr("circuits.evaluation.mean_activations", never)
    for call in (
        lambda: attribute(model, MIXED, "exact", intervention="mean", edges=["m7->logits"]),
        lambda: attribute(model, MIXED, "exact", intervention="mean", level="neuron"),
        lambda: attribute(model, MIXED, "EAP", intervention="mean", edges=["m0->logits"]),
        lambda: evaluate(model, circuit, MIXED, intervention="mean"),
        lambda: evaluate_many(model, [], MIXED, "nope", intervention="mean"),
    ):
        with pytest.raises((CircuitError, TaskError)):
            call()


def test_exact_takes_a_metric_without_gradient(model_of, oracle_of):
    model = model_of("gpt2")
    dataset = random_dataset(6, seed=14)
    found = attribute(model, dataset, "exact", metric="accuracy").matrix
    expected = o.scores(oracle_of("gpt2"), dataset, "exact", metric="accuracy").matrix
    assert np.abs(expected).max() > 0
    assert (found == expected).all()
