"""The definitions, carried out slowly: what the engine's numbers are checked against.

One example at a time and so without padding, on a model that `tests/reference_models.py` has taken
apart. Every reader has its own copy of the residual stream, each head's q, k and v included, and
autograd differentiates with respect to those copies. Nothing here comes from the engine, not even
the order of writers and readers or what is known of a family: they are written down once more.

    x_v     = position embedding + attention biases so far + sum over writers u of z_u
    EAP     = sum over positions of (z'_u − z_u) · ∂L/∂x_v                       at the clean input
    exact   = L(edge u→v corrupted) − L(clean)
    circuit : x_v = x'_v + sum over members u→v of (z~_u − z'_u)

Where a family norms what attention writes (a post-norm), heads do not add up in the stream: a
reader's copy is put together from its own mixture of head outputs, post-normed as a whole. Scores
by gradients take the Jacobian of that norm at the clean run.

A tensor may have leading axes of variants: many corruptions of one example, run side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tests.reference_models import Norm, Parts, parts_of

INTERVENTIONS = ("patching", "zero", "mean", "mean-positional")
IG = ("EAP-IG-inputs", "EAP-IG-activations")

# --- metrics: (logits [..., vocab], correct ids, incorrect ids, clean logits [vocab]) -> [...]

PlainMetric = Callable[[Tensor, tuple[int, ...], tuple[int, ...], Tensor], Tensor]

HIGHER_IS_BETTER = {"logit-diff": True, "prob-diff": True, "accuracy": True, "kl": False}


def logit_diff(logits: Tensor, correct: tuple, incorrect: tuple, clean_logits: Tensor) -> Tensor:
    right = sum(logits[..., i] for i in correct) / len(correct)
    wrong = sum(logits[..., i] for i in incorrect) / len(incorrect)
    return right - wrong


def prob_diff(logits: Tensor, correct: tuple, incorrect: tuple, clean_logits: Tensor) -> Tensor:
    p = torch.exp(logits - logits.amax(-1, keepdim=True).detach())
    p = p / p.sum(-1, keepdim=True)
    return sum(p[..., i] for i in correct) - sum(p[..., i] for i in incorrect)


def kl(logits: Tensor, correct: tuple, incorrect: tuple, clean_logits: Tensor) -> Tensor:
    clean = clean_logits - torch.logsumexp(clean_logits, -1, keepdim=True)
    run = logits - torch.logsumexp(logits, -1, keepdim=True)
    return (torch.exp(clean) * (clean - run)).sum(-1)


def accuracy(logits: Tensor, correct: tuple, incorrect: tuple, clean_logits: Tensor) -> Tensor:
    return (prob_diff(logits, correct, incorrect, clean_logits) > 0).to(logits.dtype)


METRICS: dict[str, PlainMetric] = {
    "logit-diff": logit_diff,
    "prob-diff": prob_diff,
    "kl": kl,
    "accuracy": accuracy,
}


def _wide(logits: Tensor) -> Tensor:
    """Metrics are taken in float32 at least."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _identity(example: object) -> tuple[tuple[int, ...], ...]:
    return (
        example.clean_tokens,
        example.corrupted_tokens,
        example.correct,
        example.incorrect,
    )


def _metric(name: str, logits: Tensor, example: object, clean_logits: Tensor) -> Tensor:
    return METRICS[name](_wide(logits), example.correct, example.incorrect, _wide(clean_logits))


def _loss(name: str, logits: Tensor, example: object, clean_logits: Tensor) -> Tensor:
    value = _metric(name, logits, example, clean_logits)
    return -value if HIGHER_IS_BETTER[name] else value


# --- the graph


def writer_names(n_layers: int, n_heads: int) -> list[str]:
    names = ["input"]
    for layer in range(n_layers):
        names += [f"a{layer}.h{head}" for head in range(n_heads)]
        names.append(f"m{layer}")
    return names


def reader_names(n_layers: int, n_heads: int, n_kv_heads: int | None = None) -> list[str]:
    """Key-value heads are named `kv` where they are fewer than query heads."""
    n_kv_heads = n_kv_heads or n_heads
    kv = "h" if n_kv_heads == n_heads else "kv"
    names = []
    for layer in range(n_layers):
        names += [f"a{layer}.h{head}<q>" for head in range(n_heads)]
        for letter in "kv":
            names += [f"a{layer}.{kv}{head}<{letter}>" for head in range(n_kv_heads)]
        names.append(f"m{layer}")
    return [*names, "logits"]


def _moment(name: str, parallel: bool) -> float:
    """When a node runs: attention of layer l at l, its MLP at l + 1/2, or with it where parallel.

    What runs at one moment does not read each other.
    """
    if name == "input":
        return -1.0
    if name == "logits":
        return math.inf
    layer = float(name[1:].split(".")[0])
    return layer if name[0] == "a" or parallel else layer + 0.5


def edge_exists(writer: str, reader: str, parallel: bool = False) -> bool:
    return _moment(writer, parallel) < _moment(reader, parallel)


def edge_names(
    n_layers: int, n_heads: int, n_kv_heads: int | None = None, parallel: bool = False
) -> list[str]:
    return [
        f"{writer}->{reader}"
        for writer in writer_names(n_layers, n_heads)
        for reader in reader_names(n_layers, n_heads, n_kv_heads)
        if edge_exists(writer, reader, parallel)
    ]


# --- running


@dataclass(frozen=True)
class Run:
    """One pass. `values` is what each writer gives; a head's is before any post-norm."""

    logits: Tensor  # [..., vocab] at the last position
    values: Tensor  # [..., writers, pos, d_model]
    z: list[Tensor]  # a layer: [..., heads, pos, d_head]


# What readers see: (their numbers in reader order, values of the writers so far) -> their streams.
Read = Callable[[slice, Tensor], Tensor]


@dataclass(frozen=True)
class Means:
    """Mean outputs of writers: [positions or 1, d_model], and of heads before their projection."""

    embedding: Tensor
    z: list[Tensor]  # a layer: [heads, positions or 1, d_head]
    mlps: list[Tensor]


@dataclass
class Oracle:
    """A model by its parts, with the graph that it spans; runs of whole prompts are kept."""

    parts: Parts
    grouped: bool = False
    _runs: dict[tuple[int, ...], Run] = field(default_factory=dict)
    _gradients: dict[tuple, object] = field(default_factory=dict)

    @classmethod
    def of(cls, hf_model: torch.nn.Module, kv: str = "ungrouped") -> Oracle:
        return cls(parts_of(hf_model), grouped=kv == "grouped")

    def __post_init__(self) -> None:
        if self.grouped:
            return
        for layer in self.parts.layers:  # a key and a value reader for every query head
            times = self.n_heads // layer.key.shape[0]
            for name in ("key", "value", "key_bias", "value_bias"):
                tensor = getattr(layer, name)
                if tensor is not None and times > 1:
                    object.__setattr__(layer, name, tensor.repeat_interleave(times, 0))
            if layer.norms_all_heads_as_one and times > 1:
                weight = layer.key_norm.weight.unflatten(0, (-1, layer.key.shape[-1]))
                weight = weight.repeat_interleave(times, 0).flatten()
                norm = layer.key_norm
                repeated = Norm(
                    norm.kind, weight, norm.bias, norm.epsilon, norm.rounds_before_weight
                )
                object.__setattr__(layer, "key_norm", repeated)

    @property
    def n_layers(self) -> int:
        return len(self.parts.layers)

    @property
    def n_heads(self) -> int:
        return self.parts.layers[0].query.shape[0]

    @property
    def n_kv_heads(self) -> int:
        return self.parts.layers[0].key.shape[0]

    @property
    def d_model(self) -> int:
        return self.parts.embedding.shape[1]

    @property
    def writers(self) -> list[str]:
        return writer_names(self.n_layers, self.n_heads)

    @property
    def readers(self) -> list[str]:
        return reader_names(self.n_layers, self.n_heads, self.n_kv_heads)

    @property
    def edges(self) -> np.ndarray:
        """Bool [writers, readers]."""
        return np.array(
            [[edge_exists(u, v, self.parts.parallel) for v in self.readers] for u in self.writers]
        )

    @property
    def components(self) -> list[str]:
        """What is interpolated as a whole: the embedding, a layer's attention, an MLP."""
        return ["input", *(f"{kind}{layer}" for layer in range(self.n_layers) for kind in "am")]

    def component_of(self, writer: str) -> int:
        return self.components.index(writer.split(".")[0])

    def embed(self, tokens: Iterable[int]) -> Tensor:
        return self.parts.embedding[torch.tensor(list(tokens))]

    def contributions(self, values: Tensor) -> list[Tensor]:
        """What each component adds to a stream, [..., pos, d_model], from what writers give.

        `values` [..., writers so far, pos, d_model] may end within a layer, after its heads.
        """
        per_layer = self.n_heads + 1
        found = [values[..., 0, :, :]]
        for number, layer in enumerate(self.parts.layers):
            start = 1 + number * per_layer
            if values.shape[-3] <= start:
                break
            summed = values[..., start : start + self.n_heads, :, :].sum(-3)
            found.append(layer.attention_contribution(summed))
            if values.shape[-3] >= start + per_layer:
                found.append(values[..., start + self.n_heads, :, :])
        return found

    def stream(self, values: Tensor) -> Tensor:
        """The residual stream [..., pos, d_model] made of these values."""
        return self.total(self.contributions(values))

    def total(self, contributions: Sequence[Tensor]) -> Tensor:
        whole = contributions[0]
        if self.parts.positions is not None:
            whole = whole + self.parts.positions[: whole.shape[-2]]
        for contribution in contributions[1:]:
            whole = whole + contribution
        return whole

    def run(self, embedding: Tensor, read: Read | None = None) -> Run:
        """The model on embeddings [..., pos, d_model], every reader taking what `read` gives it."""

        def plain(columns: slice, values: Tensor) -> Tensor:
            n_readers = columns.stop - columns.start
            return torch.stack([self.stream(values)] * n_readers, -3)

        read = read or plain
        column = 0

        def streams(n_readers: int, values: list[Tensor]) -> Tensor:
            nonlocal column
            column += n_readers
            return read(slice(column - n_readers, column), torch.stack(values, -3))

        values, all_z = [embedding], []
        for layer in self.parts.layers:
            before = list(values)
            q = streams(self.n_heads, before)
            k = streams(self.n_kv_heads, before)
            v = streams(self.n_kv_heads, before)
            z = layer.attend(q, k, v)
            heads = z @ layer.output
            all_z.append(z)
            values = [*before, *heads.unbind(-3)]
            stream = streams(1, before if self.parts.parallel else values).squeeze(-3)
            values.append(layer.mlp_contribution(stream))
        last = streams(1, values).squeeze(-3)[..., -1, :]
        logits = self.parts.unembed(self.parts.final_norm(last))
        if self.parts.final_cap is not None:
            logits = self.parts.final_cap * torch.tanh(logits / self.parts.final_cap)
        return Run(logits, torch.stack(values, -3), all_z)

    @torch.no_grad()
    def whole_run(self, tokens: Iterable[int]) -> Run:
        tokens = tuple(tokens)
        if tokens not in self._runs:
            self._runs[tokens] = self.run(self.embed(tokens))
        return self._runs[tokens]

    def logits(self, tokens: Iterable[int]) -> Tensor:
        return self.whole_run(tokens).logits

    # --- what is put in a writer's place

    def means(self, examples: Iterable, kind: str) -> Means:
        """Over the clean inputs: over all positions of all of them, or of each position."""
        runs = [self.whole_run(example.clean_tokens) for example in examples]

        def mean(tensors: list[Tensor]) -> Tensor:  # each [..., pos, width]
            if kind == "mean-positional":
                return torch.stack(tensors).mean(0)
            return torch.cat(tensors, -2).mean(-2, keepdim=True)

        mlps = [1 + layer * (self.n_heads + 1) + self.n_heads for layer in range(self.n_layers)]
        return Means(
            mean([run.values[0] for run in runs]),
            [mean([run.z[layer] for run in runs]) for layer in range(self.n_layers)],
            [mean([run.values[row] for run in runs]) for row in mlps],
        )

    def ablated(self, example: object, intervention: str, means: Means | None) -> Tensor:
        """z' [writers, pos, d_model]."""
        clean = self.whole_run(example.clean_tokens).values
        if intervention == "patching":
            return self.whole_run(example.corrupted_tokens).values
        if intervention == "zero":
            return torch.zeros_like(clean)
        rows = [means.embedding]
        for layer, z, mlp in zip(self.parts.layers, means.z, means.mlps, strict=True):
            rows += [*(z @ layer.output).unbind(0), mlp]
        return torch.stack([row.expand_as(clean[0]) for row in rows])

    # --- gradients

    def gradients(
        self,
        embedding: Tensor,
        example: object,
        metric: str,
        held: tuple[int, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """∂L/∂x_v [..., readers, pos, d_model], ∂L/∂(a component's output) [..., components, …].

        `held` gives one component an output of its own, through which no gradient passes. L is
        summed over the variants, whose gradients are their own.
        """
        clean_logits = self.logits(example.clean_tokens)
        nodes = [torch.zeros_like(embedding, requires_grad=True) for _ in self.components]
        leaves: list[Tensor] = []

        def read(columns: slice, values: Tensor) -> Tensor:
            contributions = self.contributions(values)
            if held is not None and held[0] < len(contributions):
                contributions[held[0]] = held[1].detach()
            contributions = [c + node for c, node in zip(contributions, nodes, strict=False)]
            whole = torch.stack([self.total(contributions)] * (columns.stop - columns.start), -3)
            leaves.append(torch.zeros_like(whole, requires_grad=True))
            return whole + leaves[-1]

        logits = self.run(embedding, read).logits
        loss = _loss(metric, logits, example, clean_logits).sum()
        found = torch.autograd.grad(loss, [*leaves, *nodes])
        readers, at_nodes = found[: len(leaves)], found[len(leaves) :]
        return torch.cat(readers, -3), torch.stack(at_nodes, -3)

    def gradients_on_inputs(
        self, example: object, metric: str, points: tuple[tuple[float, float], ...]
    ) -> tuple[Tensor, Tensor]:
        """Averaged over points (α, weight) from the corrupted to the clean embeddings."""
        key = (_identity(example), metric, points)
        if key not in self._gradients:
            clean = self.embed(example.clean_tokens)
            corrupted = self.embed(example.corrupted_tokens)
            path = torch.stack([corrupted + a * (clean - corrupted) for a, _ in points])
            weights = torch.tensor([w for _, w in points], dtype=torch.float64)
            self._gradients[key] = tuple(
                torch.einsum("s,snpd->npd", weights, g.double())
                for g in self.gradients(path, example, metric)
            )
        return self._gradients[key]

    def gradients_on_components(
        self,
        example: object,
        metric: str,
        points: tuple[tuple[float, float], ...],
        ablated: Tensor,
    ) -> list[tuple[Tensor, Tensor]]:
        """The same for every component: its output goes from ablated to clean, all else clean."""
        key = (_identity(example), metric, points, ablated.double().numpy().tobytes())
        if key in self._gradients:
            return self._gradients[key]
        clean_run = self.whole_run(example.clean_tokens)
        weights = torch.tensor([w for _, w in points], dtype=torch.float64)
        with torch.no_grad():
            ends = zip(
                self.contributions(ablated), self.contributions(clean_run.values), strict=True
            )
        embedding = clean_run.values[0].expand(len(points), -1, -1)
        averages = []
        for number, (start, end) in enumerate(ends):
            path = torch.stack([start + a * (end - start) for a, _ in points])
            found = self.gradients(embedding, example, metric, held=(number, path))
            averages.append(tuple(torch.einsum("s,snpd->npd", weights, g.double()) for g in found))
        self._gradients[key] = averages
        return averages

    # --- how a change of what a writer gives reaches the stream

    def _clean_sums(self, example: object) -> list[Tensor]:
        values = self.whole_run(example.clean_tokens).values
        starts = [1 + layer * (self.n_heads + 1) for layer in range(self.n_layers)]
        return [values[start : start + self.n_heads].sum(0) for start in starts]

    def in_the_stream(self, example: object, delta: Tensor) -> Tensor:
        """Changes of writers [writers, pos, d_model] through the clean run's post-norms."""
        rows = list(delta)
        for number, (layer, summed) in enumerate(
            zip(self.parts.layers, self._clean_sums(example), strict=True)
        ):
            for head in range(self.n_heads):
                row = 1 + number * (self.n_heads + 1) + head
                _, rows[row] = torch.func.jvp(layer.attention_contribution, (summed,), (rows[row],))
        return torch.stack(rows)

    def at_the_writers(self, example: object, gradients: Tensor) -> Tensor:
        """Gradients [writers, pos, d_model] at a writer's component, at what the writer gives."""
        rows = list(gradients)
        for number, (layer, summed) in enumerate(
            zip(self.parts.layers, self._clean_sums(example), strict=True)
        ):
            if layer.post_attention is None:
                continue
            summed = summed.requires_grad_()
            written = layer.attention_contribution(summed).double()
            for head in range(self.n_heads):
                row = 1 + number * (self.n_heads + 1) + head
                (back,) = torch.autograd.grad(written, summed, rows[row], retain_graph=True)
                rows[row] = back.double()
        return torch.stack(rows)


# --- scores


def quadrature(rule: str, steps: int) -> list[tuple[float, float]]:
    """`steps` pairs (α, weight) on [0, 1]."""
    m = steps
    if rule == "left":
        return [(k / m, 1 / m) for k in range(m)]
    if rule == "right":
        return [((k + 1) / m, 1 / m) for k in range(m)]
    if rule == "midpoint":
        return [((k + 0.5) / m, 1 / m) for k in range(m)]
    if rule == "trapezoid":
        ends = {0, m - 1}
        return [(k / (m - 1), (0.5 if k in ends else 1.0) / (m - 1)) for k in range(m)]
    if rule == "gauss-legendre":
        points, weights = np.polynomial.legendre.leggauss(m)
        return [(float(x + 1) / 2, float(w) / 2) for x, w in zip(points, weights, strict=True)]
    raise KeyError(rule)


def _points(method: str, steps: int | None, rule: str | None) -> tuple[tuple[float, float], ...]:
    """Where along e' + α (e − e') a method takes gradients, and with what weight."""
    if method == "EAP":
        return ((1.0, 1.0),)
    if method == "clean-corrupted":
        return ((1.0, 0.5), (0.0, 0.5))
    if method == "corrupted-gradient EAP":
        return ((0.0, 1.0),)
    if method == "gradient at a quarter":
        return ((0.25, 1.0),)
    if method in IG:
        return tuple(quadrature(rule, steps))
    raise KeyError(method)


@dataclass(frozen=True)
class OracleScores:
    """Per-example scores in float64, [examples, writers, readers] at edge level (0 off the edges).

    [examples, writers] at node level and [examples, writers, d_model] at neuron level.
    """

    per_example: np.ndarray

    @property
    def values(self) -> np.ndarray:
        return self.per_example.mean(0)

    @property
    def matrix(self) -> np.ndarray:
        return self.values

    @property
    def standard_error(self) -> np.ndarray:
        return self.per_example.std(0, ddof=1) / math.sqrt(len(self.per_example))


def scores(
    oracle: Oracle,
    examples: Iterable,
    method: str,
    *,
    level: str = "edge",
    intervention: str = "patching",
    intervention_examples: Iterable | None = None,
    metric: str = "logit-diff",
    steps: int | None = None,
    rule: str | None = None,
    scope: str = "component",
) -> OracleScores:
    """Any method but random at any level under any intervention, one example after another."""
    examples = list(examples)
    means = None
    if intervention.startswith("mean"):
        means = oracle.means(intervention_examples or examples, intervention)
    tables = []
    for example in examples:
        if method == "information-flow-routes":
            table = _information_flow_routes(oracle, example)
            tables.append(table if level == "edge" else table.sum(1))
            continue
        ablated = oracle.ablated(example, intervention, means)
        if method == "exact":
            tables.append(_exact(oracle, example, ablated, metric, level))
        else:
            points = _points(method, steps, rule)
            per_component = method == "EAP-IG-activations"
            tables.append(
                _by_gradients(oracle, example, ablated, metric, level, points, per_component, scope)
            )
    return OracleScores(np.stack(tables))


def _by_gradients(
    oracle: Oracle,
    example: object,
    ablated: Tensor,
    metric: str,
    level: str,
    points: tuple[tuple[float, float], ...],
    per_component: bool,
    scope: str,
) -> np.ndarray:
    delta = ablated - oracle.whole_run(example.clean_tokens).values
    n_writers = len(oracle.writers)
    if per_component:
        found = oracle.gradients_on_components(example, metric, points, ablated)
        readers = torch.stack([g for g, _ in found])  # [components, readers, pos, d_model]
        nodes = torch.stack([g for _, g in found])
        if scope == "all":
            readers, nodes = (g.mean(0, keepdim=True).expand_as(g) for g in (readers, nodes))
        path = [oracle.component_of(writer) for writer in oracle.writers]
    else:
        readers, nodes = (g[None] for g in oracle.gradients_on_inputs(example, metric, points))
        path = [0] * n_writers
    if level == "edge":
        delta = oracle.in_the_stream(example, delta).double()
        table = torch.stack(
            [torch.einsum("pd,vpd->v", delta[u], readers[path[u]]) for u in range(n_writers)]
        )
        return table.numpy() * oracle.edges
    at_components = [
        nodes[path[u], oracle.component_of(writer)] for u, writer in enumerate(oracle.writers)
    ]
    at_writers = oracle.at_the_writers(example, torch.stack(at_components))
    table = (delta.double() * at_writers).sum(1)
    return (table if level == "neuron" else table.sum(-1)).numpy()


@torch.no_grad()
def _information_flow_routes(oracle: Oracle, example: object) -> np.ndarray:
    values = oracle.whole_run(example.clean_tokens).values
    contributions = list(values)
    for number, layer in enumerate(oracle.parts.layers):
        if layer.post_attention is None:
            continue
        start = 1 + number * (oracle.n_heads + 1)
        summed = values[start : start + oracle.n_heads].sum(0)
        if layer.output_bias is not None:
            summed = summed + layer.output_bias
        norm = layer.post_attention
        for head in range(oracle.n_heads):  # the scale of the sum, frozen
            contributions[start + head] = norm.weight * values[start + head] / norm.scale(summed)
    table = np.zeros((len(oracle.writers), len(oracle.readers)))
    for v in range(len(oracle.readers)):
        before = np.flatnonzero(oracle.edges[:, v])
        # a reader in a parallel block sees neither half of its own layer
        stream = oracle.stream(values[: before.max() + 1]).double()
        proximity = torch.stack(
            [
                (stream.abs().sum(-1) - (stream - contributions[u].double()).abs().sum(-1)).clamp(
                    min=0
                )
                for u in before
            ]
        )  # [writers, pos]
        total = proximity.sum(0)
        share = torch.where(total > 0, proximity / total.where(total > 0, 1.0), 0.0)
        table[before, v] = share.mean(-1).numpy()
    return table


# --- circuits and exact effects


@torch.no_grad()
def mixed_logits(oracle: Oracle, example: object, ablated: Tensor, keeps: Tensor) -> Tensor:
    """Logits [..., vocab] where every reader mixes this run's outputs with ablated ones.

    `keeps` Bool [..., writers, readers, 1 or d_model]: whose output of this run reader v gets from
    writer u, and which dimensions of it.
    """
    variants = keeps.shape[:-3]
    embedding = oracle.embed(example.clean_tokens)
    embedding = embedding.expand(*variants, *embedding.shape)

    def read(columns: slice, values: Tensor) -> Tensor:
        so_far = values.shape[-3]
        keep = keeps[..., :so_far, columns, :].transpose(-3, -2)  # [..., readers, writers, d]
        here, there = values.unsqueeze(-4), ablated[:so_far]
        return oracle.stream(torch.where(keep.unsqueeze(-2), here, there))

    return oracle.run(embedding, read).logits


def _keeps(mask: np.ndarray, neurons: np.ndarray | None) -> Tensor:
    keeps = torch.tensor(mask)[..., None]
    return keeps if neurons is None else keeps & torch.tensor(neurons)[..., :, None, :]


def evaluate(
    oracle: Oracle,
    mask: np.ndarray,
    examples: Iterable,
    metric: str,
    *,
    neurons: np.ndarray | None = None,
    intervention: str = "patching",
    intervention_examples: Iterable | None = None,
) -> np.ndarray:
    """The metric [examples] of a circuit: edges [writers, readers] and neurons of writers."""
    examples = list(examples)
    means = None
    if intervention.startswith("mean"):
        means = oracle.means(intervention_examples or examples, intervention)
    values = []
    for example in examples:
        ablated = oracle.ablated(example, intervention, means)
        logits = mixed_logits(oracle, example, ablated, _keeps(mask, neurons))
        clean_logits = oracle.logits(example.clean_tokens)
        values.append(float(_metric(metric, logits, example, clean_logits)))
    return np.array(values)


def _exact(oracle: Oracle, example: object, ablated: Tensor, metric: str, level: str) -> np.ndarray:
    """L(with one thing ablated) − L(clean): an edge, a node for all its readers, or a neuron."""
    n_writers, n_readers = oracle.edges.shape
    clean_logits = oracle.logits(example.clean_tokens)
    clean = float(_loss(metric, clean_logits, example, clean_logits))
    if level == "edge":
        units = np.argwhere(oracle.edges)
        keeps = torch.ones(len(units), n_writers, n_readers, 1, dtype=torch.bool)
        for variant, (u, v) in enumerate(units):
            keeps[variant, u, v] = False
        table = np.zeros((n_writers, n_readers))
    elif level == "node":
        units = np.arange(n_writers)[:, None]
        keeps = torch.ones(n_writers, n_writers, n_readers, 1, dtype=torch.bool)
        for u in range(n_writers):
            keeps[u, u] = False
        table = np.zeros(n_writers)
    else:
        units = np.argwhere(np.ones((n_writers, oracle.d_model)))
        keeps = torch.ones(len(units), n_writers, 1, oracle.d_model, dtype=torch.bool)
        for variant, (u, d) in enumerate(units):
            keeps[variant, u, :, d] = False
        keeps = keeps.expand(-1, -1, n_readers, -1)
        table = np.zeros((n_writers, oracle.d_model))
    logits = mixed_logits(oracle, example, ablated, keeps)
    table[tuple(units.T)] = _loss(metric, logits, example, clean_logits).double().numpy() - clean
    return table
