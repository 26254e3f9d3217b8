"""How sure evaluations are: standard errors and intervals from resamples of the examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flows.judging import Judging
from flows.stages.stage import Found, Rows, Stage, digest, rows_of
from flows.workbench import Workbench

if TYPE_CHECKING:
    from circuits.confidence import Interval

_MEASURES = ("cpr", "cmd")
_ENDS = ("standard_error", "low", "high")


@dataclass(frozen=True)
class ConfidenceStage(Stage):
    """The intervals of one extraction's evaluations, and of the areas under all its sizes.

    They rest on the stored values per example: no model is run.
    """

    name = "confidence"
    kinds = ("intervals",)
    circuits: Found | None
    evaluations: Found | None
    baselines: Found | None
    judging: Judging
    of: str  # the evaluation, for people

    @property
    def parameters(self) -> dict[str, Any]:
        """How often the examples are drawn again, from which seed, and what intervals hold."""
        of_draws = ("resamples", "confidence", "seed")
        return {name: getattr(self.judging, name) for name in of_draws}

    @property
    def upstream(self) -> Mapping[str, str | None]:
        """The values per example, and the sizes of the circuits that they are of."""
        return {
            "circuits": digest(self.circuits, "circuits"),
            "extraction": digest(self.circuits, "extractions"),
            "evaluations": digest(self.evaluations, "evaluations"),
            "values": digest(self.evaluations, "example_values"),
            "baselines": digest(self.baselines, "baseline_values"),
        }

    @property
    def label(self) -> str:
        """What it is the confidence of, for people."""
        return f"confidence of {self.of}"

    def build(self, bench: Workbench) -> Rows:
        """Draw the examples again, the same for every circuit and both baselines."""
        from circuits.confidence import (
            Bootstrap,
            bootstrap_cmd,
            bootstrap_cpr,
            bootstrap_faithfulness,
        )

        assert self.circuits is not None
        assert self.evaluations is not None
        assert self.baselines is not None
        drawn = Bootstrap(self.judging.resamples, self.judging.confidence, self.judging.seed)
        about = {
            "n_resamples": drawn.n_resamples,
            "confidence": drawn.confidence,
            "seed": drawn.seed,
        }
        circuits = {
            row["circuit"]: row
            for row in bench.store.read("circuits", self.circuits["circuits"].key).to_pylist()
        }
        key = self.evaluations["evaluations"].key
        rows = sorted(
            bench.store.read("evaluations", key).to_pylist(),
            key=lambda row: _place(circuits[row["circuit"]]),
        )
        values = _by("evaluation", bench, "example_values", key)
        key = self.baselines["baselines"].key
        runs = _by("run", bench, "baseline_values", key)
        clean, corrupted = runs["clean"], runs["corrupted"]
        intervals = [
            about
            | {"evaluation": row["evaluation"]}
            | _ends(
                bootstrap_faithfulness(values[row["evaluation"]], clean, corrupted, drawn), _ENDS
            )
            for row in rows
        ]
        (extraction,) = set(
            bench.store.read("extractions", self.circuits["circuits"].key)["extraction"].to_pylist()
        )
        curves = []
        if rows and all(row["part"] == "circuit" for row in rows):
            fractions = [circuits[row["circuit"]]["fraction"] for row in rows]
            heights = np.stack([values[row["evaluation"]] for row in rows])
            for axis in ("linear", "log"):
                found = {"extraction": extraction, "baseline": key, "axis": axis} | about
                for name, measure in zip(_MEASURES, (bootstrap_cpr, bootstrap_cmd), strict=True):
                    interval = measure(fractions, heights, clean, corrupted, axis, drawn)
                    ends = _ends(interval, ("estimate", *_ENDS))
                    found |= {f"{name}_{end}": value for end, value in ends.items()}
                    found[name] = found.pop(f"{name}_estimate")
                curves.append(found)
        return {"intervals": rows_of("intervals", intervals), "curves": rows_of("curves", curves)}


def _place(circuit: dict[str, Any]) -> tuple[Any, ...]:
    """Where a circuit stands on the axis of the leaderboard: by size, then by what was asked."""
    asked = (circuit["size_asked"], circuit["units_asked"])
    nulls_last = [(value is None, value or 0) for value in asked]
    return (circuit["fraction"], *nulls_last, circuit["circuit"])


def _by(column: str, bench: Workbench, kind: str, key: str) -> dict[str, np.ndarray]:
    """The values per example of an artifact, in the order of the examples, by a column's words."""
    rows = bench.store.read(kind, key).sort_by("example_id")
    names, values = np.array(rows[column].to_pylist(), dtype=object), rows["value"].to_numpy()
    return {name: values[names == name] for name in dict.fromkeys(names.tolist())}


def _ends(interval: Interval | None, names: tuple[str, ...]) -> dict[str, float | None]:
    """Parts of an interval by name; null where it is undefined."""
    if interval is None:
        return dict.fromkeys(names)
    return {name: asdict(interval)[name] for name in names}
