"""The models whose circuits are known: that they are what their lists say, and what methods find.

The lists are verified without any attribution method, by evaluating circuits and by taking heads
away from the weights themselves. What each method must find and must miss is worked out in the
comments; L is the loss, −logit-diff, and a score estimates L(edge corrupted) − L(clean).
"""

from __future__ import annotations

import itertools
import shutil
from functools import cache

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

import data.bundled
from circuits import (
    Circuit,
    Graph,
    ModelError,
    attribute,
    baselines,
    evaluate,
    evaluate_many,
    load_model,
    method_names,
)
from circuits.model import fingerprint, tokenizer_fingerprint
from circuits.recovery import recovery, true_circuit, truth_names
from tasks import Answers, get_metric, load_dataset
from training import truths

NAMES = truth_names()
INDUCTION, GATE, BACKUP = "truth/induction", "truth/gate", "truth/backup"
FOLLOWERS = ("EAP", "clean-corrupted", "EAP-IG-inputs", "EAP-IG-activations")  # of gradients


@cache
def model_of(name):
    return load_model(name, "cpu")


@cache
def dataset_of(name, size=24, split="train"):
    return load_dataset(name, model_of(name).tokenizer, split, size)


@cache
def truth_of(name):
    return true_circuit(name, model_of(name).graph)


@cache
def scores_of(name, method, size=24, **options):
    return attribute(model_of(name), dataset_of(name)[:size], method, **options)


@cache
def edge_scores(name, method, **options):
    """The scores by the names of their edges."""
    return dict(scores_of(name, method, **options).to_pandas().set_index("edge")["score"])


@cache
def found_by(name, method):
    return recovery(scores_of(name, method), truth_of(name))


def values_of(name, circuits):
    """The metric of each circuit [circuits, examples]."""
    found = evaluate_many(model_of(name), circuits, dataset_of(name))
    return np.stack([each.values for each in found])


def without(name, *edges):
    """The whole model without these edges."""
    graph = model_of(name).graph
    mask = graph.edge_mask & ~Circuit.from_edges(graph, edges).mask
    return Circuit(graph, mask)


# -- the files ------------------------------------------------------------------------------------


def test_the_script_writes_the_same_models_again(tmp_path):
    truths.main(tmp_path)
    for name in NAMES:
        committed, rebuilt = data.bundled.model_path(name), tmp_path / name.removeprefix("truth/")
        assert fingerprint(rebuilt) == fingerprint(name)
        assert tokenizer_fingerprint(rebuilt) == tokenizer_fingerprint(name)
        for file in ("truth.json", "README.md"):
            assert (rebuilt / file).read_bytes() == (committed / file).read_bytes()


def test_the_fingerprint_sees_one_changed_weight(tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(data.bundled.model_path(GATE), copy)
    model = GPT2LMHeadModel.from_pretrained(copy)
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.bias[0] += 1
    model.save_pretrained(copy)
    assert fingerprint(copy) != fingerprint(GATE)


@pytest.mark.parametrize("name", NAMES)
def test_the_files_are_small(name):
    assert sum(file.stat().st_size for file in data.bundled.model_path(name).iterdir()) < 110_000


def test_a_truth_that_is_not_there_is_told_with_what_is():
    with pytest.raises(ModelError, match="no model 'truth/gat' is bundled; there is bundled/behav"):
        load_model("truth/gat")
    with pytest.raises(ModelError, match="truth/backup, truth/gate, truth/induction"):
        load_model("bundled/gate")


# -- the truth, verified without attribution ------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("name", NAMES)
def test_the_model_does_its_task_without_a_fault(name, split):
    # the clean prompts' answers: all right on clean prompts, none right on corrupted ones
    dataset = dataset_of(name, 100, split)
    accuracy = baselines(model_of(name), dataset, "accuracy")
    assert accuracy.clean.min() == 1.0
    assert accuracy.corrupted.max() == 0.0
    # and no other word is more probable
    with torch.no_grad():
        logits = model_of(name).bridge(torch.tensor([e.clean_tokens for e in dataset]))[:, -1]
    assert logits.argmax(-1).tolist() == [example.correct[0] for example in dataset]


@pytest.mark.parametrize("name", NAMES)
def test_the_true_circuit_alone_is_the_whole_model(name):
    found = evaluate(model_of(name), truth_of(name), dataset_of(name))
    assert found.faithfulness == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(found.values, found.baselines.clean, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_no_other_edge_matters_whichever_true_edges_are_corrupted(name):
    # all 2ⁿ subsets of the n true edges, each alone and with half of the other edges
    graph, truth, rng = model_of(name).graph, truth_of(name), np.random.default_rng(0)
    others = graph.edge_mask & ~truth.mask
    alone, accompanied = [], []
    for kept in subsets(truth.edges):
        circuit = Circuit.from_edges(graph, kept)
        alone.append(circuit)
        accompanied.append(Circuit(graph, circuit.mask | others & (rng.random(others.shape) < 0.5)))
    np.testing.assert_allclose(values_of(name, alone), values_of(name, accompanied), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_every_true_edge_matters_for_some_set_of_others(name):
    graph, edges = model_of(name).graph, truth_of(name).edges
    kept = [frozenset(subset) for subset in subsets(edges)]
    values = dict(
        zip(kept, values_of(name, [Circuit.from_edges(graph, s) for s in kept]), strict=True)
    )
    for edge in edges:
        effects = [abs(values[s] - values[s - {edge}]).max() for s in kept if edge in s]
        assert max(effects) > 1.0


@pytest.mark.parametrize("name", [INDUCTION, GATE])
def test_every_edge_of_the_induction_model_and_of_the_gate_matters_alone(name):
    clean = baselines(model_of(name), dataset_of(name)).clean
    for edge in truth_of(name).edges:
        [values] = values_of(name, [without(name, edge)])
        assert (clean - values).max() > 1.0


def test_the_backup_takes_over_from_the_primary_head_and_nothing_from_both():
    alone = {
        "input->a0.h0<v>": 4.0,  # the backup answers instead
        "input->a2.h0<v>": 4.0,  # it is inhibited
        "a2.h0->logits": 4.0,
        "a0.h0->logits": 0.0,  # the answer is lost, and the backup still inhibited
        "a0.h0->a1.h0<v>": 8.0,  # both answer
        "a1.h0->a2.h0<q>": 8.0,
    }
    values = values_of(BACKUP, [without(BACKUP, edge) for edge in alone])
    expected = np.array(list(alone.values()))[:, None]
    np.testing.assert_allclose(values, np.broadcast_to(expected, values.shape), atol=1e-4)
    both = [without(BACKUP, "input->a0.h0<v>", e) for e in ("input->a2.h0<v>", "a2.h0->logits")]
    np.testing.assert_allclose(values_of(BACKUP, both), 0.0, atol=1e-4)


def subsets(items):
    return itertools.chain.from_iterable(
        itertools.combinations(items, n) for n in range(len(items) + 1)
    )


# the same by the weights alone, run by transformers: heads whose output projection is set to zero


def logit_diff_without(name, *components):
    """The logit difference of clean prompts where these heads and MLPs write nothing."""
    model = GPT2LMHeadModel.from_pretrained(data.bundled.model_path(name)).eval()
    d_head = model.config.n_embd // model.config.n_head
    with torch.no_grad():
        for component in components:
            kind, layer, *head = component[0], *component[1:].split(".h")
            block = model.transformer.h[int(layer)]
            if kind == "m":
                block.mlp.c_proj.weight.zero_()
                block.mlp.c_proj.bias.zero_()
            else:
                first = int(head[0]) * d_head
                block.attn.c_proj.weight[first : first + d_head] = 0
        dataset = dataset_of(name)
        tokens = torch.tensor([example.clean_tokens for example in dataset])
        logits = model(tokens).logits[:, -1]
    return get_metric("logit-diff")(logits, Answers.of(dataset.examples)).numpy()


@pytest.mark.parametrize("name", NAMES)
def test_components_outside_the_circuit_can_be_taken_out_of_the_weights(name):
    graph, nodes = model_of(name).graph, truth_of(name).nodes
    idle = [writer for writer in graph.writers if writer not in nodes]
    if name == GATE:
        idle.remove("a0.h2")  # writing nothing is no weather at all: it matters under zero ablation
    np.testing.assert_allclose(logit_diff_without(name, *idle), 4.0, atol=1e-3)


def test_the_backup_head_takes_over_in_the_weights_too():
    expected = {
        ("a0.h0",): 4.0,
        ("a2.h0",): 4.0,
        ("a0.h0", "a2.h0"): 0.0,
        ("a1.h0",): 8.0,
        ("a1.h0", "a2.h0"): 4.0,
    }
    for heads, value in expected.items():
        np.testing.assert_allclose(logit_diff_without(BACKUP, *heads), value, atol=1e-4)


# -- what methods find: induction -----------------------------------------------------------------


@pytest.mark.parametrize("method", ["exact", *FOLLOWERS])
def test_induction_is_found_by_exact_patching_and_by_every_gradient(method):
    # attention is sharp, not saturated: no gradient on a true edge is 0, and no other edge has any
    found = found_by(INDUCTION, method)
    assert (found.precision, found.recall, found.auroc, found.auprc) == (1, 1, 1, 1)


def test_exact_patching_of_the_induction_model():
    # metric 4 → −4 where the copied word is another, → 0 where nothing is found to copy. The
    # previous-token head has one reader, so its input and its output are one path.
    assert {e: edge_scores(INDUCTION, "exact")[e] for e in truth_of(INDUCTION).edges} == {
        "input->a1.h0<v>": pytest.approx(8, abs=0.01),
        "a1.h0->logits": pytest.approx(8, abs=0.01),
        "input->a1.h0<q>": pytest.approx(4, abs=0.01),
        "a0.h0->a1.h0<k>": pytest.approx(4, abs=0.01),
        "input->a0.h0<v>": pytest.approx(4, abs=0.01),
    }


def test_eap_underrates_what_lies_in_front_of_a_sharp_softmax():
    # dp/dscore = p(1 − p), with p = 1/(1 + e⁻¹⁰) on the word and the rest on BOS; the score falls
    # by 20 and the logit difference is 4 p: 4 · 20 · p(1 − p), where corrupting costs 4
    p = 1 / (1 + np.exp(-10.0))
    expected = pytest.approx(80 * p * (1 - p), rel=0.01)
    scores = edge_scores(INDUCTION, "EAP")
    for edge in ("input->a1.h0<q>", "a0.h0->a1.h0<k>", "input->a0.h0<v>"):
        assert scores[edge] == expected
    # what is linear is exact: values and the answer itself
    assert scores["a1.h0->logits"] == pytest.approx(8, abs=0.01)
    assert scores["input->a1.h0<v>"] == pytest.approx(8, abs=0.01)


def test_integrated_gradients_of_the_input_add_up_on_the_induction_model():
    # completeness: the input's edges share what separates the two prompts, 4 − (−4); the query and
    # the key enter the score alike
    scores = edge_scores(INDUCTION, "EAP-IG-inputs", steps=40)
    total = sum(value for edge, value in scores.items() if edge.startswith("input->"))
    assert total == pytest.approx(8, rel=0.01)
    assert scores["input->a1.h0<q>"] == pytest.approx(scores["a0.h0->a1.h0<k>"], rel=1e-3)


def test_information_flow_cannot_tell_the_inputs_of_a_layer_apart():
    # it looks at streams, and all head inputs of a layer read one: the true q and v of the
    # induction head score as its k and as every idle head do
    scores = edge_scores(INDUCTION, "information-flow-routes")
    readers = [f"a1.h{head}<{kind}>" for head in range(3) for kind in "qkv"]
    assert len({round(scores[f"input->{reader}"], 12) for reader in readers}) == 1
    assert found_by(INDUCTION, "information-flow-routes").precision < 0.5


# -- what methods find: the gate ------------------------------------------------------------------


def shares_of_the_gate():
    """The shares of pairs with the barrier alone, the signal alone and both against the train."""
    raised, free = set(truths.truths.RAISED), set(truths.truths.FREE)
    kinds = []
    for example in dataset_of(GATE):
        words = example.corrupted.split()
        kinds.append((words[5] not in raised, words[7] not in free))
    return [kinds.count(kind) / len(kinds) for kind in ((True, False), (False, True), (True, True))]


FRONT = {  # edges in front of the gate, by the word that they carry
    "barrier": ("input->a0.h0<v>", "a0.h0->m1"),
    "signal": ("input->a0.h1<v>", "a0.h1->m1"),
}
WEATHER = ("input->a0.h2<v>", "a0.h2->m1")


def test_eap_misses_a_saturated_gate_and_believes_in_the_weather():
    # clean: x₁ + x₂ = 2, where relu(6 − 4(x₁ + x₂)) is flat: gradient 0. The weather's sign s goes
    # from ±1 to ∓1, a change of 2, where 2 relu(|s| − ½) has the slope 2 and a logit is worth 4
    scores = edge_scores(GATE, "EAP")
    for edge in (*FRONT["barrier"], *FRONT["signal"]):
        assert abs(scores[edge]) < 1e-6
    for edge in WEATHER:
        assert scores[edge] == pytest.approx(2 * 2 * 4, rel=1e-5)
    found = found_by(GATE, "EAP")
    # one true edge, m1->logits, and two wrong ones; the four others tie with all the rest
    assert found.n_chosen == 3
    assert found.precision == pytest.approx(1 / 3)
    assert found.recall == pytest.approx(1 / 5)
    # AUROC: m1->logits scores 8, or 24 where both words differ (below): less than the weather's 16
    # as long as fewer than half do, so 103 of the 105 others are behind it
    assert shares_of_the_gate()[2] < 0.5
    assert found.auroc == pytest.approx((103 + 4 * 103 / 2) / (5 * 105))


@pytest.mark.parametrize(
    "method", ["clean-corrupted", "EAP-IG-inputs", "EAP-IG-activations", "exact"]
)
def test_the_gate_is_found_where_it_is_not_flat(method):
    found = found_by(GATE, method)
    assert (found.precision, found.recall, found.auroc, found.auprc) == (1, 1, 1, 1)
    for edge in WEATHER:  # from s to −s gradients at symmetric points cancel; nothing depends on s
        assert edge_scores(GATE, method)[edge] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("method", ["exact", "clean-corrupted"])
def test_the_size_of_the_edges_in_front_of_the_gate(method):
    # exact: one word against it, y from 1 to −1, a logit difference of 4y: 8, if the word differs.
    # clean-corrupted: slope 0 at the clean end, 4 · 4 at the other, a change of 1: (0 + 16)/2 = 8
    barrier, signal, both = shares_of_the_gate()
    assert min(barrier, signal, both) > 0.1
    scores = edge_scores(GATE, method)
    for edge in FRONT["barrier"]:
        assert scores[edge] == pytest.approx(8 * (barrier + both), rel=1e-4)
    for edge in FRONT["signal"]:
        assert scores[edge] == pytest.approx(8 * (signal + both), rel=1e-4)
    # m1 -> logits: y from 1 to −1 or −5. It is linear, so every method agrees
    assert scores["m1->logits"] == pytest.approx(8 * (barrier + signal) + 24 * both, rel=1e-4)


def test_integrated_gradients_in_front_of_the_gate_converge_to_their_integral():
    # slope 16 where x₁ + x₂ < 3/2: on half of the way where one word differs, on three quarters of
    # it where both do
    barrier, _, both = shares_of_the_gate()
    scores = edge_scores(GATE, "EAP-IG-inputs", steps=40)
    for edge in FRONT["barrier"]:
        assert scores[edge] == pytest.approx(8 * barrier + 12 * both, rel=0.01)


# -- what methods find: the backup ----------------------------------------------------------------

LOST = "a2.h0->logits"  # the backup head writes the same, nothing, on clean and corrupted prompts

# edges with a score other than 0, worked out below
FOUND_IN_BACKUP = {
    "EAP": {"input->a0.h0<v>", "a0.h0->logits"},
    "clean-corrupted": {"input->a0.h0<v>", "a0.h0->logits", "input->a2.h0<v>"},
    "EAP-IG-inputs": set(true_circuit(BACKUP, Graph(3, 4)).edges) - {LOST},
    "EAP-IG-activations": set(true_circuit(BACKUP, Graph(3, 4)).edges) - {LOST},
    "exact": {"a0.h0->logits", "a0.h0->a1.h0<v>", "a1.h0->a2.h0<q>"},
}


@pytest.mark.parametrize("method", FOUND_IN_BACKUP)
def test_what_each_method_finds_of_the_backup_and_what_it_must_miss(method):
    scores = edge_scores(BACKUP, method)
    largest = max(map(abs, scores.values()))
    assert {e for e, value in scores.items() if abs(value) > 1e-6 * largest} == (
        FOUND_IN_BACKUP[method]
    )
    # so nothing wrong is found, and what is missed ties with all that is not true
    found, n = found_by(BACKUP, method), len(FOUND_IN_BACKUP[method])
    assert (found.n_chosen, found.precision) == (n, 1.0)
    assert found.recall == pytest.approx(n / 6)
    assert found.auroc == pytest.approx((n + (6 - n) / 2) / 6)


def test_exact_patching_misses_the_head_that_has_a_backup():
    scores = edge_scores(BACKUP, "exact")
    assert scores["a0.h0->logits"] == pytest.approx(4, abs=1e-4)  # inhibited all the same: lost
    assert scores["a0.h0->a1.h0<v>"] == pytest.approx(-4, abs=1e-4)  # both heads answer
    assert scores["a1.h0->a2.h0<q>"] == pytest.approx(-4, abs=1e-4)
    # nodes: without the primary head nothing is lost, without the inhibiting one both answer
    nodes = scores_of(BACKUP, "exact", level="node")
    by_name = dict(nodes.to_pandas().set_index("node")["score"])
    heads = {head: by_name[head] for head in ("input", "a0.h0", "a1.h0", "a2.h0")}
    assert heads == {
        "input": pytest.approx(4, abs=1e-4),
        "a0.h0": pytest.approx(0, abs=1e-4),
        "a1.h0": pytest.approx(-4, abs=1e-4),
        "a2.h0": pytest.approx(0, abs=1e-4),
    }
    found = recovery(nodes, truth_of(BACKUP))  # two of four, and two that tie with twelve others
    assert (found.n_true, found.n_units) == (4, 16)
    assert (found.precision, found.recall, found.auroc) == (1.0, 0.5, 0.75)


def test_gradients_at_the_ends_do_not_see_the_inhibition():
    # clean: the softmax of the backup head is 32 nats from switching, so the inhibition has no
    # gradient, and the primary head seems to be all there is: 4. Corrupted: it looks at the colour,
    # so its value has the gradient 4, half of which clean-corrupted takes
    eap = edge_scores(BACKUP, "EAP")
    assert eap["input->a0.h0<v>"] == pytest.approx(4, abs=1e-4)
    assert eap["a0.h0->logits"] == pytest.approx(4, abs=1e-4)
    both_ends = edge_scores(BACKUP, "clean-corrupted")
    assert both_ends["input->a0.h0<v>"] == pytest.approx(4, abs=1e-4)
    assert both_ends["input->a2.h0<v>"] == pytest.approx(2, abs=1e-4)


def test_integrated_gradients_cross_the_point_where_the_backup_switches():
    # α of the colour: the primary head writes α, the backup head α where α < ½ and nothing above.
    # a0.h0->logits: 1. input->a2.h0<v>: 1 on half of the way, ½. The inhibition: it takes ½ away at
    # α = ½, −½. input->a0.h0<v>: 1 − ½. All times 4; the input's edges add up to the whole
    scores = edge_scores(BACKUP, "EAP-IG-inputs", steps=40, size=1)
    expected = {
        "a0.h0->logits": 4,
        "input->a2.h0<v>": 2,
        "a0.h0->a1.h0<v>": -2,
        "a1.h0->a2.h0<q>": -2,
        "input->a0.h0<v>": 2,
        "a2.h0->logits": 0,
    }
    assert {e: scores[e] for e in expected} == {
        e: pytest.approx(value, abs=0.03) for e, value in expected.items()
    }


def test_integrated_gradients_of_activations_see_the_inhibition_at_its_full_size():
    # the output of layer 0 goes from corrupted to clean below a clean input, so what the backup
    # head copies below α = ½ is the whole colour: the inhibition takes 1 away, not ½
    scores = edge_scores(BACKUP, "EAP-IG-activations", steps=40, size=1)
    assert scores["a0.h0->a1.h0<v>"] == pytest.approx(-4, abs=0.03)
    assert scores["a1.h0->a2.h0<q>"] == pytest.approx(-4, abs=0.03)
    assert scores["input->a2.h0<v>"] == pytest.approx(2, abs=0.03)


@pytest.mark.parametrize("name", NAMES)
def test_random_scores_recover_what_chance_gives(name):
    # AUROC ½, precision the share of true edges, over many seeds
    graph = model_of(name).graph
    found = [
        recovery(scores_of(name, "random", size=1, seed=seed), truth_of(name)) for seed in range(60)
    ]
    assert np.mean([each.auroc for each in found]) == pytest.approx(0.5, abs=0.06)
    share = truth_of(name).n_edges / graph.n_edges
    assert np.mean([each.precision for each in found]) == pytest.approx(share, abs=0.04)


def test_every_method_has_its_place_here():
    assert set(method_names()) == {*FOLLOWERS, "exact", "information-flow-routes", "random"}
