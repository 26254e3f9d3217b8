r"""Run a model with only a circuit intact.

Reader v of the circuit gets the corrupted stream plus, for each member edge, the change of its
writer in this run against the corrupted run:

    x_v = x'_v + Σ_{u→v in circuit} (z̃_u − z'_u)

So one corrupted run serves every circuit on a batch. From there a circuit costs only what it
contains: a head without member edges is never computed, a head input without member edges keeps its
corrupted query, key or value, and the logits are read at the answer position alone. The empty
circuit gives the corrupted metric, the full one the clean metric.

A circuit is evaluated exactly as it is given: nothing is pruned here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.architecture import at_least_float32
from circuits.batching import DEFAULT_MEMORY_BUDGET, BytesOf, batches, check_examples
from circuits.circuit import Circuit
from circuits.errors import EvaluationError
from circuits.faithfulness import faithfulness
from circuits.graph import HEAD_INPUTS
from circuits.model import Model
from circuits.recording import LayerState, Recorder, State
from tasks import Dataset, Metric, get_metric

Values = Float[np.ndarray, " examples"]


@dataclass(frozen=True, eq=False)
class Baselines:
    """The metric of the whole model on the clean and on the corrupted inputs, per example."""

    metric: str
    clean: Values
    corrupted: Values


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The metric of one circuit, per example in the dataset's order, in float64."""

    metric: str
    values: Values
    baselines: Baselines

    @cached_property
    def mean(self) -> float:
        """The mean over examples, in the metric's units."""
        return float(self.values.mean())

    @cached_property
    def standard_error(self) -> float:
        """The standard error of the mean; NaN for one example."""
        return standard_error(self.values)

    @cached_property
    def faithfulness(self) -> float | None:
        """Where the mean lies between corrupted (0) and clean (1); None where they are one."""
        return faithfulness(
            self.mean, float(self.baselines.clean.mean()), float(self.baselines.corrupted.mean())
        )

    def __repr__(self) -> str:
        f = "undefined" if self.faithfulness is None else f"{self.faithfulness:.4f}"
        return (
            f"Evaluation({self.metric} {self.mean:.4f} ± {self.standard_error:.4f}, "
            f"faithfulness {f}, {len(self.values)} examples)"
        )


def standard_error(values: Values) -> float:
    """The sample standard deviation over √n; NaN for one example."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def evaluate(
    model: Model,
    circuit: Circuit,
    dataset: Dataset,
    metric: str | Metric = "logit-diff",
    *,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
) -> Evaluation:
    """Run the model with only the circuit intact, all else corrupted, and measure it.

    Raises `EvaluationError` where the circuit belongs to another graph than the model's or the
    metric is not finite, and `CircuitError` for examples the model cannot take.
    """
    return evaluate_many(model, [circuit], dataset, metric, memory_budget=memory_budget)[0]


def evaluate_many(
    model: Model,
    circuits: Sequence[Circuit],
    dataset: Dataset,
    metric: str | Metric = "logit-diff",
    *,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
) -> list[Evaluation]:
    """Evaluate circuits that share one clean and one corrupted run a batch; else as `evaluate`."""
    for circuit in circuits:
        if circuit.graph != model.graph:
            raise EvaluationError(
                f"the circuit belongs to a model of {circuit.graph.n_layers} layers and "
                f"{circuit.graph.n_heads} heads, not to {model.name!r}, which has "
                f"{model.graph.n_layers} and {model.graph.n_heads}"
            )
    measure = get_metric(metric) if isinstance(metric, str) else metric
    check_examples(dataset.examples, model.architecture)
    whole = Baselines(measure.name, np.empty(len(dataset)), np.empty(len(dataset)))
    values = [np.empty(len(dataset)) for _ in circuits]
    masks = [torch.from_numpy(circuit.mask.copy()) for circuit in circuits]
    plan = _planned_bytes(model)
    for batch in batches(dataset.examples, model.device, memory_budget, plan):
        recorder = Recorder(model, batch)
        clean, _ = recorder.record(batch.clean)
        corrupted = recorder.record_state(batch.corrupted)

        def measured(logits: Tensor, what: str) -> Values:
            found = measure(logits, batch.answers, clean.logits).detach().cpu().double().numpy()  # noqa: B023
            if not np.isfinite(found).all():
                row = int(np.flatnonzero(~np.isfinite(found))[0])
                raise EvaluationError(
                    f"the metric {measure.name!r} of {what} is {found[row]} for example "
                    f"{batch.indices[row]}"  # noqa: B023
                )
            return found

        rows = list(batch.indices)
        whole.clean[rows] = measured(clean.logits, "the clean run")
        whole.corrupted[rows] = measured(corrupted.logits, "the corrupted run")
        for index, mask in enumerate(masks):
            run = CircuitRun(recorder, corrupted, clean.embedding, mask)
            values[index][rows] = measured(run.logits(), f"a circuit of {int(mask.sum())} edges")
    return [Evaluation(measure.name, found, whole) for found in values]


def baselines(
    model: Model,
    dataset: Dataset,
    metric: str | Metric = "logit-diff",
    *,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
) -> Baselines:
    """The metric of the whole model on the clean and corrupted inputs; raises as `evaluate`."""
    nothing = Circuit(model.graph, np.zeros_like(model.graph.edge_mask))
    return evaluate(model, nothing, dataset, metric, memory_budget=memory_budget).baselines


class CircuitRun:
    """One run of the model on a batch with only a circuit intact."""

    def __init__(
        self,
        recorder: Recorder,
        corrupted: State,
        clean_embedding: Float[Tensor, "batch pos d_model"],
        mask: Bool[Tensor, "writers readers"],
    ) -> None:
        self.model = recorder.model
        self.batch = recorder.batch
        self.prefix = recorder.prefix
        self.corrupted = corrupted
        self.mask = mask
        self.graph = self.model.graph
        self.writes = mask.any(dim=1).tolist()
        self.changed: list[int] = []  # writers that differ from the corrupted run, in order
        shape = (sum(self.writes), *corrupted.embedding.shape)
        # z̃_u − z'_u of those writers; sums of many small changes need float32 at least
        self.changes = at_least_float32(corrupted.embedding).new_empty(shape)
        self._write([0], _difference(clean_embedding, corrupted.embedding)[None])

    @torch.no_grad()
    def logits(self) -> Float[Tensor, "batch vocab"]:
        """The logits at the answer positions."""
        for index, state in enumerate(self.corrupted.layers):
            self._run_heads(index, state)
            self._run_mlp(index, state)
        rows = self.batch.rows
        stream = self.corrupted.stream_of_logits[rows, self.batch.last]
        read = self._read([self.graph.n_readers - 1])
        if read is not None:
            changes = self.changes[: len(self.changed), rows, self.batch.last]
            change = einsum(read[0], changes, "writer, writer batch d_model -> batch d_model")
            stream = (stream + change).to(self.model.dtype)
        return self.model.logits(stream)

    def _run_heads(self, index: int, state: LayerState) -> None:
        """Compute the heads that a member edge reaches and that a member edge leaves."""
        n_heads, first = self.graph.n_heads, self.graph.heads(index).start
        columns = self.graph.head_inputs(index).start + torch.arange(3 * n_heads).view(3, n_heads)
        reached = self._reached(columns.flatten().tolist()).view(3, n_heads)
        active = [h for h in range(n_heads) if self.writes[first + h] and bool(reached[:, h].any())]
        if not active:
            return
        layer = self.model.layers[index]
        inputs = {}
        for row, kind in enumerate(HEAD_INPUTS):
            inputs[kind] = state.projections[kind][:, :, active]
            readers = [h for h in active if reached[row, h]]
            read = self._read(columns[row, readers].tolist())
            if read is None:
                continue
            normal = layer.norm_of_heads(self._streams(state.stream_of_heads, read))
            projected = einsum(
                normal,
                layer.weights[kind][readers],
                "head batch pos d_model, head d_model d_head -> batch pos head d_head",
            )
            places = [active.index(h) for h in readers]
            inputs[kind] = inputs[kind].clone()
            inputs[kind][:, :, places] = projected + layer.biases[kind][readers]
        if self.prefix:
            for kind, cached in zip(("k", "v"), self.prefix[index], strict=True):
                before = cached[:, active].transpose(1, 2)
                inputs[kind] = torch.cat([before, inputs[kind]], dim=1)
        z = layer.attend(inputs["q"], inputs["k"], inputs["v"])
        changes = einsum(
            _difference(z, state.heads[:, :, active]),
            at_least_float32(layer.output[active]),
            "batch pos head d_head, head d_head d_model -> head batch pos d_model",
        )
        self._write([first + h for h in active], changes)

    def _run_mlp(self, index: int, state: LayerState) -> None:
        """Compute the MLP if a member edge reaches it and a member edge leaves it."""
        writer = self.graph.mlp(index)
        read = self._read([self.graph.mlp_input(index)]) if self.writes[writer] else None
        if read is None:
            return
        layer = self.model.layers[index]
        stream = self._streams(state.stream_of_mlp, read)[0]
        output = layer.mlp(layer.norm_of_mlp(stream))
        self._write([writer], _difference(output, state.mlp)[None])

    def _write(
        self, writers: list[int], changes: Float[Tensor, "writers batch pos d_model"]
    ) -> None:
        kept = [i for i, writer in enumerate(writers) if self.writes[writer]]
        if kept:
            start = len(self.changed)
            self.changes[start : start + len(kept)] = changes[kept]
            self.changed += [writers[i] for i in kept]

    def _reached(self, readers: list[int]) -> Bool[Tensor, " readers"]:
        return self.mask[self.changed][:, readers].any(dim=0)

    def _read(self, readers: list[int]) -> Float[Tensor, "readers changed"] | None:
        """Which of the changed writers each reader takes; None where none of them takes any."""
        if not readers or not self.changed:
            return None
        takes = self.mask[self.changed][:, readers]
        return takes.T.to(self.changes) if bool(takes.any()) else None

    def _streams(
        self, corrupted: Float[Tensor, "batch pos d_model"], read: Float[Tensor, "readers changed"]
    ) -> Float[Tensor, "readers batch pos d_model"]:
        changes = einsum(
            read,
            self.changes[: len(self.changed)],
            "reader writer, writer batch pos d_model -> reader batch pos d_model",
        )
        return (changes + corrupted).to(self.model.dtype)


def _difference(now: Tensor, corrupted: Tensor) -> Tensor:
    return at_least_float32(now) - at_least_float32(corrupted)


def _planned_bytes(model: Model) -> BytesOf:
    a = model.architecture
    graph, item = a.graph, max(4, model.dtype.itemsize)

    def bytes_of(n_examples: int, n_prefix: int, longest: int) -> int:
        pos = longest - n_prefix
        state = a.n_layers * pos * (10 * a.d_model) + 2 * a.n_layers * a.d_model * n_prefix
        changes = graph.n_writers * pos * a.d_model
        of_a_layer = pos * (10 * a.n_heads * a.d_model + 3 * a.d_mlp + 4 * a.n_heads * longest)
        return n_examples * item * (state + changes + of_a_layer + 3 * a.d_vocab)

    return bytes_of
