"""Attribution: shards of examples and units, whose sums come together in a fixed order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pyarrow as pa

from circuits.scores import PartialScores, Scores
from data.keys import canonical_json
from data.schema import table
from flows.identity import ModelIdentity
from flows.stages.description import MethodStage
from flows.stages.stage import Found, Rows, Stage, digest
from flows.units import UnitSpace
from flows.workbench import Workbench


@dataclass(frozen=True)
class ShardStage(Stage):
    """Sums of the scores over a run of examples: the unit of resuming and of parallel work.

    Where a method scores some units alone, a shard is of a run of examples and of a chunk of
    targets (see `flows/units.py`).
    """

    name = "shard"
    version = 2
    kinds = ("shards",)
    modules = ("circuits.attribution",)
    model: ModelIdentity
    method: MethodStage
    described: Found | None
    dataset: Found | None
    means: Found | None
    takes_means: bool
    index: int  # of the run of examples
    first: int
    last: int  # the example after the shard's last one
    examples: str | None  # digest of the shard's own examples
    targets: tuple[int, ...] | None  # None: all, or not known yet
    by_targets: bool
    n_units: int  # how many it scores, where they cost a run each
    n_layers: int
    number: int  # among all shards of the attribution
    n_shards: int

    @property
    def parameters(self) -> dict[str, Any]:
        """The weights, the method and the shard's place among the examples."""
        return self.model.parameters_of_graph | {
            "method": self.method.per_unit,
            "shard_index": self.index,
            "first_example": self.first,
        }

    @property
    def upstream(self) -> Mapping[str, str | None]:
        """The shard's own examples and targets: those of other shards may change."""
        upstream = {"examples": self.examples}
        if self.by_targets:
            known = None if self.targets is None else canonical_json(list(self.targets))
            upstream["targets"] = known and hashlib.sha256(known.encode()).hexdigest()
        if self.takes_means:
            upstream["means"] = digest(self.means, "mean_activations")
        return upstream

    @property
    def label(self) -> str:
        """The shard's number, for people."""
        return f"shard {self.number + 1} of {self.n_shards}"

    @property
    def passes(self) -> float:
        """About how many gradients the work is worth, for the time left."""
        steps, layers = float(self.method.method.steps or 1), self.n_layers
        if self.by_targets:  # a run from the middle of the model for each
            return 0.1 * self.n_units
        if self.method.method.scope is not None:  # a path for each of 2L + 1 components
            return steps * (1 + layers)
        return steps

    @property
    def runs(self) -> ModelIdentity:
        """The model."""
        return self.model

    def build(self, bench: Workbench) -> Rows:
        """Attribute the shard's examples; raises `circuits.CircuitError`."""
        from circuits.attribution import attribute_partial

        assert self.dataset is not None
        examples = bench.dataset(self.dataset["examples"].key)[self.first : self.last].examples
        model, method = bench.model(self.model), self.method.method
        space = UnitSpace(model.graph, method.level, model.architecture.d_model)
        options = options_of(self.method, space, self.targets, self.means, bench)
        partial = attribute_partial(
            model, examples, method.name, first_example=self.first, **options
        )
        return self.rows(space, partial)

    def rows(self, space: UnitSpace, partial: PartialScores) -> Rows:
        """A row for every unit that was scored."""
        total = space.in_order(partial.total)
        scored = np.flatnonzero(~np.isnan(total))
        n = len(scored)
        columns = {
            "shard_index": [self.index] * n,
            "first_example": [self.first] * n,
            "n_examples": [partial.n_examples] * n,
            "level": [space.level] * n,
            "unit_id": scored,
            "total": total[scored],
            "total_of_squares": space.in_order(partial.total_of_squares)[scored],
        }
        return {"shards": pa.table(columns, table("shards").schema)}


def options_of(
    stage: MethodStage,
    space: UnitSpace,
    targets: Sequence[int] | None,
    means: Found | None,
    bench: Workbench,
) -> dict[str, Any]:
    """What `circuits.attribution` is told of a method, its targets and its means."""
    method = stage.method
    names = ("level", "intervention", "steps", "quadrature", "scope", "seed")
    options: dict[str, Any] = {name: getattr(method, name) for name in names}
    options["memory_budget"] = bench.memory_budget
    if stage.metric is not None:
        options["metric"] = stage.metric
    if means is not None:
        options["means"] = bench.mean_activations(means["mean_activations"].key)
    if targets is not None and method.level == "edge":
        options["edges"] = space.mask_of(targets)
    elif targets is not None:
        options["nodes"] = [space.graph.writers[target] for target in targets]
    return options


@dataclass(frozen=True)
class ScoresStage(Stage):
    """The mean score of every unit, from the shards in their order."""

    name = "scores"
    version = 2
    kinds = ("scores",)
    identity: ModelIdentity
    described: Found | None
    dataset: Found | None
    method: MethodStage
    shards: tuple[Found | None, ...]
    runs_of_examples: tuple[int, ...]  # the run that each shard is of

    @property
    def parameters(self) -> dict[str, Any]:
        """What the scores are of; the shards' digests say the rest."""
        return self.identity.parameters_of_graph | {"method": self.method.key}

    @property
    def upstream(self) -> Mapping[str, str | None]:
        """The shards by number, and the examples that they are of."""
        shards = {f"shard {i:06}": digest(one, "shards") for i, one in enumerate(self.shards)}
        return shards | {
            "examples": digest(self.dataset, "examples"),
            "graph": digest(self.described, "graphs"),
        }

    @property
    def parts(self) -> tuple[str, ...]:
        """The shards: their time is the attribution's."""
        return tuple(shard["shards"].key for shard in self.shards if shard is not None)

    def build(self, bench: Workbench) -> Rows:
        """Join the chunks of every run of examples, then add the runs up."""
        assert self.described is not None
        assert self.dataset is not None
        space = bench.units(self.described, self.method.method.level)
        runs: dict[int, PartialScores] = {}
        for run, part in zip(self.runs_of_examples, self.parts, strict=True):
            chunk = bench.partial_scores(space, part)
            runs[run] = runs[run].join(chunk) if run in runs else chunk
        total = reduce(add, runs.values())
        about = {
            "scores": self.key,
            "model": self.identity.fingerprint,
            "dataset": bench.dataset(self.dataset["examples"].key).name,
            "method": self.method.key,
        }
        scores = total.finish(self.method.method.name)
        return {"scores": scores_table(space, scores, about)}


def scores_table(space: UnitSpace, scores: Scores, about: Mapping[str, str | None]) -> pa.Table:
    """A row for every unit, scored or not; `about` says of which model, dataset and method."""
    n = space.n_units
    columns = {name: [value] * n for name, value in about.items()} | {
        "graph": [space.graph.digest] * n,
        "level": [space.level] * n,
        "unit_id": range(n),
        "score": pa.array(space.in_order(scores.values), from_pandas=True),
        "standard_error": pa.array(space.in_order(scores.standard_error), from_pandas=True),
        "n_examples": [scores.n_examples or None] * n,
    }
    schema = table("scores").schema
    return pa.table({name: columns[name] for name in schema.names}, schema)
