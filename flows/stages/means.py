"""Mean activations: what mean interventions put in place of a writer's output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.identity import ModelIdentity
from flows.stages.stage import Found, Rows, Stage, digest, rows_of
from flows.workbench import Workbench

if TYPE_CHECKING:
    from circuits.graph import Graph
    from circuits.intervention import MeanActivations


@dataclass(frozen=True)
class MeansStage(Stage):
    """The mean output of every writer over a dataset's clean inputs, at all positions or at each.

    All methods and evaluations of a model that replace by these means share them.
    """

    name = "means"
    kinds = ("mean_activations",)
    model: ModelIdentity
    dataset: Found | None
    kind: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The weights and the kind; how a graph counts key-value heads changes no output."""
        return self.model.parameters | {"kind": self.kind}

    @property
    def upstream(self) -> Mapping[str, str | None]:
        """The examples."""
        return {"examples": digest(self.dataset, "examples")}

    @property
    def label(self) -> str:
        """The kind, for people."""
        return f"{self.kind} activations"

    @property
    def runs(self) -> ModelIdentity:
        """The model."""
        return self.model

    def build(self, bench: Workbench) -> Rows:
        """Average the model's clean runs; raises `circuits.CircuitError`."""
        from circuits.intervention import mean_activations

        assert self.dataset is not None
        model, dataset = bench.model(self.model), bench.dataset(self.dataset["examples"].key)
        means = mean_activations(model, dataset, self.kind, memory_budget=bench.memory_budget)
        about = {
            "means": self.key,
            "model": self.model.fingerprint,
            "dataset": dataset.name,
            "kind": self.kind,
            "n_positions": means.n_positions,
        }
        rows = [
            about
            | {
                "writer_id": writer,
                "writer": model.graph.writers[writer],
                "position": None if self.kind == "mean" else position,
                "vector": vector.tolist(),
            }
            for writer, vectors in _by_writer(model.graph, means)
            for position, vector in enumerate(vectors)
        ]
        return {"mean_activations": rows_of("mean_activations", rows)}


def _by_writer(graph: Graph, means: MeanActivations) -> Iterator[tuple[int, np.ndarray]]:
    """The mean vectors of every writer, position by position."""
    yield 0, means.embedding
    for layer in range(graph.n_layers):
        for head in range(graph.n_heads):
            yield graph.heads(layer).start + head, means.heads[layer, :, head]
        yield graph.mlp(layer), means.mlps[layer]
