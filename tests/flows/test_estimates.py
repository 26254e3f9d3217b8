"""How long stages take: the nearest of those that were timed decides, and nothing knows nothing."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from data import PlannedStage, Store, provenance
from flows.estimates import LIKENESSES, Estimates, Timing, Work, kind_of_device, recorded
from tests.data.synthetic import key_of, rows_of

CELL = "gpt2 · ioi · EAP"


def timing(cell: str = CELL, seconds: float = 1.0, stage: str = "shard", **more: object) -> Timing:
    return Timing(**{"stage": stage, "cell": cell, "weight": 1.0, "seconds": seconds} | more)


def judged(estimates: Estimates, work: Work) -> tuple[float, str]:
    found = estimates.of(work)
    assert found is not None
    return pytest.approx(found.seconds), LIKENESSES[found.likeness]


def test_the_nearest_that_was_timed_decides():
    all_of_them = [
        (timing(CELL, 1), "this cell"),
        (timing("gpt2 · sva · EAP", 2), "this model and method"),
        (timing("gpt2 · sva · exact", 3), "this model"),
        (timing("pythia · ioi · EAP", 4), "this method"),
        (timing("pythia · sva · exact", 5), "stages of that name"),
        (timing("pythia · sva · exact", 6, stage="scores"), "other stages"),
    ]
    for i, (first, likeness) in enumerate(all_of_them):
        estimates = Estimates(one for one, _ in all_of_them[i:])
        assert judged(estimates, Work("shard", CELL, 1.0)) == (first.seconds, likeness)


def test_where_nothing_was_timed_nothing_is_known():
    assert Estimates().of(Work("shard", CELL, 1.0)) is None
    assert Estimates([timing(seconds=None)]).of(Work("shard", CELL, 1.0)) is None
    total = Estimates().total([Work("shard", CELL, 1.0)] * 3)
    assert (total.seconds, total.unknown, total.is_near) == (0.0, 3, False)


def test_one_slow_start_changes_nothing():
    estimates = Estimates([timing(seconds=60), *(timing(seconds=1) for _ in range(4))])
    assert judged(estimates, Work("shard", CELL, 1.0)) == (1, "this cell")


def test_seconds_grow_with_the_weight_but_stages_of_about_that_weight_go_before():
    light = [timing(seconds=2, weight=1.0)] * 3
    assert judged(Estimates(light), Work("shard", CELL, 10.0)) == (20, "this cell")
    heavy = [timing(seconds=8, weight=10.0)] * 2
    assert judged(Estimates(light + heavy), Work("shard", CELL, 10.0)) == (8, "this cell")
    assert judged(Estimates(light + heavy), Work("shard", CELL, 1.0)) == (2, "this cell")


def test_timings_of_which_no_grid_knows_the_weight_count_as_they_are():
    estimates = Estimates([timing(seconds=7, weight=None)])
    assert judged(estimates, Work("shard", CELL, 10.0)) == (7, "this cell")


def test_stages_on_such_a_device_go_before_nearer_ones_on_another():
    estimates = Estimates(
        [timing(seconds=1, device="cuda"), timing("gpt2 · sva · EAP", 30, device="cpu")]
    )
    assert judged(estimates, Work("shard", CELL, 1.0, "cpu"))[0] == 30
    assert judged(estimates, Work("shard", CELL, 1.0, "cuda"))[0] == 1
    assert judged(estimates, Work("shard", CELL, 1.0, "mps"))[0] == 1  # better than nothing


def test_what_a_run_measures_itself_counts_once_it_is_sure():
    estimates, work = Estimates(before=Estimates([timing(seconds=10)])), Work("shard", CELL, 1.0)
    for expected in (10, 10, 2):
        estimates.learn(work, 2.0)
        assert judged(estimates, work)[0] == expected
    assert judged(Estimates(before=estimates), work)[0] == 2


def test_a_run_on_an_empty_store_learns_from_its_first_stage():
    estimates, work = Estimates(before=Estimates()), Work("shard", CELL, 2.0)
    assert estimates.is_empty
    estimates.learn(work, 4.0)
    assert judged(estimates, Work("shard", CELL, 6.0)) == (12, "this cell")


def test_memory_is_that_of_the_nearest_stages_on_such_a_device():
    estimates = Estimates(
        [
            timing(peak_bytes=100, device="cpu"),
            timing(peak_bytes=300, device="cpu"),
            timing("gpt2 · sva · exact", peak_bytes=900, device="cpu"),
            timing("gpt2 · sva · exact", peak_bytes=50, device="cuda"),
        ]
    )
    assert estimates.peak_bytes(Work("shard", CELL, 1.0, "cpu")) == 300
    assert estimates.peak_bytes(Work("shard", CELL, 1.0, "cuda")) == 50
    assert estimates.peak_bytes(Work("shard", CELL, 1.0, "mps")) is None
    assert estimates.peak_bytes(Work("stability", CELL, 1.0, "cpu")) is None


def test_ten_thousand_stages_are_judged_within_a_second():
    timings = [timing(f"m{i % 5} · t{i % 50} · method {i}", 1 + i % 7) for i in range(10_000)]
    works = [Work("shard", f"m{i % 5} · t{i % 40} · method {i}", 1.0) for i in range(10_000)]
    began = time.thread_time()
    total = Estimates(timings).total(works)
    assert time.thread_time() - began < 4  # 0.5 s on an idle machine
    assert total.unknown == 0
    assert sum(total.by_likeness.values()) == len(works)


def test_timings_come_from_the_store_with_the_weights_that_grids_noted(tmp_path: Path):
    store = Store.open(tmp_path / "store")
    for i, seconds in enumerate((3.0, 5.0)):
        about = provenance("shard", CELL, seconds, 2**20, "cuda:1", "float32")
        store.write("shards", key_of(i), rows_of("shards", []), about)
    about = provenance("model", "gpt2", 0.5)
    for kind in ("edges", "nodes", "graphs", "models"):  # one stage, several tables
        store.write(kind, key_of("model"), rows_of(kind, []), about)
    store.save_grid("one", [PlannedStage("shard", CELL, "shards", key_of(0), "a", 6.0)])
    found = sorted(recorded(Store.open(tmp_path / "store")), key=lambda one: one.seconds or 0)
    assert found == [
        Timing("model", "gpt2", None, 0.5),
        Timing("shard", CELL, 6.0, 3.0, 2**20, "cuda"),
        Timing("shard", CELL, None, 5.0, 2**20, "cuda"),
    ]


def test_devices_are_known_by_their_kind():
    assert kind_of_device("cuda:3") == "cuda"
    assert kind_of_device("auto") in ("cpu", "cuda", "mps")
