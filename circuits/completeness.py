"""Completeness: does the circuit hold everything that does the task?

Without a complete circuit the model has nothing left to do the task with: the rest of it, `M ∖ C`,
measures no better than the empty circuit, and its faithfulness is about 0. A backup that the
circuit has missed shows there.

Wang et al. 2022 (arXiv:2211.00593, section 4) ask for more: for every subset K of the circuit,
`|F(C ∖ K) − F(M ∖ K)|` should be small, where F is the mean metric. K = C is the question above,
and K = ∅ is faithfulness. Subsets are too many to try; here they are drawn at random, every subset
alike: each unit is in K with probability ½. Theirs are sets of heads, chosen at random, by class
and by a greedy search for the worst, under mean ablation. Here units are edges, nodes or neurons,
the ablation is any intervention, and the worst of the random subsets is a lower bound on the worst
of all.

The token embedding is no unit that can be missing there, nor is it here among nodes and neurons:
`input` stays whole in `M ∖ C` and is never in K. Without it nothing would differ from the ablated
run, and any circuit that has it would pass for complete. Among edges, each edge out of it is one
like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.batching import DEFAULT_MEMORY_BUDGET
from circuits.circuit import Circuit
from circuits.errors import EvaluationError
from circuits.evaluation import Evaluation
from circuits.extraction import is_whole
from circuits.intervention import MeanActivations
from circuits.model import Model
from circuits.removal import Units, evaluate_each, units_of, whole, without
from tasks import Dataset, Metric


@dataclass(frozen=True, eq=False)
class Completeness:
    """The model without a circuit, and both without random subsets K of its units.

    `subsets` says which of the units in `units` (places in the order of the level) each K has;
    values are the metric per example, in the dataset's order, in float64.
    """

    without: Evaluation  # of the model without the circuit
    units: Units
    subsets: Bool[np.ndarray, "subsets units"]
    circuit_values: Float[np.ndarray, "subsets examples"]  # of C ∖ K
    model_values: Float[np.ndarray, "subsets examples"]  # of M ∖ K

    @cached_property
    def values(self) -> Float[np.ndarray, " subsets"]:
        """`|F(C ∖ K) − F(M ∖ K)|` for each K, in the metric's units: 0 is complete."""
        return np.abs(self.circuit_values.mean(axis=1) - self.model_values.mean(axis=1))

    @property
    def mean(self) -> float | None:
        """The mean over the subsets; None where none was drawn."""
        return float(self.values.mean()) if len(self.values) else None

    @property
    def worst(self) -> float | None:
        """The largest over the subsets; None where none was drawn."""
        return float(self.values.max()) if len(self.values) else None

    def __repr__(self) -> str:
        text = f"Completeness(without {self.without!r}"
        if self.mean is not None:
            text += f", {len(self.values)} subsets: mean {self.mean:.4f}, worst {self.worst:.4f}"
        return f"{text})"


def complement(circuit: Circuit) -> Circuit:
    """`M ∖ C`: the model without the circuit, at the circuit's level.

    All edges that are not in the circuit; or all edges between the nodes that are not in it and
    `input`; or those of the neurons that are not in it and all of `input`. Raises `EvaluationError`
    for edges or nodes that carry some neurons only.
    """
    return without(whole(circuit), _removable(circuit))


def completeness(
    model: Model,
    circuit: Circuit,
    dataset: Dataset,
    metric: str | Metric | Callable[..., Tensor] = "logit-diff",
    *,
    intervention: str = "patching",
    intervention_dataset: Dataset | None = None,
    means: MeanActivations | None = None,
    subsets: int = 0,
    seed: int = 0,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
) -> Completeness:
    """Measure the model without the circuit, and both without `subsets` random subsets of it.

    Costs 1 + 2 × `subsets` circuits over shared runs. Subsets follow from the seed and the number
    of the circuit's units. Raises as `evaluate_many` and `complement`, and `EvaluationError` where
    the number of subsets or the seed is negative or no whole number.
    """
    if not (is_whole(subsets) and is_whole(seed)) or min(subsets, seed) < 0:
        raise EvaluationError(
            f"the number of subsets and their seed are whole numbers, 0 or more, not {subsets!r} "
            f"and {seed!r}"
        )
    units = _removable(circuit)
    drawn = np.random.default_rng(seed).integers(2, size=(subsets, len(units))).astype(bool)
    everything = whole(circuit)
    pairs = (without(of, units[chosen]) for chosen in drawn for of in (circuit, everything))
    evaluations = evaluate_each(
        model,
        (one for part in ([complement(circuit)], pairs) for one in part),
        dataset,
        metric,
        intervention=intervention,
        intervention_dataset=intervention_dataset,
        means=means,
        memory_budget=memory_budget,
    )
    rest = next(evaluations)
    values = np.empty((subsets, 2, len(dataset)))
    for index, evaluation in enumerate(evaluations):
        values[divmod(index, 2)] = evaluation.values
    return Completeness(rest, units, drawn, values[:, 0], values[:, 1])


def _removable(circuit: Circuit) -> Units:
    """The circuit's units but for `input`, which goes at edge level alone."""
    units = units_of(circuit)
    if circuit.level == "edge":
        return units
    if circuit.level == "node":
        return units[units > 0]
    assert circuit.neurons is not None
    return units[units >= circuit.neurons.shape[1]]
