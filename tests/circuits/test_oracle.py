"""The oracle itself against `transformers` and finite differences, before it judges anything."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests import oracle
from tests.checkpoints import random_dataset, small_corruption, tiny_gpt2, transformers_model

VARIANTS = {
    "plain": {},
    "one head": {"n_heads": 1},
    "one layer": {"n_layers": 1},
    "untied": {"tied": False},
    "scaled by layer": {"scale_by_layer": True, "n_layers": 3},
    "gelu": {"activation": "gelu"},
    "relu": {"activation": "relu"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_oracle_logits_equal_those_of_transformers(variant, tmp_path):
    model = transformers_model(tiny_gpt2(tmp_path, **VARIANTS[variant]))
    for example in random_dataset(4):
        for tokens in (example.clean_tokens, example.corrupted_tokens):
            expected = model(torch.tensor([tokens])).logits[0, -1].detach()
            difference = (oracle.oracle_logits(model, tokens) - expected).abs().max()
            assert difference <= 1e-12 * expected.abs().max()


def test_oracle_gradients_equal_finite_differences(checkpoint):
    weights = oracle.Weights.of(transformers_model(checkpoint))
    example = next(e for e in random_dataset(8) if e.length > 4)
    embedding = weights.embed(example.clean_tokens)
    reference = oracle.oracle_logits(transformers_model(checkpoint), example.corrupted_tokens)
    rng = np.random.default_rng(0)
    for metric in ("logit-diff", "prob-diff", "kl"):
        gradients = oracle.reader_gradients(weights, embedding, example, metric, reference)
        for reader in ("a0.h1<q>", "a1.h0<k>", "a1.h2<v>", "m0", "m1", "logits"):
            direction = torch.tensor(rng.normal(size=embedding.shape))

            def loss(step, reader=reader, direction=direction, metric=metric):
                def stream(name, fixed, contributions):
                    whole = fixed + sum(contributions.values())
                    return whole + step * direction if name == reader else whole

                with torch.no_grad():
                    logits, _ = weights.run(embedding, stream)
                    return float(oracle._loss(logits, example, metric, reference))

            h = 1e-5
            finite = (loss(h) - loss(-h)) / (2 * h)
            exact = float((gradients[reader] * direction).sum())
            assert finite == pytest.approx(exact, rel=1e-6, abs=1e-9), (metric, reader)


def test_oracle_graph_of_gpt2_small_has_the_published_counts():
    assert len(oracle.writer_names(12, 12)) == 157
    assert len(oracle.reader_names(12, 12)) == 445
    assert len(oracle.edge_names(12, 12)) == 32_491


def test_random_checkpoints_are_far_from_linear(checkpoint):
    """Attention is sharp and scores at the clean and at the corrupted end differ much."""
    model = transformers_model(checkpoint)
    examples = random_dataset(3)
    clean = oracle.oracle_scores(model, examples, "logit-diff", "EAP").matrix
    corrupted = oracle.oracle_scores(model, examples, "logit-diff", "corrupted-gradient EAP").matrix
    assert np.linalg.norm(clean - corrupted) > 0.2 * np.linalg.norm(clean)
    tokens = torch.tensor([examples[0].clean_tokens])
    patterns = model(tokens, output_attentions=True).attentions
    largest = torch.stack([p[0, :, -1].max(-1).values for p in patterns])
    assert largest.mean() > 0.45


def test_a_full_mask_gives_the_clean_metric_and_an_empty_one_the_corrupted(checkpoint):
    model = transformers_model(checkpoint)
    examples = random_dataset(3)
    shape = (len(oracle.writer_names(2, 3)), len(oracle.reader_names(2, 3)))
    for full, side in ((True, "clean_tokens"), (False, "corrupted_tokens")):
        values = oracle.oracle_evaluate(model, np.full(shape, full), examples, "logit-diff")
        for value, example in zip(values, examples, strict=True):
            logits = model(torch.tensor([getattr(example, side)])).logits[0, -1].detach()
            expected = oracle.logit_diff(logits, example.correct, example.incorrect, logits)
            assert value == pytest.approx(float(expected), rel=1e-10)


def test_gradients_estimate_the_exact_effect_of_a_small_corruption(checkpoint):
    """Blend the corrupted embeddings towards the clean ones: EAP approaches exact in the limit."""
    model = transformers_model(checkpoint)
    example = random_dataset(6, lengths=(6,), shared_prefix=3)[0]
    closer = small_corruption(model, example, 1e-3)
    eap = oracle.oracle_scores(model, [closer], "logit-diff", "EAP").matrix
    exact = oracle.oracle_exact(model, [closer], "logit-diff")
    assert np.abs(eap - exact).max() <= 1e-2 * np.abs(exact).max()
    assert np.abs(exact).max() > 0
