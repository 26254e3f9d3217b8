"""Attribution: shards of examples, whose sums are added up to scores in a fixed order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from circuits.circuit import edge_values
from circuits.scores import PartialScores
from data.schema import table
from flows.identity import ModelIdentity
from flows.stages.description import MethodStage
from flows.stages.stage import LEVEL, Found, Rows, Stage, digest
from flows.workbench import Workbench


@dataclass(frozen=True)
class ShardStage(Stage):
    """Sums of the scores over a run of examples: the unit of resuming and of parallel work."""

    name = "shard"
    kinds = ("shards",)
    model: ModelIdentity
    method: MethodStage
    dataset: Found | None
    index: int
    first: int
    last: int  # the example after the shard's last one
    n_shards: int
    examples: str | None  # digest of the shard's own examples

    @property
    def parameters(self) -> dict[str, Any]:
        """The weights, the method and the shard's place among the examples."""
        return {
            "model": self.model.fingerprint,
            "dtype": self.model.dtype,
            "method": self.method.parameters,
            "shard_index": self.index,
            "first_example": self.first,
        }

    @property
    def upstream(self) -> Mapping[str, str | None]:
        """The shard's own examples: those of other shards may change."""
        return {"examples": self.examples}

    @property
    def label(self) -> str:
        """The shard's number, for people."""
        return f"shard {self.index + 1} of {self.n_shards}"

    @property
    def runs(self) -> ModelIdentity:
        """The model."""
        return self.model

    def build(self, bench: Workbench) -> Rows:
        """Attribute the shard's examples; raises `circuits.CircuitError`."""
        from circuits.attribution import attribute_partial

        assert self.dataset is not None
        examples = bench.dataset(self.dataset["examples"].key)[self.first : self.last].examples
        model, options = bench.model(self.model), self.method.method
        partial = attribute_partial(
            model,
            examples,
            options.name,
            steps=options.steps,
            quadrature=options.quadrature,
            metric=self.method.metric,
            level=LEVEL,
            intervention=options.intervention,
            memory_budget=bench.memory_budget,
            first_example=self.first,
        )
        n = model.graph.n_edges
        columns = {
            "shard_index": [self.index] * n,
            "first_example": [self.first] * n,
            "n_examples": [partial.n_examples] * n,
            "edge_id": range(n),
            "total": edge_values(model.graph, partial.total),
            "total_of_squares": edge_values(model.graph, partial.total_of_squares),
        }
        return {"shards": pa.table(columns, table("shards").schema)}


@dataclass(frozen=True)
class ScoresStage(Stage):
    """The mean score of every edge, from the shards in their order."""

    name = "scores"
    kinds = ("scores",)
    identity: ModelIdentity
    described: Found | None
    dataset: Found | None
    method: MethodStage
    shards: tuple[Found | None, ...]

    @property
    def parameters(self) -> dict[str, Any]:
        """What the scores are of; the shards' digests say the rest."""
        return {
            "model": self.identity.fingerprint,
            "dtype": self.identity.dtype,
            "method": self.method.key,
            "level": LEVEL,
        }

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
        """Add the shards up."""
        assert self.described is not None
        assert self.dataset is not None
        graph = bench.graph(self.described["graphs"].key)
        total = PartialScores.zero(graph)
        for part in self.parts:
            total += bench.partial_scores(graph, part)
        scores, n = total.finish(self.method.method.name), graph.n_edges
        columns = {
            "scores": [self.key] * n,
            "model": [self.identity.fingerprint] * n,
            "graph": [graph.digest] * n,
            "dataset": [bench.dataset(self.dataset["examples"].key).name] * n,
            "method": [self.method.key] * n,
            "level": [LEVEL] * n,
            "edge_id": range(n),
            "score": edge_values(graph, scores.matrix),
            "standard_error": edge_values(graph, scores.standard_error),
            "n_examples": [scores.n_examples] * n,
        }
        return {"scores": pa.table(columns, table("scores").schema)}
