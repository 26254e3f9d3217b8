"""Minimality: does every unit of the circuit do something in it?

The marginal of a unit v of a circuit C is `F(C) − F(C ∖ {v})`: what the circuit loses, in the
metric's units, without that edge, node or neuron. Where higher is better a positive marginal says
that the unit helps; about 0 says that the circuit would be as good without it.

Wang et al. 2022 (arXiv:2211.00593, section 4) ask that for every v there be some subset K of the
circuit with a large `|F(C ∖ (K ∪ {v})) − F(C ∖ K)|`, and choose K by hand. Here K = ∅ and the sign
is kept. So two units that stand in for each other both have a marginal near 0, and neither need be
superfluous: take one away and look at the other again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from circuits.batching import DEFAULT_MEMORY_BUDGET
from circuits.circuit import Circuit
from circuits.evaluation import Evaluation
from circuits.intervention import MeanActivations
from circuits.model import Model
from circuits.removal import Units, evaluate_each, names_of, units_of, without
from tasks import Dataset, Metric

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Minimality:
    """The marginal of every unit of a circuit, per example, in the metric's units, in float64.

    `units` are the names and `unit_ids` the places of the circuit's units in the order of their
    level: edges in edge order, nodes as writers, neurons by writer, then by dimension. Examples
    stand in the dataset's order.
    """

    level: str
    circuit: Evaluation  # of the whole circuit
    units: tuple[str, ...]
    unit_ids: Units
    marginals: Float[np.ndarray, "units examples"]

    @cached_property
    def values(self) -> Float[np.ndarray, " units"]:
        """The mean marginal of each unit over examples."""
        return self.marginals.mean(axis=1)

    @cached_property
    def standard_error(self) -> Float[np.ndarray, " units"]:
        """The sample standard deviation of each unit's marginals over √n; NaN for one example."""
        n = self.marginals.shape[1]
        if n < 2:
            return np.full(len(self.units), np.nan)
        return self.marginals.std(axis=1, ddof=1) / np.sqrt(n)

    def to_pandas(self) -> pd.DataFrame:
        """One row a unit, in order: unit_id, unit (its name), marginal and standard_error."""
        import pandas as pd

        return pd.DataFrame(
            {
                "unit_id": self.unit_ids,
                "unit": list(self.units),
                "marginal": self.values,
                "standard_error": self.standard_error,
            }
        )

    def __repr__(self) -> str:
        n_examples = self.marginals.shape[1]
        return f"Minimality({len(self.units)} {self.level}s, {n_examples} examples)"


def minimality(
    model: Model,
    circuit: Circuit,
    dataset: Dataset,
    metric: str | Metric | Callable[..., Tensor] = "logit-diff",
    *,
    intervention: str = "patching",
    intervention_dataset: Dataset | None = None,
    means: MeanActivations | None = None,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
) -> Minimality:
    """Measure the circuit without each of its units in turn.

    Costs as many circuits as it has units, and one, over shared runs. Raises as `evaluate_many`.
    """
    units = units_of(circuit)
    smaller = (without(circuit, units[i : i + 1]) for i in range(len(units)))
    evaluations = evaluate_each(
        model,
        (one for part in ([circuit], smaller) for one in part),
        dataset,
        metric,
        intervention=intervention,
        intervention_dataset=intervention_dataset,
        means=means,
        memory_budget=memory_budget,
    )
    whole = next(evaluations)
    marginals = np.empty((len(units), len(dataset)))
    for row, evaluation in zip(marginals, evaluations, strict=True):
        row[:] = whole.values - evaluation.values
    return Minimality(circuit.level, whole, names_of(circuit), units, marginals)
