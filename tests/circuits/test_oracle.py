"""The oracle itself against `transformers` and finite differences, before it judges anything."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests import oracle as o
from tests.checkpoints import (
    FAMILIES,
    GRAPHS,
    affine,
    random_dataset,
    tiny,
    tiny_gpt2,
    transformers_model,
)

GPT2_VARIANTS = {
    "plain": {},
    "one head": {"n_heads": 1},
    "one layer": {"n_layers": 1},
    "untied": {"tied": False},
    "scaled by layer": {"scale_by_layer": True, "n_layers": 3},
    "gelu": {"activation": "gelu"},
    "relu": {"activation": "relu"},
}
AFFINE = ("gpt2", "phi", "gemma2")
# settings of a family that its checkpoint must feel: without them the logits are others
BITING = [
    ("mistral", {"sliding_window": 32}),
    ("gemma2", {"sliding_window": 32}),
    ("gemma2", {"attn_logit_softcapping": None}),
    ("gemma2", {"final_logit_softcapping": None}),
    ("gemma2", {"query_pre_attn_scalar": 8}),
    ("gemma3", {"sliding_window": 32}),
    ("gemma3", {"layer_types": ["full_attention", "sliding_attention"]}),
    ("olmo", {"clip_qkv": None}),
    ("gpt_neox", {"use_parallel_residual": False}),
    ("gpt_neox", {"rotary_pct": 1.0}),
    ("gptj", {"rotary_dim": 8}),
    ("phi", {"partial_rotary_factor": 1.0}),
    ("llama3", {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}),
]


def last_logits(model, tokens):
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0, -1]


def relative(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("variant", GPT2_VARIANTS)
def test_logits_of_gpt2_equal_those_of_transformers(variant, tmp_path):
    """GPT-2 alone is computed in float64 throughout by transformers."""
    model = transformers_model(tiny_gpt2(tmp_path, **GPT2_VARIANTS[variant]))
    oracle = o.Oracle.of(model)
    for example in random_dataset(4):
        for tokens in (example.clean_tokens, example.corrupted_tokens):
            assert relative(oracle.logits(tokens), last_logits(model, tokens)) <= 1e-12


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_logits_equal_those_of_transformers(family, dtype, checkpoint_of):
    """Softmax, RMSNorm and rotations are in float32 there, whatever the model's dtype."""
    model = transformers_model(checkpoint_of(family), getattr(torch, dtype))
    oracles = [o.Oracle.of(model, kv) for kv in ("ungrouped", "grouped")]
    for example in random_dataset(4):
        for tokens in (example.clean_tokens, example.corrupted_tokens):
            expected = last_logits(model, tokens)
            for oracle in oracles:
                assert oracle.logits(tokens).dtype == expected.dtype
                assert relative(oracle.logits(tokens), expected) <= 1e-5


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_no_worse_than_that_of_transformers(
    family, dtype, oracle_of, checkpoint_of
):
    """A sloppy oracle would excuse a sloppy engine."""
    truth, half = oracle_of(family), oracle_of(family, dtype=dtype)
    model = transformers_model(checkpoint_of(family), getattr(torch, dtype))
    errors = {"oracle": 0.0, "transformers": 0.0}
    for example in random_dataset(12, seed=3):
        tokens = example.clean_tokens
        expected = truth.logits(tokens)
        errors["oracle"] += float((half.logits(tokens) - expected).square().sum())
        errors["transformers"] += float((last_logits(model, tokens) - expected).square().sum())
    assert errors["oracle"] <= 1.3**2 * errors["transformers"]


@pytest.mark.parametrize(("family", "settings"), BITING)
def test_checkpoints_feel_every_setting_of_their_family(family, settings, tmp_path, checkpoint_of):
    model = transformers_model(checkpoint_of(family))
    other = transformers_model(tiny(family, tmp_path, **settings))
    tokens = random_dataset(1, lengths=(9,))[0].clean_tokens
    assert relative(last_logits(other, tokens), last_logits(model, tokens)) > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_equal_finite_differences(family, oracle_of):
    """At readers, with every component flowing and with one held."""
    oracle = oracle_of(family)
    example = next(e for e in random_dataset(8) if e.length > 4)
    embedding = oracle.embed(example.clean_tokens)
    generator = torch.Generator().manual_seed(0)
    elsewhere = replace(example, clean_tokens=example.corrupted_tokens)  # KL: off its minimum
    held = (2, torch.randn(embedding.shape, generator=generator, dtype=torch.float64))  # m0
    for metric, hold in (("logit-diff", None), ("prob-diff", None), ("kl", None), ("kl", held)):
        gradients, _ = oracle.gradients(embedding, elsewhere, metric, hold)
        reference = oracle.logits(elsewhere.clean_tokens)
        for reader in range(len(oracle.readers)):
            direction = torch.randn(embedding.shape, generator=generator, dtype=torch.float64)

            def loss(step, reader=reader, direction=direction, how=(metric, hold, reference)):
                metric, hold, reference = how

                def read(columns, values):
                    contributions = oracle.contributions(values)
                    if hold is not None and len(contributions) > hold[0]:
                        contributions[hold[0]] = hold[1]
                    n_readers = columns.stop - columns.start
                    streams = torch.stack([oracle.total(contributions)] * n_readers)
                    if columns.start <= reader < columns.stop:
                        streams[reader - columns.start] += step * direction
                    return streams

                logits = oracle.run(embedding, read).logits
                return float(o._loss(metric, logits, elsewhere, reference))

            h = 1e-5
            finite = (loss(h) - loss(-h)) / (2 * h)
            exact = float((gradients[reader] * direction).sum())
            assert finite == pytest.approx(exact, rel=1e-5, abs=1e-8), (metric, reader)


def test_the_graph_of_gpt2_small_has_the_published_counts():
    assert len(o.writer_names(12, 12)) == 157
    assert len(o.reader_names(12, 12)) == 445
    assert len(o.edge_names(12, 12)) == 32_491


def test_grouped_graphs_have_a_key_and_a_value_reader_for_every_key_value_head(oracle_of):
    grouped, ungrouped = oracle_of("llama", kv="grouped"), oracle_of("llama")
    assert grouped.readers[:9] == [
        *(f"a0.h{i}<q>" for i in range(4)),
        *("a0.kv0<k>", "a0.kv1<k>", "a0.kv0<v>", "a0.kv1<v>"),
        "m0",
    ]
    assert (len(grouped.readers), len(ungrouped.readers)) == (2 * 9 + 1, 2 * 13 + 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_random_checkpoints_are_far_from_linear(family, oracle_of, checkpoint_of):
    """Attention is sharp, and scores at the clean and at the corrupted end differ much."""
    oracle = oracle_of(family)
    examples = random_dataset(3)
    clean = o.scores(oracle, examples, "EAP").values
    corrupted = o.scores(oracle, examples, "corrupted-gradient EAP").values
    assert np.linalg.norm(clean - corrupted) > 0.2 * np.linalg.norm(clean)
    model = transformers_model(checkpoint_of(family))
    patterns = model(torch.tensor([examples[0].clean_tokens]), output_attentions=True).attentions
    largest = torch.stack([p[0, :, -1].max(-1).values for p in patterns])
    assert largest.mean() > 0.4


@pytest.mark.parametrize("family", FAMILIES)
def test_a_full_mask_gives_the_clean_metric_and_an_empty_one_the_corrupted(family, oracle_of):
    oracle = oracle_of(family)
    examples = random_dataset(3)
    for full, side in ((True, "clean_tokens"), (False, "corrupted_tokens")):
        mask = np.full(oracle.edges.shape, full)
        for neurons in (None, np.full((len(oracle.writers), oracle.d_model), True)):
            values = o.evaluate(oracle, mask, examples, "logit-diff", neurons=neurons)
            for value, example in zip(values, examples, strict=True):
                logits = oracle.logits(getattr(example, side))
                expected = o.logit_diff(logits, example.correct, example.incorrect, logits)
                assert value == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize(("family", "kv"), GRAPHS)
def test_gradients_estimate_the_exact_effect_of_a_small_change(family, kv, oracle_of):
    """At every level, post-norms included: the estimate is exact to first order."""
    oracle = oracle_of(family, kv=kv)
    example = random_dataset(6, lengths=(6,), shared_prefix=3)[0]
    clean = oracle.whole_run(example.clean_tokens).values
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1), dtype=clean.dtype)
    nearby = clean + 1e-5 * noise
    at_clean = ((1.0, 1.0),)
    for level in ("edge", "node", "neuron"):
        exact = o._exact(oracle, example, nearby, "logit-diff", level)
        for per_component in (False, True):
            estimate = o._by_gradients(
                oracle, example, nearby, "logit-diff", level, at_clean, per_component, "component"
            )
            assert np.abs(exact).max() > 0
            assert np.abs(estimate - exact).max() <= 1e-3 * np.abs(exact).max(), level


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["EAP", "clean-corrupted", "EAP-IG-inputs"])
def test_node_scores_are_sums_of_outgoing_edges_and_of_neurons(family, method, oracle_of):
    oracle = oracle_of(family)
    how = {"method": method, "steps": 2, "rule": "left"}
    edge, node, neuron = (
        o.scores(oracle, random_dataset(2), level=level, **how).values
        for level in ("edge", "node", "neuron")
    )
    assert edge.sum(1) == pytest.approx(node, rel=1e-10, abs=1e-12)
    assert neuron.sum(1) == pytest.approx(node, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("family", ["gpt2", "olmo2", "gemma2", "phi"])
@pytest.mark.parametrize("intervention", ["patching", "mean"])
def test_integrated_gradients_add_up_to_the_exact_effect_of_a_component(
    family, intervention, oracle_of
):
    """In the limit of many points; the embedding's and the MLPs' one writer is the component."""
    oracle = oracle_of(family)
    examples = random_dataset(2, lengths=(5, 6))
    how = {"level": "node", "intervention": intervention}
    exact = o.scores(oracle, examples, "exact", **how).values
    limit = {"steps": 200, "rule": "gauss-legendre"}
    activations = o.scores(oracle, examples, "EAP-IG-activations", **how, **limit).values
    alone = [oracle.writers.index(name) for name in ("input", "m0", "m1")]
    assert activations[alone] == pytest.approx(exact[alone], rel=1e-4, abs=1e-5)
    if intervention == "patching":
        inputs = o.scores(oracle, examples, "EAP-IG-inputs", level="node", **limit).values
        assert inputs[0] == pytest.approx(exact[0], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_information_flow_shares_add_up_to_one_at_every_reader(family, oracle_of):
    """Where any writer is near: GPT-J's checkpoint has a position at which none is."""
    oracle = oracle_of(family)
    shares = o.scores(oracle, random_dataset(3), "information-flow-routes").values
    assert (shares >= 0).all()
    assert (shares[~oracle.edges] == 0).all()
    assert (shares.sum(0) <= 1 + 1e-12).all()
    assert (np.abs(shares.sum(0) - 1) < 1e-12).mean() > (0.5 if family == "gptj" else 0.99)


@pytest.mark.parametrize("family", AFFINE)
def test_eap_is_exact_on_affine_models(family, tmp_path):
    oracle = o.Oracle.of(transformers_model(affine(family, tmp_path)))
    examples = random_dataset(2)
    for intervention in ("patching", "zero", "mean"):
        for level in ("edge", "node", "neuron"):
            how = {"level": level, "intervention": intervention}
            exact = o.scores(oracle, examples, "exact", **how).values
            estimate = o.scores(oracle, examples, "EAP", **how).values
            assert np.abs(estimate - exact).max() <= 1e-9 * np.abs(exact).max()
            assert np.count_nonzero(np.abs(exact) > 1e-6 * np.abs(exact).max()) > 8
