"""A circuit: which edges of a graph are kept, and which neurons carry along them.

Everything outside it is corrupted. A circuit of nodes has every edge between its nodes; one of
neurons has them too, and each of its nodes writes its member neurons alone.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Shaped

from circuits.errors import CircuitError
from circuits.graph import Edge, Graph
from circuits.scores import LEVELS, unit_values

if TYPE_CHECKING:
    from circuits.scores import Scores


@dataclass(frozen=True, eq=False, repr=False)
class Circuit:
    """A set of member edges of a graph, and the scores it was extracted from, if any.

    `neurons` says which output dimensions of each writer carry its value in the circuit (None: all
    of them); `level` says what was chosen: edges, nodes or neurons. Raises `CircuitError` where the
    mask has another shape than the graph or marks a pair of writer and reader that no edge joins,
    for an unknown level, and at neuron level without neurons.
    """

    graph: Graph
    mask: Bool[np.ndarray, "writers readers"]
    scores: Scores | None = field(default=None, repr=False)
    neurons: Bool[np.ndarray, "writers d_model"] | None = None
    level: str = "edge"

    def __post_init__(self) -> None:
        mask = np.array(self.mask)
        if mask.dtype != bool:
            raise CircuitError(f"the mask of a circuit holds True and False, not {mask.dtype}")
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
        if self.level not in LEVELS:
            raise CircuitError(f"there is no level {self.level!r}: choose from {', '.join(LEVELS)}")
        if self.level == "neuron" and self.neurons is None:
            raise CircuitError("a circuit at neuron level needs neurons: say which are in")
        mask.flags.writeable = False
        object.__setattr__(self, "mask", mask)
        if self.neurons is not None:
            neurons = _checked_neurons(self.graph, self.neurons)
            neurons.flags.writeable = False
            object.__setattr__(self, "neurons", neurons)

    def __eq__(self, other: object) -> bool:
        """Two circuits are equal where they keep the same edges and neurons of the same graph.

        What was chosen must be equal too: a fraction of nodes is none of edges.
        """
        if not isinstance(other, Circuit):
            return NotImplemented
        return self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def __repr__(self) -> str:
        counts = [
            f"{self.n_edges} of {self.graph.n_edges} edges",
            f"{self.n_nodes} of {self.graph.n_nodes} nodes",
        ]
        if self.neurons is not None:
            counts.append(f"{self.n_neurons} of {self.neurons.size} neurons")
        return f"Circuit({', '.join(counts)})"

    @classmethod
    def from_edges(cls, graph: Graph, names: Iterable[str]) -> Circuit:
        """The circuit of the edges with these names; raises `CircuitError` for an unknown name."""
        index = {edge.name: edge for edge in graph.edges}
        mask = np.zeros_like(graph.edge_mask)
        for name in _names(names, index, "edge"):
            mask[index[name].writer_index, index[name].reader_index] = True
        return cls(graph, mask)

    @classmethod
    def from_nodes(cls, graph: Graph, names: Iterable[str]) -> Circuit:
        """The circuit of every edge between nodes with these names; `logits` is always one.

        Raises `CircuitError` for an unknown name.
        """
        index = {name: i for i, name in enumerate(graph.nodes)}
        writers = np.zeros(graph.n_nodes, dtype=bool)
        for name in _names(names, index, "node"):
            writers[index[name]] = True
        return cls(graph, edges_between(graph, writers[:-1]), level="node")

    @classmethod
    def from_neurons(
        cls,
        graph: Graph,
        neurons: Bool[np.ndarray, "writers d_model"],
        scores: Scores | None = None,
    ) -> Circuit:
        """The circuit of these neurons, with every edge between the nodes that have one."""
        neurons = _checked_neurons(graph, neurons)
        return cls(graph, edges_between(graph, _owners(neurons)), scores, neurons, "neuron")

    @cached_property
    def n_edges(self) -> int:
        """How many edges are in the circuit."""
        return int(self.mask.sum())

    @cached_property
    def n_nodes(self) -> int:
        """How many nodes are in the circuit: see `node_mask`."""
        return int(self.node_mask.sum())

    @cached_property
    def n_neurons(self) -> int | None:
        """How many neurons are in the circuit; None where nodes are not split into neurons."""
        return None if self.neurons is None else int(self.neurons.sum())

    @cached_property
    def unit_mask(self) -> Bool[np.ndarray, " units"]:
        """Which units of its level are in the circuit, in unit order; nodes are those that write.

        Unit order is edge order, the order of `graph.writers`, or by writer, then by dimension.
        """
        inside = self.mask if self.level == "edge" else np.asarray(self.mask.any(axis=1))
        if self.level == "neuron":
            assert self.neurons is not None
            inside = self.neurons
        units = unit_values(self.graph, self.level, inside)
        units.flags.writeable = False
        return units

    @cached_property
    def n_units(self) -> int:
        """How many units of its level are in the circuit: edges, nodes that write, or neurons."""
        return int(self.unit_mask.sum())

    @property
    def fraction(self) -> float:
        """The share of the graph's units of this level that are in the circuit, from 0 to 1."""
        return self.n_units / len(self.unit_mask)

    @cached_property
    def node_mask(self) -> Bool[np.ndarray, " nodes"]:
        """The nodes that an edge of the circuit touches, in the order of `graph.nodes`.

        An edge into a key or value that heads share touches those heads that an edge leaves or
        that another edge enters.
        """
        reads = self.graph.reads
        alone = reads.sum(axis=1) == 1
        return np.append(self.mask.any(axis=1), False) | (self.mask.any(axis=0) & alone) @ reads

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
        `logits` no outgoing one, and where neurons were chosen it needs one of those. An edge into
        a shared key or value comes in at every head of the group, and needs one that is left. What
        depends on a dropped node is dropped, its neurons too, until nothing changes. It never adds.

        Where one norm runs over the queries or keys of all heads (OLMo 2), a head that leads
        nowhere still changes the others: there, and under zero and mean interventions, pruning can
        change what the circuit says.
        """
        reads, mask = self.graph.reads, self.mask
        if self.neurons is not None:
            mask = mask & _owners(self.neurons)[:, None]
        while True:
            entered = mask.any(axis=0) @ reads
            alive = np.append(mask.any(axis=1), True) & entered
            alive[0], alive[-1] = True, True  # input and logits need one end only
            kept = mask & alive[:-1, None] & (reads @ alive)
            if (kept == mask).all():
                break
            mask = kept
        neurons = self.neurons
        if neurons is not None:
            neurons = neurons & mask.any(axis=1, keepdims=True)
        return Circuit(self.graph, mask, self.scores, neurons, self.level)

    def draw(self, path: str | Path, title: str | None = None) -> Path:
        """Draw the circuit as SVG, PNG or DOT, by the suffix of `path`; returns the path."""
        from circuits.drawing import draw

        return draw(self, path, title=title)

    @property
    def _identity(self) -> tuple[Graph, str, bytes, bytes | None]:
        neurons = None if self.neurons is None else self.neurons.tobytes()
        return self.graph, self.level, self.mask.tobytes(), neurons


def _names(names: Iterable[str], known: Container[str], kind: str) -> list[str]:
    """The names as a list; raises `CircuitError` for one that is not known, and for bare text."""
    if isinstance(names, str):
        raise CircuitError(f"the names of {kind}s are a list: write [{names!r}]")
    names = list(names)
    for name in names:
        if name not in known:
            raise CircuitError(f"there is no {kind} {name!r} in this graph")
    return names


def _checked_neurons(
    graph: Graph, neurons: Shaped[np.ndarray, "..."]
) -> Bool[np.ndarray, "writers d_model"]:
    """A copy of a mask of neurons; raises `CircuitError` where it does not fit the graph."""
    neurons = np.array(neurons)
    if neurons.dtype != bool or neurons.ndim != 2 or len(neurons) != graph.n_writers:
        raise CircuitError(
            f"the neurons of a circuit in this graph are True and False for "
            f"({graph.n_writers} writers, d_model), not {neurons.dtype} of {neurons.shape}"
        )
    return neurons


def edges_between(
    graph: Graph, writers: Bool[np.ndarray, " writers"]
) -> Bool[np.ndarray, "writers readers"]:
    """Every edge from one of these writers to another or to the logits.

    An edge into a shared key or value is one where any head of the group is among the writers.
    """
    return graph.edge_mask & writers[:, None] & (graph.reads @ np.append(writers, True))


def _owners(neurons: Bool[np.ndarray, "writers d_model"]) -> Bool[np.ndarray, " writers"]:
    """The writers that have one of these neurons."""
    return np.asarray(neurons.any(axis=1))
