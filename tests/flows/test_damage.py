"""Artifacts that rot or vanish after a run has found them intact: it builds them again."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from data import Store
from flows.config import GridConfig
from flows.doing import carry_out
from flows.grid import run_grid
from flows.plan import make_plan
from flows.progress import Watcher
from flows.prospect import look_ahead
from flows.run import Run
from flows.runner import Order
from flows.stages import DatasetStage
from flows.workbench import workbench
from tests.data.rot import rot
from tests.flows.conftest import digests, statuses
from tests.flows.damage import AtTheEnd, Vandal, damaged_by

Grid = Callable[..., GridConfig]
RunGrid = Callable[[GridConfig, Path], Run]


def run_with(watcher: Watcher, config: GridConfig, store: Path, runner: str = "inline") -> Run:
    workbench.cache_clear()
    return run_grid(config, str(store), watcher, runner)


def test_what_is_damaged_before_its_reader_comes_is_built_again_by_the_same_run(
    server: object, grid: Grid, run: RunGrid, tmp_path: Path
):
    config = grid(methods="[EAP, clean-corrupted, random]", retries="1")  # they share examples
    run(config, tmp_path / "undisturbed")
    store = tmp_path / "store"
    vandal = Vandal(
        store,
        {
            ("dataset", "examples"): "one bit flipped",  # met by the walk
            ("shard", "shards"): "one bit flipped",  # met by a stage
            ("scores", "scores"): "deleted",
            ("circuits", "members"): "truncated",
            ("confidence", "intervals"): "deleted",  # read by nobody
        },
    )
    done = run_with(vandal, config, store)
    assert done.outcome.failures == []
    assert statuses(done)["failed"] == {}
    assert done.bench.store.failures() == []
    assert digests(store) == digests(tmp_path / "undisturbed")
    assert len(vandal.damaged) == 5
    assert all("; it is built again first." in told for told in vandal.told)
    *read, (last, _) = vandal.damaged
    assert last == "intervals"
    assert all(any(f"{kind} {key} is" in told for told in vandal.told) for kind, key in read)


def test_what_is_damaged_each_time_fails_in_the_end_and_says_so(
    server: object, grid: Grid, tmp_path: Path
):
    for stage, kind in (("shard", "shards"), ("dataset", "examples"), ("confidence", "intervals")):
        store = tmp_path / kind
        vandal = Vandal(store, {(stage, kind): "one bit flipped"}, times=100)
        done = run_with(vandal, grid(retries="2"), store)
        (failure,) = done.outcome.failures
        most = max(Counter(vandal.damaged).values())
        assert most == 3
        if kind == "intervals":  # which nobody reads
            assert failure.sentence.startswith("what it wrote was damaged or gone at the end of")
            continue
        assert failure.sentence.startswith(f"{kind} ")
        assert "is damaged (its .parquet file does not match its digest)" in failure.sentence
        assert "each time that it was built again (2 times): something dam" in failure.sentence
        assert [one.sentence for one in done.bench.store.failures()] == [failure.sentence]
        assert len(vandal.told) >= 2


def test_without_retries_nothing_is_built_again(server: object, grid: Grid, tmp_path: Path):
    vandal = Vandal(tmp_path, {("scores", "scores"): "deleted"})
    done = run_with(vandal, grid(retries="0"), tmp_path)
    (failure,) = done.outcome.failures
    assert statuses(done)["failed"] == {"circuits": 1}
    assert failure.stage == "circuits by top-n"
    assert failure.sentence.startswith("scores ")
    assert failure.sentence.endswith("file is gone): run the grid again to build it.")
    assert [one.sentence for one in done.bench.store.failures()] == [failure.sentence]
    assert vandal.told == []


def test_what_a_finished_cell_made_is_made_again_for_those_that_set_cells_beside_each_other(
    server: object, grid: Grid, tmp_path: Path
):
    config, store = grid(tasks="[ioi, sva]", judging="{cross_task: true}"), tmp_path / "store"
    before: dict[tuple[str, str], str] = {}

    def vandalise() -> None:
        before.update(digests(store))
        for kind in ("members", "baselines", "scores"):  # for other tasks; for the comparisons
            for path in (store / kind).rglob("*.parquet"):
                damaged_by("one bit flipped", path)

    watcher = AtTheEnd("speaker · sva · EAP", vandalise)
    done = run_with(watcher, config, store)
    assert watcher.acted == 1
    assert done.outcome.failures == []
    after = digests(store)
    assert {one: after.get(one) for one in before} == before
    assert {"score_comparisons", "circuit_comparisons"} <= {kind for kind, _ in after}
    assert len(after) > len(before) + 2
    assert watcher.n_over == watcher.n_turns == 5


@pytest.mark.slow
def test_damage_that_the_index_hides_is_met_by_one_process_and_healed_by_another(
    grid: Grid, run: RunGrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The examples are read where the model is, and drawn by a process that trusts the index."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run(grid(), tmp_path)
    before = digests(tmp_path)
    (key,) = (
        one.key
        for one in Store.open(tmp_path).artifacts("datasets")
        if "test" in str(Store.open(tmp_path).read("datasets", one.key)["split"][0])
    )
    rot(tmp_path, "examples", key)
    for kind in ("evaluations", "example_values"):
        for path in (tmp_path / kind).rglob("*.json"):
            os.unlink(path)
    done = run_with(Watcher(), grid(), tmp_path, "threads")
    assert done.outcome.failures == []
    assert statuses(done)["computed"] == {"dataset": 1, "evaluation": 1}
    assert digests(tmp_path) == before


def test_a_doubted_stage_is_read_before_it_is_believed(grid: Grid, run: RunGrid, tmp_path: Path):
    first = run(grid(), tmp_path)
    plan = make_plan(first.config, first.bench, first.identities)
    stage = next(one for one in plan.stages if isinstance(one, DatasetStage))
    assert stage.key is not None
    rot(tmp_path, "examples", stage.key)
    workbench.cache_clear()
    order = Order(stage, str(tmp_path), 1 << 30)
    trusting, doubting = carry_out(order), carry_out(replace(order, doubted=True))
    again = carry_out(replace(order, doubted=True))
    assert [one and one.reused for one in (trusting, doubting, again)] == [True, False, True]


def test_a_dry_run_counts_what_it_finds_damaged(grid: Grid, run: RunGrid, tmp_path: Path):
    done = run(grid(), tmp_path)
    (key, *_) = (one.key for one in Store.open(tmp_path).artifacts("datasets"))
    rot(tmp_path, "examples", key)
    workbench.cache_clear()
    ahead = look_ahead(done.config, str(tmp_path))
    assert ahead.reasons == {}
    missing = {stage.key for stages in ahead.plan.missing.values() for stage in stages}
    assert key in missing
