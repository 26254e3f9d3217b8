"""Scores over the edges of a graph, with their standard errors, and the sums they come from.

A score estimates `L(edge corrupted) − L(clean)`: positive means that the edge helps the task. It is
the mean over examples of the per-example estimate, so it does not depend on how the examples fall
into batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from circuits.errors import AttributionError
from circuits.graph import Graph

if TYPE_CHECKING:
    import pandas as pd

    from circuits.circuit import Circuit


@dataclass(frozen=True, eq=False, repr=False)
class Scores:
    """One score an edge: the mean over `n_examples` examples, in float64.

    `matrix` and `standard_error` are `[writers, readers]` in the order of `graph.writers` and
    `graph.readers`; both are 0 where there is no edge. The standard error is NaN for one example.
    """

    graph: Graph
    matrix: Float[np.ndarray, "writers readers"]
    standard_error: Float[np.ndarray, "writers readers"]
    n_examples: int
    method: str = ""

    def __repr__(self) -> str:
        return (
            f"Scores({self.method or 'unnamed'}, {self.graph.n_edges} edges, "
            f"{self.n_examples} examples)"
        )

    def top_n(self, n: int, absolute: bool = True) -> Circuit:
        """The circuit of the n best edges, pruned; see `circuits.extraction.top_n`."""
        from circuits.extraction import top_n

        return top_n(self, n, absolute)

    def greedy(self, n: int, absolute: bool = True) -> Circuit:
        """The circuit grown from the logits; see `circuits.extraction.greedy`."""
        from circuits.extraction import greedy

        return greedy(self, n, absolute)

    def threshold(self, value: float, absolute: bool = True) -> Circuit:
        """The circuit of edges that score at least `value`; see `circuits.extraction.threshold`."""
        from circuits.extraction import threshold

        return threshold(self, value, absolute)

    def to_pandas(self) -> pd.DataFrame:
        """One row an edge, in edge order: edge, writer, reader, kind, score, standard_error."""
        import pandas as pd

        edges = self.graph.edges
        return pd.DataFrame(
            {
                "edge": [edge.name for edge in edges],
                "writer": [edge.writer for edge in edges],
                "reader": [edge.reader for edge in edges],
                "kind": [edge.kind for edge in edges],
                "score": self.matrix[self.graph.edge_mask],
                "standard_error": self.standard_error[self.graph.edge_mask],
            }
        )


@dataclass(frozen=True, eq=False)
class PartialScores:
    """The sums over some of the examples: what a shard leaves behind.

    `total` and `total_of_squares` are the sums of the per-example scores and of their squares.
    """

    graph: Graph
    total: Float[np.ndarray, "writers readers"]
    total_of_squares: Float[np.ndarray, "writers readers"]
    n_examples: int

    @classmethod
    def zero(cls, graph: Graph) -> PartialScores:
        """The sums over no example."""
        nothing = np.zeros(graph.edge_mask.shape)
        return cls(graph, nothing, nothing, 0)

    def __add__(self, other: PartialScores) -> PartialScores:
        if self.graph != other.graph:
            raise AttributionError("scores of two different graphs cannot be added")
        return PartialScores(
            self.graph,
            self.total + other.total,
            self.total_of_squares + other.total_of_squares,
            self.n_examples + other.n_examples,
        )

    @cached_property
    def mean(self) -> Float[np.ndarray, "writers readers"]:
        """The mean over examples."""
        return self.total / self.n_examples

    @cached_property
    def standard_error(self) -> Float[np.ndarray, "writers readers"]:
        """The sample standard deviation over √n; NaN on edges for one example, 0 off them."""
        n = self.n_examples
        if n < 2:
            return np.where(self.graph.edge_mask, np.nan, 0.0)
        variance = np.maximum(self.total_of_squares - n * self.mean**2, 0.0) / (n - 1)
        return np.sqrt(variance / n)

    def finish(self, method: str = "") -> Scores:
        """The mean scores; raises `AttributionError` where there is no example."""
        if self.n_examples == 0:
            raise AttributionError("there is no example to average scores over")
        return Scores(self.graph, self.mean, self.standard_error, self.n_examples, method)
