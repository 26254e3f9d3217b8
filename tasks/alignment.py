"""From text to a tokenizer's own ids, position by position, or a reason why not.

1. Texts are encoded without special tokens; BOS is put in front once where there is one.
2. An answer is the one token by which ``prompt + answer`` is longer than ``prompt``, all else
   equal. An answer glued to the prompt may change its last token ("17" + "42" merging to "1742"):
   then it is encoded alone, if it is one token that reads back as the answer.
3. What cannot be aligned is dropped for a reason that can be counted, never silently used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, Protocol

from tasks.task import Example, Pair, TaskError

DIFFERENT_LENGTH = "clean and corrupted differ in length"
NOT_ONE_TOKEN = "answer is not one token"
UNKNOWN_WORD = "a word is unknown to the tokenizer"
SHARED_ANSWER = "a correct and an incorrect answer are the same token"
EMPTY_PROMPT = "the prompt has no tokens"


class Tokenizer(Protocol):
    """What is asked of a tokenizer; those of transformers fit."""

    bos_token_id: int | None
    unk_token_id: int | None

    def __call__(self, text: list[str], /, **options: Any) -> Any:
        """Encode texts; the ids are under ``input_ids``."""
        ...

    def decode(self, token_ids: list[int], /, **options: Any) -> Any:
        """Return the text of ids."""
        ...

    def __len__(self) -> int: ...


def tokenizer_name(tokenizer: Tokenizer) -> str:
    """Return what to call a tokenizer in a message: where it came from, or its class."""
    return str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)


class Aligner:
    """A tokenizer at work: encodes each text once and finds the tokens of answers.

    Raises TaskError if the object is not a transformers tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer, prepend_bos: bool = True) -> None:
        if not callable(tokenizer) or not hasattr(tokenizer, "bos_token_id"):
            raise TaskError(
                f"a dataset needs a transformers tokenizer such as model.tokenizer, "
                f"not {type(tokenizer).__name__}"
            )
        self.tokenizer = tokenizer
        self.prepend_bos = prepend_bos
        self._encoded: dict[str, tuple[int, ...]] = {}

    def prepare(self, texts: Iterable[str]) -> None:
        """Encode all texts in one call, which is much faster than one by one."""
        new = [text for text in dict.fromkeys(texts) if text not in self._encoded]
        if new:
            encoded = self.tokenizer(
                new,
                add_special_tokens=False,
                padding=False,
                truncation=False,
                return_attention_mask=False,
            )["input_ids"]
            self._encoded.update((text, tuple(ids)) for text, ids in zip(new, encoded, strict=True))

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text, without BOS."""
        if text not in self._encoded:
            [ids] = self.tokenizer([text], add_special_tokens=False, truncation=False)["input_ids"]
            self._encoded[text] = tuple(ids)
        return self._encoded[text]

    def input_tokens(self, text: str) -> tuple[int, ...] | str:
        """Return the ids of a prompt with BOS in front once, or the reason why there are none."""
        ids, bos, unknown = self.encode(text), self.tokenizer.bos_token_id, self.unknown_token
        if not ids:
            return EMPTY_PROMPT
        if unknown is not None and unknown in ids:
            return UNKNOWN_WORD
        if self.prepend_bos and bos is not None and ids[0] != bos:
            return (bos, *ids)
        return ids

    @cached_property
    def unknown_token(self) -> int | None:
        """The id that stands for words outside the vocabulary, if that is its one meaning."""
        unknown = getattr(self.tokenizer, "unk_token_id", None)
        return None if unknown == self.tokenizer.bos_token_id else unknown

    def answer_token(self, prompt: str, answer: str) -> int | None:
        """Return the one token that is this answer after this prompt, or None."""
        before, after = self.encode(prompt), self.encode(prompt + answer)
        if len(after) == len(before) + 1 and after[:-1] == before:
            token = after[-1]
        elif len(self.encode(answer)) == 1 and self._reads_back(answer):
            [token] = self.encode(answer)
        else:
            return None
        return None if token == self.unknown_token else token

    def _reads_back(self, answer: str) -> bool:
        ids = list(self.encode(answer))
        return bool(self.tokenizer.decode(ids, clean_up_tokenization_spaces=False) == answer)

    def inputs(self, clean: str, corrupted: str) -> tuple[tuple[int, ...], tuple[int, ...]] | str:
        """Return the ids of both prompts, equally many, or the reason for dropping the pair.

        An empty corrupted prompt is none, and has no ids.
        """
        clean_tokens = self.input_tokens(clean)
        if isinstance(clean_tokens, str):
            return clean_tokens
        if not corrupted:
            return clean_tokens, ()
        corrupted_tokens = self.input_tokens(corrupted)
        if isinstance(corrupted_tokens, str):
            return corrupted_tokens
        if len(clean_tokens) != len(corrupted_tokens):
            return DIFFERENT_LENGTH
        return clean_tokens, corrupted_tokens

    def answers(self, prompt: str, answers: Sequence[str]) -> tuple[int, ...] | None:
        """Return the distinct tokens of all answers after a prompt, or None if one has none."""
        tokens = [self.answer_token(prompt, answer) for answer in answers]
        found = [token for token in tokens if token is not None]
        return tuple(dict.fromkeys(found)) if len(found) == len(tokens) else None

    def align(self, pair: Pair) -> Example | str:
        """Return the example of a pair, or the reason for dropping it."""
        inputs = self.inputs(pair.clean, pair.corrupted)
        if isinstance(inputs, str):
            return inputs
        correct = self.answers(pair.clean, pair.correct)
        incorrect = self.answers(pair.clean, pair.incorrect)
        if not correct or not incorrect:
            return NOT_ONE_TOKEN
        if set(correct) & set(incorrect):
            return SHARED_ANSWER
        return Example(pair.clean, pair.corrupted, *inputs, correct, incorrect)

    def align_all(self, pairs: Sequence[Pair]) -> list[Example | str]:
        """Align many pairs; those whose first answers fail cost no look at the others."""
        self._encoded.clear()
        firsts = [replace(p, correct=p.correct[:1], incorrect=p.incorrect[:1]) for p in pairs]
        self.prepare(text for first in firsts for text in _texts(first))
        outcomes: list[Example | str] = [self.align(first) for first in firsts]
        remaining = [
            index
            for index, (pair, first) in enumerate(zip(pairs, firsts, strict=True))
            if pair != first and not isinstance(outcomes[index], str)
        ]
        self.prepare(text for index in remaining for text in _texts(pairs[index]))
        for index in remaining:
            outcomes[index] = self.align(pairs[index])
        return outcomes


def _texts(pair: Pair) -> list[str]:
    continued = [pair.clean + answer for answer in (*pair.correct, *pair.incorrect)]
    return [pair.clean, pair.corrupted, *continued]
