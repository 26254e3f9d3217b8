"""A word-level tokenizer: a word, a pair of digits or a punctuation mark is one token."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

TOKEN = r"\d\d|\d|[^\W\d]+|[^\w\s]"
BOS, UNKNOWN = "<|endoftext|>", "<|unknown|>"


def word_tokenizer(texts: Iterable[str], model_max_length: int) -> PreTrainedTokenizerFast:
    """Build a tokenizer whose vocabulary is every token of some texts, in alphabetical order."""
    words = sorted({word for text in texts for word in re.findall(TOKEN, text)})
    ids = {token: position for position, token in enumerate([BOS, UNKNOWN, *words])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s+"), behavior="removed"),
            pre_tokenizers.Split(Regex(TOKEN), behavior="isolated"),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=BOS,
        pad_token=BOS,
        unk_token=UNKNOWN,
        model_max_length=model_max_length,
        clean_up_tokenization_spaces=False,
    )
