"""How far scores depend on which examples were drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from data.schema import table
from flows.identity import ModelIdentity
from flows.judging import StabilityChoice
from flows.stages.attribution import options_of
from flows.stages.description import MethodStage
from flows.stages.stage import Found, Rows, Stage, digest
from flows.workbench import Workbench


@dataclass(frozen=True)
class StabilityStage(Stage):
    """How often each unit is among the best of a method when the examples are drawn again.

    The attribution runs once more: shards keep sums, and this needs every example's scores.
    """

    name = "stability"
    kinds = ("stability",)
    model: ModelIdentity
    described: Found | None
    dataset: Found | None
    method: MethodStage
    means: Found | None
    takes_means: bool
    scores: Found | None
    choice: StabilityChoice
    seed: int  # of the draws
    passes: float  # about how many gradients it is worth

    @property
    def parameters(self) -> dict[str, Any]:
        """The weights, the graph, the method, and how the examples are drawn."""
        drawn = {"resamples": self.choice.resamples, "size": self.choice.size, "seed": self.seed}
        return self.model.parameters_of_graph | drawn | {"method": self.method.key}

    @property
    def upstream(self) -> Mapping[str, str | None]:
        """The examples, and the scores over all of them, which say what units are scored."""
        means = {"means": digest(self.means, "mean_activations")} if self.takes_means else {}
        return means | {
            "examples": digest(self.dataset, "examples"),
            "scores": digest(self.scores, "scores"),
        }

    @property
    def runs(self) -> ModelIdentity:
        """The model."""
        return self.model

    def build(self, bench: Workbench) -> Rows:
        """Attribute example by example, and draw; raises `circuits.CircuitError`."""
        from circuits.attribution import METHODS
        from circuits.stability import stability

        assert self.described is not None
        assert self.dataset is not None
        assert self.scores is not None
        method, key = self.method.method, self.scores["scores"].key
        space = bench.units(self.described, method.level)
        scored = None
        if METHODS[method.name].takes_units:
            scored = space.targets_scored(bench.scores(space, key).values)
        options = options_of(self.method, space, scored, self.means, bench)
        found = stability(
            bench.model(self.model),
            bench.dataset(self.dataset["examples"].key),
            method.name,
            size=self.choice.size,
            resamples=self.choice.resamples,
            seed=self.seed,
            method_seed=options.pop("seed"),
            **options,
        )
        frequency = np.nan_to_num(space.in_order(found.frequency))
        units = np.flatnonzero(frequency)
        n = len(units)
        columns = {
            "scores": [key] * n,
            "n_best": [found.size] * n,
            "n_resamples": [found.n_resamples] * n,
            "seed": [self.seed] * n,
            "unit_id": units,
            "frequency": frequency[units],
            "mean_jaccard": [found.mean_jaccard] * n,
        }
        return {"stability": pa.table(columns, table("stability").schema)}
