"""What grids cost beside their work: recognising what is finished, and orchestration a stage.

    python -m benchmarks.overheads [--cells 1000] [--stages 100] [--profile]

A grid on the bundled model is done once with tiny examples, every stage really. Then a fresh
process runs it again, finding all of it finished; and a smaller grid is run by the default runner,
whose wall time less the stages' own is what orchestration costs. Bounds: 15 s, and 100 ms a stage.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flows.settings import prepare

GRID = """
name: overheads
models: [bundled/behaviours]
tasks: [{tasks}]
methods: [{methods}]
examples: {{train: 2, evaluate: 2}}
sizes: [20]
extraction: [top-n]
judging: {{comparisons: false, resamples: 10}}
"""
METHODS_A_TASK = 50
CACHED = """
import json, sys
from benchmarks.overheads import run_again
print(json.dumps(run_again(*sys.argv[1:])))
"""


def grid_of(n_cells: int) -> str:
    """A grid of so many cells: seeds of one task, and seeds of the method that runs no model."""
    n_methods = min(METHODS_A_TASK, n_cells)
    tasks = [f"{{name: ioi, seed: {i}}}" for i in range(-(-n_cells // n_methods))]
    methods = [f"{{name: random, seed: {i}}}" for i in range(n_methods)]
    return GRID.format(tasks=", ".join(tasks), methods=", ".join(methods))


def fill(grid: Path, store: Path) -> int:
    """Do every stage of a grid in this process, without Prefect; how many there were."""
    from flows.identity import Identities
    from flows.plan import finished
    from flows.reading import read_grid
    from flows.stages import Found, Stage
    from flows.walk import follow, turns, walk
    from flows.workbench import Workbench

    config = read_grid(grid)
    bench, identities = Workbench(str(store), config.memory_budget), Identities()
    keys = set()

    def do(stage: Stage) -> Found:
        assert stage.key is not None
        keys.add(stage.key)
        found = finished(bench.store, stage)
        if found is None:
            found = bench.store.write_all(stage.key, stage.build(bench), {"seconds": 0.0})
        return found

    for turn in turns(config):
        follow(walk(turn, config, bench, identities, {}), do)
    return len(keys)


def run_again(grid: str, store: str, profile: str = "") -> dict[str, float]:
    """Run a grid that is finished: seconds to start and to recognise it, and what was found."""
    start = time.perf_counter()
    from flows.grid import run_grid
    from flows.progress import Watcher
    from flows.reading import read_grid

    if profile:
        import cProfile

        watch = cProfile.Profile()
        watch.enable()
    config = read_grid(grid)
    ready = time.perf_counter()
    run = run_grid(config, store, Watcher())
    seconds = {"start": ready - start, "run": time.perf_counter() - ready}
    if profile:
        watch.disable()
        watch.dump_stats(profile)
    counts = {how: run.outcome.count(how) for how in ("reused", "computed", "failed")}
    return seconds | {"cells": len(list(config.cells())), **counts}


def orchestration(folder: Path, n_stages: int) -> tuple[int, float, float]:
    """Stages after the first that ran a model, their own seconds, and the wall time they took."""
    from data import Store
    from flows.grid import run_grid
    from flows.progress import Watcher
    from flows.reading import read_grid

    class Clock(Watcher):
        def __init__(self) -> None:
            super().__init__()
            self.ends: dict[str, float] = {}

        def stage_computed(self, turn, stage) -> None:  # type: ignore[no-untyped-def]
            super().stage_computed(turn, stage)
            self.ends[stage.key] = time.perf_counter()

    grid = folder / "small.yaml"
    grid.write_text(grid_of(n_stages // 5))
    clock = Clock()
    run = run_grid(read_grid(grid), str(folder / "small"), clock)
    assert not run.outcome.failures, run.outcome.failures[0].sentence
    store = Store.open(folder / "small")
    kinds = {stage.key: stage.kind for stage in store.grids()["overheads"]}
    ends = sorted((at, key) for key, at in clock.ends.items())
    loaded = next(i for i, (_, key) in enumerate(ends) if kinds[key] in ("models", "graphs"))
    counted = ends[loaded + 1 :]
    found = [store.find(kinds[key], key) for _, key in counted]
    own = sum(float(str(one.provenance["seconds"])) for one in found if one is not None)
    return len(counted), own, counted[-1][0] - ends[loaded][0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--stages", type=int, default=100, help="for orchestration; 0: none")
    parser.add_argument("--store", type=Path, help="where the finished grid is kept and reused")
    parser.add_argument("--profile", type=Path, help="write what took the time here")
    options = parser.parse_args()
    prepare()
    table = Table("what", "measured", "bound", title="Overheads")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.store or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        grid = folder / f"{options.cells}.yaml"
        grid.write_text(grid_of(options.cells))
        start = time.perf_counter()
        n_stages = fill(grid, folder / "artifacts")
        Console(stderr=True).print(
            f"{n_stages} stages of {options.cells} cells: {time.perf_counter() - start:.0f} s"
        )
        for _ in range(2):
            command = [sys.executable, "-c", CACHED, grid, folder / "artifacts"]
            command += [options.profile] if options.profile else []
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            assert found["reused"] == n_stages, found
            what = f"{found['cells']} finished cells, {n_stages} stages"
            table.add_row(f"{what}: recognised", f"{found['run']:.1f} s", "15 s")
        table.add_row(
            "starting: Prefect and torch imported, the grid read", f"{found['start']:.1f} s", ""
        )
        if options.stages:
            n, own, wall = orchestration(Path(scratch), options.stages)
            table.add_row(
                f"orchestration, {n} stages of {1000 * own / n:.0f} ms",
                f"{1000 * (wall - own) / n:.0f} ms a stage",
                "100 ms a stage",
            )
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
