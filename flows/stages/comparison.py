"""Scores beside scores and circuits beside circuits, over all cells of one graph and level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from circuits.circuit import Circuit
from flows.stages.stage import Found, Rows, Stage, digest, rows_of
from flows.units import UnitSpace
from flows.workbench import Workbench


@dataclass(frozen=True)
class Compared:
    """What one cell brings to a comparison: its model described, and its scores or circuits."""

    described: Found | None
    found: Found | None


@dataclass(frozen=True)
class ScoreComparisonsStage(Stage):
    """All sets of scores of one graph and level, two by two."""

    name = "score comparisons"
    kinds = ("score_comparisons",)
    modules = ("circuits.comparison", "scipy.stats")
    level: str
    sides: tuple[Compared, ...]

    @property
    def parameters(self) -> dict[str, Any]:
        """The level."""
        return {"level": self.level}

    @property
    def upstream(self) -> Mapping[str, str | None]:
        """The sets of scores."""
        return _digests(self.sides, ("scores",))

    @property
    def label(self) -> str:
        """The level, for people."""
        return f"scores of {self.level}s"

    def build(self, bench: Workbench) -> Rows:
        """Compare every pair once."""
        from circuits.comparison import compare_scores

        spaces = _spaces(bench, self.sides, self.level, "scores")
        scores = {key: bench.scores(space, key) for key, space in sorted(spaces.items())}
        rows = [
            {"scores_a": a, "scores_b": b} | asdict(compare_scores(scores[a], scores[b]))
            for a, b in combinations(scores, 2)
        ]
        return {"score_comparisons": rows_of("score_comparisons", rows)}


@dataclass(frozen=True)
class CircuitComparisonsStage(Stage):
    """All circuits of one graph, level and rule that were asked for with one size, two by two."""

    name = "circuit comparisons"
    kinds = ("circuit_comparisons",)
    modules = ("circuits.comparison", "scipy.stats")
    level: str
    rule: str
    sides: tuple[Compared, ...]

    @property
    def parameters(self) -> dict[str, Any]:
        """The level and the rule."""
        return {"level": self.level, "rule": self.rule}

    @property
    def upstream(self) -> Mapping[str, str | None]:
        """The circuits with their members."""
        return _digests(self.sides, ("circuits", "members", "member_neurons"))

    @property
    def label(self) -> str:
        """The level and the rule, for people."""
        return f"circuits of {self.level}s by {self.rule}"

    def build(self, bench: Workbench) -> Rows:
        """Compare every pair of one size once."""
        from circuits.comparison import compare_circuits

        by_size: dict[tuple[Any, ...], dict[str, Circuit]] = {}
        for key, space in _spaces(bench, self.sides, self.level, "circuits").items():
            circuits = bench.circuits(space, key)
            for row in bench.store.read("circuits", key).to_pylist():
                size = (row["size_asked"], row["units_asked"], row["threshold"])
                by_size.setdefault(size, {})[row["circuit"]] = circuits[row["circuit"]]
        rows = [
            {"circuit_a": a, "circuit_b": b} | asdict(compare_circuits(of_size[a], of_size[b]))
            for of_size in by_size.values()
            for a, b in combinations(sorted(of_size), 2)
        ]
        return {"circuit_comparisons": rows_of("circuit_comparisons", rows)}


def _digests(sides: tuple[Compared, ...], kinds: tuple[str, ...]) -> dict[str, str | None]:
    return {
        f"{kind} {i:06}": digest(side.found, kind) for i, side in enumerate(sides) for kind in kinds
    }


def _spaces(
    bench: Workbench, sides: tuple[Compared, ...], level: str, kind: str
) -> dict[str, UnitSpace]:
    """The units that every side's artifact is about, by its key."""
    found = {}
    for side in sides:
        assert side.described is not None
        assert side.found is not None
        found[side.found[kind].key] = bench.units(side.described, level)
    return found
