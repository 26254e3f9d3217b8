"""What stages work with: the store, one loaded model, and the values that tables stand for.

Tables hold rows; stages think in datasets, graphs, scores and circuits. The translations are here,
both ways where both are needed. A process holds one model at a time, loaded when a stage first
needs it and kept until a stage needs another.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from circuits.circuit import Circuit
from circuits.graph import Graph
from circuits.scores import PartialScores, Scores
from data import Store
from flows.errors import GridError
from flows.identity import ModelIdentity
from tasks import Dataset, Example

if TYPE_CHECKING:
    from circuits.model import Model


class Workbench:
    """A store and a memory budget (bytes), and what has been fetched by way of them."""

    def __init__(self, location: str, memory_budget: int) -> None:
        self.store = Store.open(location)
        self.memory_budget = memory_budget
        self._model: tuple[ModelIdentity, Model] | None = None
        self._datasets: dict[str, Dataset] = {}
        self._graphs: dict[str, Graph] = {}

    def model(self, identity: ModelIdentity) -> Model:
        """The model, loaded if it is not the one at hand, which is then let go first."""
        if self._model is None or self._model[0] != identity:
            self._model = None
            from circuits.model import load_model

            model = load_model(identity.name, identity.device, identity.dtype, identity.revision)
            if model.fingerprint != identity.fingerprint:
                raise GridError(
                    f"the weights of {identity.name} changed while the grid was running: "
                    f"run it again"
                )
            self._model = (identity, model)
        return self._model[1]

    def dataset(self, key: str) -> Dataset:
        """The dataset whose examples are stored under a key."""
        if key not in self._datasets:
            about = self.store.read("datasets", key).to_pylist()[0]
            rows = self.store.read("examples", key).sort_by("example_id").to_pylist()
            texts = ("clean", "corrupted")
            tokens = ("clean_tokens", "corrupted_tokens", "correct", "incorrect")
            self._datasets[key] = Dataset(
                name=about["dataset"],
                split=about["split"],
                seed=about["seed"],
                examples=tuple(
                    Example(*(row[name] for name in texts), *(tuple(row[name]) for name in tokens))
                    for row in rows
                ),
                dropped=json.loads(about["dropped_json"]),
                task=about["task"],
            )
        return self._datasets[key]

    @property
    def datasets_at_hand(self) -> tuple[Dataset, ...]:
        """The datasets that were fetched so far."""
        return tuple(self._datasets.values())

    def graph(self, key: str) -> Graph:
        """The graph that is stored under a key."""
        if key not in self._graphs:
            row = self.store.read("graphs", key).to_pylist()[0]
            self._graphs[key] = Graph(row["n_layers"], row["n_heads"], row["parallel"])
        return self._graphs[key]

    def partial_scores(self, graph: Graph, key: str) -> PartialScores:
        """The sums of the shard that is stored under a key."""
        rows = self.store.read("shards", key).sort_by("edge_id")
        return PartialScores(
            graph,
            on_edges(graph, rows["total"]),
            on_edges(graph, rows["total_of_squares"]),
            rows["n_examples"][0].as_py(),
        )

    def scores(self, graph: Graph, key: str, method: str = "") -> Scores:
        """The scores that are stored under a key."""
        rows = self.store.read("scores", key).sort_by("edge_id")
        return Scores(
            graph,
            on_edges(graph, rows["score"]),
            on_edges(graph, rows["standard_error"]),
            rows["n_examples"][0].as_py(),
            method,
        )

    def circuits(self, graph: Graph, key: str) -> dict[str, Circuit]:
        """The circuits that are stored under a key, by id, in the order of their rows."""
        ids = self.store.read("circuits", key)["circuit"].to_pylist()
        rows = self.store.read("members", key)
        owners = np.array(rows["circuit"].to_pylist(), dtype=object)
        edges = rows["edge_id"].to_numpy()
        return {one: circuit_of(graph, edges[owners == one]) for one in ids}


def on_edges(graph: Graph, values: pa.ChunkedArray) -> np.ndarray:
    """Values in edge order as a matrix [writers, readers], 0 where there is no edge."""
    matrix = np.zeros(graph.edge_mask.shape)
    matrix[graph.edge_mask] = values.to_numpy()
    return matrix


def circuit_of(graph: Graph, edge_ids: np.ndarray, scores: Scores | None = None) -> Circuit:
    """The circuit of the edges at these positions in edge order."""
    chosen = np.zeros(graph.n_edges, dtype=bool)
    chosen[edge_ids] = True
    mask = np.zeros(graph.edge_mask.shape, dtype=bool)
    mask[graph.edge_mask] = chosen
    return Circuit(graph, mask, scores)


@lru_cache(maxsize=1)
def workbench(location: str, memory_budget: int) -> Workbench:
    """This process's workbench for a store."""
    return Workbench(location, memory_budget)
