"""A random checkpoint in the shape of GPT-2 small, and prompts for it."""

from __future__ import annotations

from pathlib import Path

import torch

from tasks import Dataset, Example

VOCABULARY = 50_257


def gpt2_small_shaped(directory: Path) -> Path:
    """Write the checkpoint: 12 layers, 12 heads, 768 wide, vocabulary 50,257, seeded weights."""
    from tokenizers import Tokenizer, models
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config()).save_pretrained(directory)
    words = Tokenizer(models.WordLevel({"<bos>": 0, "word": 1}, unk_token="word"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<bos>")
    tokenizer.save_pretrained(directory)
    return directory


def random_prompts(n: int, length: int, shared: int) -> Dataset:
    """`n` pairs of prompts whose first `shared` tokens are the same and all others differ."""
    generator = torch.Generator().manual_seed(0)

    def tokens() -> list[int]:
        return torch.randint(2, VOCABULARY // 2, (length,), generator=generator).tolist()

    examples = []
    for _ in range(n):
        clean = tokens()
        other = clean[:shared] + [token + VOCABULARY // 2 for token in tokens()[shared:]]
        examples.append(Example("", "", tuple(clean), tuple(other), (5,), (7,)))
    return Dataset("random", "train", 0, tuple(examples))
