"""Scores of the engine against the definitions, and the identities that hold between methods."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from circuits import AttributionError, attribute, attribute_partial, load_model
from circuits.quadrature import RULES as RULES_BY_NAME
from tasks import Metric, get_metric
from tests.checkpoints import random_dataset, small_corruption, tiny_gpt2, transformers_model
from tests.oracle import Oracle
from tests.oracle import scores as definition

RULES = ("left", "right", "midpoint", "trapezoid", "gauss-legendre")
METHODS = [
    ("EAP", None, None),
    ("clean-corrupted", None, None),
    *(("EAP-IG-inputs", 3, rule) for rule in RULES),
]
BY_GRADIENTS = [*METHODS, ("EAP-IG-activations", 2, "trapezoid")]
ALL = [*BY_GRADIENTS, ("exact", None, None)]
VARIANTS = {
    "plain": {},
    "one head": {"n_heads": 1},
    "one layer": {"n_layers": 1},
    "three layers, scaled by layer": {"n_layers": 3, "scale_by_layer": True},
    "untied, gelu": {"tied": False, "activation": "gelu"},
    "relu": {"activation": "relu"},
}
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
ONE_AT_A_TIME = 1  # byte: nothing fits beside a first example


def of(method, steps, rule):
    path = {"steps": steps, "quadrature": rule}
    return {"method": method} | {name: value for name, value in path.items() if value is not None}


def oracle_scores(reference, examples, metric, method, steps=None, rule=None):
    oracle = Oracle.of(reference)
    return definition(oracle, examples, method, metric=metric, steps=steps, rule=rule)


def assert_close(found, expected, tolerance):
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("method", "steps", "rule"), ALL)
def test_scores_and_standard_errors_equal_the_oracle(engine, method, steps, rule, dtype):
    """In one padded batch of mixed lengths and mixed first differences."""
    model, directory = engine(dtype)
    dataset = random_dataset(6, seed=1)
    assert len({e.length for e in dataset}) > 1
    assert len({e.shared_prefix for e in dataset}) > 1
    scores = attribute(model, dataset, **of(method, steps, rule), metric="logit-diff")
    expected = oracle_scores(
        transformers_model(directory), dataset, "logit-diff", method, steps, rule
    )
    assert_close(scores.matrix, expected.matrix, TOLERANCE[dtype])
    # squares are summed, so a standard error keeps half the digits of a variance at worst
    assert_close(scores.standard_error, expected.standard_error, max(TOLERANCE[dtype], 1e-9))
    assert scores.matrix.dtype == np.float64
    assert scores.n_examples == 6
    assert scores.method == method
    assert scores.level == "edge"
    assert (scores.values == scores.matrix).all()


@pytest.mark.parametrize("metric", ["logit-diff", "prob-diff", "kl"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_scores_equal_the_oracle_for_every_variant_and_metric(engine, variant, metric):
    model, directory = engine("float64", **VARIANTS[variant])
    dataset = random_dataset(4, seed=2)
    reference = transformers_model(directory)
    methods = METHODS[:2] + METHODS[-1:] + ALL[-2:]
    for method, steps, rule in methods[metric == "kl" :]:  # EAP refuses a flat metric
        scores = attribute(model, dataset, **of(method, steps, rule), metric=metric)
        expected = oracle_scores(reference, dataset, metric, method, steps, rule)
        assert_close(scores.matrix, expected.matrix, 1e-10)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    n_layers=st.integers(1, 3),
    n_heads=st.sampled_from([1, 2, 3]),
    tied=st.booleans(),
    scale_by_layer=st.booleans(),
    activation=st.sampled_from(["gelu_new", "relu"]),
    seed=st.integers(0, 10_000),
    how=st.sampled_from(ALL),
    n=st.integers(1, 5),
    shared_prefix=st.sampled_from([None, 0, 1, 3]),
)
def test_scores_equal_the_oracle_on_random_models_and_data(
    tmp_path_factory,
    n_layers,
    n_heads,
    tied,
    scale_by_layer,
    activation,
    seed,
    how,
    n,
    shared_prefix,
):
    directory = tiny_gpt2(
        tmp_path_factory.mktemp("random"),
        n_layers=n_layers,
        n_heads=n_heads,
        d_model=12,
        tied=tied,
        scale_by_layer=scale_by_layer,
        activation=activation,
        seed=seed,
    )
    dataset = random_dataset(n, lengths=(2, 4, 6, 7), shared_prefix=shared_prefix, seed=seed)
    scores = attribute(load_model(directory, "cpu", "float64"), dataset, **of(*how))
    expected = oracle_scores(transformers_model(directory), dataset, "logit-diff", *how)
    assert_close(scores.matrix, expected.matrix, 1e-10)


@pytest.mark.parametrize("shared_prefix", [None, 0, 1, 4])
def test_suffix_alone_gives_the_scores_of_the_whole_prompt(engine, shared_prefix):
    model, _ = engine()
    dataset = random_dataset(5, lengths=(6, 8, 9), shared_prefix=shared_prefix, seed=3)
    for how in (*METHODS[:3], *ALL[-2:]):
        suffix, whole = (
            attribute_partial(model, dataset.examples, **of(*how), suffix_only=suffix_only).finish()
            for suffix_only in (True, False)
        )
        assert_close(suffix.matrix, whole.matrix, 1e-11)
        assert_close(suffix.standard_error, whole.standard_error, 1e-9)


@settings(
    max_examples=5,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 10_000), how=st.sampled_from(ALL), split=st.integers(1, 6))
def test_scores_do_not_depend_on_batches_or_shards(engine, seed, how, split):
    model, _ = engine()
    examples = random_dataset(7, seed=seed).examples
    whole = attribute_partial(model, examples, **of(*how)).finish()
    alone = attribute_partial(model, examples, **of(*how), memory_budget=ONE_AT_A_TIME).finish()
    shards = (
        attribute_partial(model, examples[:split], **of(*how))
        + attribute_partial(model, examples[split:], **of(*how), first_example=split)
    ).finish()
    for other in (alone, shards):
        assert_close(other.matrix, whole.matrix, 1e-11)
        assert_close(other.standard_error, whole.standard_error, 1e-9)


def test_doubling_every_example_keeps_scores(engine):
    model, _ = engine()
    dataset = random_dataset(3, seed=4)
    twice = replace(dataset, examples=dataset.examples * 2)
    assert_close(
        attribute(model, twice, "EAP").matrix, attribute(model, dataset, "EAP").matrix, 1e-12
    )


def test_the_same_call_twice_gives_the_same_bits(engine):
    model, _ = engine("float32")
    dataset = random_dataset(5)
    first, second = (attribute(model, dataset, "EAP-IG-inputs", steps=3) for _ in range(2))
    assert (first.matrix == second.matrix).all()


def test_one_right_step_is_eap(engine):
    model, _ = engine()
    dataset = random_dataset(4)
    right = attribute(model, dataset, "EAP-IG-inputs", steps=1, quadrature="right")
    assert_close(right.matrix, attribute(model, dataset, "EAP").matrix, 1e-12)


def test_one_left_step_is_eap_with_the_corrupted_gradient(engine):
    model, directory = engine()
    dataset = random_dataset(4)
    left = attribute(model, dataset, "EAP-IG-inputs", steps=1, quadrature="left")
    expected = oracle_scores(
        transformers_model(directory), dataset, "logit-diff", "corrupted-gradient EAP"
    )
    assert_close(left.matrix, expected.matrix, 1e-10)


def test_alpha_counts_from_the_corrupted_to_the_clean_embeddings(engine, monkeypatch):
    """The rules have as many points near one end as near the other: take one that has not."""
    monkeypatch.setitem(RULES_BY_NAME._entries, "quarter", lambda m: ([0.25], [1.0]))
    model, directory = engine()
    dataset = random_dataset(4)
    found = attribute(model, dataset, "EAP-IG-inputs", steps=1, quadrature="quarter")
    expected = oracle_scores(
        transformers_model(directory), dataset, "logit-diff", "gradient at a quarter"
    )
    assert_close(found.matrix, expected.matrix, 1e-10)


def test_clean_corrupted_is_the_mean_of_the_two_ends(engine):
    model, _ = engine()
    dataset = random_dataset(4)
    ends = [
        attribute(model, dataset, "EAP-IG-inputs", steps=1, quadrature=rule).matrix
        for rule in ("left", "right")
    ]
    middle = attribute(model, dataset, "clean-corrupted").matrix
    assert_close(middle, (ends[0] + ends[1]) / 2, 1e-12)


def test_all_quadrature_rules_converge_to_one_value(engine):
    model, _ = engine()
    dataset = random_dataset(2, lengths=(5,), seed=5)
    limit = attribute(model, dataset, steps=60, quadrature="gauss-legendre").matrix
    for rule, tolerance in (
        ("left", 0.05),
        ("right", 0.05),
        ("midpoint", 5e-3),
        ("trapezoid", 5e-3),
        ("gauss-legendre", 1e-3),
    ):
        errors = [
            np.abs(attribute(model, dataset, steps=m, quadrature=rule).matrix - limit).max()
            for m in (10, 40)
        ]
        assert errors[1] < errors[0], rule
        assert errors[1] <= tolerance * np.abs(limit).max(), rule


def test_eap_estimates_the_exact_effect_of_a_small_corruption(tmp_path):
    """Sign and scale: L(edge corrupted) − L(clean), so that positive edges help."""
    reference = transformers_model(tiny_gpt2(tmp_path / "first"))
    example = random_dataset(6, lengths=(6,), shared_prefix=3)[0]
    closer = small_corruption(reference, example, 1e-3)
    reference.save_pretrained(tmp_path / "close")
    tokenizer = tmp_path / "first"
    model = load_model(tmp_path / "close", "cpu", "float64", tokenizer=str(tokenizer))
    dataset = replace(random_dataset(1), examples=(closer,))
    scores = attribute(model, dataset, "EAP").matrix
    exact = oracle_scores(reference, [closer], "logit-diff", "exact").matrix
    assert_close(scores, exact, 1e-2)
    large = np.abs(exact) > 0.1 * np.abs(exact).max()
    assert (np.sign(scores[large]) == np.sign(exact[large])).all()


def test_pairs_without_a_difference_score_zero(engine):
    model, _ = engine()
    dataset = random_dataset(3)
    same = replace(
        dataset, examples=tuple(replace(e, corrupted_tokens=e.clean_tokens) for e in dataset)
    )
    for how in (*METHODS[:3], BY_GRADIENTS[-1]):
        assert (attribute(model, same, **of(*how)).matrix == 0).all()
    # a difference of two losses, each rounded
    assert np.abs(attribute(model, same, "exact").matrix).max() <= 1e-13


def test_there_is_no_score_off_the_edges(engine):
    model, _ = engine()
    scores = attribute(model, random_dataset(3), "EAP")
    assert (scores.matrix[~model.graph.edge_mask] == 0).all()
    assert (scores.matrix[model.graph.edge_mask] != 0).mean() > 0.95
    table = scores.to_pandas()
    assert len(table) == model.graph.n_edges
    row = table.iloc[17]
    u, v = model.graph.writers.index(row.writer), model.graph.readers.index(row.reader)
    assert row.score == scores.matrix[u, v]


def test_standard_error_of_one_example_is_nan(engine):
    model, _ = engine()
    scores = attribute(model, random_dataset(1), "EAP")
    assert np.isnan(scores.standard_error[model.graph.edge_mask]).all()


@pytest.mark.parametrize("how", [*METHODS[:3], *ALL[-2:]])
def test_bfloat16_is_no_worse_than_the_definition_in_bfloat16(engine, how):
    """Relative L2 error against float64: at most twice that of the oracle in bfloat16."""
    model, directory = engine("bfloat16")
    dataset = random_dataset(8, seed=6)
    truth = oracle_scores(transformers_model(directory), dataset, "logit-diff", *how).matrix
    plain = transformers_model(directory, torch.bfloat16)
    baseline = oracle_scores(plain, dataset, "logit-diff", *how).matrix
    found = attribute(model, dataset, **of(*how)).matrix
    assert np.linalg.norm(found - truth) <= 2 * np.linalg.norm(baseline - truth)


def test_attribution_leaves_the_model_as_it_was(engine):
    model, _ = engine()
    dataset = random_dataset(3)
    before = attribute(model, dataset, "EAP").matrix
    attribute(model, dataset, "EAP-IG-inputs", steps=2)
    assert not any(p.requires_grad or p.grad is not None for p in model.bridge.parameters())
    assert not any(hook.fwd_hooks or hook.bwd_hooks for hook in model.bridge.hook_dict.values())
    assert (attribute(model, dataset, "EAP").matrix == before).all()


def test_accuracy_is_refused_by_every_gradient_method(engine):
    model, _ = engine()
    for how in (*METHODS[:3], BY_GRADIENTS[-1]):
        with pytest.raises(AttributionError, match="accuracy"):
            attribute(model, random_dataset(2), **of(*how), metric="accuracy")


def test_eap_refuses_kl_for_its_gradient_is_zero_at_the_clean_input(engine):
    model, _ = engine()
    with pytest.raises(AttributionError, match="kl"):
        attribute(model, random_dataset(2), "EAP", metric="kl")


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"method": "EPA"}, "EAP"),
        ({"method": "EAP-IG-input"}, "EAP-IG-inputs"),
        ({"metric": "logit-dif"}, "logit-diff"),
        ({"method": "EAP-IG-inputs", "quadrature": "gauss"}, "gauss-legendre"),
        ({"method": "EAP-IG-inputs", "steps": 0}, "step"),
        ({"method": "EAP-IG-inputs", "steps": 1, "quadrature": "trapezoid"}, "trapezoid"),
        ({"method": "EAP", "steps": 3}, "steps"),
        ({"method": "clean-corrupted", "quadrature": "left"}, "quadrature"),
        ({"method": "EAP-IG-inputs", "intervention": "zero"}, "zero"),
        ({"method": "EAP", "level": "atom"}, "atom"),
    ],
)
def test_what_cannot_be_asked_is_named_with_the_nearest_valid_choice(engine, request_, message):
    model, _ = engine()
    with pytest.raises(ValueError, match=message):
        attribute(model, random_dataset(2), **request_)


def test_an_empty_dataset_is_refused(engine):
    model, _ = engine()
    with pytest.raises(ValueError, match=r"example"):
        attribute(model, replace(random_dataset(1), examples=()), "EAP")


def test_a_prompt_longer_than_the_model_is_refused_with_its_example(engine):
    model, _ = engine()
    long = random_dataset(1, lengths=(33,))  # the model has 32 positions
    examples = random_dataset(2).examples + long.examples
    with pytest.raises(ValueError, match=r"example 2.*33"):
        attribute(model, replace(long, examples=examples), "EAP")


def test_a_token_outside_the_vocabulary_is_refused_with_its_example(engine):
    model, _ = engine()
    dataset = random_dataset(2)
    for field in ("clean_tokens", "correct"):
        broken = replace(dataset[1], **{field: (*getattr(dataset[1], field)[:-1], 43)})
        with pytest.raises(ValueError, match=r"example 1 .*0–42"):
            attribute(model, replace(dataset, examples=(dataset[0], broken)), "EAP")


def test_a_bad_example_of_a_shard_is_named_by_its_place_in_the_dataset(engine):
    model, _ = engine()
    examples = random_dataset(2).examples + random_dataset(1, lengths=(33,)).examples
    with pytest.raises(ValueError, match=r"example 12\b"):
        attribute_partial(model, examples, "EAP", first_example=10)


def nan_for(token, where):
    """A logit difference that is NaN for examples with this first answer at the `where` end."""
    plain = get_metric("logit-diff")

    def function(logits, answers, reference):
        values = plain.function(logits, answers, None)
        bad = answers.correct[:, 0] == token
        clean = (logits - reference).abs().amax(-1) < 1e-9
        bad = bad & (clean if where == "clean" else ~clean)
        return torch.where(bad, torch.nan, values)

    return Metric("sometimes-nan", function, needs_reference=True)


@pytest.mark.parametrize("memory_budget", [ONE_AT_A_TIME, 2 << 30])
def test_nan_in_the_metric_names_the_example_and_the_step(engine, memory_budget):
    model, _ = engine()
    dataset = random_dataset(6, seed=7)
    token = next(t for t in dataset[4].correct if all(t != e.correct[0] for e in dataset[:4]))
    marked = replace(dataset[4], correct=(token,))
    others = [replace(e, correct=(30 if token != 30 else 31,), incorrect=(32,)) for e in dataset]
    examples = (*others[:4], marked, others[5])
    for where, end in (("clean", r"α = 1\b"), ("corrupted", r"α = 0\b")):
        with pytest.raises(AttributionError, match=rf"sometimes-nan.*example 4\b.*{end}"):
            attribute(
                model,
                replace(dataset, examples=examples),
                "clean-corrupted",
                metric=nan_for(token, where),
                memory_budget=memory_budget,
            )
    with pytest.raises(AttributionError, match=r"example 14\b"):
        attribute_partial(
            model,
            examples,
            "EAP",
            metric=nan_for(token, "clean"),
            memory_budget=memory_budget,
            first_example=10,
        )
