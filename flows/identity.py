"""What a grid's words stand for, as digests: the models, tokenizers, tasks and files behind names.

Stage keys are made of these, so that renaming a directory changes nothing and changing one weight,
one prompt or one row changes everything that depends on it. Nothing is loaded or run to know them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from flows.config import ModelChoice, TaskChoice
from flows.errors import GridError

_SAMPLED_PAIRS = 256


@dataclass(frozen=True)
class ModelIdentity:
    """A model of a grid, the device it runs on, and the digests of its weights and tokenizer."""

    name: str
    label: str
    revision: str | None
    dtype: str
    device: str
    fingerprint: str
    tokenizer: str


@cache
def identify_model(choice: ModelChoice, device: str) -> ModelIdentity:
    """The identity of a model; raises `circuits.ModelError` where there is no such model."""
    from circuits.model import fingerprint, tokenizer_fingerprint

    return ModelIdentity(
        name=choice.name,
        label=choice.label,
        revision=choice.revision,
        dtype=choice.dtype,
        device=device,
        fingerprint=fingerprint(choice.name, choice.revision),
        tokenizer=tokenizer_fingerprint(choice.name, choice.revision),
    )


@cache
def identify_task(task: TaskChoice) -> str:
    """The digest of what examples are made from: a file's bytes, or a sample of a task's pairs.

    A task's pairs are many; 256 of them, spread evenly, and their number stand for all.
    """
    if task.path is not None:
        try:
            return hashlib.sha256(Path(task.path).read_bytes()).hexdigest()
        except OSError as error:
            raise GridError(f"{task.path} can't be read: {error.strerror}") from error
    from tasks import get_task

    pairs = get_task(task.source).pairs()
    step = max(1, len(pairs) // _SAMPLED_PAIRS)
    sample = [pairs[i] for i in range(0, len(pairs), step)]
    rows = [asdict(pair) if pair is not None else None for pair in sample]
    return hashlib.sha256(json.dumps([len(pairs), rows]).encode()).hexdigest()
