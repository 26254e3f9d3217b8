"""The computation graph of a decoder-only transformer: writers, readers and the edges between them.

A *writer* adds to the residual stream: the token embedding (`input`), every attention head
(`a3.h1`) and every MLP (`m3`). A *reader* takes the stream as its input: the query, key and value
inputs of every head (`a3.h1<q>`), every MLP, and the `logits`. An *edge* joins a writer to a reader
that comes after it. The position embedding is no writer: clean and corrupted runs share it.

In a *grouped* graph several query heads share one key and one value, and so one reader of each: an
edge into `a3.kv0<k>` feeds every head of its group. Without groups every head has its own.

This is the index space of every score and every circuit; it follows from a few numbers and needs no
weights. The order of writers and readers is that of Hanna et al. 2024 (arXiv:2403.17806), so that
matrices can be exchanged with published circuits.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool

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
    of its own layer. The heads of a layer share `n_kv_heads` keys and values (None: every head has
    its own).
    """

    n_layers: int
    n_heads: int
    parallel: bool = False
    n_kv_heads: int = None  # type: ignore[assignment]  # a number as soon as the graph exists

    def __post_init__(self) -> None:
        if self.n_kv_heads is None:
            object.__setattr__(self, "n_kv_heads", self.n_heads)
        if min(self.n_layers, self.n_heads, self.n_kv_heads) < 1:
            raise ValueError(
                f"a graph needs at least one layer, one head and one key-value head, not {self}"
            )
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"{self.n_heads} heads cannot share {self.n_kv_heads} key-value heads evenly: "
                f"the number of heads must be a multiple of theirs"
            )

    @property
    def grouped(self) -> bool:
        """Whether several heads share a key and a value."""
        return self.n_kv_heads != self.n_heads

    @property
    def n_writers(self) -> int:
        """How many components write to the stream: `1 + L(H + 1)`."""
        return 1 + self.n_layers * (self.n_heads + 1)

    @property
    def n_readers(self) -> int:
        """How many inputs read the stream: `L(H + 2K + 1) + 1`, with K keys and values a layer."""
        return self.n_layers * (self._n_head_inputs + 1) + 1

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
                owner = "kv" if self.grouped and kind != "q" else "h"
                names += [f"a{layer}.{owner}{i}<{kind}>" for i in range(self._n_inputs(kind))]
            names.append(f"m{layer}")
        return (*names, "logits")

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """The nodes' names: the writers, then `logits`."""
        return (*self.writers, "logits")

    @cached_property
    def reader_kinds(self) -> tuple[str, ...]:
        """What each reader is: `q`, `k`, `v`, `mlp` or `logits`."""
        layer = [kind for kind in HEAD_INPUTS for _ in range(self._n_inputs(kind))] + ["mlp"]
        return (*(layer * self.n_layers), "logits")

    @cached_property
    def reads(self) -> Bool[np.ndarray, "readers nodes"]:
        """Which nodes each reader feeds: one, or every head of a group."""
        reads = np.zeros((self.n_readers, self.n_nodes), dtype=bool)
        for layer in range(self.n_layers):
            for kind in HEAD_INPUTS:
                heads = np.arange(self.n_heads)
                inputs = heads if kind == "q" else heads // self._heads_per_kv
                reads[self.inputs(layer, kind).start + inputs, self.heads(layer).start + heads] = (
                    True
                )
            reads[self.mlp_input(layer), self.mlp(layer)] = True
        reads[-1, -1] = True
        reads.flags.writeable = False
        return reads

    def heads(self, layer: int) -> slice:
        """The rows of a layer's heads among the writers."""
        first = 1 + layer * (self.n_heads + 1)
        return slice(first, first + self.n_heads)

    def mlp(self, layer: int) -> int:
        """The row of a layer's MLP among the writers."""
        return self.heads(layer).stop

    def head_inputs(self, layer: int) -> slice:
        """The columns of a layer's head inputs among the readers: all q, then all k, then all v."""
        first = layer * (self._n_head_inputs + 1)
        return slice(first, first + self._n_head_inputs)

    def inputs(self, layer: int, kind: str) -> slice:
        """The columns of one kind, `q`, `k` or `v`, of a layer's head inputs among the readers."""
        before = HEAD_INPUTS[: HEAD_INPUTS.index(kind)]
        first = self.head_inputs(layer).start + sum(map(self._n_inputs, before))
        return slice(first, first + self._n_inputs(kind))

    def kv_head_of(self, head: int) -> int:
        """Which of a layer's keys and values a head takes."""
        return head // self._heads_per_kv

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
        if self.grouped:
            text += f" {self.n_kv_heads}"
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def _heads_per_kv(self) -> int:
        return self.n_heads // self.n_kv_heads

    @property
    def _n_head_inputs(self) -> int:
        return sum(map(self._n_inputs, HEAD_INPUTS))

    def _n_inputs(self, kind: str) -> int:
        return self.n_heads if kind == "q" else self.n_kv_heads
