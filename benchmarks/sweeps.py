"""What it costs to evaluate circuits, against whole runs of the model.

    python -m benchmarks.sweeps [--examples 4] [--repeats 5] [--device cpu] [--dtype float32]

A sweep is the ten standard sizes, from 0.1 % to all of the edges, found by EAP: the circuit of all
edges is really run. The runs that all circuits share (the clean and the corrupted one) are timed
apart and taken off. The unit is one bare forward of the whole prompts by the bridge, full logits.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.attribution import seconds
from benchmarks.checkpoint import gpt2_small_shaped, random_prompts
from benchmarks.many_runs import full_forward
from circuits import Circuit, Model, attribute, evaluate_many, load_model
from tasks import Dataset

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def circuits_of(model: Model, dataset: Dataset) -> list[Circuit]:
    """The circuits of a sweep, unpruned in size, and one of 200 edges."""
    scores = attribute(model, dataset, "EAP")
    whole = Circuit(model.graph, model.graph.edge_mask)
    found = [scores.top_n(max(1, round(s * model.graph.n_edges))) for s in SHARES[:-1]]
    return [*found, whole, scores.top_n(200)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--examples", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    n = options.examples
    table = Table(title=f"Evaluation in forwards, GPT-2 small shape, {n} × 17 tokens")
    for column in ("what", "shared", "forward s", "own s", "forwards"):
        table.add_column(column, justify="left" if column == "what" else "right")
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(gpt2_small_shaped(Path(folder)), options.device, options.dtype)
        for shared in (0, 11):
            dataset = random_prompts(n, 17, shared)
            *sweep, small = circuits_of(model, dataset)
            works = {
                "forward": lambda: full_forward(model, dataset),  # noqa: B023
                "nothing": lambda: evaluate_many(model, [], dataset),  # noqa: B023
                "ten sizes": lambda: evaluate_many(model, sweep, dataset),  # noqa: B023
                "200 edges": lambda: evaluate_many(model, [small], dataset),  # noqa: B023
            } | {
                f"{c.n_edges} edges": lambda c=c: evaluate_many(model, [c], dataset)  # noqa: B023
                for c in sweep
            }
            times: dict[str, list[float]] = {name: [] for name in works}
            for _ in range(options.repeats):
                for name, work in works.items():
                    times[name].append(seconds(work))
            forward = statistics.median(times["forward"])
            for name in works:
                if name in ("forward", "nothing"):
                    continue
                own = float(np.median(np.subtract(times[name], times["nothing"])))
                row = (name, f"{shared} of 17", f"{forward:.3f}", f"{own:.3f}")
                table.add_row(*row, f"{own / forward:.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
