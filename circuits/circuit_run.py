r"""One run of a model with only a circuit intact, and the runs that it lies between.

Reader v of the circuit gets the ablated stream plus, for each member edge, the change of its writer
in this run against what replaces it:

    x_v = x'_v + Σ_{u→v in circuit} (z̃_u − z'_u)

So one ablated run serves every circuit on a batch. From there a circuit costs only what it
contains: a head that no member edge leaves is never computed, a head input without member edges
keeps its ablated query, key or value, and the logits are read at the answer position alone.
Several circuits go through the layers side by side.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from circuits.circuit import Circuit
from circuits.forward import Forward, Trace
from circuits.graph import HEAD_INPUTS
from circuits.intervention import Contributions, MeanActivations, zeros
from circuits.layers import at_least_float32

_STATE = ("embedding", "stream", "q", "k", "v", "z", "attended", "mlp_in", "mlp", "logits")


@torch.no_grad()
def runs_between(
    forward: Forward, intervention: str, means: MeanActivations | None
) -> tuple[Tensor, Tensor, Trace, Tensor]:
    """The clean embedding and logits, and what passes where everything is ablated, with logits."""
    batch, model = forward.batch, forward.model
    clean = forward.embed(batch.clean)
    if intervention == "patching":
        clean_logits = forward.run(clean, Trace())
        base = Trace(keep=_STATE)
        return clean, clean_logits, base, forward.run(forward.embed(batch.corrupted), base)
    trace = Trace(keep=Contributions.KEEP)
    clean_logits = forward.run(clean, trace)
    like = Contributions.of(trace, model.architecture.n_layers)
    base = ablated_state(forward, zeros(like) if means is None else means.contributions(like))
    logits = model.logits(base["logits", model.architecture.n_layers])
    return clean, clean_logits, base, logits


@torch.no_grad()
def logits_of_circuits(runs: Sequence[CircuitRun]) -> list[Float[Tensor, "batch vocab"]]:
    """The logits of several runs on one batch, layer by layer side by side.

    Their MLPs and their logits are computed together, so that each weight is read once.
    """
    model = runs[0].model
    for index, layer in enumerate(model.layers):
        for run in runs:
            run.run_heads(index)
        inputs = [(run, run.mlp_input(index)) for run in runs]
        reading = [(run, stream) for run, stream in inputs if stream is not None]
        if reading:
            outputs = layer.mlp_output(torch.stack([stream for _, stream in reading]))
            for (run, _), output in zip(reading, outputs, strict=True):
                run.write_mlp(index, output)
    return list(model.logits(torch.stack([run.final_stream() for run in runs])))


class CircuitRun:
    """One run of the model on a batch with only a circuit intact; `logits_of_circuits` drives it.

    `base` is what passes where everything is ablated. Under patching a component without member
    edges coming in writes what it writes there, and is not run; under zero and mean interventions
    it still answers to what it reads, and is.
    """

    def __init__(
        self,
        forward: Forward,
        base: Trace,
        clean_embedding: Float[Tensor, "batch pos d_model"],
        circuit: Circuit,
        *,
        patching: bool = True,
    ) -> None:
        self.model = forward.model
        self.batch = forward.batch
        self.forward = forward
        self.base = base
        self.patching = patching
        self.graph = self.model.graph
        device = clean_embedding.device
        self.mask = torch.from_numpy(circuit.mask.copy())
        self.neurons: Tensor | None = None
        if circuit.neurons is not None:
            self.neurons = torch.from_numpy(circuit.neurons.copy()).to(device)
        self.writes = self.mask.any(dim=1).tolist()
        self.changed: list[int] = []  # writers that differ from the base, in order
        shape = (sum(self.writes), *clean_embedding.shape)
        # z̃_u − z'_u of those writers; sums of many small changes need float32 at least
        self.changes = at_least_float32(clean_embedding).new_empty(shape)
        self._write([0], _difference(clean_embedding, base["embedding", -1])[None])

    def run_heads(self, index: int) -> None:
        """Compute a layer's heads that a member edge leaves and, under patching, one reaches."""
        layer, graph = self.model.layers[index], self.graph
        first = graph.heads(index).start
        serves = {
            "q": list(range(graph.n_heads)),
            **{kind: [graph.kv_head_of(h) for h in range(graph.n_heads)] for kind in ("k", "v")},
        }
        reached = {
            kind: self._reached(range(*graph.inputs(index, kind).indices(graph.n_readers)))
            for kind in HEAD_INPUTS
        }
        # where one norm runs over all heads, what reaches one of them changes them all
        all_run = not self.patching or (layer.attention.coupled and any(map(any, reached.values())))
        active = [
            h
            for h in range(graph.n_heads)
            if self.writes[first + h]
            and (all_run or any(reached[kind][serves[kind][h]] for kind in HEAD_INPUTS))
        ]
        if not active:
            return
        needed = range(graph.n_heads) if layer.attention.coupled else active
        inputs = {}
        for kind in HEAD_INPUTS:
            inputs[kind] = self.base[kind, index]
            wanted = sorted({serves[kind][h] for h in needed})
            readers = [r for r in wanted if reached[kind][r]]
            read = self._read([graph.inputs(index, kind).start + r for r in readers])
            if read is not None:
                streams = self._streams(self.base["stream", index], read)
                inputs[kind] = inputs[kind].clone()
                projected = layer.head_input(kind, readers, streams.to(self.model.dtype))
                inputs[kind][:, :, readers] = projected
        if layer.attention.coupled:
            z = layer.attention.mix(*self.forward.prepared(index, inputs))[:, :, active]
        else:
            chosen = {
                kind: inputs[kind][:, :, [serves[kind][h] for h in active]] for kind in inputs
            }
            kv = [serves["k"][h] for h in active]
            z = layer.attention.mix(*self.forward.prepared(index, chosen, kv))
        changes = einsum(
            _difference(z, self.base["z", index][:, :, active]),
            at_least_float32(layer.output[active]),
            "batch pos head d_head, head d_head d_model -> head batch pos d_model",
        )
        self._write([first + h for h in active], changes)

    def mlp_input(self, index: int) -> Float[Tensor, "batch pos d_model"] | None:
        """What the MLP of a layer reads; None where it need not be run.

        It is run if a member edge leaves it and, under patching, one reaches it.
        """
        if not self.writes[self.graph.mlp(index)]:
            return None
        read, base = self._read([self.graph.mlp_input(index)]), self.base["mlp_in", index]
        if read is None:
            return None if self.patching else base
        return self._streams(base, read)[0].to(self.model.dtype)

    def write_mlp(self, index: int, output: Float[Tensor, "batch pos d_model"]) -> None:
        """Take in what the MLP of a layer said."""
        self._write([self.graph.mlp(index)], _difference(output, self.base["mlp", index])[None])

    def final_stream(self) -> Float[Tensor, "batch d_model"]:
        """What the logits read, at the answer positions."""
        rows, last = self.batch.rows, self.batch.last
        stream = self.base["logits", self.graph.n_layers]
        read = self._read([self.graph.n_readers - 1])
        if read is not None:
            stream = self._streams(stream, read, lambda x: x[..., rows, last, :])[0]
        return stream.to(self.model.dtype)

    def _write(
        self, writers: list[int], changes: Float[Tensor, "writers batch pos d_model"]
    ) -> None:
        kept = [i for i, writer in enumerate(writers) if self.writes[writer]]
        if not kept:
            return
        changes, writers = changes[kept], [writers[i] for i in kept]
        if self.neurons is not None:
            changes = changes * self.neurons[writers][:, None, None]
        start = len(self.changed)
        self.changes[start : start + len(kept)] = changes
        self.changed += writers

    def _reached(self, readers: Sequence[int]) -> list[bool]:
        return self.mask[self.changed][:, list(readers)].any(dim=0).tolist()

    def _read(self, readers: list[int]) -> Float[Tensor, "readers changed"] | None:
        """Which of the changed writers each reader takes; None where none of them takes any."""
        if not readers or not self.changed:
            return None
        takes = self.mask[self.changed][:, readers]
        return takes.T.to(self.changes) if bool(takes.any()) else None

    def _streams(
        self,
        base: Float[Tensor, "*place d_model"],
        read: Float[Tensor, "readers changed"],
        at: Callable[[Tensor], Tensor] = lambda value: value,
    ) -> Float[Tensor, "readers *place d_model"]:
        """The streams of some readers: the base and what they take, at the positions `at`.

        Behind a post-norm the heads of a layer are taken together.
        """
        stream = at_least_float32(base) + self._taken(read, slice(0, len(self.changed)), at, False)
        for index, layer in enumerate(self.model.layers):
            heads = self.graph.heads(index)
            start = bisect_left(self.changed, heads.start)
            stop = bisect_left(self.changed, heads.stop)
            if layer.norm_after_heads is None or start == stop:
                continue
            total = at_least_float32(layer.sum_of_heads(self.base["z", index].to(base.dtype)))
            mixed = at(total) + self._taken(read, slice(start, stop), at, True)
            attended = at_least_float32(at(self.base["attended", index]))
            stream = stream + layer.norm_after_heads(mixed) - attended
        return stream

    def _taken(
        self,
        read: Float[Tensor, "readers changed"],
        block: slice,
        at: Callable[[Tensor], Tensor],
        behind: bool,
    ) -> Tensor:
        """The sum of the changes each reader takes of a block; heads behind post-norms apart."""
        takes = read[:, block]
        if not behind:
            apart = [
                self.model.layers[0].norm_after_heads is not None
                and self.graph.writers[u].startswith("a")
                for u in self.changed[block]
            ]
            takes = takes.masked_fill(torch.tensor(apart, device=takes.device), 0.0)
        return torch.tensordot(takes, at(self.changes[: len(self.changed)][block]), dims=1)


def _difference(now: Tensor, ablated: Tensor) -> Tensor:
    return at_least_float32(now) - at_least_float32(ablated)


@torch.no_grad()
def ablated_state(forward: Forward, ablated: Contributions) -> Trace:
    """What passes where every writer writes what replaces it: positions and biases besides."""
    model, trace = forward.model, Trace()
    dtype, n_layers = model.dtype, model.architecture.n_layers
    trace.values["embedding", -1] = ablated.embedding
    stream = ablated.embedding.to(dtype)
    positions = forward.positions(stream.shape[1])
    stream = stream if positions is None else stream + positions
    for index, layer in enumerate(model.layers):
        attended = layer.attended(ablated.heads[index].to(dtype))
        middle = stream + attended
        mlp_in = stream if model.architecture.parallel else middle
        values = {"stream": stream, "z": ablated.heads[index], "attended": attended}
        values |= layer.head_inputs(stream) | {"mlp_in": mlp_in, "mlp": ablated.mlps[index]}
        trace.values |= {(what, index): value for what, value in values.items()}
        stream = middle + ablated.mlps[index].to(dtype)
    batch = forward.batch
    trace.values["logits", n_layers] = stream[batch.rows, batch.last]
    return trace
