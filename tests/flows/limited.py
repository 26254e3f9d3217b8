"""Do a grid's stages in a process that memory is short in.

`python -m tests.flows.limited GRID STORE MEBIBYTES` prints, as JSON, what every stage wrote and
how many examples at a time it took in the end (null: as many as the budget holds). Every stage that
runs the model may take so much memory more than the process has when it starts.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.doing import build_within_memory
from flows.identity import Identities
from flows.plan import finished
from flows.reading import read_grid
from flows.runner import Order
from flows.stages import Stage
from flows.stages.stage import Found
from flows.walk import follow, turns, walk
from flows.workbench import Workbench

Written = dict[str, tuple[dict[str, str], int | None]]


def do_all(grid: Path, store: Path, spare: int | None = None) -> Written:
    """The keys that each stage wrote, by kind, and how many examples at a time it took.

    `spare` is in bytes; None for no limit.
    """
    config = read_grid(grid)
    bench, identities, done = Workbench(str(store), config.memory_budget), Identities(), {}
    written: Written = {}

    def do(stage: Stage) -> Found:
        found = finished(bench.store, stage)
        if found is None:
            if stage.runs is not None:
                bench.model(stage.runs)
            with at_most_bytes(None if stage.runs is None else spare):
                order = Order(stage, str(store), config.memory_budget)
                tables, most = build_within_memory(order, bench)
            assert stage.key is not None
            found = bench.store.write_all(stage.key, tables, {})
            keys = {kind: artifact.key for kind, artifact in found.items()}
            written[f"{stage.scope}: {stage.label}"] = (keys, most)
        return found

    for turn in turns(config):
        products = follow(walk(turn, config, bench, identities, done), do)
        if products is not None:
            done[turn] = products
    return written


@contextmanager
def at_most_bytes(spare: int | None) -> Iterator[None]:
    """Let this process have no more than so much memory beside what it has."""
    if spare is None:
        yield
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    unlimited = resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + spare, unlimited))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (unlimited, unlimited))


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    print(json.dumps(do_all(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) << 20)))
