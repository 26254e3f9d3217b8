"""What befalls stages in worker processes: killed, hung, out of memory; two runs on one store."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest

from data import Catalog, Store
from flows.reading import read_grid
from flows.server import PrivateServer
from tests.flows.conftest import digests, run_afresh
from tests.flows.outsiders import environment
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
        self.store = store
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

    def until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not is_so():
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < deadline, "the run makes no progress"
            time.sleep(0.005)

    @property
    def n_shards(self) -> int:
        return sum(path.parent.parent.name == "shards" for path in vouchers(self.store))

    def workers(self) -> list[psutil.Process]:
        return workers_of(self.process.pid)


@pytest.fixture(scope="module")
def grid(
    server: PrivateServer,
    speaker: Path,
    grouped_speaker: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Two models, one task."""
    path = tmp_path_factory.mktemp("grid") / "grid.yaml"
    path.write_text(GRID.format(models=f"{speaker}, {grouped_speaker}", tasks="ioi", limit="1h"))
    return path


@pytest.fixture(scope="module")
def undisturbed(grid: Path) -> Mapping[tuple[str, str], str]:
    """What the tables of that grid are, when one process does all of it."""
    Started(grid, grid.parent / "store", runner="inline").end()
    return digests(grid.parent / "store")


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
    for models in done_by.values():  # one model after the other; once back, where one has lagged
        assert sum(a != b for a, b in itertools.pairwise(models)) <= 2, models


def test_killed_workers_and_a_killed_run_cost_what_they_were_doing_and_nothing_else(
    grid: Path, undisturbed: Mapping[tuple[str, str], str], tmp_path: Path
):
    store = tmp_path / "store"
    first = Started(grid, store)
    first.until(lambda: first.n_shards >= 2)
    for worker in first.workers():
        worker.kill()
    first.until(lambda: first.n_shards >= 4)
    orphans = first.workers()
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.communicate()
    _, alive = psutil.wait_procs(orphans, timeout=10)
    assert not alive, "workers outlive their run"
    before = vouchers(store)

    began = time.monotonic()
    second = Started(grid, store)
    second.until(lambda: second.n_shards > sum("shards" in str(path) for path in before))
    assert time.monotonic() - began < 60  # no lease of the dead is waited for
    second.end()
    assert digests(store) == undisturbed
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
    grid.write_text(GRID.format(models=speaker, tasks=tasks, limit="10s"))
    brought = tmp_path / "brought"
    said = Started(grid, store, environment(brought)).end(1)

    assert "2 of 5 cells failed" in said, said
    assert "it took longer than time_limit, 10s, and was stopped" in said
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
