"""From scores to circuits: one rule, all its sizes or thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from circuits.circuit import Circuit
from circuits.extraction import ALGORITHMS, units_for_share
from data import stage_key
from flows.config import ExtractionChoice
from flows.stages.stage import Found, Rows, Stage, digest, rows_of
from flows.units import UnitSpace
from flows.workbench import Workbench


@dataclass(frozen=True)
class CircuitsStage(Stage):
    """The circuits that one extraction rule finds in scores, at all sizes asked for."""

    name = "circuits"
    version = 2
    kinds = ("circuits",)
    described: Found | None
    scores: Found | None
    level: str
    rule: ExtractionChoice
    sizes: tuple[int | float, ...]

    @property
    def parameters(self) -> dict[str, Any]:
        """The rule and its sizes or thresholds."""
        return {
            "algorithm": self.rule.name,
            "absolute": self.rule.absolute,
            "keep_unscored": self.rule.keep_unscored,
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
        space = bench.units(self.described, self.level)
        key = self.scores["scores"].key
        scores = bench.scores(space, key)
        extract: Any = ALGORITHMS[self.rule.name]
        circuits = []
        for size in self.sizes:
            is_share = self.rule.name != "threshold" and isinstance(size, float)
            asked = units_for_share(scores, size) if is_share else size
            found = extract(scores, asked, self.rule.absolute, self.rule.keep_unscored)
            one = self.parameters | {"sizes": size}
            circuit = stage_key("circuit", 2, one, {"scores": self.scores["scores"].digest})
            about = {
                "circuit": circuit,
                "scores": key,
                "algorithm": self.rule.name,
                "rule": self.rule.label,
                "absolute": self.rule.absolute,
                "size_asked": size if is_share else None,
                "units_asked": None if self.rule.name == "threshold" else int(asked),
                "threshold": float(size) if self.rule.name == "threshold" else None,
            }
            circuits.append((about, found))
        assert self.key is not None
        return circuit_tables(space, self.key, circuits)


def circuit_tables(
    space: UnitSpace, extraction: str, circuits: Sequence[tuple[dict[str, Any], Circuit]]
) -> Rows:
    """The tables of circuits that belong together; each comes with what is known of its making."""
    rows, members, neurons = [], [], []
    for about, found in circuits:
        circuit = about["circuit"]
        sizes = {
            name: getattr(found, name) for name in ("n_units", "n_edges", "n_nodes", "fraction")
        }
        rows.append(about | {"graph": space.graph.digest, "level": space.level} | sizes)
        kept = found.mask[space.graph.edge_mask].nonzero()[0].tolist()
        members += [{"circuit": circuit, "edge_id": edge} for edge in kept]
        neurons += _neuron_rows(space, circuit, found)
    belongs = [{"extraction": extraction, "circuit": about["circuit"]} for about, _ in circuits]
    return {
        "circuits": rows_of("circuits", rows),
        "extractions": rows_of("extractions", belongs),
        "members": rows_of("members", members),
        "member_neurons": rows_of("member_neurons", neurons),
    }


def _neuron_rows(space: UnitSpace, name: str, circuit: Circuit) -> list[dict[str, Any]]:
    """A row for every node whose neurons are in a circuit of neuron level; none at other levels."""
    if space.level != "neuron":
        return []
    assert circuit.neurons is not None
    return [
        {"circuit": name, "node_id": node, "dimensions": kept.nonzero()[0].tolist()}
        for node, kept in enumerate(circuit.neurons)
        if kept.any()
    ]
