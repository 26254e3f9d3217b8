"""One example of many overflows or is NaN: it is named, by every method and measure."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from circuits import Circuit, CircuitError, attribute, evaluate, load_model, mean_activations
from circuits.completeness import completeness
from circuits.minimality import minimality
from circuits.stability import stability
from tasks import Metric
from tests.checkpoints import change_parameters, random_dataset, random_example, tiny, tiny_gpt2

BAD = 3  # the example that is at fault
PLACE = 26  # beyond what a model is tried with when it is loaded
LOUD = 38  # a word that is not in what a model is tried with either
LARGE = 1 << 30
CALM = {"steps": 2, "quadrature": "midpoint"}
METHODS = [
    *[("EAP", level, {}) for level in ("edge", "node", "neuron")],
    *[("EAP", level, {"intervention": "zero"}) for level in ("edge", "node")],
    ("EAP", "neuron", {"intervention": "mean"}),
    ("EAP", "edge", {"metric": "prob-diff"}),
    *[("clean-corrupted", level, {}) for level in ("edge", "neuron")],
    *[("EAP-IG-inputs", level, CALM) for level in ("edge", "node", "neuron")],
    ("EAP-IG-inputs", "edge", CALM | {"metric": "kl"}),
    *[("EAP-IG-activations", level, CALM) for level in ("edge", "node", "neuron")],
    ("EAP-IG-activations", "edge", CALM | {"scope": "all"}),
    *[("information-flow-routes", level, {}) for level in ("edge", "node")],
    ("exact", "edge", {"metric": "accuracy", "edges": ["input->m0", "a0.h1->a1.h0<k>"]}),
    ("exact", "node", {"metric": "accuracy"}),
    ("exact", "node", {"intervention": "mean", "metric": "kl"}),
    ("exact", "neuron", {"nodes": ["a0.h1"]}),
]


SOUND = random_dataset(6, n_words=30, seed=4)  # without the loud word


def dataset_with(bad):
    """Short prompts, and at `BAD` the one that `bad` makes."""
    examples = list(SOUND.examples)
    examples[BAD] = bad(random.Random(0))
    return replace(SOUND, examples=tuple(examples))


LONG = dataset_with(lambda rng: random_example(rng, PLACE + 2, 3))


@pytest.fixture(scope="module")
def nan_place(tmp_path_factory):
    """A GPT-2 with a NaN among the weights of one position: only long prompts meet it."""
    directory = tiny_gpt2(tmp_path_factory.mktemp("nan") / "model", dtype=torch.float32)

    def change(name, tensor):
        if name.endswith("wpe.weight"):
            tensor[PLACE, 5] = torch.nan
        return tensor

    change_parameters(directory, change)
    return load_model(directory, "cpu")


@pytest.mark.parametrize("budget", [LARGE, 1])
@pytest.mark.parametrize(("method", "level", "options"), METHODS)
def test_scores_name_the_example(method, level, options, budget, nan_place):
    """The long prompt and not the short ones, which stand beside it in a batch."""
    how = {"level": level, "memory_budget": budget, **options}
    if options.get("intervention") == "mean":
        how["intervention_dataset"] = SOUND
    attribute(nan_place, SOUND, method, **how)
    with pytest.raises(CircuitError, match=rf"example {BAD}\b"):
        attribute(nan_place, LONG, method, **how)


@pytest.mark.parametrize("budget", [LARGE, 1])
@pytest.mark.parametrize("intervention", ["patching", "zero", "mean"])
@pytest.mark.parametrize("metric", ["logit-diff", "accuracy", "prob-diff", "kl"])
def test_evaluations_name_the_example(metric, intervention, budget, nan_place):
    graph = nan_place.graph
    circuit = Circuit(graph, graph.edge_mask)
    how = {"intervention": intervention, "memory_budget": budget}
    if intervention == "mean":
        how["intervention_dataset"] = SOUND
    evaluate(nan_place, circuit, SOUND, metric, **how)
    with pytest.raises(CircuitError, match=rf"of the clean run is nan for example {BAD}\b"):
        evaluate(nan_place, circuit, LONG, metric, **how)


@pytest.mark.parametrize("budget", [LARGE, 1])
@pytest.mark.parametrize("kind", ["mean", "mean-positional"])
def test_means_name_the_example(kind, budget, nan_place):
    long = LONG if kind == "mean" else LONG[BAD : BAD + 1]
    with pytest.raises(
        CircuitError,
        match=rf"example {0 if kind != 'mean' else BAD} that means are taken over has "
        r"activations that are not finite: they overflow or are NaN in float32",
    ):
        mean_activations(nan_place, long, kind, memory_budget=budget)
    assert mean_activations(nan_place, SOUND).n_positions == sum(e.length for e in SOUND)


def test_what_is_asked_of_circuits_names_the_example(nan_place):
    edges = ["input->a0.h0<q>", "a0.h0->m1", "m1->logits"]
    circuit = Circuit.from_edges(nan_place.graph, edges)
    for ask in (
        lambda data: minimality(nan_place, circuit, data, "accuracy"),
        lambda data: completeness(nan_place, circuit, data, "accuracy", subsets=2),
        lambda data: stability(nan_place, data, "information-flow-routes", size=5, resamples=3),
    ):
        ask(SOUND)
        with pytest.raises(CircuitError, match=rf"example {BAD}\b"):
            ask(LONG)


# --- half precision


@pytest.fixture(scope="module")
def loud_word(tmp_path_factory):
    """`loud_word(dtype)`: a GPT-2 whose word `LOUD` at place 2 is more than float16 holds."""
    directory = tmp_path_factory.mktemp("loud") / "model"
    tiny_gpt2(directory, dtype=torch.float32, tied=False)

    def change(name, tensor):
        if name.endswith("wte.weight"):
            tensor[LOUD, 5] = 4e4
        if name.endswith("wpe.weight"):
            tensor[2, 5] = 4e4
        return tensor

    change_parameters(directory, change)
    return lambda dtype: load_model(directory, "cpu", dtype)


def with_word(rng):
    """The clean prompt has the loud word, at the place where it is too loud."""
    example = random_example(rng, 6, 1)
    tokens = (*example.clean_tokens[:2], LOUD, *example.clean_tokens[3:])
    return replace(example, clean_tokens=tokens)


@pytest.mark.parametrize(
    "method", ["EAP", "EAP-IG-activations", "information-flow-routes", "exact"]
)
def test_an_overflow_of_half_precision_names_the_example(method, loud_word):
    """The same in float32 is no overflow."""
    dataset = dataset_with(with_word)
    level = "node" if method == "exact" else "edge"
    attribute(loud_word("float32"), dataset, method, level=level)
    half = loud_word("float16")
    attribute(half, SOUND, method, level=level)
    with pytest.raises(CircuitError, match=rf"example {BAD}\b"):
        attribute(half, dataset, method, level=level)


def test_an_overflow_of_half_precision_fails_evaluations_and_means(loud_word):
    dataset, half = dataset_with(with_word), loud_word("float16")
    circuit = Circuit(half.graph, half.graph.edge_mask)
    with pytest.raises(CircuitError, match=rf"the clean run is nan for example {BAD}\b"):
        evaluate(half, circuit, dataset)
    with pytest.raises(CircuitError, match=rf"example {BAD} .* not finite.* in float16"):
        mean_activations(half, dataset)


def test_an_overflow_of_gradients_alone_names_the_example(engine):
    """The metric is finite; what flows back from it is more than float16 holds."""
    dataset = SOUND
    token = dataset[BAD].correct[0]

    def steep(logits, answers, reference):
        factor = torch.where(answers.correct[:, 0] == token, 1e8, 1.0)
        return factor * (logits[:, 5] - logits[:, 6])

    assert [one.correct[0] for one in dataset].count(token) == 1
    model, _ = engine("float16")
    for level in ("edge", "node", "neuron"):
        with pytest.raises(
            CircuitError,
            match=rf"the scores of example {BAD} are not finite: its gradients overflow or are NaN "
            r"in float16",
        ):
            attribute(model, dataset, "EAP", level=level, metric=Metric("steep", steep))


# --- what comes of one head


def test_infinity_of_one_head_names_the_example(tmp_path):
    """One value projection overflows for one word; nothing else is out of bounds."""
    directory = tiny("llama", tmp_path, tie_word_embeddings=False)

    def change(name, tensor):
        if name.endswith("embed_tokens.weight"):
            tensor[:, 0] = 0.0
            tensor[LOUD, 0] = 9.0
        if name.endswith("layers.0.self_attn.v_proj.weight"):
            tensor[0, 0] = 3e38
        return tensor

    change_parameters(directory, change)
    model, dataset = load_model(directory, "cpu"), dataset_with(with_word)
    for method in ("information-flow-routes", "exact"):  # gradients overflow for all examples
        attribute(model, SOUND, method, level="node")
        with pytest.raises(CircuitError, match=rf"example {BAD}\b"):
            attribute(model, dataset, method, level="node")
    circuit = Circuit.from_edges(model.graph, ["input->m0", "m0->logits"])
    with pytest.raises(CircuitError, match=rf"of the clean run is nan for example {BAD}\b"):
        evaluate(model, circuit, dataset, "accuracy")
