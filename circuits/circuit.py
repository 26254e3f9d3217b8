"""A circuit: which edges of a graph are kept. Everything outside it is corrupted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Shaped

from circuits.errors import CircuitError
from circuits.graph import Edge, Graph

if TYPE_CHECKING:
    from circuits.scores import Scores


@dataclass(frozen=True, eq=False, repr=False)
class Circuit:
    """A set of member edges of a graph, and the scores it was extracted from, if any.

    Raises `CircuitError` where the mask has another shape than the graph, or marks a pair of writer
    and reader that no edge joins.
    """

    graph: Graph
    mask: Bool[np.ndarray, "writers readers"]
    scores: Scores | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        mask = np.array(self.mask, dtype=bool)
        if mask.shape != self.graph.edge_mask.shape:
            raise CircuitError(
                f"the mask of a circuit in this graph is {self.graph.edge_mask.shape} "
                f"(writers, readers), not {mask.shape}"
            )
        impossible = np.argwhere(mask & ~self.graph.edge_mask)
        if len(impossible):
            u, v = impossible[0]
            raise CircuitError(
                f"{self.graph.writers[u]}->{self.graph.readers[v]} is no edge: "
                f"the writer does not come before the reader"
            )
        mask.flags.writeable = False
        object.__setattr__(self, "mask", mask)

    def __eq__(self, other: object) -> bool:
        """Two circuits are equal where they keep the same edges of the same graph."""
        if not isinstance(other, Circuit):
            return NotImplemented
        return self.graph == other.graph and bool((self.mask == other.mask).all())

    def __hash__(self) -> int:
        return hash((self.graph, self.mask.tobytes()))

    def __repr__(self) -> str:
        return (
            f"Circuit({self.n_edges} of {self.graph.n_edges} edges, "
            f"{self.n_nodes} of {self.graph.n_nodes} nodes)"
        )

    @classmethod
    def from_edges(cls, graph: Graph, names: Iterable[str]) -> Circuit:
        """The circuit of the edges with these names; raises `CircuitError` for an unknown name."""
        index = {edge.name: edge for edge in graph.edges}
        mask = np.zeros_like(graph.edge_mask)
        for name in names:
            if name not in index:
                raise CircuitError(f"there is no edge {name!r} in this graph")
            mask[index[name].writer_index, index[name].reader_index] = True
        return cls(graph, mask)

    @cached_property
    def n_edges(self) -> int:
        """How many edges are in the circuit."""
        return int(self.mask.sum())

    @cached_property
    def n_nodes(self) -> int:
        """How many nodes an edge of the circuit touches."""
        return int(self.node_mask.sum())

    @property
    def fraction(self) -> float:
        """The share of the graph's edges that are in the circuit, from 0 to 1."""
        return self.n_edges / self.graph.n_edges

    @cached_property
    def node_mask(self) -> Bool[np.ndarray, " nodes"]:
        """The nodes that an edge of the circuit touches, in the order of `graph.nodes`."""
        writes, reads = _ends(self.graph, self.mask)
        return writes | reads

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """The names of the nodes that an edge of the circuit touches."""
        return tuple(np.array(self.graph.nodes)[self.node_mask].tolist())

    @cached_property
    def members(self) -> tuple[Edge, ...]:
        """The edges of the circuit, in edge order."""
        return tuple(e for e in self.graph.edges if self.mask[e.writer_index, e.reader_index])

    @cached_property
    def edges(self) -> tuple[str, ...]:
        """The names of the edges of the circuit, in edge order."""
        return tuple(edge.name for edge in self.members)

    def prune(self) -> Circuit:
        """The circuit without edges that lead nowhere or come from nowhere.

        A node needs an incoming and an outgoing edge, except that `input` needs no incoming and
        `logits` no outgoing one; what depends on a dropped node is dropped, until nothing changes.
        It never adds an edge.
        """
        mask = self.mask.copy()
        while True:
            writes, reads = _ends(self.graph, mask)
            alive = writes & reads
            alive[0], alive[-1] = writes[0], reads[-1]
            kept = mask & alive[:-1, None] & alive[self.graph.reader_nodes][None, :]
            if (kept == mask).all():
                return Circuit(self.graph, mask, self.scores)
            mask = kept

    def draw(self, path: str | Path, title: str | None = None) -> Path:
        """Draw the circuit as SVG, PNG or DOT, by the suffix of `path`; returns the path."""
        from circuits.drawing import draw

        return draw(self, path, title=title)


def _ends(
    graph: Graph, mask: Bool[np.ndarray, "writers readers"]
) -> tuple[Bool[np.ndarray, " nodes"], Bool[np.ndarray, " nodes"]]:
    """Which nodes have an outgoing edge, and which an incoming one."""
    writes = np.append(mask.any(axis=1), False)
    reads = np.zeros(graph.n_nodes, dtype=bool)
    np.logical_or.at(reads, graph.reader_nodes, mask.any(axis=0))
    return writes, reads


def edge_values(
    graph: Graph, matrix: Shaped[np.ndarray, "writers readers"]
) -> Shaped[np.ndarray, " edges"]:
    """The entries of a matrix that belong to edges, in edge order."""
    return matrix[graph.edge_mask]
