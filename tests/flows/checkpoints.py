"""A small random GPT-2 with a tokenizer for the words of the tasks, so that tasks run on it."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

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
    words = ["<bos>", "<unk>", *task_words(*tasks)]
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = _splitter()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<bos>", unk_token="<unk>"
    )
    sizes = {"n_layer": 2, "n_head": 2, "n_embd": 16} | options
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(vocabulary), n_positions=64, bos_token_id=0, eos_token_id=0, **sizes
    )
    model = GPT2LMHeadModel(config)
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
