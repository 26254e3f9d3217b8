"""Small random models with a tokenizer for the words of the tasks, so that tasks run on them."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from tasks import get_task


def task_words(*tasks: str) -> list[str]:
    """Every word of a spread of the tasks' pairs, and all their answers."""
    texts = set()
    for task in tasks:
        pairs = get_task(task).pairs()
        for i in range(0, len(pairs), max(1, len(pairs) // 20_000)):
            pair = pairs[i]
            if pair is not None:
                texts |= {pair.clean, pair.corrupted, *pair.correct, *pair.incorrect}
    splitter = _splitter()
    return sorted({word for text in texts for word, _ in splitter.pre_tokenize_str(text)})


def speaker(
    directory: Path, tasks: tuple[str, ...] = ("ioi", "greater-than", "sva"), **options: int
) -> Path:
    """Write a random GPT-2 that can be asked about these tasks, and knows nothing of them."""
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 16} | options
    words = _words(tasks)
    config = GPT2Config(
        vocab_size=len(words), n_positions=64, bos_token_id=0, eos_token_id=0, **sizes
    )
    return _write(GPT2LMHeadModel, config, words, directory)


def grouped_speaker(directory: Path, tasks: tuple[str, ...] = ("ioi", "sva")) -> Path:
    """Write a random Llama of the kind: four heads share two keys and values."""
    words = _words(tasks)
    config = LlamaConfig(
        vocab_size=len(words), max_position_embeddings=64, bos_token_id=0, eos_token_id=0,
        hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    return _write(LlamaForCausalLM, config, words, directory)


def _words(tasks: tuple[str, ...]) -> list[str]:
    return ["<bos>", "<unk>", *task_words(*tasks)]


def _write(
    kind: type[PreTrainedModel],
    config: GPT2Config | LlamaConfig,
    words: list[str],
    directory: Path,
) -> Path:
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = _splitter()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<bos>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    model = kind(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)  # far from a fresh model's near-uniform answers
    model.save_pretrained(directory)
    fast.save_pretrained(directory)
    return directory


def _splitter() -> pre_tokenizers.Sequence:
    token = r"\d\d|\d|[^\W\d]+|[^\w\s]"
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s+"), behavior="removed"),
            pre_tokenizers.Split(Regex(token), behavior="isolated"),
        ]
    )
