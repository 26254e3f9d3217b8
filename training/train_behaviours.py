"""Train the bundled model ``behaviours`` and write it, with its card, to data/bundled.

    python -m training.train_behaviours [directory]

A GPT-2 of four layers learns the next token of sentences drawn afresh at every step; the token
that a sentence's prompt is about weighs more. Everything follows from SEED (to the rounding of
the machine).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from training.corpus import Sentence, sentences, vocabulary
from training.model_card import score, write_card
from training.word_tokenizer import word_tokenizer

SEED = 0
STEPS = 3500
BATCH_SIZE = 64
WARM_UP = 150
LEARNING_RATE = 2e-3
ANSWER_WEIGHT = 12.0
POSITIONS = 64
BUNDLED = Path(__file__).resolve().parents[1] / "data" / "bundled" / "behaviours"


@dataclass(frozen=True)
class Batch:
    """Token ids padded on the right and the weight of each as a target (0 for padding)."""

    tokens: Tensor
    weights: Tensor


def model_config(vocabulary_size: int, bos: int) -> GPT2Config:
    """Return the shape of the bundled model."""
    return GPT2Config(
        vocab_size=vocabulary_size,
        n_positions=POSITIONS,
        n_embd=96,
        n_layer=4,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=bos,
        eos_token_id=bos,
    )


def collate(drawn: list[Sentence], tokenizer: PreTrainedTokenizerFast) -> Batch:
    """Put BOS before and after each sentence and weigh the answers."""
    texts = [sentence.text for sentence in drawn]
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    width = max(map(len, encoded["input_ids"])) + 2
    tokens = torch.full((len(drawn), width), tokenizer.bos_token_id)
    weights = torch.zeros(len(drawn), width)
    for row, (sentence, ids) in enumerate(zip(drawn, encoded["input_ids"], strict=True)):
        tokens[row, 1 : len(ids) + 1] = torch.tensor(ids)
        weights[row, 1 : len(ids) + 2] = 1.0
        for position, (start, _) in enumerate(encoded["offset_mapping"][row], start=1):
            if start in sentence.answers:
                weights[row, position] = ANSWER_WEIGHT
    return Batch(tokens, weights)


def batches(drawn: Iterator[Sentence], tokenizer: PreTrainedTokenizerFast) -> Iterator[Batch]:
    """Yield batches of sentences of similar length, so that little is padding."""
    while True:
        pool = sorted(islice(drawn, BATCH_SIZE * 16), key=lambda sentence: len(sentence.text))
        groups = [pool[start : start + BATCH_SIZE] for start in range(0, len(pool), BATCH_SIZE)]
        for index in torch.randperm(len(groups)).tolist():
            yield collate(groups[index], tokenizer)


def weighted_loss(model: GPT2LMHeadModel, batch: Batch) -> Tensor:
    """Mean cross-entropy in nats of the next token, targets weighed."""
    logits = model(batch.tokens[:, :-1], use_cache=False).logits
    losses = cross_entropy(logits.flatten(0, 1), batch.tokens[:, 1:].flatten(), reduction="none")
    weights = batch.weights[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum()


def train(tokenizer: PreTrainedTokenizerFast) -> GPT2LMHeadModel:
    """Train a model from scratch: AdamW, warm-up, then a linear decay to zero."""
    torch.set_num_threads(1)  # matrices this small gain nothing from more, and sums repeat
    torch.manual_seed(SEED)
    model = GPT2LMHeadModel(model_config(len(tokenizer), tokenizer.bos_token_id))
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    vectors = [weight for weight in model.parameters() if weight.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARM_UP, (STEPS - step) / (STEPS - WARM_UP))
    )
    stream = batches(sentences(f"behaviours/{SEED}"), tokenizer)
    began = time.perf_counter()
    for step in range(STEPS):
        loss = weighted_loss(model, next(stream))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 250 == 0:
            seconds = time.perf_counter() - began
            accuracies = {
                row.task: f"{row.clean_accuracy:.3f}"
                for row in score(model, tokenizer, splits=("validation",), size=100)
            }
            print(f"step {step + 1}: loss {loss.item():.3f}, {seconds:.0f} s, {accuracies}")
    return model.eval()


def main(directory: Path = BUNDLED) -> None:
    """Train, save and describe the model."""
    began = time.perf_counter()
    tokenizer = word_tokenizer(vocabulary(), POSITIONS)
    model = train(tokenizer)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    (directory / "model.safetensors").chmod(0o644)  # written for its owner alone
    with torch.no_grad():
        held_out = islice(sentences(f"held-out/{SEED}", split="test"), 2000)
        batch = collate(list(held_out), tokenizer)
        batch = Batch(batch.tokens, (batch.weights > 0).float())
        loss = weighted_loss(model, batch).item()
    card = write_card(directory, model, tokenizer, held_out_loss=loss, steps=STEPS, seed=SEED)
    print(card)
    print(f"{directory}: {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
