"""A grid on a store of an older version: what it had measured is reused, the rest is planned."""

import tarfile
from collections import Counter
from pathlib import Path

import pytest

from flows.housekeeping import look_over
from flows.identity import Identities
from flows.plan import finished, make_plan
from flows.reading import parse_grid
from flows.workbench import Workbench

STORES = Path(__file__).parent.parent / "data" / "stores"
GRID = """
name: small
models: [bundled/behaviours]
tasks: [ioi]
examples: {train: 4, evaluate: 4}
methods: [EAP]
extraction: [top-n]
sizes: [0.05, 0.2]
shard_size: 2
"""
REUSED = {
    1: {"dataset": 2},
    2: {"dataset": 2, "model": 1, "shard": 2, "baselines": 1},
    3: {"dataset": 2, "model": 1, "shard": 2, "baselines": 1, "method": 1, "scores": 1,
        "circuits": 1, "evaluation": 1, "confidence": 1},
}  # fmt: skip


@pytest.mark.parametrize("version", REUSED)
def test_what_is_still_true_is_reused(version: int, tmp_path: Path) -> None:
    with tarfile.open(STORES / f"version_{version}.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    bench = Workbench(str(tmp_path), 2**30)
    plan = make_plan(parse_grid(GRID, "small.yaml", tmp_path), bench, Identities())
    done = Counter(stage.name for stage in plan.stages if finished(bench.store, stage))
    assert done == Counter(REUSED[version])
    assert plan.done == (version == 3)
    cleaning = look_over(bench.store)
    assert {one.reason for one in cleaning.removals} <= {"leftover"}
    assert len(cleaning.removals) == len(bench.store.outdated)
