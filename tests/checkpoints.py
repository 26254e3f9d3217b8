"""Tiny random GPT-2 checkpoints and datasets for them.

The weights are far from a fresh initialisation: attention patterns are sharp, norms have weights
and biases, MLPs saturate. A near-linear model would hide what integrated gradients are for.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

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


def _sharpen(model: GPT2LMHeadModel, generator: torch.Generator) -> None:
    """Give every parameter a random value on a scale at which nonlinearities matter."""
    d_model = model.config.n_embd
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        if name.endswith("wte.weight") or name.startswith("lm_head"):
            value = 0.6 * noise
        elif name.endswith("wpe.weight"):
            value = 0.4 * noise
        elif ".ln_" in name:
            value = (1.0 if name.endswith("weight") else 0.0) + 0.3 * noise
        elif name.endswith("bias"):
            value = 0.3 * noise
        else:
            value = 1.2 / math.sqrt(parameter.shape[0]) * noise
            if name.endswith("c_attn.weight"):
                value[:, : 2 * d_model] *= 1.3  # queries and keys: sharp patterns
        with torch.no_grad():
            parameter.copy_(value)


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
    tokenizer = word_tokenizer(n_words)
    config = GPT2Config(
        vocab_size=len(tokenizer),
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
    model = GPT2LMHeadModel(config).to(dtype)
    _sharpen(model, torch.Generator().manual_seed(seed))
    model.tie_weights()
    directory = Path(directory)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def transformers_model(
    directory: str | Path, dtype: torch.dtype = torch.float64
) -> GPT2LMHeadModel:
    """The checkpoint as `transformers` itself loads it."""
    model = GPT2LMHeadModel.from_pretrained(directory, dtype=dtype, attn_implementation="eager")
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
