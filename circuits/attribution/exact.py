r"""Exact patching: corrupt one edge, node or neuron alone and run the rest of the model (Wang et
al. 2022, arXiv:2211.00593; edges: Goldowsky-Dill et al. 2023, arXiv:2304.05969).

    score(u → v) = L(x_v + z'_u − z_u at reader v alone, all else clean) − L(clean)

Nodes: the writer's output replaced for all that reads it. Neurons: one dimension of it. A post-norm
behind the heads is computed again on the mixed sum.

An edge's effect starts at its reader: one head or one MLP is computed anew from the cached clean
run, then the layers above, on the suffix. Edges that start in the same layer run together, as
copies of the batch, as many as the memory budget allows.

Cost: about a third of a forward an edge. Any metric will do: nothing is differentiated.
"""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch
from einops import einsum
from torch import Tensor

from circuits.attribution.method import attribution_method
from circuits.attribution.run import Run
from circuits.forward import Trace
from circuits.graph import HEAD_INPUTS
from circuits.layers import at_least_float32
from circuits.reader_gradients import change, head_changes

_AT_MOST = 256  # copies: more run no faster
Start = tuple[int, str]  # a layer, and "attention", "mlp" or "logits"


@attribution_method("exact", needs_gradient=False, takes_units=True)
@torch.no_grad()
def exact(run: Run) -> Tensor:
    """The change of the loss, unit by unit; NaN for units that were not asked for."""
    _ = run.state
    clean = run.loss(run.clean_logits, "the clean input")
    scores = run.no_scores()
    asked = _asked(run)
    scores[:, torch.from_numpy(~asked).to(scores.device)] = torch.nan
    if run.options.level == "edge":
        scores[:, torch.from_numpy(~run.model.graph.edge_mask).to(scores.device)] = 0.0
    done, total = 0, int(asked.sum())
    effects = _edges(run, asked) if run.options.level == "edge" else _outputs(run, asked)
    for units, logits in effects:
        losses = run.loss(logits, "a run with one unit corrupted").unflatten(0, (len(units), -1))
        where = torch.as_tensor(units, device=scores.device)
        scores[(slice(None), *where.T)] = (losses - clean).T.to(scores.dtype)
        done += len(units)
        if run.options.progress is not None:
            run.options.progress(done, total)
    return scores


def _asked(run: Run) -> np.ndarray:
    graph, units = run.model.graph, run.options.units
    if run.options.level == "edge":
        return graph.edge_mask if units is None else units & graph.edge_mask
    if units is None:
        shape = (graph.n_writers, run.model.architecture.d_model)
        return np.ones(shape if run.options.level == "neuron" else shape[:1], dtype=bool)
    return units


def _copies(run: Run) -> int:
    """How many units run at a time within the batch's memory budget."""
    a = run.model.architecture
    pos = run.batch.clean.shape[1]
    keys = pos + run.forward.first
    heads = (a.n_heads + 2 * a.n_kv_heads) * a.d_head
    of_a_layer = pos * (10 * a.d_model + 3 * heads + 4 * a.d_mlp) + 3 * a.n_heads * pos * keys
    of_a_layer += 4 * keys * a.n_heads * a.d_head
    one = run.batch.size * max(4, run.model.dtype.itemsize) * (of_a_layer + 4 * a.d_vocab)
    return max(1, min(_AT_MOST, run.batch.budget // one))


def _chunks(run: Run, units: list[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    size = _copies(run)
    for start in range(0, len(units), size):
        yield units[start : start + size]


# -- edges ----------------------------------------------------------------------------------------


def _edges(run: Run, asked: np.ndarray) -> Iterator[tuple[list[tuple[int, ...]], Tensor]]:
    """The logits with one edge corrupted, for as many edges at a time as start in one place."""
    changes = _stream_changes(run)
    starts: dict[Start, list[tuple[int, ...]]] = defaultdict(list)
    where = _starts(run)
    for u, v in np.argwhere(asked):
        starts[where[v]].append((int(u), int(v)))
    for (index, what), edges in starts.items():
        for chunk in _chunks(run, edges):
            moved = changes[[u for u, _ in chunk]]
            readers = [v for _, v in chunk]
            if what == "attention":
                yield chunk, _through_heads(run, index, readers, moved)
            elif what == "mlp":
                yield chunk, _through_mlp(run, index, moved)
            else:
                yield chunk, _through_logits(run, moved)


def _starts(run: Run) -> list[Start]:
    graph = run.model.graph
    found: list[Start] = []
    for index in range(graph.n_layers):
        inputs = graph.head_inputs(index)
        found += [(index, "attention")] * (inputs.stop - inputs.start) + [(index, "mlp")]
    return [*found, (graph.n_layers, "logits")]


def _stream_changes(run: Run) -> Tensor:
    """What replacing one writer alone adds to the stream [writers, batch, pos, d_model]."""
    clean, ablated, batch = run.clean, run.ablated, run.batch
    found = [change(batch, clean.embedding, ablated.embedding)[None]]
    for index, layer in enumerate(run.model.layers):
        delta = change(batch, clean.heads[index], ablated.heads[index])
        heads = head_changes(layer, delta).transpose(0, 1)
        if layer.norm_after_heads is not None:
            total = at_least_float32(layer.sum_of_heads(clean.heads[index]))
            heads = layer.norm_after_heads(total + heads) - layer.norm_after_heads(total)
        found += [heads, change(batch, clean.mlps[index], ablated.mlps[index])[None]]
    return torch.cat(found)


def _plus(run: Run, stream: Tensor, moved: Tensor) -> Tensor:
    return (stream + moved).to(run.model.dtype)


def _through_heads(run: Run, index: int, readers: list[int], moved: Tensor) -> Tensor:
    """Every copy has one q, k or v input of layer `index` moved."""
    layer, graph, state = run.model.layers[index], run.model.graph, run.state
    streams = _plus(run, state["stream", index], moved)
    total = at_least_float32(layer.sum_of_heads(state["z", index])).repeat(len(readers), 1, 1, 1)
    for kind in HEAD_INPUTS:
        columns = graph.inputs(index, kind)
        copies = [i for i, v in enumerate(readers) if columns.start <= v < columns.stop]
        if not copies:
            continue
        chosen = [readers[i] - columns.start for i in copies]
        projected = layer.head_input(kind, chosen, streams[copies]).permute(2, 0, 1, 3)
        mix = _all_heads if layer.attention.coupled else _own_heads
        total[copies] += mix(run, index, kind, chosen, projected)
    attended = total if layer.norm_after_heads is None else layer.norm_after_heads(total)
    stream = state["stream", index].repeat(len(readers), 1, 1)
    return run.forward.onward(stream, index, Trace(), attended.flatten(0, 1))


def _own_heads(run: Run, index: int, kind: str, chosen: list[int], projected: Tensor) -> Tensor:
    """What changes in the sum of heads, where a head can be run alone [copy, batch, pos, d_model].

    A shared key or value changes all the heads that it serves.
    """
    layer, graph, state = run.model.layers[index], run.model.graph, run.state
    served = 1 if kind == "q" else graph.n_heads // graph.n_kv_heads
    heads = torch.tensor([[c * served + i for i in range(served)] for c in chosen])
    kv = torch.tensor([[graph.kv_head_of(int(h)) for h in row[:1]] for row in heads])
    which = {"q": heads, "k": kv, "v": kv}
    n, batch = len(chosen), run.batch.size

    def gathered(value: Tensor, of: Tensor) -> Tensor:
        """[batch, pos, heads, d_head] as [copy · batch, pos, chosen heads, d_head]."""
        return value[:, :, of.to(value.device)].permute(2, 0, 1, 3, 4).flatten(0, 1)

    inputs = {k: gathered(state[k, index], which[k]) for k in HEAD_INPUTS}
    inputs[kind] = projected.flatten(0, 1)[:, :, None]
    attention = layer.attention
    q, k, v = (attention.prepare(name, inputs[name], run.forward.first) for name in HEAD_INPUTS)
    if run.forward.first:
        before_k, before_v = (gathered(x, kv) for x in run.forward.prefix[index])
        k, v = torch.cat([before_k, k], dim=1), torch.cat([before_v, v], dim=1)
    z = attention.mix(q, k, v) - gathered(state["z", index], heads)
    z = at_least_float32(z).unflatten(0, (n, batch))
    output = at_least_float32(layer.output)[heads.to(z.device)]
    return einsum(
        z, output,
        "copy batch pos head d_head, copy head d_head d_model -> copy batch pos d_model",
    )  # fmt: skip


def _all_heads(run: Run, index: int, kind: str, chosen: list[int], projected: Tensor) -> Tensor:
    """The same where one norm runs over all heads, so that every head changes."""
    layer, state, n = run.model.layers[index], run.state, len(chosen)
    inputs = {name: state[name, index].repeat(n, 1, 1, 1) for name in HEAD_INPUTS}
    moved = inputs[kind].unflatten(0, (n, -1))
    for i, reader in enumerate(chosen):
        moved[i, :, :, reader] = projected[i]
    z = layer.attention.mix(*run.forward.prepared(index, inputs))
    change_of_z = at_least_float32(z).unflatten(0, (n, -1)) - at_least_float32(state["z", index])
    return change_of_z.flatten(-2) @ at_least_float32(layer.output).flatten(0, 1)


def _through_mlp(run: Run, index: int, moved: Tensor) -> Tensor:
    """Every copy has the input of layer `index`'s MLP moved."""
    layer, state = run.model.layers[index], run.state
    output = layer.mlp_output(_plus(run, state["mlp_in", index], moved))
    stream = (state["middle", index] + output).flatten(0, 1)
    return run.forward.onward(stream, index + 1, Trace())


def _through_logits(run: Run, moved: Tensor) -> Tensor:
    """Every copy has the input of the logits moved."""
    batch = run.batch
    at_answer = run.state["logits", run.n_layers]
    streams = _plus(run, at_answer, moved[:, batch.rows, batch.last])
    return run.model.logits(streams.flatten(0, 1))


# -- nodes and neurons ----------------------------------------------------------------------------


def _outputs(run: Run, asked: np.ndarray) -> Iterator[tuple[list[tuple[int, ...]], Tensor]]:
    """The logits with one writer's output, or one dimension of it, replaced for all its readers."""
    graph, clean, ablated, batch = run.model.graph, run.clean, run.ablated, run.batch
    state, forward, dtype = run.state, run.forward, run.model.dtype

    def of(writers: slice, deltas: Tensor, onward) -> Iterator:  # type: ignore[no-untyped-def]
        """Those of some writers, whose changes are [batch, writers, pos, d_model]."""
        own = np.argwhere(asked[writers])
        own[:, 0] += writers.start
        for chunk in _chunks(run, [tuple(unit) for unit in own.tolist()]):
            moved = deltas[:, [unit[0] - writers.start for unit in chunk]].transpose(0, 1)
            if run.options.level == "neuron":
                kept = moved.new_zeros(len(chunk), moved.shape[-1])
                kept[range(len(chunk)), [unit[1] for unit in chunk]] = 1.0
                moved = moved * kept[:, None, None]
            yield chunk, onward(moved)

    def from_input(m: Tensor) -> Tensor:
        return forward.run((state["embedding", -1] + m).to(dtype).flatten(0, 1), Trace())

    embedding = change(batch, clean.embedding, ablated.embedding)
    yield from of(slice(0, 1), embedding[:, None], from_input)
    for index, layer in enumerate(run.model.layers):
        total = at_least_float32(layer.sum_of_heads(clean.heads[index]))

        def from_heads(m: Tensor, index: int = index, total: Tensor = total) -> Tensor:
            attended, norm = total + m, run.model.layers[index].norm_after_heads
            attended = attended if norm is None else norm(attended)
            stream = state["stream", index].repeat(len(m), 1, 1)
            return forward.onward(stream, index, Trace(), attended.flatten(0, 1))

        def from_mlp(m: Tensor, index: int = index) -> Tensor:
            stream = state["middle", index] + (state["mlp", index] + m).to(dtype)
            return forward.onward(stream.flatten(0, 1), index + 1, Trace())

        deltas = head_changes(layer, change(batch, clean.heads[index], ablated.heads[index]))
        yield from of(graph.heads(index), deltas, from_heads)
        mlp = change(batch, clean.mlps[index], ablated.mlps[index])
        yield from of(slice(graph.mlp(index), graph.mlp(index) + 1), mlp[:, None], from_mlp)
