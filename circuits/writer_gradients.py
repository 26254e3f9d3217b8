"""From gradients at the writers' outputs to node and neuron scores.

The heads of a layer write into one sum, so one gradient a layer serves them all:

    score(u, d) = Σ_pos Δ_u[pos, d] · ∂L/∂z_u[pos, d],     score(u) = Σ_d score(u, d)

A node's score is the sum of the scores of its outgoing edges. Where a post-norm lies behind the
heads, the neurons of a head are its output dimensions in front of that norm, and the gradient is
pulled back through the norm's Jacobian at the clean input.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.batching import Batch
from circuits.forward import Place, Trace
from circuits.intervention import Contributions
from circuits.layers import at_least_float32
from circuits.model import Model
from circuits.reader_gradients import change, head_changes


class WriterGradients:
    """The weighted sum, over points of a path, of the gradients at every writer's output."""

    KEEP = ()
    FORK = ("embedding", "attended", "mlp")

    def __init__(self, model: Model, batch: Batch) -> None:
        self.model = model
        self.batch = batch
        self.gradients: dict[Place, Tensor] = {}

    def add(self, trace: Trace, weight: float) -> None:
        """Add the gradients that a run left at the writers' outputs."""
        for place, gradient in trace.gradients.items():
            if place[0] in self.FORK:
                term = at_least_float32(gradient) * weight
                before = self.gradients.get(place)
                self.gradients[place] = term if before is None else before + term

    def neuron_scores(
        self, clean: Contributions, ablated: Contributions
    ) -> Float[Tensor, "batch writers d_model"]:
        """Each example's score of every neuron; 0 for writers without a gradient."""
        graph = self.model.graph
        shape = (self.batch.size, graph.n_writers, self.model.architecture.d_model)
        scores = at_least_float32(clean.embedding).new_zeros(shape)
        for (what, index), gradient in self.gradients.items():
            if what == "embedding":
                delta = change(self.batch, clean.embedding, ablated.embedding)
                scores[:, 0] = (delta * gradient).sum(1)
            elif what == "mlp":
                delta = change(self.batch, clean.mlps[index], ablated.mlps[index])
                scores[:, graph.mlp(index)] = (delta * gradient).sum(1)
            else:
                layer = self.model.layers[index]
                if layer.norm_after_heads is not None:
                    at = layer.sum_of_heads(clean.heads[index])
                    gradient = layer.norm_after_heads.pull_back(at, gradient)
                delta = change(self.batch, clean.heads[index], ablated.heads[index])
                heads = head_changes(layer, delta)
                scores[:, graph.heads(index)] = torch.einsum("bhpd,bpd->bhd", heads, gradient)
        return scores
