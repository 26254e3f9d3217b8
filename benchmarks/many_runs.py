"""What the methods of many runs cost, against the whole runs that their definitions ask for.

    python -m benchmarks.many_runs [--edges 640] [--device cpu] [--dtype float32]

EAP-IG-activations with 5 steps: against components × steps × one full forward-backward. Exact
patching, of edges drawn evenly from every reader's layer and kind: against edges × one full
forward. The full passes are whole prompts by the bridge, with frozen parameters and full logits;
one is timed, several times in turns with the methods, and multiplied.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.attribution import bare_passes, seconds
from benchmarks.checkpoint import gpt2_small_shaped, random_prompts
from circuits import Graph, Model, attribute, load_model
from tasks import Dataset

STEPS = 5


def stratified(graph: Graph, n: int) -> np.ndarray:
    """`n` edges as a mask: drawn in turn from the readers of every layer and kind, seeded."""
    generator = np.random.default_rng(0)
    strata: dict[tuple[int, str], list[tuple[int, int]]] = defaultdict(list)
    for edge in graph.edges:
        layer = graph.n_layers if edge.kind == "logits" else int(edge.reader[1:].split(".")[0])
        strata[layer, edge.kind].append((edge.writer_index, edge.reader_index))
    for edges in strata.values():
        generator.shuffle(edges)
    mask = np.zeros_like(graph.edge_mask)
    while mask.sum() < n:
        for edges in strata.values():
            if edges and mask.sum() < n:
                mask[edges.pop()] = True
    return mask


def full_forward(model: Model, dataset: Dataset) -> None:
    """One forward of the whole prompts, all logits."""
    ids = torch.tensor([example.clean_tokens for example in dataset], device=model.device)
    with torch.no_grad():
        model.bridge(ids)
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def _passes(model: Model, dataset: Dataset) -> tuple[list[float], list[float]]:
    """Seconds of a forward, and of a forward-backward with two forwards, three times each."""
    forward = [seconds(lambda: full_forward(model, dataset)) for _ in range(3)]
    return forward, [seconds(lambda: bare_passes(model, dataset, 1)) for _ in range(3)]


def _time(model: Model, dataset: Dataset, **how: Any) -> float:
    return seconds(lambda: attribute(model, dataset, **how))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--edges", type=int, default=640)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    table = Table(title="Methods of many runs, GPT-2 small shape, 4 × 17 tokens")
    for column in ("method", "shared", "full runs", "full s", "ours s", "ratio"):
        table.add_column(column, justify="left" if column == "method" else "right")
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(gpt2_small_shaped(Path(folder)), options.device, options.dtype)
        edges = stratified(model.graph, options.edges)
        components = 2 * model.graph.n_layers + 1
        for shared in (0, 11):
            dataset = random_prompts(4, 17, shared)
            full_forward(model, dataset)
            before = _passes(model, dataset)
            activations = _time(model, dataset, method="EAP-IG-activations", steps=STEPS)
            exact = _time(model, dataset, method="exact", edges=edges)
            after = _passes(model, dataset)
            forward = statistics.median(before[0] + after[0])
            # of a forward-backward and two forwards, the two forwards are taken off
            both = statistics.median(before[1] + after[1]) - 2 * forward
            for label, runs, each, own in (
                (f"EAP-IG-activations, {STEPS} steps", components * STEPS, both, activations),
                (f"exact, {options.edges} edges", options.edges, forward, exact),
            ):
                table.add_row(
                    label,
                    f"{shared} of 17",
                    str(runs),
                    f"{each * runs:.1f}",
                    f"{own:.1f}",
                    f"{own / (each * runs):.2f}",
                )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
