"""Measure a model with only a circuit intact, beside the whole model and the empty circuit.

The empty circuit gives the metric of the ablated run (under patching, the corrupted one), the full
one the clean metric. A circuit is evaluated exactly as it is given: nothing is pruned here. How it
is run is in `circuit_run.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from torch import Tensor

from circuits.batching import (
    DEFAULT_MEMORY_BUDGET,
    Batch,
    BytesOf,
    batches,
    check_counterfactuals,
    check_examples,
)
from circuits.circuit import Circuit
from circuits.circuit_run import CircuitRun, logits_of_circuits, runs_between
from circuits.confidence import DEFAULT_BOOTSTRAP, Bootstrap, Interval, bootstrap_faithfulness
from circuits.errors import EvaluationError
from circuits.faithfulness import faithfulness
from circuits.finite import checked
from circuits.forward import Forward
from circuits.intervention import (
    INTERVENTIONS,
    MEANS,
    MeanActivations,
    check_means,
    check_source,
    mean_activations,
)
from circuits.model import Model
from tasks import Dataset, Metric, as_metric

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

    def faithfulness_interval(self, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP) -> Interval | None:
        """Faithfulness with its standard error and interval over resampled examples.

        None where it is undefined, or its interval is: see `circuits.confidence`.
        """
        clean, corrupted = self.baselines.clean, self.baselines.corrupted
        return bootstrap_faithfulness(self.values, clean, corrupted, bootstrap)

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
    metric: str | Metric | Callable[..., Tensor] = "logit-diff",
    *,
    intervention: str = "patching",
    intervention_dataset: Dataset | None = None,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
) -> Evaluation:
    """Run the model with only the circuit intact, all else ablated, and measure it.

    `intervention` is patching, zero, mean or mean-positional; means are over the clean inputs of
    `intervention_dataset`, by default the dataset itself. Raises `EvaluationError` where the
    circuit belongs to another graph than the model's or the metric is not finite, and
    `CircuitError` for examples the model cannot take.
    """
    return evaluate_many(
        model,
        [circuit],
        dataset,
        metric,
        intervention=intervention,
        intervention_dataset=intervention_dataset,
        memory_budget=memory_budget,
    )[0]


def evaluate_many(
    model: Model,
    circuits: Iterable[Circuit],
    dataset: Dataset,
    metric: str | Metric | Callable[..., Tensor] = "logit-diff",
    *,
    intervention: str = "patching",
    intervention_dataset: Dataset | None = None,
    means: MeanActivations | None = None,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
) -> list[Evaluation]:
    """Evaluate circuits that share one clean and one ablated run a batch; else as `evaluate`.

    `means`, where they are known already, save the runs over the intervention dataset.
    """
    if isinstance(circuits, Circuit):
        raise EvaluationError("evaluate_many takes a list of circuits: use evaluate for one")
    circuits, measure = list(circuits), as_metric(metric)
    _check_circuits(model, circuits)
    check_examples(dataset.examples, model.architecture)
    _check_intervention(intervention, intervention_dataset, means)
    check_counterfactuals(intervention, dataset.examples)
    if intervention in MEANS and means is None:
        source = dataset if intervention_dataset is None else intervention_dataset
        means = mean_activations(model, source, intervention, memory_budget=memory_budget)
    check_means(model, intervention, means, dataset.examples, EvaluationError)
    whole = Baselines(measure.name, np.empty(len(dataset)), np.empty(len(dataset)))
    values = [np.empty(len(dataset)) for _ in circuits]
    patching = intervention == "patching"
    plan = _planned_bytes(model)
    for batch in batches(dataset.examples, model.device, memory_budget, plan, suffix_only=patching):
        forward = Forward(model, batch)
        clean, clean_logits, base, base_logits = runs_between(forward, intervention, means)

        def measured(logits: Tensor, what: str) -> Values:
            values = measure(logits, batch.answers, clean_logits)  # noqa: B023
            known = checked(values, logits)
            found = known.cpu().double().numpy()
            if not np.isfinite(found).all():
                row = batch.first_unsound(known.isfinite())  # noqa: B023
                raise EvaluationError(
                    f"the metric {measure.name!r} of {what} is {found[row]} for example "
                    f"{batch.indices[row]}"  # noqa: B023
                )
            return found

        rows = list(batch.indices)
        whole.clean[rows] = measured(clean_logits, "the clean run")
        nothing = "the corrupted run" if patching else f"the empty circuit under {intervention}"
        whole.corrupted[rows] = measured(base_logits, nothing)
        for group in _side_by_side(model, batch, circuits):
            runs = [CircuitRun(forward, base, clean, circuits[i], patching=patching) for i in group]
            for i, logits in zip(group, logits_of_circuits(runs), strict=True):
                values[i][rows] = measured(logits, f"a circuit of {circuits[i].n_edges} edges")
    return [Evaluation(measure.name, found, whole) for found in values]


def _check_intervention(
    intervention: str, source: Dataset | None, means: MeanActivations | None
) -> None:
    if intervention not in INTERVENTIONS:
        raise EvaluationError(
            f"there is no intervention {intervention!r}: choose from {', '.join(INTERVENTIONS)}"
        )
    check_source(intervention, source, EvaluationError)
    if means is not None and source is not None:
        raise EvaluationError("give means or an intervention_dataset to take them over, not both")


def _check_circuits(model: Model, circuits: Sequence[Circuit]) -> None:
    for circuit in circuits:
        if circuit.graph != model.graph:
            raise EvaluationError(
                f"the circuit belongs to a model of {circuit.graph.n_layers} layers and "
                f"{circuit.graph.n_heads} heads, not to {model.name!r}, which has "
                f"{model.graph.n_layers} and {model.graph.n_heads}"
            )
        if circuit.neurons is not None:
            width, d_model = circuit.neurons.shape[1], model.architecture.d_model
            if width != d_model:
                raise EvaluationError(
                    f"the circuit's neurons are of a model {width} wide, and {model.name!r} is "
                    f"{d_model} wide"
                )


def baselines(
    model: Model,
    dataset: Dataset,
    metric: str | Metric | Callable[..., Tensor] = "logit-diff",
    *,
    intervention: str = "patching",
    intervention_dataset: Dataset | None = None,
    means: MeanActivations | None = None,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
) -> Baselines:
    """The metric of the whole model on clean inputs and fully ablated; raises as `evaluate`."""
    nothing = Circuit(model.graph, np.zeros_like(model.graph.edge_mask))
    return evaluate_many(
        model,
        [nothing],
        dataset,
        metric,
        intervention=intervention,
        intervention_dataset=intervention_dataset,
        means=means,
        memory_budget=memory_budget,
    )[0].baselines


def _planned_bytes(model: Model) -> BytesOf:
    """What a batch takes with one circuit that has every writer."""
    a, everything = model.architecture, model.graph.n_writers

    def bytes_of(n_examples: int, n_prefix: int, longest: int) -> int:
        pos = longest - n_prefix
        state = a.n_layers * pos * (10 * a.d_model) + 2 * a.n_layers * a.d_model * n_prefix
        of_heads = pos * (10 * a.n_heads * a.d_model + 4 * a.n_heads * longest)
        shared = n_examples * _item(model) * (state + of_heads + a.d_vocab)
        return shared + _bytes_of_circuit(model, n_examples, pos, everything)

    return bytes_of


def _bytes_of_circuit(model: Model, n_examples: int, pos: int, n_writers: int) -> int:
    """What a circuit adds to the circuits that are run beside it."""
    a = model.architecture
    changes, mlp = n_writers * pos * a.d_model, pos * (3 * a.d_mlp + 2 * a.d_model)
    return n_examples * _item(model) * (changes + mlp + 2 * a.d_vocab)


def _item(model: Model) -> int:
    return max(4, model.dtype.itemsize)


def _side_by_side(model: Model, batch: Batch, circuits: Sequence[Circuit]) -> Iterator[list[int]]:
    """The circuits in groups that fit the batch's memory budget together, each at least of one."""
    n_examples, pos = batch.clean.shape
    left = batch.budget - _planned_bytes(model)(n_examples, batch.prefix.shape[1], pos)
    group: list[int] = []
    room = 0
    for index, circuit in enumerate(circuits):
        n_writers = int(circuit.mask.any(axis=1).sum())
        own = _bytes_of_circuit(model, n_examples, pos, n_writers)
        if group and own > room:
            yield group
            group = []
        room = left if not group else room - own
        group.append(index)
    if group:
        yield group
