r"""Information-flow routes (Ferrando, Voita 2024, arXiv:2403.00824): how near to a reader's stream
a writer's contribution lies.

    near(u, v, pos) = max(‖x_v‖₁ − ‖x_v − z_u‖₁, 0)
    score(u → v) = mean over positions of near(u, v, pos) / Σ_{u' before v} near(u', v, pos)

on clean inputs alone: no gradient, no metric, no counterfactual. Every real position counts for
every reader; 0/0 is 0. All head inputs of a layer read one stream, so they share their scores. A
post-norm behind the heads is taken with the scale of the clean run. Node: the sum over readers.

Cost: one clean forward.
"""

import torch
from torch import Tensor

from circuits.attribution.method import attribution_method
from circuits.attribution.run import Run
from circuits.layers import at_least_float32
from circuits.reader_gradients import head_changes, masked


@attribution_method(
    "information-flow-routes",
    levels=("edge", "node"),
    interventions=(),
    takes_metric=False,
    needs_gradient=False,
    reads_all_positions=True,
)
@torch.no_grad()
def information_flow_routes(run: Run) -> Tensor:
    """Each example's mean share of every writer in every reader's stream."""
    state, graph = run.state, run.model.graph
    written = _contributions(run)
    scores = (
        run.no_scores()
        if run.options.level == "edge"
        else written.new_zeros(run.batch.size, graph.n_writers, graph.n_readers)
    )
    for index in range(graph.n_layers):
        before = graph.writers_before_heads(index)
        shares = _shares(run, written[:, :before], state["stream", index])
        scores[:, :before, graph.head_inputs(index)] = shares[..., None]
        before = graph.writers_before_mlp(index)
        shares = _shares(run, written[:, :before], state["mlp_in", index])
        scores[:, :before, graph.mlp_input(index)] = shares
    last = state["middle", graph.n_layers - 1] + state["mlp", graph.n_layers - 1]
    scores[:, :, -1] = _shares(run, written, last)
    return scores if run.options.level == "edge" else scores.sum(-1)


def _contributions(run: Run) -> Tensor:
    """What every writer adds to the stream [batch, writers, pos, d_model]."""
    state = run.state
    written = [at_least_float32(state["embedding", -1])[:, None]]
    for index, layer in enumerate(run.model.layers):
        heads = head_changes(layer, at_least_float32(state["z", index]))
        norm = layer.norm_after_heads
        if norm is not None:
            _, scale = norm.normalise(at_least_float32(layer.sum_of_heads(state["z", index])))
            heads = heads / scale[:, None] * (1.0 if norm.weight is None else norm.weight)
        written += [heads, at_least_float32(state["mlp", index])[:, None]]
    return torch.cat(written, dim=1)


def _shares(run: Run, written: Tensor, stream: Tensor) -> Tensor:
    """The mean share of each writer in a stream, over real positions [batch, writers]."""
    stream = at_least_float32(stream)
    whole = stream.abs().sum(-1)  # [batch, pos]
    # one writer at a time: nothing of the size of all contributions is made
    near = torch.stack(
        [whole - (stream - written[:, u]).abs().sum(-1) for u in range(written.shape[1])], dim=1
    ).clamp_min(0)
    total = near.sum(1, keepdim=True)
    shares = near / total.masked_fill(total == 0, 1.0)  # 0 where all are 0
    n_real = run.batch.real.sum(1)
    return masked(run.batch, shares.transpose(1, 2)).sum(1) / n_real[:, None]
