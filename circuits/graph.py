"""The computation graph of a decoder-only transformer: writers, readers and the edges between them.

A *writer* adds to the residual stream: the token embedding (`input`), every attention head
(`a3.h1`) and every MLP (`m3`). A *reader* takes the stream as its input: the query, key and value
inputs of every head (`a3.h1<q>`), every MLP, and the `logits`. An *edge* joins a writer to a reader
that comes after it. The position embedding is no writer: clean and corrupted runs share it.

This is the index space of every score and every circuit; it follows from three numbers and needs no
weights. The order of writers and readers is that of Hanna et al. 2024 (arXiv:2403.17806), so that
matrices can be exchanged with published circuits.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int

HEAD_INPUTS = ("q", "k", "v")


@dataclass(frozen=True)
class Edge:
    """One edge: its endpoints' names and indices, and which kind of input it feeds."""

    writer: str
    reader: str
    writer_index: int
    reader_index: int
    kind: str  # "q", "k", "v", "mlp" or "logits"

    @property
    def name(self) -> str:
        """The name of the edge, such as `a0.h3->a1.h0<q>`."""
        return f"{self.writer}->{self.reader}"


@dataclass(frozen=True)
class Graph:
    """The graph of a model with `n_layers` layers of `n_heads` query heads and one MLP each.

    In a `parallel` block attention and MLP read the same stream, so an MLP does not read the heads
    of its own layer.
    """

    n_layers: int
    n_heads: int
    parallel: bool = False

    def __post_init__(self) -> None:
        if self.n_layers < 1 or self.n_heads < 1:
            raise ValueError(f"a graph needs at least one layer and one head, not {self}")

    @property
    def n_writers(self) -> int:
        """How many components write to the stream: `1 + L(H + 1)`."""
        return 1 + self.n_layers * (self.n_heads + 1)

    @property
    def n_readers(self) -> int:
        """How many inputs read the stream: `L(3H + 1) + 1`."""
        return self.n_layers * (3 * self.n_heads + 1) + 1

    @property
    def n_nodes(self) -> int:
        """How many nodes there are: the writers and the logits."""
        return self.n_writers + 1

    @cached_property
    def n_edges(self) -> int:
        """How many edges there are."""
        return int(self.edge_mask.sum())

    @cached_property
    def writers(self) -> tuple[str, ...]:
        """The writers' names, in the order of the rows of a score matrix."""
        names = ["input"]
        for layer in range(self.n_layers):
            names += [f"a{layer}.h{head}" for head in range(self.n_heads)] + [f"m{layer}"]
        return tuple(names)

    @cached_property
    def readers(self) -> tuple[str, ...]:
        """The readers' names, in the order of the columns of a score matrix."""
        names = []
        for layer in range(self.n_layers):
            for kind in HEAD_INPUTS:
                names += [f"a{layer}.h{head}<{kind}>" for head in range(self.n_heads)]
            names.append(f"m{layer}")
        return (*names, "logits")

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """The nodes' names: the writers, then `logits`."""
        return (*self.writers, "logits")

    @cached_property
    def reader_kinds(self) -> tuple[str, ...]:
        """What each reader is: `q`, `k`, `v`, `mlp` or `logits`."""
        layer = [kind for kind in HEAD_INPUTS for _ in range(self.n_heads)] + ["mlp"]
        return (*(layer * self.n_layers), "logits")

    @cached_property
    def reader_nodes(self) -> Int[np.ndarray, " readers"]:
        """The index in `nodes` of the node that each reader belongs to."""
        nodes: list[int] = []
        for layer in range(self.n_layers):
            heads = list(range(self.n_writers)[self.heads(layer)])
            nodes += heads * len(HEAD_INPUTS) + [self.mlp(layer)]
        return np.array([*nodes, self.n_writers])

    def heads(self, layer: int) -> slice:
        """The rows of a layer's heads among the writers."""
        first = 1 + layer * (self.n_heads + 1)
        return slice(first, first + self.n_heads)

    def mlp(self, layer: int) -> int:
        """The row of a layer's MLP among the writers."""
        return self.heads(layer).stop

    def head_inputs(self, layer: int) -> slice:
        """The columns of a layer's head inputs among the readers: all q, then all k, then all v."""
        first = layer * (3 * self.n_heads + 1)
        return slice(first, first + 3 * self.n_heads)

    def mlp_input(self, layer: int) -> int:
        """The column of a layer's MLP among the readers."""
        return self.head_inputs(layer).stop

    def writers_before_heads(self, layer: int) -> int:
        """How many writers, counted from `input`, a layer's heads can read."""
        return self.heads(layer).start

    def writers_before_mlp(self, layer: int) -> int:
        """How many writers, counted from `input`, a layer's MLP can read."""
        heads = self.heads(layer)
        return heads.start if self.parallel else heads.stop

    @cached_property
    def edge_mask(self) -> Bool[np.ndarray, "writers readers"]:
        """Where a writer comes before a reader."""
        mask = np.zeros((self.n_writers, self.n_readers), dtype=bool)
        for layer in range(self.n_layers):
            mask[: self.writers_before_heads(layer), self.head_inputs(layer)] = True
            mask[: self.writers_before_mlp(layer), self.mlp_input(layer)] = True
        mask[:, -1] = True
        mask.flags.writeable = False
        return mask

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """Every edge, in *edge order*: by writer, then by reader. Ties are broken by this order."""
        return tuple(
            Edge(self.writers[u], self.readers[v], int(u), int(v), self.reader_kinds[v])
            for u, v in np.argwhere(self.edge_mask)
        )

    @cached_property
    def digest(self) -> str:
        """A name for this index space: equal exactly where matrices can be compared by index."""
        text = f"{self.n_layers} {self.n_heads} {int(self.parallel)}"
        return hashlib.sha256(text.encode()).hexdigest()
