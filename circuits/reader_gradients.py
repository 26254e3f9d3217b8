r"""From gradients at projection outputs to edge scores, with one matrix product a layer.

All heads of a layer read one stream `x` through one norm; only their gradients differ. With `g`
the gradient at the output of head h's query projection, the gradient at that reader is `Jᵀ W g`,
where `J` is the norm's Jacobian. In closed form, with `x̂ = (x − μ)/σ`, norm weight `w` and `C` the
removal of the mean over d_model (LayerNorm; for RMSNorm `μ = 0` and `C` does nothing):

    Jᵀ W g = ( C(w∘W) g − x̂ · mean(x̂ ∘ (w∘W) g) ) / σ

The mean is `gᵀ (w∘W)ᵀ x̂ / d_model`, and `(w∘W)ᵀ x̂` is the projection's recorded output without its
constant part. So a gradient taken at several points s of a path, with weights ω_s, needs only

    a = Σ_s ω_s g_s / σ_s                       (d_head wide, summed over the points)
    κ_s = ω_s g_sᵀ (w∘W)ᵀ x̂_s / (d_model σ_s)   (one number a reader and point), and x̂_s

and the d_model-wide gradients of a layer are formed once, whatever the number of points:
`G = C(w∘W) a − Σ_s x̂_s κ_s`. Scores are `S = Σ_pos Δᵀ G`, for each example, on real edges.
"""

from __future__ import annotations

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from circuits.architecture import Layer, at_least_float32
from circuits.batching import Batch, BytesOf
from circuits.graph import HEAD_INPUTS
from circuits.model import Model
from circuits.recording import Contributions, Gradients

WriterChanges = Float[Tensor, "batch writers pos d_model"]


class ReaderGradients:
    """The weighted sum, over points of a path, of the gradients at every reader."""

    def __init__(self, model: Model, batch: Batch) -> None:
        self.model = model
        self.batch = batch
        n_layers = model.architecture.n_layers
        self.projected: list[Tensor | None] = [None] * n_layers  # a
        self.streams: list[list[Tensor]] = [[] for _ in range(n_layers)]  # x̂, one a point
        self.along: list[list[Tensor]] = [[] for _ in range(n_layers)]  # κ, one a point
        self.mlps: list[Tensor | None] = [None] * n_layers
        self.logits: Tensor | None = None

    def add(self, gradients: Gradients, weight: float) -> None:
        """Add the gradients at one point of the path."""
        for index, (layer, found) in enumerate(
            zip(self.model.layers, gradients.layers, strict=True)
        ):
            normal, scale = layer.norm_of_heads.normalise(at_least_float32(found.stream))
            over = weight / scale[..., None]
            linear, gradient = [], []
            for kind in HEAD_INPUTS:
                constant = constant_part(layer, kind)
                linear.append(at_least_float32(found.projections[kind]) - constant)
                gradient.append(at_least_float32(found.heads[kind]))
            g = torch.stack(gradient, dim=2)
            along = (g * torch.stack(linear, dim=2)).sum(-1) * over / normal.shape[-1]
            self.projected[index] = _sum(self.projected[index], g * over[..., None])
            self.streams[index].append(normal)
            self.along[index].append(
                rearrange(along, "batch pos kind head -> batch pos (kind head)")
            )
            self.mlps[index] = _sum(self.mlps[index], at_least_float32(found.mlp) * weight)
        at_answer = gradients.logits[self.batch.rows, self.batch.last]
        self.logits = _sum(self.logits, at_least_float32(at_answer) * weight)

    def edge_scores(self, changes: WriterChanges) -> Float[Tensor, "batch writers readers"]:
        """Each example's score of every edge, 0 where there is none.

        `changes` are the writers' corrupted minus clean contributions, 0 on padding.
        """
        graph = self.model.graph
        assert self.logits is not None, "no gradient has been added"
        scores = changes.new_zeros(len(changes), graph.n_writers, graph.n_readers)
        for index in range(graph.n_layers):
            before = graph.writers_before_heads(index)
            scores[:, :before, graph.head_inputs(index)] = _contract(
                changes[:, :before], self._head_gradients(index)
            )
            before, mlp = graph.writers_before_mlp(index), self.mlps[index]
            assert mlp is not None
            scores[:, :before, graph.mlp_input(index)] = _contract(
                changes[:, :before], mlp[:, None]
            ).squeeze(-1)
        at_answer = changes[self.batch.rows, :, self.batch.last]
        scores[:, :, -1] = einsum(
            at_answer, self.logits, "batch writer d_model, batch d_model -> batch writer"
        )
        return scores

    def _head_gradients(self, index: int) -> Float[Tensor, "batch reader pos d_model"]:
        layer = self.model.layers[index]
        projected = self.projected[index]
        assert projected is not None
        direct = einsum(
            projected,
            torch.stack([self._weights(layer, kind) for kind in HEAD_INPUTS]),
            "batch pos kind head d_head, kind head d_model d_head -> batch kind head pos d_model",
        )
        along = einsum(
            torch.stack(self.streams[index]),
            torch.stack(self.along[index]),
            "point batch pos d_model, point batch pos reader -> batch reader pos d_model",
        )
        return rearrange(direct, "batch kind head ... -> batch (kind head) ...").sub_(along)

    def _weights(self, layer: Layer, kind: str) -> Float[Tensor, "heads d_model d_head"]:
        """C(w∘W): the projection seen from behind the norm."""
        weights = at_least_float32(layer.weights[kind])
        norm = layer.norm_of_heads
        if norm.weight is not None:
            weights = weights * at_least_float32(norm.weight)[:, None]
        if norm.centred:
            weights = weights - weights.mean(dim=1, keepdim=True)
        return weights


def constant_part(layer: Layer, kind: str) -> Float[Tensor, "heads d_head"]:
    """What a projection puts out for x̂ = 0: its own bias and the norm's bias seen through it."""
    constant = at_least_float32(layer.biases[kind])
    norm = layer.norm_of_heads
    if norm.bias is None:
        return constant
    through = einsum(
        at_least_float32(norm.bias),
        at_least_float32(layer.weights[kind]),
        "d_model, head d_model d_head -> head d_head",
    )
    return constant + through


def writer_changes(
    model: Model, batch: Batch, clean: Contributions, corrupted: Contributions
) -> WriterChanges:
    """Δ: every writer's corrupted minus its clean contribution to the stream, 0 on padding."""

    def change(a: Tensor, b: Tensor) -> Tensor:
        difference = at_least_float32(b) - at_least_float32(a)
        return difference.mul_(batch.real.view(*batch.real.shape, *[1] * (difference.ndim - 2)))

    changes = [change(clean.embedding, corrupted.embedding)[:, None]]
    for index, layer in enumerate(model.layers):
        heads = change(clean.heads[index], corrupted.heads[index])
        changes.append(
            einsum(
                heads,
                at_least_float32(layer.output),
                "batch pos head d_head, head d_head d_model -> batch head pos d_model",
            )
        )
        changes.append(change(clean.mlps[index], corrupted.mlps[index])[:, None])
    return torch.cat(changes, dim=1)


def _contract(
    changes: WriterChanges, gradients: Float[Tensor, "batch readers pos d_model"]
) -> Float[Tensor, "batch writers readers"]:
    return einsum(
        changes,
        gradients,
        "batch writer pos d_model, batch reader pos d_model -> batch writer reader",
    )


def _sum(total: Tensor | None, term: Tensor) -> Tensor:
    return term if total is None else total + term


def planned_bytes(model: Model, points: int) -> BytesOf:
    """What scoring a batch takes at its peak, by number of examples, prefix and longest prompt."""
    a = model.architecture
    graph = a.graph
    item = max(4, model.dtype.itemsize)

    def bytes_of(n_examples: int, n_prefix: int, longest: int) -> int:
        pos = longest - n_prefix
        cache = 2 * a.n_layers * a.d_model * n_prefix
        autograd = a.n_layers * pos * (20 * a.d_model + 8 * a.d_mlp + 5 * a.n_heads * longest)
        compact = a.n_layers * pos * (22 * a.d_model + points * (a.d_model + 3 * a.n_heads))
        changes = 2 * graph.n_writers * pos * a.d_model
        of_a_layer = 3 * (3 * a.n_heads + 1) * pos * a.d_model
        scores = 2 * graph.n_writers * graph.n_readers
        logits = 3 * a.d_vocab
        return (
            n_examples
            * item
            * (cache + compact + scores + max(autograd + logits, changes + of_a_layer))
        )

    return bytes_of
