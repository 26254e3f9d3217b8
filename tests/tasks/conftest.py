"""Tokenizers of different habits, built here so that no test needs a network."""

from collections.abc import Iterable

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tasks import greater_than, ioi, sva

BOS = "<|endoftext|>"


def byte_level(texts: Iterable[str], vocab_size: int, digits_one_by_one: bool = False):
    """A byte-level BPE as GPT-2 has, trained on some texts; BOS, EOS and unknown are one token."""
    tokenizer = Tokenizer(models.BPE())
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), splitter])
        if digits_one_by_one
        else splitter
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=BOS, unk_token=BOS, pad_token=BOS
    )


def english() -> list[str]:
    """Text in which half of the names and nouns are frequent enough to be one token."""
    names, events = ioi.NAMES[: len(ioi.NAMES) // 2], greater_than.NOUNS[:40]
    texts = [f"Then {name} and {name} gave it to {name}" for name in names] * 20
    texts += [f"The {noun} lasted from the year 17 to the year 17" for noun in events] * 20
    texts += [f"born in '{year} or '{year}" for year in greater_than.YEARS] * 40
    texts += [
        f"The {one} near the {many}{verb}"
        for one, many in sva.NOUNS[:25]
        for forms in sva.VERBS
        for verb in forms
    ] * 5
    return texts


@pytest.fixture(scope="session")
def bpe():
    """A tokenizer that splits rarer words into pieces."""
    return byte_level(english(), vocab_size=900)


@pytest.fixture(scope="session")
def digit_bpe():
    """A tokenizer that gives each digit its own token."""
    return byte_level(english(), vocab_size=900, digits_one_by_one=True)


@pytest.fixture(scope="session")
def words():
    """A word-level tokenizer of the tasks' own words, with an unknown word and a BOS."""
    token = r"\d\d|\d|[^\W\d]+|[^\w\s]"
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s+"), behavior="removed"),
            pre_tokenizers.Split(Regex(token), behavior="isolated"),
        ]
    )
    texts = [*ioi.TEMPLATES, greater_than.TEMPLATE, *sva.OPENINGS, *sva.PHRASES, *ioi.NAMES]
    texts += [*ioi.PLACES, *ioi.OBJECTS, *greater_than.NOUNS, *greater_than.YEARS]
    texts += [form for forms in (*sva.NOUNS, *sva.VERBS) for form in forms]
    found = {word for text in texts for word, _ in splitter.pre_tokenize_str(text)}
    vocabulary = {word: i for i, word in enumerate(["<bos>", "<unk>", *sorted(found)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = splitter
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<bos>", unk_token="<unk>"
    )
