"""What a stage costs: wall time, and the most memory the process (or the GPU) held during it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Cost:
    """Wall time in seconds and peak memory in bytes; None where the system does not tell."""

    seconds: float = 0.0
    peak_bytes: int | None = None


@contextmanager
def measured(device: str | None) -> Iterator[Cost]:
    """Measure what happens inside: GPU memory for work on CUDA, else the process's."""
    cost = Cost()
    on_gpu = device is not None and device.startswith("cuda")
    if on_gpu:
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):  # forget the peak so far; only Linux can
            Path("/proc/self/clear_refs").write_text("5")
    start = time.perf_counter()
    yield cost
    if on_gpu:
        torch.cuda.synchronize(device)
        cost.peak_bytes = torch.cuda.max_memory_allocated(device)
    else:
        cost.peak_bytes = _peak_of_process()
    cost.seconds = time.perf_counter() - start


def _peak_of_process() -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 if found else None
