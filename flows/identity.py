"""What a grid's words stand for, as digests: the models, tokenizers, tasks and files behind names.

Stage keys are made of these, so that renaming a directory changes nothing and changing one weight,
one prompt or one row changes everything that depends on it. Nothing is loaded or run to know them.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from circuits.errors import CircuitError
from flows.config import ModelChoice, TaskChoice
from flows.errors import GridError
from tasks import get_metric, get_task
from tasks.rules import get_rule

_SAMPLED_PAIRS = 256


@dataclass(frozen=True)
class ModelIdentity:
    """A model of a grid, the device it runs on, and the digests of its weights and tokenizer."""

    name: str
    label: str
    short_name: str
    revision: str | None
    dtype: str
    kv: str
    device: str
    fingerprint: str
    tokenizer: str
    trust_remote_code: bool = False

    @property
    def parameters(self) -> dict[str, str]:
        """What rows that come of running the model depend on: its weights and their dtype."""
        return {"model": self.fingerprint, "dtype": self.dtype}

    @property
    def parameters_of_graph(self) -> dict[str, str]:
        """What rows that name its edges depend on: the graph's readers besides."""
        return self.parameters | {"kv": self.kv}


class Identities:
    """The identities that a run has asked for; each is found out once, and so is a failure to.

    A new run asks anew: files and checkpoints change between runs.
    """

    def __init__(self) -> None:
        self._models: dict[tuple[ModelChoice, str], ModelIdentity | CircuitError] = {}
        self._tasks: dict[TaskChoice, str] = {}
        self._files: dict[str, str] = {}

    def model(self, choice: ModelChoice, device: str) -> ModelIdentity:
        """The identity of a model; raises `circuits.ModelError` where there is no such model."""
        if (choice, device) not in self._models:
            try:
                self._models[choice, device] = _identify_model(choice, device)
            except CircuitError as error:
                self._models[choice, device] = error
        found = self._models[choice, device]
        if isinstance(found, CircuitError):
            raise found
        return found

    def file(self, path: str) -> str:
        """The digest of a file of scores or circuits; GridError if it can't be read."""
        if path not in self._files:
            self._files[path] = digest_of_file(path)
        return self._files[path]

    def task(self, task: TaskChoice) -> str:
        """The digest of what a task's examples are made from."""
        if task not in self._tasks:
            self._tasks[task] = digest_of_file(task.path) if task.path else _digest_of_pairs(task)
        return self._tasks[task]


def _identify_model(choice: ModelChoice, device: str) -> ModelIdentity:
    from circuits.model import fingerprint, tokenizer_fingerprint

    return ModelIdentity(
        name=choice.name,
        label=choice.label,
        short_name=choice.short_name,
        revision=choice.revision,
        dtype=choice.dtype,
        kv=choice.kv,
        device=device,
        fingerprint=fingerprint(choice.name, choice.revision),
        tokenizer=tokenizer_fingerprint(choice.name, choice.revision, choice.trust_remote_code),
        trust_remote_code=choice.trust_remote_code,
    )


def identify_metric(name: str) -> str:
    """A metric's name, and where it is not one of this project's, the digest of its source."""
    return name + _digest_of_source(get_metric(name).function)


def identify_rule(name: str | None) -> str | None:
    """A label rule's name, and where it is not one of this project's, the digest of its source."""
    return None if name is None else name + _digest_of_source(get_rule(name))


def _digest_of_source(function: Callable[..., object]) -> str:
    if function.__module__.partition(".")[0] == "tasks":
        return ""  # those change with the version of the stages
    try:
        return "@" + hashlib.sha256(inspect.getsource(function).encode()).hexdigest()
    except (OSError, TypeError):  # written in a place that keeps no source
        return ""


def digest_of_file(path: str) -> str:
    """SHA-256 (hex) of a file's content; GridError if it can't be read."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise GridError(f"{path} can't be read: {error.strerror}") from error


def _digest_of_pairs(task: TaskChoice) -> str:
    """The file that defines a task, and 256 of its pairs, spread evenly, for what that file reads.

    The pairs may be millions. Drawing examples anew is cheap, and where they come out the same,
    nothing that depends on them is computed again.
    """
    define = get_task(task.source).pairs
    pairs = define()
    step = max(1, len(pairs) // _SAMPLED_PAIRS)
    sample = [pairs[i] for i in range(0, len(pairs), step)]
    rows = [asdict(pair) if pair is not None else None for pair in sample]
    digest = hashlib.sha256(json.dumps([len(pairs), rows]).encode())
    with suppress(OSError, TypeError):  # a task of a notebook has no file
        digest.update(Path(inspect.getfile(define)).read_bytes())
    return digest.hexdigest()
