"""Grids on real Ray clusters: the same tables as anywhere, whoever dies on the way."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from data import Store
from flows.errors import GridError, WorkerDiedError
from flows.grid import make_runner, run_grid
from flows.progress import Watcher
from flows.ray_warden import _users_of as users_of
from flows.reading import parse_grid
from flows.server import PrivateServer
from flows.stages import Stage
from flows.walk import Turn
from flows.workbench import workbench
from tasks.metrics import METRICS
from tests.flows.conftest import digests
from tests.flows.damage import damaged_by
from tests.flows.outsiders import Held
from tests.flows.outsiders import environment as environment_of_outsiders
from tests.flows.ports import free_port

if TYPE_CHECKING:
    from flows.ray_runner import RayRunner

GRID = """
name: {name}
models: [{model}]
tasks: [{tasks}]
methods: [{{name: EAP-IG-inputs, steps: 5}}]
examples: {{train: {n}, evaluate: 4}}
sizes: [0.5, 1.0]
shard_size: 1
time_limit: {limit}
"""
PATIENCE = 240.0
HANGS = "{name: ioi, seed: 1, metric: hangs, judged_by: [logit-diff]}"


def grid_of(model: Path, n: int, tasks: str = "ioi", limit: str = "1h") -> str:
    return GRID.format(name="ray", model=model, n=n, tasks=tasks, limit=limit)


def shard_workers(store: Path) -> list[str]:
    """Who did each shard, as `host:pid`."""
    found = Store.open(store, create=False).artifacts("shards")
    return [str(one.provenance["worker"]) for one in found]


class Listening(Watcher):
    """Notes what is said of stages that are tried again."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def stage_retried(self, turn: Turn, stage: Stage, sentence: str, seconds: float) -> None:
        super().stage_retried(turn, stage, sentence, seconds)
        self.told.append(sentence)


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """A run of this process is held, and so are its workers."""
    held = Held(tmp_path)
    for name, value in held.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(tmp_path / "brought")
    importlib.import_module("shaky_metrics")
    yield held
    del sys.modules["shaky_metrics"]
    for name, (module, _) in list(METRICS._origins.items()):  # other tests count what there is
        if module == "shaky_metrics":
            del METRICS._entries[name], METRICS._origins[name]


def kill_and_damage(held: Held) -> None:
    """Kill one of two processes in the middle of shards, damage a shard that is done, and go on."""
    victim, *_ = held.wait(2)
    os.kill(victim, signal.SIGKILL)
    damaged_by("one bit flipped", min((held.store / "shards").rglob("[!.]*.parquet")))
    held.go_on()


@pytest.mark.slow
def test_two_workers_one_of_which_is_killed_make_the_tables_of_a_single_process(
    server: PrivateServer,
    speaker: Path,
    tmp_path: Path,
    held: Held,
    monkeypatch: pytest.MonkeyPatch,
):
    import torch

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tasks = "{name: ioi, metric: held, judged_by: [logit-diff]}"
    config = parse_grid(grid_of(speaker, 8, tasks), "ray.yaml", tmp_path)
    watcher = Listening()
    held.go_on_until(2)
    with ThreadPoolExecutor(1) as threads:
        killing = threads.submit(kill_and_damage, held)
        run = run_grid(config, str(held.store), watcher, "ray", workers=2)
        killing.result()
    assert run.outcome.failures == []
    assert run.outcome.count("computed", "shard") == 8

    workers = shard_workers(held.store)
    assert len(workers) == 8
    assert f"{socket.gethostname()}:{os.getpid()}" not in workers
    died, damaged = watcher.told
    assert died == "the worker process that did it ended"
    assert damaged.endswith("does not match its digest); it is built again first.")

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        workbench.cache_clear()
        run_grid(config, str(tmp_path / "alone"), Watcher(), "inline")
    finally:
        torch.set_num_threads(threads)
    assert set(shard_workers(tmp_path / "alone")) == {f"{socket.gethostname()}:{os.getpid()}"}
    assert digests(held.store) == digests(tmp_path / "alone")


@pytest.mark.slow
def test_the_cluster_of_a_killed_run_ends_and_leaves_nothing(server: PrivateServer):
    code = (
        "import time, ray\n"
        "from flows.ray_runner import RayRunner\n"
        "runner = RayRunner(workers=1)\n"
        "assert runner.task_runner and runner.room('cores') == 1\n"
        # to another runner, this is a session that its process had before
        "guest = RayRunner()\n"
        "assert guest.task_runner and guest.room('cores') >= 1\n"
        "guest.close()\n"
        "assert ray.is_initialized() and ray.nodes()\n"
        "print(runner._home, flush=True)\n"
        "time.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], text=True, stdout=subprocess.PIPE)
    assert owner.stdout is not None
    home = Path(owner.stdout.readline().strip())
    assert home.is_dir()
    assert len(users_of(home)) > 3
    owner.kill()
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 120
    while users_of(home) or home.exists():
        assert time.monotonic() < deadline, f"{users_of(home)} outlive the run"
        time.sleep(0.1)


@pytest.fixture
def bucket() -> Iterator[dict[str, str]]:
    """An S3 server with a bucket `grids`: the environment that leads to it."""
    import boto3
    from moto.server import ThreadedMotoServer

    served = ThreadedMotoServer(port=0)
    served.start()
    _, port = served.get_host_and_port()
    url = f"http://127.0.0.1:{port}"
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    ).create_bucket(Bucket="grids")
    try:
        yield keys | {"AWS_ENDPOINT_URL": url, "AWS_DEFAULT_REGION": "us-east-1"}
    finally:
        served.stop()


@pytest.fixture
def cluster(bucket: dict[str, str], tmp_path: Path) -> Iterator[dict[str, str]]:
    """A cluster that somebody keeps, with two GPUs on paper: the environment that leads to it.

    Its machines know where S3 is and with which keys, and have metrics that misbehave.
    """
    brought = environment_of_outsiders(tmp_path / "brought")
    environment = {"RAY_AUTH_TOKEN": "0" * 64, "RAY_AUTH_MODE": "token", "OMP_NUM_THREADS": "1"}
    environment["RAY_prestart_worker_first_driver"] = "false"  # nothing would use those workers
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as home:
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            *(f"--port={free_port()}", f"--ray-client-server-port={free_port()}"),
            *("--num-cpus=2", "--num-gpus=2", f"--temp-dir={home}"),
            *("--include-dashboard=false", "--disable-usage-stats"),
        ]
        started = subprocess.Popen(
            command,
            env=brought | environment | bucket,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + PATIENCE
            address = Path(home) / "ray_current_cluster"
            while not (address.exists() and cluster_is_up(address.read_text())):
                assert started.poll() is None
                assert time.monotonic() < deadline, "the cluster does not start"
                time.sleep(0.2)
            yield brought | environment | bucket | {"RAY_ADDRESS": address.read_text()}
        finally:
            for process in users_of(Path(home)):
                os.kill(process, signal.SIGKILL)
            started.kill()
            started.wait()


def cluster_is_up(address: str) -> bool:
    host, port = address.strip().split(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.soak
def test_a_cluster_that_is_there_fills_a_store_on_s3_and_stops_what_hangs(
    server: PrivateServer,
    speaker: Path,
    tmp_path: Path,
    cluster: dict[str, str],
    bucket: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
):
    grid = tmp_path / "grid.yaml"
    grid.write_text(grid_of(speaker, 2, f"{HANGS}, ioi", "20s"))
    words = [sys.executable, "-m", "flows.cli", "run", str(grid), "--store", "s3://grids/store"]
    done = subprocess.run(
        [*words, "--runner", "ray", "--workers", "1"],  # what hangs is in the way of the other
        env=cluster,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert "1 of 2 cells failed" in said
    assert "it took longer than time_limit, 20s, and was stopped" in said
    assert not [word for word in ("Ray", "ray::", "raylet", "Traceback") if word in done.stderr]
    for name, value in bucket.items():
        monkeypatch.setenv(name, value)
    store = Store.open("s3://grids/store", create=False)
    assert len(list(store.artifacts("shards"))) == 2
    assert [one.stage for one in store.failures()] == ["shard"]
    assert cluster_is_up(cluster["RAY_ADDRESS"])


def test_gpus_that_leave_in_the_middle_of_a_run_are_waited_for():
    from flows.ray_runner import GPUS, Decided, RayRunner

    runner = RayRunner()
    runner._decided = Decided(gpus=True, threads=1, inherited=None)
    for gpus, room in ((2.0, 2), (0.0, 1), (3.0, 3)):
        runner._nodes = (time.monotonic() + 3600, [{"CPU": 2.0, "GPU": gpus}])
        assert runner.place_of("auto") == runner.place_of("cuda") == GPUS
        assert runner.room(GPUS) == room


@pytest.mark.parametrize(
    ("gpus", "device", "place"),
    [
        (False, None, "cores"),
        (False, "auto", "cores"),
        (False, "mps", "cores"),
        (False, "cuda", "no GPU"),
        (False, "cuda:1", "Ray says which GPU"),
        (True, None, "host"),
        (True, "cpu", "cores"),
        (True, "auto", "gpus"),
        (True, "cuda", "gpus"),
        (True, "cuda:1", "Ray says which GPU"),
    ],
)
def test_where_a_stage_is_done(gpus: bool, device: str | None, place: str):
    runner = connected([{"CPU": 2.0}], gpus=gpus)
    if " " not in place:
        assert runner.place_of(device) == place
        return
    with pytest.raises(GridError, match=place):
        runner.place_of(device)


@pytest.mark.parametrize(
    ("cores", "workers", "said", "threads", "room"),
    [
        ([8.0], None, None, 8, 1),
        ([8.0], 2, None, 4, 2),
        ([8.0], 3, None, 2, 3),  # the fourth that there is room for is not wanted
        ([8.0, 4.0], 3, None, 4, 3),  # two on one machine, one on the other
        ([8.0], 16, None, 1, 8),
        ([8.0], None, "3", 3, 2),
        ([8.0], 1, "3", 3, 1),
        ([8.0], None, "64", 8, 1),
        ([8.0], 2, "x", 4, 2),
    ],
)
def test_how_many_workers_of_how_many_threads_cores_have_room_for(
    cores: list[float],
    workers: int | None,
    said: str | None,
    threads: int,
    room: int,
    monkeypatch: pytest.MonkeyPatch,
):
    if said is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    runner = connected([{"CPU": one} for one in cores], workers=workers)
    assert (runner._threads(), runner.threads, runner.room("cores")) == (threads, threads, room)
    assert runner.room("host") == len(cores)


def test_a_cluster_that_does_not_start_is_told_in_a_sentence_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
):
    from flows.ray_runner import RayRunner, ray

    def init(*_: object, **__: object) -> None:
        raise RuntimeError("no port is free\nand so on")

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    handler = signal.getsignal(signal.SIGTERM)
    runner = RayRunner()
    with pytest.raises(GridError, match=r"the Ray cluster does not start: no port is free$"):
        runner.task_runner  # noqa: B018 - it connects
    assert runner._home is not None
    assert runner._home.exists()
    runner.close()
    assert not runner._home.exists()
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert signal.getsignal(signal.SIGTERM) is handler


def test_gpus_bound_the_stages_with_a_model_and_share_the_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    nodes = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 2.0}, {"CPU": 4.0}]
    runner = connected(nodes, gpus=True)
    assert (runner.room("gpus"), runner.room("host"), runner.threads) == (4, 3, 4)
    assert connected(nodes, gpus=True, workers=3).room("gpus") == 3


def test_what_ray_is_asked_for_to_do_a_stage(monkeypatch: pytest.MonkeyPatch):
    """Never to try again by itself, nor to end a worker after a task: its model stays with it."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    runner = connected([{"CPU": 8.0}], workers=2, inherited=4)
    always = {"max_retries": 0, "max_calls": 0}
    assert runner.options_at("cores") == always | {"num_cpus": 4}
    nodes = [{"CPU": 8.0, "GPU": 2.0}]
    for place, asked, inherited in (
        ("gpus", {"num_gpus": 1}, 4),
        ("host", {}, 4),
        ("cores", {"num_cpus": 4}, None),  # of a cluster that somebody keeps
        ("cores", {"num_cpus": 4}, 8),
    ):
        options = connected(nodes, gpus=True, inherited=inherited).options_at(place)
        mine = options.pop("runtime_env")["env_vars"]
        assert mine == {"OMP_NUM_THREADS": "4", "CIRCUIT_GRID_PLACE": place}
        assert options == {"num_cpus": 0} | always | asked


def connected(
    nodes: list[dict[str, float]],
    workers: int | None = None,
    gpus: bool = False,
    inherited: int | None = None,
) -> RayRunner:
    """A runner that takes a cluster to have these machines."""
    from flows.ray_runner import Decided, RayRunner

    runner = RayRunner(workers=workers)
    runner._nodes = (time.monotonic() + 3600, nodes)
    runner._decided = Decided(gpus, 1, inherited)
    runner._decided = Decided(gpus, runner._threads(), inherited)
    return runner


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("WorkerCrashedError", "the worker process that did it ended"),
        ("TaskCancelledError", "the worker process that did it ended"),
        ("OutOfMemoryError", "its machine ran out of memory"),
        ("NodeDiedError", "the machine that did it left the Ray cluster"),
    ],
)
def test_a_worker_that_dies_is_told_as_by_any_other_runner(
    error: str, said: str, monkeypatch: pytest.MonkeyPatch
):
    from flows.ray_travel import PrefectRayFuture, RayFuture, ray

    kind = getattr(ray.exceptions, error)
    raised = [ValueError("its own"), kind.__new__(kind)]  # whatever else it would say

    def result(*_: object) -> None:
        raise raised.pop()

    monkeypatch.setattr(PrefectRayFuture, "result", result)
    future = object.__new__(RayFuture)
    with pytest.raises(WorkerDiedError, match=said):
        future.result()
    with pytest.raises(ValueError, match="its own"):
        future.result()


def test_an_address_is_told_to_be_wrong_before_any_work():
    for wrong in ("http://localhost:8265", "localhost", "ray://:x"):
        with pytest.raises(GridError, match="write a Ray cluster's address as ray://host:10001"):
            make_runner("ray", address=wrong)
    began = time.monotonic()
    with pytest.raises(GridError, match=r"nothing answers at ray://127.0.0.1:9, where a Ray"):
        make_runner("ray", address="ray://127.0.0.1:9")
    assert time.monotonic() - began < 60


def test_workers_elsewhere_need_a_prefect_server_that_they_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PREFECT_PROFILES_PATH", str(tmp_path / "none.toml"))
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(GridError, match="workers on a cluster report to a Prefect server"):
            make_runner("ray")


def test_without_the_extra_a_sentence_says_what_to_install(speaker: Path, tmp_path: Path):
    grid = tmp_path / "grid.yaml"
    grid.write_text(grid_of(speaker, 4))
    code = (
        "import sys\n"
        "sys.modules['prefect_ray'] = None\n"
        f"sys.argv = ['circuit-grid', 'run', {str(grid)!r}, '--store', {str(tmp_path / 's')!r}]\n"
        "sys.argv += ['--runner', 'ray']\n"
        "from flows.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 2
    assert "the Ray runner needs `pip install circuit-grid[ray]`" in done.stderr
    assert "Traceback" not in done.stderr
