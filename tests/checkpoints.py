"""Tiny random checkpoints of every family and datasets for them.

The weights are far from a fresh initialisation: attention patterns are sharp, norms have weights
and biases, MLPs saturate. A near-linear model would hide what integrated gradients are for.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from tasks import Dataset, Example

N_WORDS = 40
SPECIAL = ("<pad>", "<unk>", "<bos>")
BOS = SPECIAL.index("<bos>")


def word_tokenizer(n_words: int = N_WORDS) -> PreTrainedTokenizerFast:
    """One token a word (`w0` … ), and a BOS token."""
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *(f"w{i}" for i in range(n_words))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token="<bos>"
    )


# How large the random entries of a parameter are; the first fragment that its name holds decides.
# Matrices are scaled by the root of their inputs besides. Norm weights lie around 1.
SCALES = (
    (("wpe",), 0.4),
    (("wte", "embed_in", "embed_tokens", "lm_head"), 0.6),
    (("ln_", "norm"), 0.3),
    (("bias",), 0.3),
)


def _sharpen(model: PreTrainedModel, seed: int) -> None:
    """Give every parameter a random value on a scale at which nonlinearities matter."""
    generator = torch.Generator().manual_seed(seed)
    gemma = model.config.model_type.startswith("gemma")
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        for fragments, scale in SCALES:
            if any(fragment in name for fragment in fragments):
                value = scale * noise
                break
        else:
            joint = "c_attn" in name or "c_proj" in name or "c_fc" in name  # [inputs, outputs]
            value = 1.2 / math.sqrt(parameter.shape[0 if joint else -1]) * noise
            if "c_attn" in name:
                value[:, : 2 * parameter.shape[0]] *= 1.3  # queries and keys: sharp patterns
            elif "query_key_value" in name:
                value *= 1.3
            elif "q_proj" in name or "k_proj" in name:
                value *= 1.5
        if ("norm" in name or "ln_" in name) and name.endswith("weight"):
            value += (1.5 if "q_norm" in name or "k_norm" in name else 1.0) - gemma
        if "embed_tokens" in name and gemma:
            value /= 2  # the family multiplies it by the root of the width
        with torch.no_grad():
            parameter.copy_(value)


def _save(
    config: PretrainedConfig, directory: str | Path, seed: int, dtype: torch.dtype, n_words: int
) -> Path:
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    _sharpen(model, seed)
    model.tie_weights()
    directory = Path(directory)
    model.save_pretrained(directory)
    word_tokenizer(n_words).save_pretrained(directory)
    return directory


def tiny_gpt2(
    directory: str | Path,
    *,
    n_layers: int = 2,
    n_heads: int = 3,
    d_model: int = 24,
    n_words: int = N_WORDS,
    n_positions: int = 32,
    activation: str = "gelu_new",
    tied: bool = True,
    scale_by_layer: bool = False,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> Path:
    """Write a random GPT-2 checkpoint with its tokenizer as a Hugging Face directory."""
    config = GPT2Config(
        vocab_size=len(SPECIAL) + n_words,
        n_positions=n_positions,
        n_embd=d_model,
        n_layer=n_layers,
        n_head=n_heads,
        activation_function=activation,
        tie_word_embeddings=tied,
        scale_attn_by_inverse_layer_idx=scale_by_layer,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=BOS,
        eos_token_id=BOS,
        pad_token_id=0,
    )
    return _save(config, directory, seed, dtype, n_words)


_SIZES = {
    "vocab_size": len(SPECIAL) + N_WORDS,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 32,
    "bos_token_id": BOS,
    "eos_token_id": BOS,
    "pad_token_id": 0,
}
_GROUPED = _SIZES | {"num_key_value_heads": 2}
_WIDE_HEADS = _GROUPED | {"head_dim": 8}  # four heads of 8 beside a stream of 24

# name: the transformers model type and its settings. Sizes are such that every setting bites:
# windows are shorter than the prompts, caps and clips lie within what is capped.
FAMILIES: dict[str, tuple[str, dict[str, object]]] = {
    "gpt2": (
        "gpt2",
        {"vocab_size": 43, "n_positions": 32, "n_embd": 24, "n_layer": 2, "n_head": 3},
    ),
    "gpt_neox": (
        "gpt_neox",
        _SIZES | {"hidden_size": 32, "rotary_pct": 0.5, "hidden_dropout": 0.0},
    ),
    "gpt_neox sequential": (
        "gpt_neox",
        _SIZES | {"hidden_size": 32, "rotary_pct": 0.25, "use_parallel_residual": False},
    ),
    "gptj": (
        "gptj",
        {
            "vocab_size": 43,
            "n_positions": 32,
            "n_embd": 24,
            "n_layer": 2,
            "n_head": 3,
            "rotary_dim": 4,
            "n_inner": 40,
        },
    ),
    "llama": ("llama", _GROUPED),
    "llama3": (
        "llama",
        _WIDE_HEADS
        | {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 100.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
            "tie_word_embeddings": True,
        },
    ),
    "mistral": ("mistral", _WIDE_HEADS | {"sliding_window": 4}),
    "qwen2": ("qwen2", _GROUPED),
    "qwen3": ("qwen3", _WIDE_HEADS),
    "olmo": ("olmo", _GROUPED | {"clip_qkv": 2.0}),
    "olmo2": ("olmo2", _GROUPED),
    "phi": ("phi", _SIZES | {"hidden_size": 32, "partial_rotary_factor": 0.5}),
    "gemma": ("gemma", _WIDE_HEADS),
    "gemma2": (
        "gemma2",
        _WIDE_HEADS
        | {
            "query_pre_attn_scalar": 6,
            "sliding_window": 4,
            "attn_logit_softcapping": 3.0,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma3": (
        "gemma3_text",
        _WIDE_HEADS
        | {
            "query_pre_attn_scalar": 6,
            "sliding_window": 4,
            "sliding_window_pattern": 2,
            "rope_parameters": {
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 10000.0},
            },
        },
    ),
}
GROUPED_FAMILIES = tuple(
    name for name, (_, settings) in FAMILIES.items() if "num_key_value_heads" in settings
)
# the graphs of all families: grouped where heads share keys and values
GRAPHS = [
    *((family, "ungrouped") for family in FAMILIES),
    *((family, "grouped") for family in GROUPED_FAMILIES),
]


def tiny(
    family: str,
    directory: str | Path,
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    **settings: object,
) -> Path:
    """Write a random checkpoint of a family of `FAMILIES`; `settings` override its configuration.

    The weights are float32, so that the same function can be computed in float64.
    """
    model_type, own = FAMILIES[family]
    merged = own | settings
    if merged.get("pad_token_id") is None:
        merged |= {"bos_token_id": BOS, "eos_token_id": BOS}
    config = AutoConfig.for_model(model_type, **merged)
    return _save(config, directory, seed, dtype, N_WORDS)


def change_parameters(
    directory: Path, change: Callable[[str, torch.Tensor], torch.Tensor | None]
) -> None:
    """Rewrite a checkpoint's tensors: `change(name, tensor)` gives the new one, None keeps it."""
    path = directory / "model.safetensors"
    tensors = {}
    for name, tensor in load_file(path).items():
        changed = change(name, tensor)
        tensors[name] = tensor if changed is None else changed.contiguous()
    save_file(tensors, path, metadata={"format": "pt"})


def affine(family: str, directory: Path) -> Path:
    """A checkpoint whose logits are affine in every stream that a reader sees.

    Norms divide by a constant (an enormous epsilon, undone by the weight), patterns are constant
    (queries and keys are zero), and the MLP is affine: ReLUs far above 0, or gates that are stuck.
    """
    epsilon, lift = 1e20, 100.0
    settings = {
        "gpt2": {"layer_norm_epsilon": epsilon, "activation_function": "relu"},
        "phi": {"layer_norm_eps": epsilon, "hidden_act": "relu"},
        "gemma2": {
            "rms_norm_eps": epsilon,
            "hidden_activation": "sigmoid",
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
        },
    }[family]
    tiny(family, directory, **settings)
    tensors = load_file(directory / "model.safetensors")

    def change(name: str, tensor: torch.Tensor) -> torch.Tensor | None:
        if ("ln_" in name or "norm" in name) and name.endswith("weight"):
            return tensor * 0 + math.sqrt(epsilon)
        if "c_attn" in name:
            width = tensor.shape[-1] // 3
            return torch.cat([tensor[..., : 2 * width] * 0, tensor[..., 2 * width :]], -1)
        if any(fragment in name for fragment in ("q_proj", "k_proj", "gate_proj")):
            return tensor * 0
        if name.endswith(("c_fc.bias", "fc1.bias")):
            return tensor + lift
        if name.endswith(("mlp.c_proj.bias", "mlp.fc2.bias")):  # what lifted units write, undone
            matrix = tensors[name.replace("bias", "weight")]
            return tensor - lift * matrix.sum(0 if "c_proj" in name else 1)
        return None

    change_parameters(directory, change)
    return directory


def transformers_model(
    directory: str | Path, dtype: torch.dtype = torch.float64
) -> PreTrainedModel:
    """The checkpoint as `transformers` itself loads it."""
    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype, attn_implementation="eager"
    )
    return model.eval()


def random_example(
    rng: random.Random, length: int, shared_prefix: int, n_words: int = N_WORDS
) -> Example:
    """A pair that first differs at `shared_prefix` (nowhere if that is the length).

    From there on about half of the tokens differ. BOS comes first unless the first token differs.
    """
    words = range(len(SPECIAL), len(SPECIAL) + n_words)
    clean = [rng.choice(words) for _ in range(length)]
    if shared_prefix > 0:
        clean[0] = BOS
    corrupted = list(clean)
    for position in range(shared_prefix, length):
        if position == shared_prefix or rng.random() < 0.5:
            corrupted[position] = rng.choice([w for w in words if w != clean[position]])
    answers = rng.sample(list(words), rng.randint(2, 6))
    split = rng.randint(1, len(answers) - 1)
    texts = [
        " ".join("<bos>" if t == BOS else f"w{t - len(SPECIAL)}" for t in tokens)
        for tokens in (clean, corrupted)
    ]
    return Example(
        clean=texts[0],
        corrupted=texts[1],
        clean_tokens=tuple(clean),
        corrupted_tokens=tuple(corrupted),
        correct=tuple(answers[:split]),
        incorrect=tuple(answers[split:]),
    )


def random_dataset(
    n: int = 5,
    *,
    lengths: Sequence[int] = (4, 5, 7, 9),
    shared_prefix: int | None = None,
    n_words: int = N_WORDS,
    seed: int = 0,
) -> Dataset:
    """Random pairs of mixed lengths; `shared_prefix` None mixes first-difference positions too."""
    rng = random.Random(seed)
    examples = []
    for _ in range(n):
        length = rng.choice(list(lengths))
        prefix = rng.randint(0, length - 1) if shared_prefix is None else shared_prefix
        examples.append(random_example(rng, length, min(prefix, length - 1), n_words))
    return Dataset("random", "all", seed, tuple(examples), {}, task="random")


def small_corruption(model: GPT2LMHeadModel, example: Example, size: float) -> Example:
    """The example with corrupted tokens whose embeddings lie within about `size` of the clean ones.

    Rewrites the last rows of the model's (tied) embedding for them; the answers are other tokens.
    """
    matrix = model.transformer.wte.weight.detach()
    fresh = matrix.shape[0] - example.length
    corrupted = list(example.clean_tokens)
    for position in range(example.shared_prefix, example.length):
        generator = torch.Generator().manual_seed(position)
        noise = torch.randn(matrix.shape[1], generator=generator, dtype=torch.float64)
        matrix[fresh + position] = matrix[example.clean_tokens[position]] + size * noise
        corrupted[position] = fresh + position
    answers = [t for t in range(len(SPECIAL), fresh) if t not in example.clean_tokens]
    return replace(
        example,
        corrupted_tokens=tuple(corrupted),
        correct=tuple(answers[:1]),
        incorrect=tuple(answers[1:3]),
    )
