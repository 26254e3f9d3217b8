"""Run a model and hold on to what passes by: everything that touches a hook lives here.

A run records the writers' contributions in their compact form (the embedding, each head's `z`
before the output projection, each MLP's output) and, if asked, the gradients of a loss where the
readers are: at the outputs of the q, k and v projections, at the MLP's norm and at the final norm.
Nothing is copied per head, and no parameter has a gradient. The shared prefix of a batch is run
once; every run continues from its keys and values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.batching import Batch
from circuits.graph import HEAD_INPUTS
from circuits.model import Model


@dataclass(frozen=True, eq=False)
class Contributions:
    """What every writer wrote in one run, heads before their output projection."""

    embedding: Float[Tensor, "batch pos d_model"]
    heads: list[Float[Tensor, "batch pos heads d_head"]]  # one a layer
    mlps: list[Float[Tensor, "batch pos d_model"]]
    logits: Float[Tensor, "batch vocab"]  # at the answer position


@dataclass(frozen=True, eq=False)
class LayerGradients:
    """The gradients of a loss at one layer's readers, and what their pull-back needs."""

    stream: Float[Tensor, "batch pos d_model"]  # the input of the heads' norm
    projections: dict[str, Float[Tensor, "batch pos heads d_head"]]  # outputs of q, k, v
    heads: dict[str, Float[Tensor, "batch pos heads d_head"]]  # gradients at those outputs
    mlp: Float[Tensor, "batch pos d_model"]


@dataclass(frozen=True, eq=False)
class Gradients:
    """The gradients of a loss at every reader."""

    layers: list[LayerGradients]
    logits: Float[Tensor, "batch pos d_model"]


@dataclass(frozen=True, eq=False)
class LayerState:
    """Everything that passed through one layer in one run."""

    stream_of_heads: Float[Tensor, "batch pos d_model"]
    projections: dict[str, Float[Tensor, "batch pos heads d_head"]]
    heads: Float[Tensor, "batch pos heads d_head"]
    stream_of_mlp: Float[Tensor, "batch pos d_model"]
    mlp: Float[Tensor, "batch pos d_model"]


@dataclass(frozen=True, eq=False)
class State:
    """Everything that passed through the model in one run."""

    embedding: Float[Tensor, "batch pos d_model"]
    layers: list[LayerState]
    stream_of_logits: Float[Tensor, "batch pos d_model"]
    logits: Float[Tensor, "batch vocab"]  # at the answer position


Loss = Callable[[Float[Tensor, "batch vocab"]], Float[Tensor, " batch"]]


class Recorder:
    """Runs of one model on one batch, from the end of the shared prefix on."""

    def __init__(self, model: Model, batch: Batch) -> None:
        self.model = model
        self.batch = batch
        self.n_layers = model.architecture.n_layers
        self.prefix = self._run_prefix()

    def record(
        self,
        tokens: Int[Tensor, "batch pos"],
        loss: Loss | None = None,
        embedding: Float[Tensor, "batch pos d_model"] | None = None,
    ) -> tuple[Contributions, Gradients | None]:
        """Run the suffix and record the contributions, and the gradients if there is a loss.

        `embedding` replaces the embedding of the tokens. The gradients are those of the sum of the
        per-example losses: examples do not touch each other, so each row is its example's own.
        """
        values: dict[str, Tensor] = {}
        readers: dict[str, Tensor] = {}
        keep = _keeper(values)

        def fork(name: str) -> Callable[..., Tensor]:
            """Put a copy of the value on the reader's branch, to take the gradient there."""

            def hook(value: Tensor, hook: object) -> Tensor:
                onward = value.view_as(value) if value.requires_grad else value.detach()
                readers[name] = onward.requires_grad_(True)
                return onward

            return hook

        def replace(value: Tensor, hook: object) -> Tensor | None:
            values["embed"] = value.detach() if embedding is None else embedding
            return embedding

        hooks: list[tuple[str, Callable]] = [("embed.hook_out", replace)]
        for layer in range(self.n_layers):
            block = f"blocks.{layer}."
            hooks += [(block + "attn.hook_z", keep(f"z{layer}"))]
            hooks += [(block + "hook_mlp_out", keep(f"mlp{layer}"))]
            if loss is not None:
                hooks += [(block + "ln1.hook_in", keep(f"stream{layer}"))]
                for kind in HEAD_INPUTS:
                    hooks += [(f"{block}attn.{kind}.hook_out", fork(f"{kind}{layer}"))]
                hooks += [(block + "ln2.hook_in", fork(f"mlp{layer}"))]
        if loss is not None:
            hooks += [("ln_final.hook_in", fork("logits"))]

        with torch.set_grad_enabled(loss is not None):
            logits = self._run(tokens, hooks)
            if loss is None:
                return self._contributions(values, logits), None
            names = list(readers)
            total = loss(logits).sum()
            found = torch.autograd.grad(total, [readers[name] for name in names])
        gradients = dict(zip(names, found, strict=True))
        layers = [
            LayerGradients(
                stream=values[f"stream{layer}"],
                projections={k: self._per_head(readers[f"{k}{layer}"]) for k in HEAD_INPUTS},
                heads={k: self._per_head(gradients[f"{k}{layer}"]) for k in HEAD_INPUTS},
                mlp=gradients[f"mlp{layer}"],
            )
            for layer in range(self.n_layers)
        ]
        return self._contributions(values, logits), Gradients(layers, gradients["logits"])

    @torch.no_grad()
    def record_state(self, tokens: Int[Tensor, "batch pos"]) -> State:
        """Run the suffix and record everything that a run of a circuit may have to start from."""
        values: dict[str, Tensor] = {}
        keep = _keeper(values)
        hooks = [("embed.hook_out", keep("embed")), ("ln_final.hook_in", keep("logits"))]
        for layer in range(self.n_layers):
            block = f"blocks.{layer}."
            hooks += [
                (block + "ln1.hook_in", keep(f"stream_of_heads{layer}")),
                *((f"{block}attn.{k}.hook_out", keep(f"{k}{layer}")) for k in HEAD_INPUTS),
                (block + "attn.hook_z", keep(f"z{layer}")),
                (block + "ln2.hook_in", keep(f"stream_of_mlp{layer}")),
                (block + "hook_mlp_out", keep(f"mlp{layer}")),
            ]
        logits = self._run(tokens, hooks)
        layers = [
            LayerState(
                stream_of_heads=values[f"stream_of_heads{layer}"],
                projections={k: self._per_head(values[f"{k}{layer}"]) for k in HEAD_INPUTS},
                heads=self._per_head(values[f"z{layer}"]),
                stream_of_mlp=values[f"stream_of_mlp{layer}"],
                mlp=values[f"mlp{layer}"],
            )
            for layer in range(self.n_layers)
        ]
        return State(values["embed"], layers, values["logits"], logits)

    def _contributions(self, values: dict[str, Tensor], logits: Tensor) -> Contributions:
        return Contributions(
            embedding=values["embed"],
            heads=[self._per_head(values[f"z{layer}"]) for layer in range(self.n_layers)],
            mlps=[values[f"mlp{layer}"] for layer in range(self.n_layers)],
            logits=logits.detach(),
        )

    def _per_head(self, value: Tensor) -> Float[Tensor, "batch pos heads d_head"]:
        return value.detach().reshape(*value.shape[:2], self.model.architecture.n_heads, -1)

    def _run(
        self, tokens: Int[Tensor, "batch pos"], hooks: list[tuple[str, Callable]]
    ) -> Float[Tensor, "batch vocab"]:
        """The logits at the answer positions; no other position is unembedded."""

        def keep_answers(value: Tensor, hook: object) -> Tensor:
            return value[self.batch.rows, self.batch.last][:, None]

        logits = self.model.bridge.run_with_hooks(
            tokens,
            fwd_hooks=[*hooks, ("unembed.hook_in", keep_answers)],
            past_key_values=self._cache(),
        )
        return logits[:, 0]

    def _run_prefix(self) -> list[tuple[Tensor, Tensor]]:
        """The keys and values of the shared prefix, one pair a layer; empty if there is none."""
        if self.batch.prefix.shape[1] == 0:
            return []
        from transformers.cache_utils import DynamicCache

        cache = DynamicCache()
        with torch.no_grad():
            self.model.bridge(self.batch.prefix, past_key_values=cache, logits_to_keep=1)
        return [(layer.keys, layer.values) for layer in cache.layers]

    def _cache(self) -> object | None:
        """A cache that holds the prefix; runs extend it in place, so each gets its own."""
        if not self.prefix:
            return None
        from transformers.cache_utils import DynamicCache

        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self.prefix):
            cache.update(keys, values, layer)
        return cache


def _keeper(values: dict[str, Tensor]) -> Callable[[str], Callable[..., None]]:
    """Hooks that put what passes by into `values`, under the name they are made for."""

    def keep(name: str) -> Callable[..., None]:
        def hook(value: Tensor, hook: object) -> None:
            values[name] = value.detach()

        return hook

    return keep
