"""What befalls stages in worker processes: killed, hung, out of memory; two runs on one store."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from data import Catalog, Store
from flows.reading import read_grid
from flows.server import PrivateServer
from tests.flows.conftest import digests, run_afresh
from tests.flows.outsiders import Held, environment
from tests.soak import vouchers, workers_of

pytestmark = pytest.mark.slow
PATIENCE = 240.0
GRID = """
name: workers
models: [{models}]
tasks: [{tasks}]
methods: [EAP]
examples: {{train: 12, evaluate: 4}}
sizes: [0.1, 1.0]
shard_size: 2
judging: {{comparisons: false}}
time_limit: {limit}
"""


class Started:
    """A run in a process of its own, and what it says."""

    def __init__(
        self, grid: Path, store: Path, env: Mapping[str, str] | None = None, runner: str = "threads"
    ) -> None:
        command = [sys.executable, "-m", "flows.cli", "run", str(grid), "--store", str(store)]
        command += ["--runner", runner]
        self.process = subprocess.Popen(
            command,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=env,
        )

    def end(self, code: int = 0) -> str:
        said, _ = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == code, said
        assert "Traceback" not in said
        return said

    def workers(self) -> list[psutil.Process]:
        return workers_of(self.process.pid)


def provenances(store: Path, *kinds: str) -> list[Mapping[str, object]]:
    """Where the artifacts of these kinds come from, in the order in which they were finished."""
    opened = Store.open(store, create=False)
    found = [one.provenance for kind in kinds for one in opened.artifacts(kind)]
    return sorted(found, key=lambda one: str(one["finished_at"]))


def test_two_runs_on_one_store_share_the_work_and_do_nothing_twice(
    server: PrivateServer, speaker: Path, grouped_speaker: Path, tmp_path: Path
):
    grid, store, meeting = tmp_path / "grid.yaml", tmp_path / "store", tmp_path / "meeting"
    tasks = "{name: ioi, metric: meets, judged_by: [logit-diff]}"
    grid.write_text(GRID.format(models=f"{speaker}, {grouped_speaker}", tasks=tasks, limit="1h"))
    env = environment(tmp_path / "brought")
    Started(grid, tmp_path / "alone", env, "inline").end()
    undisturbed = digests(tmp_path / "alone")

    meeting.mkdir()
    runs = [Started(grid, store, env | {"MEETING": str(meeting)}) for _ in range(2)]
    told = [run.end() for run in runs]
    assert digests(store) == undisturbed
    computed = [re.search(r"(\d+) stages? computed", one) for one in told]
    n_stages = len({key for _, key in undisturbed})
    assert sum(int(match[1]) for match in computed if match) == n_stages, told

    done_by = defaultdict(list)
    for one in provenances(store, "shards", "models", "baselines", "evaluations"):
        done_by[one["worker"]].append(str(one["cell"]).split(" · ")[0])
    assert len(done_by) == 2, "one of the two did it all"
    # one model after the other; and back, where the other run had the rest of it, for its shards,
    # its baselines and its evaluations
    for models in done_by.values():
        assert sum(a != b for a, b in itertools.pairwise(models)) <= 7, models


def test_killed_workers_and_a_killed_run_cost_what_they_were_doing_and_nothing_else(
    server: PrivateServer, speaker: Path, grouped_speaker: Path, tmp_path: Path
):
    grid, held = tmp_path / "grid.yaml", Held(tmp_path)
    tasks, store = "{name: ioi, metric: held, judged_by: [logit-diff]}", held.store
    grid.write_text(GRID.format(models=f"{speaker}, {grouped_speaker}", tasks=tasks, limit="1h"))
    Started(grid, tmp_path / "undisturbed", held.environment, "inline").end()

    held.go_on_until(2)
    first = Started(grid, store, held.environment)
    (at_it,) = held.wait()
    workers = first.workers()
    assert at_it in {one.pid for one in workers}
    for worker in workers:
        worker.kill()
    held.go_on_until(4)
    (at_it,) = held.wait()
    orphans = first.workers()
    assert at_it in {one.pid for one in orphans}
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.communicate()
    _, alive = psutil.wait_procs(orphans, timeout=60)
    assert not alive, "workers outlive their run"
    before = vouchers(store)
    assert sum(path.parent.parent.name == "shards" for path in before) == 4
    assert [lease.pid for lease in Store.open(store).leases()] == []

    held.go_on()
    said = Started(grid, store, held.environment).end()
    assert "is being done by" not in said  # no lease of the dead is waited for
    assert digests(store) == digests(tmp_path / "undisturbed")
    after = vouchers(store)
    assert {path: after[path] for path in before} == before
    assert Store.open(store).leases() == []


def test_stages_that_hang_die_break_or_lack_memory_fail_or_pass_each_on_its_own(
    server: PrivateServer, speaker: Path, tmp_path: Path
):
    tasks = "sva, " + ", ".join(
        f"{{name: ioi, seed: {seed}, metric: {metric}, judged_by: [logit-diff]}}"
        for seed, metric in enumerate(("breaks", "dies", "hangs", "takes-memory"))
    )
    grid, store = tmp_path / "grid.yaml", tmp_path / "store"
    grid.write_text(GRID.format(models=speaker, tasks=tasks, limit="10m"))
    brought = tmp_path / "brought"
    env = environment(brought) | {"HANGING": str(tmp_path / "hanging")}
    said = Started(grid, store, env).end(1)

    assert "2 of 5 cells failed" in said, said
    assert "it took longer than time_limit, 10m, and was stopped" in said
    log = re.search(r"ZeroDivisionError: deep \(the whole story is in (\S+)\)", said)
    assert log is not None
    assert "Traceback (most recent call last)" in Path(log[1]).read_text()
    assert (brought / "count").read_text() == "x"  # what cannot pass is not tried again
    assert Counter(one.stage for one in Store.open(store).failures()) == {"shard": 2}

    cut = Counter(
        (str(one["cell"]).split(" · ")[1], one["most_examples"])
        for one in provenances(store, "shards")
    )
    assert cut == {("sva", None): 6, ("ioi", 1): 12}
    found = scores_by_metric_and_seed(Catalog(Store.open(store)))
    assert {metric for metric, _ in found} == {"logit-diff", "dies", "takes-memory"}

    # the same examples with a metric that does no harm, as many at a time as there are
    tasks = "{name: ioi, seed: 1}, {name: ioi, seed: 3}"
    grid.write_text(GRID.format(models=speaker, tasks=tasks, limit="1h"))
    run_afresh(read_grid(grid), tmp_path / "plain")
    plain = scores_by_metric_and_seed(Catalog(Store.open(tmp_path / "plain")))
    for metric, seed in (("dies", 1), ("takes-memory", 3)):
        expected = pytest.approx(plain["logit-diff", seed], rel=1e-4, abs=1e-7)
        assert found[metric, seed] == expected


def scores_by_metric_and_seed(catalog: Catalog) -> dict[tuple[str, int], list[float]]:
    """The scores of every edge, in order."""
    rows = catalog.query(
        "SELECT metric, datasets.seed, list(score ORDER BY unit_id) AS scores FROM scores"
        " JOIN methods USING (method) JOIN datasets USING (dataset) GROUP BY ALL"
    )
    return {(row["metric"], row["seed"]): row["scores"] for row in rows.to_pylist()}
