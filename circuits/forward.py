"""Run a model block by block, from any place in it, and hold on to what passes by.

A run can start at a layer, or within one where the attention's output is given, so that nothing
below is computed again. What passes a named place goes through a `Trace`, which keeps it or takes
gradients there. The shared prefix of a batch is run once; every run continues from its keys and
values. Only answer positions are unembedded, and no parameter has a gradient.

The places, in the order of a block: `stream` (what the heads read), `q`, `k`, `v` (as projected),
`z` (head outputs), `attended` (what attention adds to the stream), `middle` (the stream with it),
`mlp_in` (what the MLP reads), `mlp` (what it adds). Before all: `embedding`; after: `logits` (the
stream that the logits read, at the answer position).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.batching import Batch, plain_batch
from circuits.graph import HEAD_INPUTS
from circuits.layers import Layer
from circuits.model import Model

Place = tuple[str, int]  # what, and in which layer; -1 before the layers, n_layers after them
Stream = Float[Tensor, "rows pos d_model"]


class Trace:
    """What passed by: values kept at some places, and leaves for gradients at others.

    `keep` and `fork` name places, everywhere (`"z"`) or in one layer (`("z", 3)`). At a fork the
    run goes on from a copy, so that the gradient is that of what comes after alone.
    """

    def __init__(self, keep: Iterable[str | Place] = (), fork: Iterable[str | Place] = ()) -> None:
        self.keep = frozenset(keep)
        self.fork = frozenset(fork)
        self.values: dict[Place, Tensor] = {}
        self.leaves: dict[Place, Tensor] = {}
        self.gradients: dict[Place, Tensor] = {}

    def __call__(self, what: str, layer: int, value: Tensor) -> Tensor:
        """The value to go on with."""
        place = (what, layer)
        if what in self.fork or place in self.fork:
            value = value.view_as(value) if value.requires_grad else value.detach()
            self.leaves[place] = value.requires_grad_(True)
        if what in self.keep or place in self.keep:
            self.values[place] = value.detach()
        return value

    def __getitem__(self, place: Place) -> Tensor:
        return self.values[place]

    def differentiate(self, outputs: list[Tensor], weights: list[Tensor] | None = None) -> None:
        """Find the gradient at every fork; that of what the outputs do not depend on is absent."""
        places = list(self.leaves)
        inputs = [self.leaves[place] for place in places]
        found = torch.autograd.grad(outputs, inputs, weights, allow_unused=True)
        for place, gradient in zip(places, found, strict=True):
            if gradient is not None:
                self.gradients[place] = gradient


class Forward:
    """Runs of one model on one batch, from the end of the shared prefix on.

    A run's rows are the batch's examples, or several copies of them one after another.
    """

    def __init__(self, model: Model, batch: Batch) -> None:
        self.model = model
        self.batch = batch
        self.first = batch.prefix.shape[1]

    def embed(self, tokens: Int[Tensor, "batch pos"]) -> Stream:
        """What `input` writes."""
        with torch.no_grad():
            return self.model.embed(tokens)

    def positions(self, n: int) -> Float[Tensor, "pos d_model"] | None:
        """The learned position embedding of the suffix; None where the family has none."""
        table = self.model.positions
        return None if table is None else table[self.first : self.first + n]

    def run(self, embedding: Stream, trace: Trace) -> Float[Tensor, "rows vocab"]:
        """The whole suffix; the logits at the answer positions."""
        stream = trace("embedding", -1, embedding)
        positions = self.positions(stream.shape[1])
        return self.onward(stream if positions is None else stream + positions, 0, trace)

    def onward(
        self, stream: Stream, first: int, trace: Trace, attended: Stream | None = None
    ) -> Float[Tensor, "rows vocab"]:
        """From layer `first` to the logits; `attended` stands for that layer's own attention.

        It is added as exactly as it is given: rounding to the model's dtype comes after.
        """
        parallel = self.model.architecture.parallel
        for index in range(first, self.model.architecture.n_layers):
            layer = self.model.layers[index]
            stream = trace("stream", index, stream)
            if attended is None:
                attended = self._attend(layer, index, stream, trace)
            middle = (stream + trace("attended", index, attended)).to(stream.dtype)
            middle = trace("middle", index, middle)
            mlp_in = trace("mlp_in", index, stream if parallel else middle)
            stream = middle + trace("mlp", index, layer.mlp_output(mlp_in))
            attended = None
        last = self.batch.last.repeat(len(stream) // self.batch.size)
        rows = torch.arange(len(stream), device=stream.device)
        n_layers = self.model.architecture.n_layers
        return self.model.logits(trace("logits", n_layers, stream[rows, last]))

    def _attend(self, layer: Layer, index: int, stream: Stream, trace: Trace) -> Stream:
        inputs = layer.head_inputs(stream)
        q, k, v = (trace(kind, index, inputs[kind]) for kind in HEAD_INPUTS)
        z = layer.attention.mix(*self.prepared(index, {"q": q, "k": k, "v": v}))
        return layer.attended(trace("z", index, z))

    def prepared(
        self, index: int, inputs: dict[str, Tensor], readers: list[int] | slice = slice(None)
    ) -> list[Float[Tensor, "rows pos heads d_head"]]:
        """Projected inputs as attention uses them, those of the prefix in front of k and v.

        `readers` says which k and v readers these are, where they are not all.
        """
        attention = self.model.layers[index].attention
        found = [attention.prepare(kind, inputs[kind], self.first) for kind in HEAD_INPUTS]
        if self.first:
            for i, before in enumerate(self.prefix[index], 1):
                before = before[:, :, readers]
                copies = len(found[i]) // len(before)
                found[i] = torch.cat([before.repeat(copies, 1, 1, 1), found[i]], dim=1)
        return found

    @cached_property
    @torch.no_grad()
    def prefix(self) -> list[tuple[Tensor, Tensor]]:
        """The prepared keys and values of the shared prefix, one pair a layer."""
        stream = self.model.embed(self.batch.prefix)
        if self.model.positions is not None:
            stream = stream + self.model.positions[: self.first]
        found = []
        for layer in self.model.layers:
            inputs = layer.head_inputs(stream)
            q, k, v = (layer.attention.prepare(kind, inputs[kind], 0) for kind in HEAD_INPUTS)
            found.append((k, v))
            middle = stream + layer.attended(layer.attention.mix(q, k, v))
            parallel = self.model.architecture.parallel
            stream = middle + layer.mlp_output(stream if parallel else middle)
        return found


@torch.no_grad()
def logits_of(model: Model, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch vocab"]:
    """The logits at the last position of whole prompts of one length, block by block."""
    forward = Forward(model, plain_batch(tokens))
    return forward.run(forward.embed(tokens), Trace())
