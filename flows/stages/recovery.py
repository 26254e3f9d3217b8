"""How well scores find a circuit that is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flows.stages.stage import Found, Rows, Stage, digest, rows_of
from flows.workbench import Workbench

_MEASURES = ("n_true", "precision", "recall", "auroc", "auprc")


@dataclass(frozen=True)
class RecoveryStage(Stage):
    """The scores of a model whose circuit is known by construction, beside that circuit."""

    name = "recovery"
    kinds = ("recoveries",)
    modules = ("circuits.recovery",)
    described: Found | None
    scores: Found | None
    level: str
    truth: str
    edges: str | None  # digest of the true edges

    @property
    def parameters(self) -> dict[str, Any]:
        """The model by name, and the level."""
        return {"truth": self.truth, "level": self.level}

    @property
    def upstream(self) -> Mapping[str, str | None]:
        """The scores, the graph they are on, and the true edges."""
        return {
            "edges": self.edges,
            "scores": digest(self.scores, "scores"),
            "graph": digest(self.described, "graphs"),
        }

    def build(self, bench: Workbench) -> Rows:
        """Compare the ranking with the truth; raises `circuits.EvaluationError`."""
        from circuits.recovery import recovery, true_circuit

        assert self.described is not None
        assert self.scores is not None
        space, key = bench.units(self.described, self.level), self.scores["scores"].key
        found = recovery(bench.scores(space, key), true_circuit(self.truth, space.graph))
        about = {"scores": key, "truth": self.truth}
        row = about | {name: getattr(found, name) for name in _MEASURES}
        return {"recoveries": rows_of("recoveries", [row])}
