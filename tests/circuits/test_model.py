"""Loading: what is loaded is the published function, and its fingerprint names that function."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, GPT2LMHeadModel

from circuits import (
    Circuit,
    ModelError,
    ModelFamilyError,
    architecture,
    attribute,
    evaluate,
    load_model,
)
from circuits.model import fingerprint
from tests.checkpoints import random_dataset, tiny, tiny_gpt2, transformers_model, word_tokenizer
from tests.oracle import Oracle, logit_diff, scores


@pytest.fixture
def directory(tmp_path):
    return tiny_gpt2(tmp_path / "model", dtype=torch.float32)


def change_config(directory, **settings):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def change_weights(directory, change):
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_heads": 1},
        {"n_layers": 3, "scale_by_layer": True},
        {"tied": False, "activation": "gelu"},
        {"activation": "relu"},
    ],
)
def test_logits_equal_those_of_transformers(engine, dtype, options):
    model, place = engine(dtype, **options)
    reference = transformers_model(place, getattr(torch, dtype))
    for example in random_dataset(3):
        tokens = torch.tensor([example.clean_tokens])
        with torch.no_grad():
            expected = reference(tokens).logits
            found = model.bridge(tokens)
        assert found.dtype == getattr(torch, dtype)
        tolerance = {"float32": 1e-6, "float64": 1e-13}[dtype]
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def test_a_loaded_model_knows_its_graph_and_its_parameters_are_frozen(engine):
    model, place = engine("float32")
    assert (model.graph.n_layers, model.graph.n_heads) == (2, 3)
    assert model.architecture.d_model == 24
    assert model.device == torch.device("cpu")
    assert model.dtype == torch.float32
    assert model.name == str(place)
    assert not any(parameter.requires_grad for parameter in model.bridge.parameters())
    assert model.n_parameters == sum(p.numel() for p in transformers_model(place).parameters())
    assert model.tokenizer.bos_token == "<bos>"


def test_two_copies_of_the_weights_have_one_fingerprint(directory, tmp_path):
    copy = tmp_path / "another name"
    shutil.copytree(directory, copy)
    (copy / "README.md").write_text("the same weights")
    change_config(copy, _name_or_path="elsewhere", attn_pdrop=0.3, use_cache=False)
    expected = fingerprint(directory)
    assert fingerprint(copy) == expected
    assert len(expected) == 64
    for place, dtype in ((directory, "float32"), (copy, "float32"), (copy, "bfloat16")):
        assert load_model(place, "cpu", dtype).fingerprint == expected


def test_the_fingerprint_does_not_depend_on_how_weights_are_split_over_files(directory, tmp_path):
    model = GPT2LMHeadModel.from_pretrained(directory)
    model.save_pretrained(tmp_path / "split", max_shard_size="20KB")
    assert len(list((tmp_path / "split").glob("*.safetensors"))) > 1
    assert fingerprint(tmp_path / "split") == fingerprint(directory)


def test_one_changed_weight_changes_the_fingerprint(directory, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)

    def nudge(tensors):
        name = next(n for n in tensors if n.endswith("h.1.mlp.c_fc.weight"))
        tensors[name][3, 4] += 1e-3

    change_weights(copy, nudge)
    assert fingerprint(copy) != fingerprint(directory)


@pytest.mark.parametrize(
    "setting",
    [
        {"activation_function": "relu"},
        {"layer_norm_epsilon": 1e-3},
        {"scale_attn_by_inverse_layer_idx": True},
        {"n_head": 4},
    ],
)
def test_a_setting_that_changes_the_function_changes_the_fingerprint(directory, tmp_path, setting):
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    change_config(copy, **setting)
    assert fingerprint(copy) != fingerprint(directory)
    tokens = torch.tensor([random_dataset(1)[0].clean_tokens])
    with torch.no_grad():
        logits = [load_model(d, "cpu").bridge(tokens) for d in (directory, copy)]
    assert (logits[0] - logits[1]).abs().max() > 1e-6


def test_a_missing_model_is_named(tmp_path):
    for name in (str(tmp_path / "nowhere"), "./nowhere", "nobody-at-all/no-such-model"):
        with pytest.raises(ModelError, match=name):
            load_model(name)
    with pytest.raises(ModelError, match="no-such"):
        load_model("bundled/no-such")


UNSUPPORTED = {
    "mixture of experts": ("mixtral", {"num_local_experts": 2}),
    "state space": ("mamba", {}),
    "linear biases on distance": ("bloom", {}),
    "encoder and decoder": ("t5", {}),
    "encoder": ("bert", {}),
    "mixed layers": ("jamba", {}),
}


@pytest.mark.parametrize("wiring", UNSUPPORTED)
def test_an_unsupported_family_is_refused_by_name_before_its_weights_are_read(wiring, tmp_path):
    model_type, settings = UNSUPPORTED[wiring]
    AutoConfig.for_model(model_type, **settings).save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"never read")
    with pytest.raises(ModelFamilyError, match=rf"{model_type}.*GPT-2.*Llama"):
        load_model(tmp_path)


_STRETCHED = {"rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 8}
_WINDOWED_LATER = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("gpt2", {"add_cross_attention": True}),
        ("gpt2", {"scale_attn_weights": False}),  # the bridge divides by the root all the same
        ("gemma3", {"attn_logit_softcapping": 1.0}),  # the bridge caps, transformers does not
        ("gemma3", {"use_bidirectional_attention": True}),
        ("gpt_neox", {"attention_bias": False}),
        ("phi", {"qk_layernorm": True}),  # the bridge would leave out the norms
        ("llama", {"rope_parameters": {"rope_type": "dynamic", **_STRETCHED}}),
    ],
)
def test_a_setting_that_is_not_computed_as_published_is_refused_by_name(family, settings, tmp_path):
    directory = tiny(family, tmp_path)
    change_config(directory, **settings)
    name, value = next(iter(settings.items()))
    with pytest.raises(ModelFamilyError, match="dynamic" if isinstance(value, dict) else name):
        load_model(directory, "cpu")


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("gpt2", {"n_inner": 30}),
        ("gpt2", {"layer_norm_epsilon": 1e-2}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"hidden_act": "gelu"}),
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"num_key_value_heads": 1}),
        ("llama", {"rope_parameters": {"rope_type": "linear", **_STRETCHED}}),
        ("mistral", {"sliding_window": None}),
        ("qwen2", _WINDOWED_LATER),
        ("qwen3", {"attention_bias": True} | _WINDOWED_LATER),
        ("olmo", {"attention_bias": True}),
        ("olmo2", {"attention_bias": True}),
        ("gemma2", {"attention_bias": True, "head_dim": 4}),
        ("gemma3", {"final_logit_softcapping": 3.0}),
        ("gpt_neox", {"hidden_act": "relu", "tie_word_embeddings": True}),
        ("gptj", {"rotary_dim": 8, "activation_function": "relu"}),
        ("phi", {"num_key_value_heads": 2}),
    ],
)
def test_other_settings_of_a_family_are_computed_as_published(family, settings, tmp_path):
    """Biases where published models have none, other activations, ties, windows and rotations."""
    directory = tiny(family, tmp_path, **settings)
    model = load_model(directory, "cpu", "float64", kv="grouped")
    reference = transformers_model(directory)
    dataset = random_dataset(2, seed=1)
    for example in dataset:
        tokens = torch.tensor([example.clean_tokens])
        with torch.no_grad():
            expected, found = reference(tokens).logits, model.bridge(tokens)
        assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()
    oracle = Oracle.of(reference, "grouped")
    for level in ("edge", "neuron"):
        expected = scores(oracle, dataset, "EAP", level=level).values
        found = attribute(model, dataset, "EAP", level=level).values
        assert np.abs(found - expected).max() <= 1e-9 * np.abs(expected).max()


def test_stretched_rotations_give_the_logits_of_transformers(tmp_path):
    """YaRN: attention is scaled besides."""
    stretched = {"rope_parameters": {"rope_type": "yarn", **_STRETCHED}}
    directory = tiny("llama", tmp_path, **stretched)
    model, reference = load_model(directory, "cpu", "float64"), transformers_model(directory)
    dataset = random_dataset(3, seed=1)
    whole = evaluate(model, Circuit(model.graph, model.graph.edge_mask), dataset)
    for example, value in zip(dataset, whole.values, strict=True):
        with torch.no_grad():
            logits = reference(torch.tensor([example.clean_tokens])).logits[0, -1]
        expected = logit_diff(logits, example.correct, example.incorrect, logits)
        assert value == pytest.approx(float(expected), rel=1e-5)


def test_a_model_that_says_something_else_block_by_block_is_refused(tmp_path, monkeypatch):
    """Here a declaration that forgets the window: the whole model is asked what it says."""
    directory = tiny("mistral", tmp_path)
    assert load_model(directory, "cpu").graph.n_layers == 2
    forgetful = replace(architecture.FAMILIES["mistral"], window=lambda *_: None)
    monkeypatch.setitem(architecture.FAMILIES, "mistral", forgetful)
    with pytest.raises(ModelFamilyError, match=r"not described.*Mistral.*logits differ"):
        load_model(directory, "cpu")


def test_a_graph_that_is_neither_grouped_nor_ungrouped_is_refused(directory):
    with pytest.raises(ModelError, match=r"groups.*grouped"):
        load_model(directory, "cpu", kv="groups")


def test_ungrouped_heads_share_what_grouped_ones_share(tmp_path):
    """One function, two graphs, one fingerprint."""
    directory = tiny("llama", tmp_path)
    grouped, ungrouped = (
        load_model(directory, "cpu", "float64", kv=kv) for kv in ("grouped", "ungrouped")
    )
    tokens = torch.tensor([random_dataset(1)[0].clean_tokens])
    assert torch.allclose(grouped.bridge(tokens), ungrouped.bridge(tokens), rtol=1e-12)
    assert grouped.fingerprint == ungrouped.fingerprint
    assert grouped.n_parameters == ungrouped.n_parameters
    assert (grouped.graph.n_kv_heads, ungrouped.graph.n_kv_heads) == (2, 4)
    assert ungrouped.graph != grouped.graph


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda d: (d / "config.json").unlink(), r"config\.json"),
        (lambda d: (d / "config.json").write_text("{"), r"config\.json"),
        (lambda d: (d / "model.safetensors").unlink(), "weights"),
        (lambda d: (d / "model.safetensors").write_bytes(b"\x01" * 40), "damaged"),
        (
            lambda d: (d / "model.safetensors").write_bytes(
                (d / "model.safetensors").read_bytes()[:-100]
            ),
            "damaged",
        ),
        (
            lambda d: change_weights(
                d, lambda t: t.pop(next(n for n in t if "h.1.ln_2.weight" in n))
            ),
            "lacks 1 weights.*ln_2",
        ),
    ],
)
def test_a_damaged_directory_is_refused_in_one_sentence(directory, broken, message):
    broken(directory)
    with pytest.raises(ModelError, match=message) as raised:
        load_model(directory)
    assert "\n" not in str(raised.value)
    assert str(directory) in str(raised.value)


def test_a_tokenizer_can_be_given_as_an_object_or_a_directory(directory, tmp_path):
    other = word_tokenizer(n_words=7)
    assert load_model(directory, "cpu", tokenizer=other).tokenizer is other
    other.save_pretrained(tmp_path / "other")
    given = load_model(directory, "cpu", tokenizer=str(tmp_path / "other")).tokenizer
    assert len(given) == len(other)
    assert len(load_model(directory, "cpu").tokenizer) == 43


def test_a_directory_without_a_tokenizer_says_how_to_pass_one(directory):
    for file in directory.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="tokenizer="):
        load_model(directory, "cpu")
    assert load_model(directory, "cpu", tokenizer=word_tokenizer()).graph.n_layers == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "float23"}, "float23.*float32"),
        ({"device": "toaster"}, "toaster"),
        ({"device": "cuda:99"}, "cuda:99"),
    ],
)
def test_a_dtype_or_device_that_is_not_there_is_named(directory, settings, message):
    with pytest.raises(ModelError, match=message):
        load_model(directory, **settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"n_layer": -1}, "sizes that no model can have"),
        ({"n_head": 0}, "sizes that no model can have"),
        ({"n_layer": "two"}, "config.json .* cannot be used"),
        ({"n_embd": 48}, "do not have the shapes that its config.json says"),
    ],
)
def test_an_impossible_configuration_is_refused_in_a_sentence(directory, settings, said):
    change_config(directory, **settings)
    with pytest.raises(ModelError, match=said):
        load_model(directory)


def test_weights_that_cannot_be_read_are_a_sentence(directory):
    weights = directory / "model.safetensors"
    weights.unlink()
    weights.symlink_to(directory / "nowhere.safetensors")
    with pytest.raises(ModelError, match=r"model.safetensors .* cannot be read"):
        fingerprint(directory)
