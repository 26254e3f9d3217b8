"""What is scored at each level, as tables number it: units, and the targets that stand for them.

A *unit* is an edge, a node or a neuron; its id is its place in edge order, among the writers, or
among the writers' output dimensions in a row. A method that scores some units alone is asked for
*targets*: edges at edge level, nodes at the two others (a node stands for all its neurons).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from circuits.circuit import Circuit
from circuits.graph import Graph
from circuits.scores import Scores, unit_values
from flows.errors import GridError


@dataclass(frozen=True)
class UnitSpace:
    """The units of one level of a graph, whose writers have outputs of `d_model` dimensions."""

    graph: Graph
    level: str
    d_model: int

    @property
    def n_units(self) -> int:
        """How many units there are."""
        return self.n_targets * self.units_per_target

    @property
    def n_targets(self) -> int:
        """How many targets there are."""
        return self.graph.n_edges if self.level == "edge" else self.graph.n_writers

    @property
    def units_per_target(self) -> int:
        """How many units a target stands for."""
        return self.d_model if self.level == "neuron" else 1

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an array of scores at this level."""
        shapes = {
            "edge": (self.graph.n_writers, self.graph.n_readers),
            "node": (self.graph.n_writers,),
            "neuron": (self.graph.n_writers, self.d_model),
        }
        return shapes[self.level]

    def in_order(self, array: np.ndarray) -> np.ndarray:
        """The entries of an array that belong to units, in the order of their ids."""
        return np.asarray(unit_values(self.graph, self.level, array))

    def array(self, unit_ids: Sequence[int] | np.ndarray, values: np.ndarray) -> np.ndarray:
        """An array of these units' values; NaN for the other units, 0 off the edges."""
        ordered = np.full(self.n_units, np.nan)
        ordered[np.asarray(unit_ids, dtype=int)] = values
        if self.level != "edge":
            return ordered.reshape(self.shape)
        found = np.zeros(self.shape)
        found[self.graph.edge_mask] = ordered
        return found

    def mask_of(self, edges: Sequence[int] | np.ndarray) -> np.ndarray:
        """Where an array [writers, readers] has these edges."""
        chosen = np.zeros(self.graph.n_edges, dtype=bool)
        chosen[np.asarray(edges, dtype=int)] = True
        mask = np.zeros_like(self.graph.edge_mask)
        mask[self.graph.edge_mask] = chosen
        return mask

    def targets_named(self, names: Iterable[str]) -> tuple[int, ...]:
        """The targets with these names, in order; GridError names those that are not there."""
        graph = self.graph
        known = [edge.name for edge in graph.edges] if self.level == "edge" else [*graph.writers]
        index = {name: i for i, name in enumerate(known)}
        unknown = [name for name in names if name not in index]
        if unknown:
            nearest = difflib.get_close_matches(unknown[0], known, n=1)
            kind = "edge" if self.level == "edge" else "node that writes"
            others = f" (nor {len(unknown) - 1} others that were asked for)" * (len(unknown) > 1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise GridError(f"the model has no {kind} {unknown[0]!r}{others}{hint}")
        return tuple(sorted(index[name] for name in names))

    def targets_scored(self, values: np.ndarray) -> tuple[int, ...]:
        """The targets of which a unit has a score, in order."""
        scored = ~np.isnan(self.in_order(values)).reshape(self.n_targets, -1)
        return tuple(np.flatnonzero(scored.any(axis=1)).tolist())

    def n_asked(self, size: int | float) -> int:
        """How many targets a size is; GridError for more than there are."""
        n = max(1, round(size * self.n_targets)) if isinstance(size, float) else size
        if n > self.n_targets:
            kind = "edges" if self.level == "edge" else "nodes"
            raise GridError(
                f"the top {n} {kind} were asked for, but the model has {self.n_targets}"
            )
        return n

    def best_targets(self, values: np.ndarray, size: int | float) -> tuple[int, ...]:
        """The targets of greatest |value|, in order: so many, or this share of all."""
        n = self.n_asked(size)
        magnitude = np.abs(np.nan_to_num(values, nan=0.0))
        return tuple(sorted(np.argsort(-magnitude, kind="stable")[:n].tolist()))

    def chunks(self, targets: Sequence[int] | None, n_units: int) -> tuple[tuple[int, ...], ...]:
        """Targets (None: all) in chunks of about `n_units` units.

        Edges are cut reader by reader: those of one reader are run together.
        """
        chosen = np.arange(self.n_targets) if targets is None else np.array(targets, dtype=int)
        if self.level == "edge":
            readers = np.nonzero(self.graph.edge_mask)[1][chosen]
            chosen = chosen[np.argsort(readers, kind="stable")]
        size = max(1, n_units // self.units_per_target)
        return tuple(
            tuple(sorted(chosen[i : i + size].tolist())) for i in range(0, len(chosen), size)
        )


def graph_of(row: Mapping[str, Any]) -> Graph:
    """The graph that a row of `graphs` describes."""
    return Graph(row["n_layers"], row["n_heads"], row["parallel"], row["n_kv_heads"])


def circuit_of(
    space: UnitSpace,
    edge_ids: Sequence[int] | np.ndarray,
    dimensions: Mapping[int, Sequence[int]],
    scores: Scores | None = None,
) -> Circuit:
    """The circuit of these edges, at neuron level with these dimensions of its writers."""
    neurons = None
    if space.level == "neuron":
        neurons = np.zeros(space.shape, dtype=bool)
        for node, kept in dimensions.items():
            neurons[node, list(kept)] = True
    return Circuit(space.graph, space.mask_of(edge_ids), scores, neurons, space.level)
