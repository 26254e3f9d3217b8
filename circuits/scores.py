"""Scores over the units of a graph, with their standard errors, and the sums they come from.

A unit is an edge, a node (every writer is one; `logits` writes nothing and has no score) or a
neuron (an output dimension of a writer). A score estimates `L(unit corrupted) − L(clean)`: positive
means that the unit helps the task. It is the mean over examples of the per-example estimate, so it
does not depend on how the examples fall into batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from circuits.errors import AttributionError
from circuits.graph import Graph

if TYPE_CHECKING:
    import pandas as pd

    from circuits.circuit import Circuit

LEVELS = ("edge", "node", "neuron")


@dataclass(frozen=True, eq=False, repr=False)
class Scores:
    """One score a unit: the mean over `n_examples` examples, in float64.

    `values` and `standard_error` are `[writers, readers]` at edge level, `[writers]` at node level
    and `[writers, d_model]` at neuron level, in the order of `graph.writers` and `graph.readers`.
    NaN stands for a unit that was not scored; both are 0 where there is no edge. The standard error
    is NaN for one example. Raises `AttributionError` for an unknown level and for another shape.
    """

    graph: Graph
    values: Float[np.ndarray, "writers ..."]
    standard_error: Float[np.ndarray, "writers ..."]
    n_examples: int
    method: str = ""
    level: str = "edge"

    def __post_init__(self) -> None:
        _check_shapes(self.graph, self.level, self.values, self.standard_error)

    def __repr__(self) -> str:
        n_scored = int((~np.isnan(self.unit_values)).sum())
        count = f"{self.n_units}" if n_scored == self.n_units else f"{n_scored} of {self.n_units}"
        return (
            f"Scores({self.method or 'unnamed'}, {count} {self.level}s, {self.n_examples} examples)"
        )

    @property
    def matrix(self) -> Float[np.ndarray, "writers readers"]:
        """The scores of edges, `[writers, readers]`; other levels raise `AttributionError`."""
        if self.level != "edge":
            raise AttributionError(
                f"these are scores of {self.level}s, not of edges: take their values"
            )
        return self.values

    @property
    def n_units(self) -> int:
        """How many edges, nodes or neurons there are, scored or not."""
        return n_units(self.graph, self.level, self.values)

    @cached_property
    def unit_values(self) -> Float[np.ndarray, " units"]:
        """The scores in the order of their units: edge order, or by writer, then by dimension."""
        return unit_values(self.graph, self.level, self.values)

    def top_n(self, n: int, absolute: bool = True, keep_unscored: bool | None = None) -> Circuit:
        """The circuit of the n best units, pruned; see `circuits.extraction.top_n`."""
        from circuits.extraction import top_n

        return top_n(self, n, absolute, keep_unscored)

    def greedy(self, n: int, absolute: bool = True, keep_unscored: bool | None = None) -> Circuit:
        """The circuit grown from the logits; see `circuits.extraction.greedy`."""
        from circuits.extraction import greedy

        return greedy(self, n, absolute, keep_unscored)

    def threshold(
        self, value: float, absolute: bool = True, keep_unscored: bool | None = None
    ) -> Circuit:
        """The circuit of units that score at least `value`; see `circuits.extraction.threshold`."""
        from circuits.extraction import threshold

        return threshold(self, value, absolute, keep_unscored)

    def to_pandas(self) -> pd.DataFrame:
        """One row a unit, in the order of `unit_values`, with score and standard_error last.

        Edges have edge, writer, reader and kind; nodes have node, kind and layer (−1 for `input`);
        neurons have neuron, node and dimension.
        """
        import pandas as pd

        columns: dict[str, Any]
        if self.level == "edge":
            columns = _edge_columns(self.graph)
        elif self.level == "node":
            columns = _node_columns(self.graph)
        else:
            columns = _neuron_columns(self.graph, self.values.shape[1])
        columns["score"] = self.unit_values
        columns["standard_error"] = unit_values(self.graph, self.level, self.standard_error)
        return pd.DataFrame(columns)


@dataclass(frozen=True, eq=False)
class PartialScores:
    """The sums over some of the examples: what a shard leaves behind.

    `total` and `total_of_squares` are the sums of the per-example scores and of their squares, in
    the shapes that `Scores` have, NaN for units that were not scored. Raises as `Scores`.
    """

    graph: Graph
    total: Float[np.ndarray, "writers ..."]
    total_of_squares: Float[np.ndarray, "writers ..."]
    n_examples: int
    level: str = "edge"

    def __post_init__(self) -> None:
        _check_shapes(self.graph, self.level, self.total, self.total_of_squares)

    @classmethod
    def zero(cls, graph: Graph, level: str = "edge", d_model: int | None = None) -> PartialScores:
        """The sums over no example; at neuron level `d_model` says how many neurons a node has."""
        shapes = {
            "edge": graph.edge_mask.shape,
            "node": (graph.n_writers,),
            "neuron": (graph.n_writers, d_model or 0),
        }
        nothing = np.zeros(shapes[_known(level)])
        return cls(graph, nothing, nothing, 0, level)

    def __add__(self, other: PartialScores) -> PartialScores:
        """The sums over the examples of both; raises `AttributionError` for sums of other units."""
        self._check_alike(other, "added")
        both = self.n_examples and other.n_examples
        if both and (np.isnan(self.total) != np.isnan(other.total)).any():
            raise AttributionError(
                f"sums over different {self.level}s cannot be added: "
                f"score the same {self.level}s on all examples"
            )
        return PartialScores(
            self.graph,
            self.total + other.total,
            self.total_of_squares + other.total_of_squares,
            self.n_examples + other.n_examples,
            self.level,
        )

    def join(self, other: PartialScores) -> PartialScores:
        """The sums over the same examples of units that only one of both has scored.

        Raises `AttributionError` where the numbers of examples differ, or a unit has sums in both.
        """
        self._check_alike(other, "joined")
        if self.n_examples != other.n_examples:
            raise AttributionError(
                f"sums over {self.n_examples} and over {other.n_examples} examples cannot be "
                f"joined: join those over the same examples, and add those over others"
            )
        mine, theirs = ~np.isnan(self.total), ~np.isnan(other.total)
        twice = unit_values(self.graph, self.level, mine & theirs)
        if twice.any():
            raise AttributionError(
                f"{int(twice.sum())} {self.level}s have sums on both sides: "
                f"join sums of different {self.level}s"
            )
        return PartialScores(
            self.graph,
            np.where(mine, self.total, other.total),
            np.where(mine, self.total_of_squares, other.total_of_squares),
            self.n_examples,
            self.level,
        )

    @cached_property
    def mean(self) -> Float[np.ndarray, "writers ..."]:
        """The mean over examples."""
        return self.total / self.n_examples

    @cached_property
    def standard_error(self) -> Float[np.ndarray, "writers ..."]:
        """The sample standard deviation over √n; NaN for one example and for unscored units."""
        n = self.n_examples
        if n < 2:
            return np.where(self._units, np.nan, 0.0)
        variance = np.maximum(self.total_of_squares - n * self.mean**2, 0.0) / (n - 1)
        return np.sqrt(variance / n)

    def finish(self, method: str = "") -> Scores:
        """The mean scores; raises `AttributionError` where there is no example."""
        if self.n_examples == 0:
            raise AttributionError("there is no example to average scores over")
        return Scores(
            self.graph, self.mean, self.standard_error, self.n_examples, method, self.level
        )

    @property
    def _units(self) -> Bool[np.ndarray, "writers ..."]:
        """Where there is a unit."""
        return self.graph.edge_mask if self.level == "edge" else np.ones_like(self.total, bool)

    def _check_alike(self, other: PartialScores, verb: str) -> None:
        if self.graph != other.graph:
            raise AttributionError(f"scores of two different graphs cannot be {verb}")
        if (self.level, self.total.shape) != (other.level, other.total.shape):
            raise AttributionError(
                f"scores of {self.level}s {self.total.shape} and of {other.level}s "
                f"{other.total.shape} cannot be {verb}"
            )


def unit_values(
    graph: Graph, level: str, values: Shaped[np.ndarray, "writers ..."]
) -> Shaped[np.ndarray, " units"]:
    """The entries of an array that belong to units: edges in edge order, neurons by writer."""
    return values[graph.edge_mask] if level == "edge" else values.reshape(-1)


def n_units(graph: Graph, level: str, values: Shaped[np.ndarray, "writers ..."]) -> int:
    """How many units of a level an array has entries for."""
    return graph.n_edges if level == "edge" else values.size


def _known(level: str) -> str:
    if level not in LEVELS:
        raise AttributionError(f"there is no level {level!r}: choose from {', '.join(LEVELS)}")
    return level


def _check_shapes(graph: Graph, level: str, *arrays: np.ndarray) -> None:
    """Raise `AttributionError` unless the arrays have the shape of a level."""
    expected, axes = {
        "edge": (graph.edge_mask.shape, "(writers, readers)"),
        "node": ((graph.n_writers,), "(writers,)"),
        "neuron": ((graph.n_writers, arrays[0].shape[-1]), "(writers, d_model)"),
    }[_known(level)]
    for array in arrays:
        if array.shape != expected:
            raise AttributionError(
                f"scores of {level}s in this graph are {expected} {axes}, not {array.shape}"
            )


def _edge_columns(graph: Graph) -> dict[str, Any]:
    return {
        "edge": [edge.name for edge in graph.edges],
        "writer": [edge.writer for edge in graph.edges],
        "reader": [edge.reader for edge in graph.edges],
        "kind": [edge.kind for edge in graph.edges],
    }


def _node_columns(graph: Graph) -> dict[str, Any]:
    layer_kinds = ["head"] * graph.n_heads + ["mlp"]
    return {
        "node": list(graph.writers),
        "kind": ["input"] + layer_kinds * graph.n_layers,
        "layer": [-1] + [layer for layer in range(graph.n_layers) for _ in layer_kinds],
    }


def _neuron_columns(graph: Graph, d_model: int) -> dict[str, Any]:
    return {
        "neuron": [f"{node}[{i}]" for node in graph.writers for i in range(d_model)],
        "node": [node for node in graph.writers for _ in range(d_model)],
        "dimension": list(range(d_model)) * graph.n_writers,
    }
