"""What stages work with: the store, the loaded models, and the values that tables stand for.

Tables hold rows; stages think in datasets, graphs, scores and circuits. The translations are here,
both ways where both are needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from circuits.circuit import Circuit
from circuits.graph import Graph
from circuits.scores import PartialScores, Scores
from data import Artifact, Store
from flows.identity import ModelIdentity
from flows.shelf import Shelf
from flows.units import UnitSpace, circuit_of, graph_of
from tasks import Dataset, Example

if TYPE_CHECKING:
    from circuits.intervention import MeanActivations
    from circuits.model import Model


class Workbench:
    """A store and a memory budget (bytes), and what has been fetched by way of them."""

    def __init__(self, location: str, memory_budget: int, create: bool = True) -> None:
        self.store = Store.open(location, create)
        self.memory_budget = memory_budget
        self.models = Shelf()
        self._datasets: dict[str, Dataset] = {}
        self._graphs: dict[str, Graph] = {}
        self._widths: dict[str, int] = {}

    def model(self, identity: ModelIdentity) -> Model:
        """The model, loaded if it is not at hand."""
        return self.models.get(identity)

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
            (row,) = self.store.read("graphs", key).to_pylist()
            self._graphs[key] = graph_of(row)
        return self._graphs[key]

    def units(self, described: Mapping[str, Artifact], level: str) -> UnitSpace:
        """The units of a described model at one level."""
        key = described["models"].key
        if key not in self._widths:
            (self._widths[key],) = self.store.read("models", key)["d_model"].to_pylist()
        return UnitSpace(self.graph(described["graphs"].key), level, self._widths[key])

    def mean_activations(self, key: str) -> MeanActivations:
        """The mean activations that are stored under a key."""
        from circuits.intervention import MeanActivations

        rows = self.store.read("mean_activations", key).sort_by(
            [("writer_id", "ascending"), ("position", "ascending")]
        )
        vectors: dict[str, list[list[float]]] = {}
        for writer, vector in zip(
            rows["writer"].to_pylist(), rows["vector"].to_pylist(), strict=True
        ):
            vectors.setdefault(writer, []).append(vector)
        layers = sum(writer.startswith("m") for writer in vectors)
        heads = sum(writer.startswith("a0.") for writer in vectors)
        return MeanActivations(
            kind=rows["kind"][0].as_py(),
            embedding=np.array(vectors["input"]),
            heads=np.array(
                [[vectors[f"a{i}.h{h}"] for h in range(heads)] for i in range(layers)]
            ).swapaxes(1, 2),
            mlps=np.array([vectors[f"m{i}"] for i in range(layers)]),
            n_positions=rows["n_positions"][0].as_py(),
        )

    def partial_scores(self, space: UnitSpace, key: str) -> PartialScores:
        """The sums of the shard that is stored under a key."""
        rows = self.store.read("shards", key)
        ids = rows["unit_id"].to_numpy()
        return PartialScores(
            space.graph,
            space.array(ids, rows["total"].to_numpy()),
            space.array(ids, rows["total_of_squares"].to_numpy()),
            rows["n_examples"][0].as_py(),
            space.level,
        )

    def scores(self, space: UnitSpace, key: str, method: str = "") -> Scores:
        """The scores that are stored under a key."""
        rows = self.store.read("scores", key)
        ids = rows["unit_id"].to_numpy()
        return Scores(
            space.graph,
            space.array(ids, rows["score"].to_numpy()),
            space.array(ids, rows["standard_error"].to_numpy()),
            rows["n_examples"][0].as_py() or 0,
            method,
            space.level,
        )

    def circuits(self, space: UnitSpace, key: str) -> dict[str, Circuit]:
        """The circuits that are stored under a key, by id, in the order of their rows."""
        ids = self.store.read("circuits", key)["circuit"].to_pylist()
        rows = self.store.read("members", key)
        owners = np.array(rows["circuit"].to_pylist(), dtype=object)
        edges = rows["edge_id"].to_numpy()
        dimensions: dict[str, dict[int, list[int]]] = {one: {} for one in ids}
        for row in self.store.read("member_neurons", key).to_pylist():
            dimensions[row["circuit"]][row["node_id"]] = row["dimensions"]
        return {one: circuit_of(space, edges[owners == one], dimensions[one]) for one in ids}


@lru_cache(maxsize=1)
def workbench(location: str, memory_budget: int) -> Workbench:
    """This process's workbench for a store."""
    return Workbench(location, memory_budget)
