"""The models that a process keeps loaded: on each device so many, and so many bytes of weights.

A model is loaded when a stage first needs it and stays until there is no room for another. One that
will be needed next may be loaded in the background, where it fits beside those that are there.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import TYPE_CHECKING

from circuits.memory import let_go
from flows.errors import GridError
from flows.identity import ModelIdentity

if TYPE_CHECKING:
    from circuits.model import Model


class Shelf:
    """Loaded models, the one used last at the end."""

    def __init__(self, max_models: int = 1, max_bytes: int | None = None) -> None:
        self.max_models = max_models
        self.max_bytes = max_bytes
        self._models: OrderedDict[ModelIdentity, Future[Model]] = OrderedDict()

    @property
    def held(self) -> tuple[ModelIdentity, ...]:
        """The models that are loaded or being loaded, the one used last at the end."""
        return tuple(self._models)

    def bound(self, max_models: int, max_bytes: int | None) -> None:
        """Change how much may be held; what is too much goes when another model comes."""
        self.max_models, self.max_bytes = max_models, max_bytes

    def get(self, identity: ModelIdentity) -> Model:
        """The model, loaded now if it is not there; others are let go of before that.

        GridError for one whose weights alone are more than `max_bytes`, or changed since the grid
        was planned; raises as `circuits.load_model`.
        """
        ahead = self._models.get(identity)
        if ahead is not None and ahead.exception() is not None:
            del self._models[identity]  # there was no room for it ahead; there is now
        if identity not in self._models:
            self._check_alone(identity)
            while not self._fits(identity):
                oldest = next(one for one in self._models if one.device == identity.device)
                self._let_go(oldest)
            model = _loaded(identity)
            self._models[identity] = Future()
            self._models[identity].set_result(model)
        self._models.move_to_end(identity)
        return self._models[identity].result()

    def expect(self, identity: ModelIdentity) -> None:
        """Load a model in the background if it fits beside the others; else do nothing."""
        if identity in self._models or not self._fits(identity):
            return
        promise: Future[Model] = Future()
        self._models[identity] = promise
        self._models.move_to_end(identity, last=False)  # not used yet: the first to go
        threading.Thread(target=_fulfil, args=(promise, identity), daemon=True).start()

    def _fits(self, identity: ModelIdentity) -> bool:
        beside = [one for one in self._models if one.device == identity.device]
        if not beside:
            return True
        if len(beside) >= self.max_models:
            return False
        if self.max_bytes is None:
            return True
        return sum(map(weight_bytes, beside)) + weight_bytes(identity) <= self.max_bytes

    def _check_alone(self, identity: ModelIdentity) -> None:
        if self.max_bytes is not None and (needed := weight_bytes(identity)) > self.max_bytes:
            raise GridError(
                f"the weights of {identity.label} take {needed:,} bytes, more than max_bytes "
                f"({self.max_bytes:,}): raise it, or use another dtype"
            )

    def _let_go(self, identity: ModelIdentity) -> None:
        loading = self._models.pop(identity)
        loading.exception()  # waits for one that is still being loaded: it would be held anyway
        del loading
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def weight_bytes(identity: ModelIdentity) -> int:
    """How many bytes a model's weights take in the dtype they are held in."""
    from circuits.model import weight_count

    sizes = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
    return weight_count(identity.name, identity.revision) * sizes[identity.dtype]


def _fulfil(promise: Future[Model], identity: ModelIdentity) -> None:
    """Load a model that was promised; what goes wrong is for whoever needs it."""
    try:
        promise.set_result(_loaded(identity))
    except Exception as error:
        let_go(error)
        promise.set_exception(error)


def _loaded(identity: ModelIdentity) -> Model:
    from circuits.model import load_model

    model = load_model(
        identity.name,
        identity.device,
        identity.dtype,
        identity.revision,
        kv=identity.kv,
        trust_remote_code=identity.trust_remote_code,
    )
    if model.fingerprint != identity.fingerprint:
        raise GridError(
            f"the weights of {identity.name} changed while the grid was running: run it again"
        )
    return model
