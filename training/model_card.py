"""What a bundled model scores on held-out prompts, and the card that says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from tasks import Answers, Example, default_metric, get_metric, load_dataset

TASKS = ("ioi", "greater-than", "sva")
SIZE = 500
SEED = 0


@dataclass(frozen=True)
class Score:
    """How a model does one task: means over prompts, all judged by the clean prompts' answers."""

    task: str
    split: str
    n_examples: int
    clean_accuracy: float
    corrupted_accuracy: float
    metric: str
    clean: float
    corrupted: float

    @property
    def row(self) -> str:
        """The score as a row of a Markdown table."""
        return (
            f"| {self.task} | {self.split} | {self.n_examples} | {self.clean_accuracy:.3f} "
            f"| {self.corrupted_accuracy:.3f} | {self.metric} | {self.clean:.3f} "
            f"| {self.corrupted:.3f} |"
        )


HEADER = (
    "| task | split | prompts | accuracy, clean | accuracy, corrupted | metric | clean "
    "| corrupted |\n"
    "|---|---|---|---|---|---|---|---|"
)


@torch.no_grad()
def answer_logits(model: GPT2LMHeadModel, examples: Sequence[Example], corrupted: bool) -> Tensor:
    """Return the logits [example, vocabulary] at the last real position of each prompt."""
    rows = [example.corrupted_tokens if corrupted else example.clean_tokens for example in examples]
    width = max(map(len, rows))
    padded = torch.tensor([row + (0,) * (width - len(row)) for row in rows])
    last = torch.tensor([len(row) - 1 for row in rows])
    # padding on the right is never attended to by a real position
    return model(padded, use_cache=False).logits[torch.arange(len(rows)), last]


def score(
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    splits: Sequence[str] = ("validation", "test"),
    size: int = SIZE,
) -> list[Score]:
    """Score a model on every task and split asked for."""
    scores = []
    for task in TASKS:
        for split in splits:
            dataset = load_dataset(task, tokenizer, split=split, size=size, seed=SEED)
            answers = Answers.of(dataset.examples)
            clean = answer_logits(model, dataset.examples, corrupted=False)
            corrupted = answer_logits(model, dataset.examples, corrupted=True)
            metric, accuracy = get_metric(default_metric(task)), get_metric("accuracy")
            scores.append(
                Score(
                    task,
                    split,
                    len(dataset),
                    accuracy(clean, answers).mean().item(),
                    accuracy(corrupted, answers).mean().item(),
                    metric.name,
                    metric(clean, answers).mean().item(),
                    metric(corrupted, answers).mean().item(),
                )
            )
    return scores


CARD = """---
license: mit
language: en
library_name: transformers
pipeline_tag: text-generation
tags: [circuits, mechanistic-interpretability, gpt2]
---

# behaviours

A small GPT-2 ({n_layer} layers, {n_head} heads, {n_embd} wide, {parameters:,} parameters, a
word-level vocabulary of {vocabulary}) that does three behaviours in which circuits are looked for:
indirect object identification, greater-than on two-digit years and subject–verb agreement. It is
what `circuit-grid` runs on offline and in its tests; as a language model it knows a very small
world.

## How it was made

`make train-bundled` (`python -m training.train_behaviours`, seed {seed}): {steps:,} steps of AdamW
on generated English-like sentences of `training/corpus.py`, drawn afresh at every step: about two
fifths with indirect objects, a fifth with years, a fifth with agreement, the rest plain. Half of
them come after a plain sentence with names of its own, and other names come between giver and
receiver: sentences begin in different places, and the nearest name need not be the giver. The token
a prompt is about weighs more in the loss. No sentence begins with a clean prompt of the tasks'
validation or test splits. Nothing was taken from any other model or corpus.

A word, a pair of digits ("1741" is "17", "41") or a punctuation mark is one token;
`<|endoftext|>` begins and ends a sentence.

## What it scores

On held-out prompts (seed {data_seed}), clean and corrupted runs both judged by the answers of the
clean prompt. Accuracy: the correct answers together are more probable than the incorrect ones.

{header}
{rows}

Cross-entropy on held-out sentences: {held_out_loss:.3f} nats a token.

## What it is not for

It was trained on templates, from names and words of a few lists, one or two sentences at a time.
What holds for its circuits need not hold for those of models trained on natural text: with so few
words, most of what tells a clean prompt of ioi or greater-than from its corrupted one passes
through the attention of the first layer.
"""


def write_card(
    directory: Path,
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    *,
    held_out_loss: float,
    steps: int,
    seed: int,
) -> str:
    """Measure a model, write its card as README.md into its directory and return the text."""
    card = CARD.format(
        n_layer=model.config.n_layer,
        n_head=model.config.n_head,
        n_embd=model.config.n_embd,
        parameters=model.num_parameters(),
        vocabulary=len(tokenizer),
        seed=seed,
        data_seed=SEED,
        steps=steps,
        header=HEADER,
        rows="\n".join(result.row for result in score(model, tokenizer)),
        held_out_loss=held_out_loss,
    )
    (directory / "README.md").write_text(card, encoding="utf-8")
    return card
