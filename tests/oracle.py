"""The definitions, carried out slowly: what the engine's numbers are checked against.

GPT-2 alone, straight from the weights of a `transformers` model, one example at a time and so
without padding. Every reader has its own copy of the residual stream, each head's q, k and v
included, and autograd differentiates with respect to those copies. Nothing here comes from the
engine, not even the order of writers and readers: they are written down once more.

    x_v   = position embedding + attention output biases so far + sum over writers u of z_u
    EAP   = sum over positions of (z'_u − z_u) · ∂L/∂x_v                          at the clean input
    exact = L(edge u→v corrupted) − L(clean)
    circuit: x_v = x'_v + sum over members u→v of (z~_u − z'_u)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# A metric here: (logits [vocab], correct ids, incorrect ids, clean logits [vocab]) -> scalar.
PlainMetric = Callable[[Tensor, tuple[int, ...], tuple[int, ...], Tensor], Tensor]
ReaderStream = Callable[[str, Tensor, Mapping[str, Tensor]], Tensor]

HIGHER_IS_BETTER = {"logit-diff": True, "prob-diff": True, "accuracy": True, "kl": False}


def logit_diff(logits: Tensor, correct: tuple, incorrect: tuple, clean_logits: Tensor) -> Tensor:
    right = sum(logits[i] for i in correct) / len(correct)
    wrong = sum(logits[i] for i in incorrect) / len(incorrect)
    return right - wrong


def prob_diff(logits: Tensor, correct: tuple, incorrect: tuple, clean_logits: Tensor) -> Tensor:
    p = torch.exp(logits - logits.max().detach())
    p = p / p.sum()
    return sum(p[i] for i in correct) - sum(p[i] for i in incorrect)


def kl(logits: Tensor, correct: tuple, incorrect: tuple, clean_logits: Tensor) -> Tensor:
    clean = clean_logits - torch.logsumexp(clean_logits, 0)
    run = logits - torch.logsumexp(logits, 0)
    return (torch.exp(clean) * (clean - run)).sum()


def accuracy(logits: Tensor, correct: tuple, incorrect: tuple, clean_logits: Tensor) -> Tensor:
    return (prob_diff(logits, correct, incorrect, clean_logits) > 0).to(logits.dtype)


METRICS: dict[str, PlainMetric] = {
    "logit-diff": logit_diff,
    "prob-diff": prob_diff,
    "kl": kl,
    "accuracy": accuracy,
}


def writer_names(n_layers: int, n_heads: int) -> list[str]:
    names = ["input"]
    for layer in range(n_layers):
        names += [f"a{layer}.h{head}" for head in range(n_heads)]
        names.append(f"m{layer}")
    return names


def reader_names(n_layers: int, n_heads: int) -> list[str]:
    names = []
    for layer in range(n_layers):
        for letter in "qkv":
            names += [f"a{layer}.h{head}<{letter}>" for head in range(n_heads)]
        names.append(f"m{layer}")
    return [*names, "logits"]


def _moment(name: str) -> float:
    """When a node runs: attention of layer l at l, its MLP at l + 1/2."""
    if name == "input":
        return -1.0
    if name == "logits":
        return math.inf
    layer = float(name[1:].split(".")[0])
    return layer if name[0] == "a" else layer + 0.5


def edge_exists(writer: str, reader: str) -> bool:
    return _moment(writer) < _moment(reader)


def edge_names(n_layers: int, n_heads: int) -> list[str]:
    return [
        f"{writer}->{reader}"
        for writer in writer_names(n_layers, n_heads)
        for reader in reader_names(n_layers, n_heads)
        if edge_exists(writer, reader)
    ]


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


@dataclass(frozen=True)
class Weights:
    """The plain tensors of a GPT-2, heads split, in the model's own dtype."""

    config: object
    tensors: dict[str, Tensor]

    @classmethod
    def of(cls, hf_model: torch.nn.Module) -> Weights:
        tensors = {k: v.detach().clone() for k, v in hf_model.state_dict().items()}
        return cls(hf_model.config, tensors)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    @property
    def n_layers(self) -> int:
        return self.config.n_layer

    @property
    def n_heads(self) -> int:
        return self.config.n_head

    def embed(self, tokens: Iterable[int]) -> Tensor:
        return self["transformer.wte.weight"][torch.tensor(list(tokens))]

    def norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self[f"{name}.weight"], self[f"{name}.bias"]
        centred = x - x.mean(-1, keepdim=True)
        scale = torch.sqrt((centred**2).mean(-1, keepdim=True) + self.config.layer_norm_epsilon)
        return centred / scale * weight + bias

    def projection(self, layer: int, head: int, letter: str) -> tuple[Tensor, Tensor]:
        """The [d_model, d_head] matrix and [d_head] bias of one head's q, k or v."""
        d_model = self.config.n_embd
        d_head = d_model // self.n_heads
        start = "qkv".index(letter) * d_model + head * d_head
        here = f"transformer.h.{layer}.attn.c_attn"
        columns = slice(start, start + d_head)
        return self[f"{here}.weight"][:, columns], self[f"{here}.bias"][columns]

    def head_output(self, layer: int, head: int, streams: Mapping[str, Tensor]) -> Tensor:
        """What one head adds to the stream, from its own three copies of the stream."""
        read = {}
        for letter in "qkv":
            matrix, bias = self.projection(layer, head, letter)
            read[letter] = self.norm(f"transformer.h.{layer}.ln_1", streams[letter]) @ matrix + bias
        n_pos, d_head = read["q"].shape
        scores = read["q"] @ read["k"].T
        if self.config.scale_attn_weights:
            scores = scores / math.sqrt(d_head)
        if self.config.scale_attn_by_inverse_layer_idx:
            scores = scores / (layer + 1)
        future = torch.triu(torch.ones(n_pos, n_pos, dtype=torch.bool), diagonal=1)
        pattern = torch.softmax(scores.masked_fill(future, -math.inf), dim=-1)
        rows = slice(head * d_head, (head + 1) * d_head)
        return pattern @ read["v"] @ self[f"transformer.h.{layer}.attn.c_proj.weight"][rows]

    def mlp_output(self, layer: int, stream: Tensor) -> Tensor:
        here = f"transformer.h.{layer}"
        x = self.norm(f"{here}.ln_2", stream)
        x = x @ self[f"{here}.mlp.c_fc.weight"] + self[f"{here}.mlp.c_fc.bias"]
        if self.config.activation_function == "gelu_new":
            x = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        elif self.config.activation_function == "gelu":
            x = torch.nn.functional.gelu(x)
        elif self.config.activation_function == "relu":
            x = x * (x > 0)
        else:
            raise KeyError(self.config.activation_function)
        return x @ self[f"{here}.mlp.c_proj.weight"] + self[f"{here}.mlp.c_proj.bias"]

    def run(self, embedding: Tensor, reader_stream: ReaderStream) -> tuple[Tensor, dict]:
        """Logits of the last position, and every writer's contribution [pos, d_model].

        `reader_stream(reader, fixed, contributions)` says what a reader sees: `fixed` is the
        position embedding and the attention biases so far, `contributions` the writers before it.
        """
        fixed = self["transformer.wpe.weight"][: embedding.shape[0]]
        contributions = {"input": embedding}
        for layer in range(self.n_layers):
            before = dict(contributions)
            for head in range(self.n_heads):
                name = f"a{layer}.h{head}"
                streams = {
                    letter: reader_stream(f"{name}<{letter}>", fixed, before) for letter in "qkv"
                }
                contributions[name] = self.head_output(layer, head, streams)
            fixed = fixed + self[f"transformer.h.{layer}.attn.c_proj.bias"]
            stream = reader_stream(f"m{layer}", fixed, dict(contributions))
            contributions[f"m{layer}"] = self.mlp_output(layer, stream)
        stream = reader_stream("logits", fixed, contributions)
        last = self.norm("transformer.ln_f", stream)[-1]
        return last @ self["lm_head.weight"].T, contributions


def _everything(reader: str, fixed: Tensor, contributions: Mapping[str, Tensor]) -> Tensor:
    stream = fixed
    for contribution in contributions.values():
        stream = stream + contribution
    return stream


def _wide(logits: Tensor) -> Tensor:
    """Metrics are taken in float32 at least."""
    return logits if logits.dtype == torch.float64 else logits.float()


@torch.no_grad()
def oracle_logits(hf_model: torch.nn.Module, tokens: Iterable[int]) -> Tensor:
    weights = Weights.of(hf_model)
    return weights.run(weights.embed(tokens), _everything)[0]


def _loss(logits: Tensor, example: object, metric: str, clean_logits: Tensor) -> Tensor:
    value = METRICS[metric](_wide(logits), example.correct, example.incorrect, clean_logits)
    return -value if HIGHER_IS_BETTER[metric] else value


def reader_gradients(
    weights: Weights, embedding: Tensor, example: object, metric: str, clean_logits: Tensor
) -> dict[str, Tensor]:
    """∂L/∂x_v [pos, d_model] for every reader v, the input embeddings being `embedding`."""
    leaves: dict[str, Tensor] = {}

    def stream(reader: str, fixed: Tensor, contributions: Mapping[str, Tensor]) -> Tensor:
        leaves[reader] = torch.zeros_like(embedding, requires_grad=True)
        return _everything(reader, fixed, contributions) + leaves[reader]

    logits, _ = weights.run(embedding, stream)
    loss = _loss(logits, example, metric, clean_logits)
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return dict(zip(leaves, gradients, strict=True))


def _points(method: str, steps: int | None, rule: str | None) -> list[tuple[float, float]]:
    """Where along e' + α (e − e') a method takes gradients, and with what weight."""
    if method == "EAP":
        return [(1.0, 1.0)]
    if method == "clean-corrupted":
        return [(1.0, 0.5), (0.0, 0.5)]
    if method == "corrupted-gradient EAP":
        return [(0.0, 1.0)]
    if method == "gradient at a quarter":
        return [(0.25, 1.0)]
    if method == "EAP-IG-inputs":
        return quadrature(rule, steps)
    raise KeyError(method)


@dataclass(frozen=True)
class OracleScores:
    """Per-example scores [examples, writers, readers] in float64; 0 where there is no edge."""

    per_example: np.ndarray

    @property
    def matrix(self) -> np.ndarray:
        return self.per_example.mean(0)

    @property
    def standard_error(self) -> np.ndarray:
        return self.per_example.std(0, ddof=1) / math.sqrt(len(self.per_example))


def oracle_scores(
    hf_model: torch.nn.Module,
    examples: Iterable,
    metric: str,
    method: str,
    steps: int | None = None,
    rule: str | None = None,
) -> OracleScores:
    weights = Weights.of(hf_model)
    writers = writer_names(weights.n_layers, weights.n_heads)
    readers = reader_names(weights.n_layers, weights.n_heads)
    tables = []
    for example in examples:
        clean, corrupted = (
            weights.embed(example.clean_tokens),
            weights.embed(example.corrupted_tokens),
        )
        with torch.no_grad():
            clean_logits, z = weights.run(clean, _everything)
            _, z_corrupted = weights.run(corrupted, _everything)
            clean_logits = _wide(clean_logits)
        delta = torch.stack([z_corrupted[writer] - z[writer] for writer in writers]).double()
        table = np.zeros((len(writers), len(readers)))
        for alpha, weight in _points(method, steps, rule):
            embedding = corrupted + alpha * (clean - corrupted)
            gradients = reader_gradients(weights, embedding, example, metric, clean_logits)
            g = torch.stack([gradients[reader] for reader in readers]).double()
            table += weight * torch.einsum("upd,vpd->uv", delta, g).numpy()
        table *= [[edge_exists(writer, reader) for reader in readers] for writer in writers]
        tables.append(table)
    return OracleScores(np.stack(tables))


@torch.no_grad()
def oracle_circuit_logits(weights: Weights, example: object, mask: np.ndarray) -> Tensor:
    """Logits at the answer when only member edges carry this run's outputs."""
    writers = writer_names(weights.n_layers, weights.n_heads)
    readers = reader_names(weights.n_layers, weights.n_heads)
    _, z_corrupted = weights.run(weights.embed(example.corrupted_tokens), _everything)

    def stream(reader: str, fixed: Tensor, contributions: Mapping[str, Tensor]) -> Tensor:
        corrupted_stream = fixed
        for writer in contributions:
            corrupted_stream = corrupted_stream + z_corrupted[writer]
        change = torch.zeros_like(corrupted_stream)
        for writer, contribution in contributions.items():
            if mask[writers.index(writer), readers.index(reader)]:
                change = change + (contribution - z_corrupted[writer])
        return corrupted_stream + change

    return weights.run(weights.embed(example.clean_tokens), stream)[0]


@torch.no_grad()
def oracle_evaluate(
    hf_model: torch.nn.Module, mask: np.ndarray, examples: Iterable, metric: str
) -> np.ndarray:
    """The metric [examples] of a circuit given as a [writers, readers] mask."""
    weights = Weights.of(hf_model)
    values = []
    for example in examples:
        clean_logits = _wide(weights.run(weights.embed(example.clean_tokens), _everything)[0])
        logits = _wide(oracle_circuit_logits(weights, example, mask))
        value = METRICS[metric](logits, example.correct, example.incorrect, clean_logits)
        values.append(float(value))
    return np.array(values)


@torch.no_grad()
def oracle_exact(hf_model: torch.nn.Module, examples: Iterable, metric: str) -> np.ndarray:
    """L(one edge corrupted) − L(clean) [writers, readers], the mean over examples."""
    weights = Weights.of(hf_model)
    writers = writer_names(weights.n_layers, weights.n_heads)
    readers = reader_names(weights.n_layers, weights.n_heads)
    sign = -1.0 if HIGHER_IS_BETTER[metric] else 1.0
    examples = list(examples)
    table = np.zeros((len(writers), len(readers)))
    whole = oracle_evaluate(hf_model, np.ones(table.shape, dtype=bool), examples, metric)
    for i, writer in enumerate(writers):
        for j, reader in enumerate(readers):
            if edge_exists(writer, reader):
                mask = np.ones(table.shape, dtype=bool)
                mask[i, j] = False
                without = oracle_evaluate(hf_model, mask, examples, metric)
                table[i, j] = sign * float((without - whole).mean())
    return table
