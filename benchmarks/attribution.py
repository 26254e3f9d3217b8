"""What edge scores cost, against the bare model passes that no method can do without.

    python -m benchmarks.attribution [--repeats 7] [--device cpu] [--dtype float32]

The bare passes are 2 forwards and m forward-backwards of the whole prompts by the same bridge, with
frozen parameters, full logits and nothing recorded. Both are timed in turns in one process, and the
medians compared; peak memory is that of a child process that does one of the two once.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.checkpoint import gpt2_small_shaped, random_prompts
from circuits import Model, attribute, load_model
from tasks import Dataset

METHODS = (
    ("EAP", 1, {"method": "EAP"}),
    ("EAP-IG-inputs, 5 steps", 5, {"method": "EAP-IG-inputs", "steps": 5, "quadrature": "left"}),
)


def bare_passes(model: Model, dataset: Dataset, backwards: int) -> None:
    """2 forwards and `backwards` forward-backwards of the whole prompts."""
    ids = torch.tensor([example.clean_tokens for example in dataset], device=model.device)
    with torch.no_grad():
        model.bridge(ids)
        model.bridge(ids)
    for _ in range(backwards):
        leaves: list[torch.Tensor] = []

        def embed(value: torch.Tensor, hook: object) -> torch.Tensor:
            leaves.append(value.detach().requires_grad_(True))  # noqa: B023
            return leaves[-1]  # noqa: B023

        logits = model.bridge.run_with_hooks(ids, fwd_hooks=[("embed.hook_out", embed)])
        torch.autograd.grad((logits[:, -1, 7] - logits[:, -1, 5]).sum(), leaves)
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _peak_gigabytes(directory: Path, device: str, dtype: str, shared: int, arm: int) -> float:
    """The peak memory of a process that loads the model and does one thing."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_in_child, (directory, device, dtype, shared, arm))


def _peak_in_child(directory: Path, device: str, dtype: str, shared: int, arm: int) -> float:
    model = load_model(directory, device=device, dtype=dtype)
    dataset = random_prompts(4, 17, shared)
    if arm < 0:
        bare_passes(model, dataset, 5)
    else:
        attribute(model, dataset, **METHODS[arm][2])
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    table = Table(title="Edge scores against the bare passes, GPT-2 small shape, 4 × 17 tokens")
    for column in ("method", "shared", "bare s", "ours s", "ratio", "bare peak GB", "ours peak GB"):
        table.add_column(column, justify="left" if column == "method" else "right")
    with tempfile.TemporaryDirectory() as folder:
        directory = gpt2_small_shaped(Path(folder))
        model = load_model(directory, device=options.device, dtype=options.dtype)
        peak = {-1: _peak_gigabytes(directory, options.device, options.dtype, 0, -1)}
        for arm, (label, backwards, arguments) in enumerate(METHODS):
            for shared in (0, 11):
                dataset = random_prompts(4, 17, shared)

                def ours() -> object:
                    return attribute(model, dataset, **arguments)  # type: ignore[arg-type]  # noqa: B023

                bare_times, our_times = [], []
                for turn in range(options.repeats + 1):
                    bare = seconds(lambda: bare_passes(model, dataset, backwards))  # noqa: B023
                    own = seconds(ours)
                    if turn:  # the first is a warm-up
                        bare_times.append(bare)
                        our_times.append(own)
                bare, own = statistics.median(bare_times), statistics.median(our_times)
                memory = _peak_gigabytes(directory, options.device, options.dtype, shared, arm)
                table.add_row(
                    label,
                    f"{shared} of 17",
                    f"{bare:.3f}",
                    f"{own:.3f}",
                    f"{own / bare:.2f}",
                    f"{peak[-1]:.2f}",
                    f"{memory:.2f}",
                )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
