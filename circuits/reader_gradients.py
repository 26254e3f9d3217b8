r"""From gradients at projection outputs to edge scores, with one matrix product a layer.

All heads of a layer read one stream `x` through one norm; only their gradients differ. With `g`
the gradient at the output of a reader's projection, the gradient at that reader is `Jᵀ W g`, where
`J` is the norm's Jacobian. In closed form, with `x̂ = (x − μ)/σ`, norm weight `w` and `C` the
removal of the mean over d_model (LayerNorm; for RMSNorm `μ = 0` and `C` does nothing):

    Jᵀ W g = ( C(w∘W) g − x̂ · mean(x̂ ∘ (w∘W) g) ) / σ

The mean is `gᵀ (w∘W)ᵀ x̂ / d_model`, and `(w∘W)ᵀ x̂` is the projection's recorded output without its
constant part. So a gradient taken at several points s of a path, with weights ω_s, needs only

    a = Σ_s ω_s g_s / σ_s                       (d_head wide, summed over the points)
    κ_s = ω_s g_sᵀ (w∘W)ᵀ x̂_s / (d_model σ_s)   (one number a reader and point), and x̂_s

and the d_model-wide gradients of a layer are formed once, whatever the number of points:
`G = C(w∘W) a − Σ_s x̂_s κ_s`; without a norm in front, `G = W a` with σ = 1. Scores are
`S = Σ_pos Δᵀ G`, for each example, on real edges. Where there are many points, and Δ is known
before them, no x̂ need be kept: `Σ_pos (Δᵀ x̂_s) κ_s` is taken off at once.
"""

from __future__ import annotations

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from circuits.batching import Batch, BytesOf
from circuits.forward import Trace
from circuits.graph import HEAD_INPUTS
from circuits.intervention import Contributions
from circuits.layers import Layer, at_least_float32
from circuits.model import Model

WriterChanges = Float[Tensor, "batch writers pos d_model"]


class ReaderGradients:
    """The weighted sum, over points of a path, of the gradients at every reader.

    `changes`, the writers' ablated minus clean contributions, may be given where they are known:
    memory then does not grow with the number of points.
    """

    KEEP = ("stream", *HEAD_INPUTS)
    FORK = (*HEAD_INPUTS, "mlp_in", "logits")

    def __init__(self, model: Model, batch: Batch, changes: WriterChanges | None = None) -> None:
        self.model = model
        self.batch = batch
        self.changes = changes
        self.taken_off: Tensor | None = None  # Σ_pos (Δᵀ x̂_s) κ_s, where Δ is known
        n_layers = model.architecture.n_layers
        self.projected: list[Tensor | None] = [None] * n_layers  # a
        self.streams: list[list[Tensor]] = [[] for _ in range(n_layers)]  # x̂, one a point
        self.along: list[list[Tensor]] = [[] for _ in range(n_layers)]  # κ, one a point
        self.mlps: list[Tensor | None] = [None] * n_layers
        self.logits: Tensor | None = None

    def add(self, trace: Trace, weight: float) -> None:
        """Add the gradients that a run left at its readers."""
        for index, layer in enumerate(self.model.layers):
            self._add_heads(index, layer, trace, weight)
            if ("mlp_in", index) in trace.gradients:
                gradient = at_least_float32(trace.gradients["mlp_in", index])
                self.mlps[index] = _sum(self.mlps[index], gradient * weight)
        at_logits = trace.gradients.get(("logits", self.model.architecture.n_layers))
        if at_logits is not None:
            self.logits = _sum(self.logits, at_least_float32(at_logits) * weight)

    def _add_heads(self, index: int, layer: Layer, trace: Trace, weight: float) -> None:
        found = [trace.gradients.get((kind, index)) for kind in HEAD_INPUTS]
        if all(one is None for one in found):
            return
        values = [trace[kind, index] for kind in HEAD_INPUTS]
        gradients = [
            torch.zeros_like(value) if one is None else one
            for one, value in zip(found, values, strict=True)
        ]
        g = at_least_float32(torch.cat(gradients, dim=2)) * weight  # [batch, pos, reader, d_head]
        if layer.norm_of_heads is None:
            self.projected[index] = _sum(self.projected[index], g)
            return
        normal, scale = layer.norm_of_heads.normalise(at_least_float32(trace["stream", index]))
        constant = constant_part(layer)
        linear = at_least_float32(torch.cat(values, dim=2))
        linear = linear if constant is None else linear - constant
        g = g / scale[..., None]
        self.projected[index] = _sum(self.projected[index], g)
        along = (g * linear).sum(-1) / normal.shape[-1]
        if self.changes is None:
            self.streams[index].append(normal)
            self.along[index].append(along)
        else:
            self._take_off(index, self.changes, normal, along)

    def _take_off(self, index: int, changes: WriterChanges, normal: Tensor, along: Tensor) -> None:
        """Of all writers before the heads of a layer, what lies along x̂."""
        graph = self.model.graph
        if self.taken_off is None:
            shape = (len(changes), graph.n_writers, graph.n_readers)
            self.taken_off = changes.new_zeros(shape)
        before = changes[:, : graph.writers_before_heads(index)]
        shares = torch.matmul(before.transpose(1, 2), normal[..., None])[..., 0]  # batch pos writer
        columns = graph.head_inputs(index)
        self.taken_off[:, : before.shape[1], columns] += shares.transpose(1, 2) @ along

    def add_scores(
        self,
        scores: Float[Tensor, "batch writers readers"],
        changes: WriterChanges,
        writers: slice = slice(0, None),
    ) -> None:
        """Add each example's scores of the edges out of some writers to `scores`.

        `changes` are the writers' ablated minus clean contributions, 0 on padding.
        """
        graph = self.model.graph
        for index in range(graph.n_layers):
            rows = _before(writers, graph.writers_before_heads(index))
            if self.projected[index] is not None and rows.start < rows.stop:
                columns = graph.head_inputs(index)
                scores[:, rows, columns] += einsum(
                    changes[:, rows],
                    self._head_gradients(index),
                    "batch writer pos d_model, batch reader pos d_model -> batch writer reader",
                )
                if self.taken_off is not None:
                    scores[:, rows, columns] -= self.taken_off[:, rows, columns]
            rows, mlp = _before(writers, graph.writers_before_mlp(index)), self.mlps[index]
            if mlp is not None and rows.start < rows.stop:
                scores[:, rows, graph.mlp_input(index)] += einsum(
                    changes[:, rows],
                    mlp,
                    "batch writer pos d_model, batch pos d_model -> batch writer",
                )
        if self.logits is not None:
            at_answer = changes[self.batch.rows, :, self.batch.last][:, writers]
            scores[:, writers, -1] += einsum(
                at_answer, self.logits, "batch writer d_model, batch d_model -> batch writer"
            )

    def _head_gradients(self, index: int) -> Float[Tensor, "batch reader pos d_model"]:
        layer, projected = self.model.layers[index], self.projected[index]
        assert projected is not None
        direct = einsum(
            projected,
            weights_behind_norm(layer),
            "batch pos reader d_head, reader d_model d_head -> batch reader pos d_model",
        )
        for normal, along in zip(self.streams[index], self.along[index], strict=True):
            direct -= normal[:, None] * along.transpose(1, 2)[..., None]
        return direct


def weights_behind_norm(layer: Layer) -> Float[Tensor, "readers d_model d_head"]:
    """C(w∘W) of all readers of a layer: the projections seen from behind the norm."""
    weights = torch.cat([layer.projections[kind].weights for kind in HEAD_INPUTS])
    weights, norm = at_least_float32(weights), layer.norm_of_heads
    if norm is not None and norm.weight is not None:
        weights = weights * at_least_float32(norm.weight)[:, None]
    if norm is not None and norm.centred:
        weights = weights - weights.mean(dim=1, keepdim=True)
    return weights


def constant_part(layer: Layer) -> Float[Tensor, "readers d_head"] | None:
    """What the projections put out for x̂ = 0: their biases and the norm's, seen through them."""
    parts = []
    for kind in HEAD_INPUTS:
        projection, norm = layer.projections[kind], layer.norm_of_heads
        part = projection.biases
        if norm is not None and norm.bias is not None:
            through = einsum(
                at_least_float32(norm.bias),
                at_least_float32(projection.weights),
                "d_model, reader d_model d_head -> reader d_head",
            )
            part = through if part is None else through + at_least_float32(part)
        if part is None:
            return None
        parts.append(at_least_float32(part))
    return torch.cat(parts)


def masked(batch: Batch, value: Tensor) -> Tensor:
    """The value with 0 on padding."""
    real = batch.real.view(*batch.real.shape, *[1] * (value.ndim - 2))
    return value.masked_fill(~real, 0.0)


def change(batch: Batch, clean: Tensor, ablated: Tensor) -> Tensor:
    """Ablated minus clean, in float32 at least, 0 on padding."""
    return masked(batch, at_least_float32(ablated) - at_least_float32(clean))


def writer_changes(
    model: Model, batch: Batch, clean: Contributions, ablated: Contributions
) -> WriterChanges:
    """Δ: every writer's ablated minus its clean contribution to the stream, 0 on padding.

    Where a post-norm lies behind the heads, through its Jacobian at the clean input.
    """
    changes = [change(batch, clean.embedding, ablated.embedding)[:, None]]
    for index, layer in enumerate(model.layers):
        heads = head_changes(layer, change(batch, clean.heads[index], ablated.heads[index]))
        if layer.norm_after_heads is not None:
            at = layer.sum_of_heads(clean.heads[index])[:, None]
            heads = layer.norm_after_heads.push_forward(at, heads)
        changes.append(heads)
        changes.append(change(batch, clean.mlps[index], ablated.mlps[index])[:, None])
    return torch.cat(changes, dim=1)


def head_changes(
    layer: Layer, z: Float[Tensor, "batch pos heads d_head"]
) -> Float[Tensor, "batch heads pos d_model"]:
    """Changes of head outputs behind the output projection."""
    return einsum(
        z,
        at_least_float32(layer.output),
        "batch pos head d_head, head d_head d_model -> batch head pos d_model",
    )


def _before(writers: slice, end: int) -> slice:
    return slice(writers.start, end if writers.stop is None else min(writers.stop, end))


def _sum(total: Tensor | None, term: Tensor) -> Tensor:
    return term if total is None else total + term


def planned_bytes(model: Model, points: int, holds_all: bool = False) -> BytesOf:
    """What scoring a batch takes at its peak, by number of examples, prefix and longest prompt.

    `holds_all` is for methods that hold the clean run and all changes through every pass.
    """
    a = model.architecture
    graph = a.graph
    item = max(4, model.dtype.itemsize)
    readers = a.n_heads + 2 * a.n_kv_heads
    heads = readers * a.d_head

    def bytes_of(n_examples: int, n_prefix: int, longest: int) -> int:
        pos = longest - n_prefix
        cache = 2 * a.n_layers * a.n_kv_heads * a.d_head * n_prefix
        autograd = (
            a.n_layers * pos * (14 * a.d_model + 3 * heads + 8 * a.d_mlp + 5 * a.n_heads * longest)
        )
        compact = a.n_layers * pos * (16 * a.d_model + 3 * heads)
        if not holds_all:
            compact += a.n_layers * pos * points * (a.d_model + readers)
        changes = 2 * graph.n_writers * pos * a.d_model
        of_a_layer = 3 * (readers + 1) * pos * a.d_model
        scores = 2 * graph.n_writers * graph.n_readers
        logits = 3 * a.d_vocab
        if holds_all:
            state = a.n_layers * pos * (8 * a.d_model + 2 * heads)
            at_peak = state + changes + scores + max(autograd + logits, of_a_layer)
        else:
            at_peak = max(autograd + logits, changes + of_a_layer)
        return n_examples * item * (cache + compact + scores + at_peak)

    return bytes_of
