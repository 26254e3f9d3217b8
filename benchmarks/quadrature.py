"""How close each quadrature rule comes to the integral, on the bundled model's three tasks.

    python -m benchmarks.quadrature

The distance is the relative L2 distance of all edge scores to those by 100 Gauss–Legendre points,
in float64.
"""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.table import Table

from circuits import attribute, load_model
from circuits.attribution import quadrature_names
from tasks import default_metric, load_dataset

STEPS = (3, 5, 10)


def main() -> None:
    model = load_model("bundled/behaviours", dtype="float64")
    table = Table(title="Relative L2 distance to the integral, EAP-IG-inputs, 64 prompts")
    table.add_column("task")
    table.add_column("points", justify="right")
    for rule in quadrature_names():
        table.add_column(rule, justify="right")
    for task in ("greater-than", "ioi", "sva"):
        dataset = load_dataset(task, model.tokenizer, size=64)

        def scores(rule: str, steps: int) -> np.ndarray:
            return attribute(
                model,
                dataset,  # noqa: B023
                steps=steps,
                quadrature=rule,
                metric=default_metric(task),  # noqa: B023
            ).matrix

        integral = scores("gauss-legendre", 100)
        for steps in STEPS:
            distances = [
                np.linalg.norm(scores(rule, steps) - integral) / np.linalg.norm(integral)
                for rule in quadrature_names()
            ]
            table.add_row(task, str(steps), *(f"{distance:.4f}" for distance in distances))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
