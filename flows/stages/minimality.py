"""What every unit adds to its circuit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from data.schema import table
from flows.identity import ModelIdentity
from flows.stages.evaluation import BaselinesStage
from flows.stages.stage import Found, Rows, Stage, digest
from flows.workbench import Workbench


@dataclass(frozen=True)
class MinimalityStage(Stage):
    """The small circuits of one extraction, each without each of its units in turn."""

    name = "minimality"
    kinds = ("marginals",)
    model: ModelIdentity
    described: Found | None
    circuits: Found | None
    dataset: Found | None
    baselines: Found | None
    whole: BaselinesStage
    level: str
    most_units: int
    rule: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The weights, the graph, the metric, the intervention, and how large circuits may be."""
        of_run = self.whole.parameters | self.model.parameters_of_graph
        return of_run | {"most_units": self.most_units}

    @property
    def upstream(self) -> Mapping[str, str | None]:
        """The circuits with their members, the examples, and the baseline that is named."""
        means = {"means": digest(self.whole.means, "mean_activations")}
        return (means if self.whole.takes_means else {}) | {
            "circuits": digest(self.circuits, "circuits"),
            "members": digest(self.circuits, "members"),
            "neurons": digest(self.circuits, "member_neurons"),
            "examples": digest(self.dataset, "examples"),
            "baselines": digest(self.baselines, "baselines"),
        }

    @property
    def label(self) -> str:
        """The rule, the metric and the intervention, for people."""
        return f"minimality of {self.rule} by {self.whole.metric} under {self.whole.intervention}"

    @property
    def runs(self) -> ModelIdentity:
        """The model."""
        return self.model

    def build(self, bench: Workbench) -> Rows:
        """Run each small circuit without each of its units; raises `circuits.EvaluationError`."""
        from circuits.minimality import minimality

        assert self.described is not None
        assert self.circuits is not None
        assert self.dataset is not None
        assert self.baselines is not None
        space = bench.units(self.described, self.level)
        dataset = bench.dataset(self.dataset["examples"].key)
        baseline = self.baselines["baselines"].key
        means: dict[str, list[Any]] = {name: [] for name in table("marginals").schema.names}
        each: dict[str, list[Any]] = {name: [] for name in table("marginal_values").schema.names}
        for key, circuit in bench.circuits(space, self.circuits["circuits"].key).items():
            if not 0 < circuit.n_units <= self.most_units:
                continue
            found = minimality(
                bench.model(self.model),
                circuit,
                dataset,
                self.whole.metric,
                intervention=self.whole.intervention,
                means=self.whole.mean_activations(bench),
                memory_budget=bench.memory_budget,
            )
            n_units, n_examples = found.marginals.shape
            units = np.asarray(found.unit_ids)
            _extend(means, circuit=[key] * n_units, baseline=[baseline] * n_units, unit_id=units)
            _extend(means, level=[self.level] * n_units, n_examples=[n_examples] * n_units)
            _extend(means, marginal=found.values, standard_error=found.standard_error)
            n = n_units * n_examples
            _extend(each, circuit=[key] * n, baseline=[baseline] * n, value=found.marginals.ravel())
            _extend(each, unit_id=np.repeat(units, n_examples))
            _extend(each, example_id=np.tile(np.arange(n_examples), n_units))
        return {
            "marginals": pa.table(means, table("marginals").schema),
            "marginal_values": pa.table(each, table("marginal_values").schema),
        }


def _extend(columns: dict[str, list[Any]], **more: Any) -> None:
    for name, values in more.items():
        columns[name].extend(values)
