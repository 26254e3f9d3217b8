"""How far each method's edge scores agree with exact patching, on the bundled model's three tasks.

    python -m benchmarks.agreement [--examples 64]

Kendall's τ-b of the scores of all edges, and the share of the k edges of largest |score| that the
k of exact patching have in common with them.
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

from circuits import attribute, load_model
from tasks import default_metric, load_dataset

METHODS: dict[str, dict[str, object]] = {
    "EAP": {"method": "EAP"},
    "clean-corrupted": {"method": "clean-corrupted"},
    "EAP-IG-inputs (5)": {"method": "EAP-IG-inputs", "steps": 5},
    "EAP-IG-activations (5, component)": {"method": "EAP-IG-activations", "steps": 5},
    "EAP-IG-activations (5, all)": {"method": "EAP-IG-activations", "steps": 5, "scope": "all"},
    "information-flow-routes": {"method": "information-flow-routes"},
    "random": {"method": "random"},
}
TOP = (20, 100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--examples", type=int, default=64)
    options = parser.parse_args()
    model = load_model("bundled/behaviours")
    edges = model.graph.edge_mask
    title = (
        f"Agreement with exact patching, {model.graph.n_edges} edges, {options.examples} prompts"
    )
    table = Table(title=title)
    for column in ("task", "method", "Kendall's τ", *(f"top {k}" for k in TOP)):
        table.add_column(column, justify="left" if column in ("task", "method") else "right")
    for task in ("greater-than", "ioi", "sva"):
        dataset = load_dataset(task, model.tokenizer, size=options.examples)
        metric = default_metric(task)
        exact = attribute(model, dataset, "exact", metric=metric).matrix[edges]
        for label, how in METHODS.items():
            found = attribute(model, dataset, metric=metric, **how).matrix[edges]  # type: ignore[arg-type]
            tau = kendalltau(found, exact).statistic
            shares = [_shared(found, exact, k) for k in TOP]
            table.add_row(task, label, f"{tau:.2f}", *(f"{share:.2f}" for share in shares))
    Console(width=100).print(table)


def _shared(found: np.ndarray, exact: np.ndarray, k: int) -> float:
    best = [set(np.argsort(-np.abs(scores), kind="stable")[:k]) for scores in (found, exact)]
    return len(best[0] & best[1]) / k


if __name__ == "__main__":
    main()
