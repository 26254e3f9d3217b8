"""From scores to circuits: one rule, all its sizes or thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from circuits.circuit import edge_values
from circuits.extraction import ALGORITHMS, edges_for_share
from data import stage_key
from flows.config import ExtractionChoice
from flows.stages.stage import LEVEL, Found, Rows, Stage, digest, rows_of
from flows.workbench import Workbench


@dataclass(frozen=True)
class CircuitsStage(Stage):
    """The circuits that one extraction rule finds in scores, at all sizes asked for."""

    name = "circuits"
    kinds = ("circuits",)
    described: Found | None
    scores: Found | None
    rule: ExtractionChoice
    sizes: tuple[int | float, ...]

    @property
    def parameters(self) -> dict[str, Any]:
        """The rule and its sizes or thresholds."""
        return {
            "algorithm": self.rule.name,
            "absolute": self.rule.absolute,
            "sizes": list(self.sizes),
        }

    @property
    def upstream(self) -> Mapping[str, str | None]:
        """The scores, and the graph they are on."""
        return {
            "scores": digest(self.scores, "scores"),
            "graph": digest(self.described, "graphs"),
        }

    @property
    def label(self) -> str:
        """The rule, for people."""
        return f"circuits by {self.rule.label}"

    def build(self, bench: Workbench) -> Rows:
        """Extract a circuit a size; raises `circuits.ExtractionError` for a size too large."""
        assert self.described is not None
        assert self.scores is not None
        graph = bench.graph(self.described["graphs"].key)
        key = self.scores["scores"].key
        scores = bench.scores(graph, key)
        extract: Any = ALGORITHMS[self.rule.name]
        circuits, members = [], []
        for size in self.sizes:
            is_share = self.rule.name != "threshold" and isinstance(size, float)
            asked = edges_for_share(graph, size) if is_share else size
            found = extract(scores, asked, self.rule.absolute)
            one = {"algorithm": self.rule.name, "absolute": self.rule.absolute, "size": size}
            circuit = stage_key("circuit", 1, one, {"scores": self.scores["scores"].digest})
            circuits.append(
                {
                    "circuit": circuit,
                    "scores": key,
                    "graph": graph.digest,
                    "level": LEVEL,
                    "algorithm": self.rule.name,
                    "absolute": self.rule.absolute,
                    "size_asked": size if is_share else None,
                    "edges_asked": None if self.rule.name == "threshold" else int(asked),
                    "threshold": float(size) if self.rule.name == "threshold" else None,
                    "n_edges": found.n_edges,
                    "n_nodes": found.n_nodes,
                    "fraction": found.fraction,
                }
            )
            kept = edge_values(graph, found.mask).nonzero()[0].tolist()
            members += [{"circuit": circuit, "edge_id": edge} for edge in kept]
        belongs = [{"extraction": self.key, "circuit": one["circuit"]} for one in circuits]
        return {
            "circuits": rows_of("circuits", circuits),
            "extractions": rows_of("extractions", belongs),
            "members": rows_of("members", members),
        }
