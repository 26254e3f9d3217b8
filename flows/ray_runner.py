"""Stages on a Ray cluster: one that is started for the run, or one that is there, of many machines.

A stage is a Ray task by way of Prefect's task runner for Ray. Stages that run a model ask for a GPU
each where the cluster has some, else for as many cores as a worker has threads; the others ask for
nothing and run beside them. A worker process is kept from task to task, and its model with it: Ray
would end one that held a GPU (`max_calls=0` forbids it). Ray retries nothing: the dispatcher does.
What a worker computes depends on its number of threads in the last bits, as anywhere; so
OMP_NUM_THREADS, if set, is also the workers', and two runs with the same are the same.

What a run does where is decided when it connects. A GPU or a machine that leaves later is waited
for, in Ray's queue; one that joins is used.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.location import Location
from flows.errors import GridError
from flows.runner import HOST, Done, Order, Runner
from flows.settings import own_server

if find_spec("prefect_ray") is None or find_spec("ray") is None:
    raise GridError("the Ray runner needs `pip install circuit-grid[ray]`")

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}
os.environ.update({name: value for name, value in _QUIET.items() if name not in os.environ})

import ray  # noqa: E402 - Ray reads its settings when it is imported
from prefect.task_runners import TaskRunner  # noqa: E402
from prefect_ray import RayTaskRunner  # noqa: E402
from prefect_ray.context import remote_options  # noqa: E402

from flows.ray_cluster import check_address, check_workers  # noqa: E402
from flows.ray_marks import Marks, marked  # noqa: E402
from flows.ray_travel import RayFuture, Sealed  # noqa: E402

if TYPE_CHECKING:
    from prefect import Task
    from prefect.futures import PrefectFuture

GPUS, CORES = "gpus", "cores"  # places of stages that run a model
_SECONDS_BETWEEN_LOOKS = 5.0  # at what the cluster has
_OBJECTS_BYTES = 100 * 2**20  # names and keys travel, never tensors


class RayRunner(Runner):
    """Does as many stages at a time as the cluster has GPUs, or as it has cores for.

    `workers` bounds the stages with a model; on cores it also says how many threads each has, if
    OMP_NUM_THREADS does not. `address` is a cluster's (`ray://host:10001`, `host:6379`), by default
    RAY_ADDRESS; without either a cluster is started here and ends with the run. GridError where
    nothing answers there, or its workers could not tell Prefect what they do.
    """

    name = "ray"

    def __init__(self, workers: int | None = None, address: str | None = None) -> None:
        self.workers = workers
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        self.address = address
        self._home: Path | None = None
        self._is_mine = False  # the session with the cluster
        self._marks = Marks()
        self._running: set[RayFuture] = set()
        self._noting = threading.Lock()  # Ray tells what has ended in a thread of its own
        self._closed = False
        self._nodes: tuple[float, list[dict[str, float]]] = (-inf, [])  # as they were, and when
        self._decided: Decided | None = None
        if not self._is_local:
            check_address(address)
            if own_server() is None:
                raise GridError(
                    "workers on a cluster report to a Prefect server that they can reach: start "
                    "one (`prefect server start --host 0.0.0.0`), and set PREFECT_API_URL to its "
                    "address, such as http://this-host:4200/api"
                )

    @property
    def _is_local(self) -> bool:
        return self.address == "local"

    def __reduce__(self) -> tuple[Any, ...]:
        """Workers are sent the verb alone."""
        return (object.__new__, (RayRunner,))

    @property
    def task_runner(self) -> TaskRunner[Any]:
        """Prefect's for Ray, on a cluster that is up when this returns. Raises GridError."""
        self._connect()
        return RayTaskRunner(address=self.address)

    def _connect(self) -> None:
        """Be in a session: the one that this process has, or one of the runner's own."""
        if self._decided is not None:
            return
        inherited = None
        if not ray.is_initialized():
            inherited = self._begin_session()
            self._is_mine = True
        else:
            self.address = str(ray.get_runtime_context().gcs_address)
        self._nodes = (-inf, [])
        self._decided = Decided(bool(self._each_node("GPU")), self._threads(), inherited)
        # Several workers would wait for the one that is at the last stages of a model.
        self.one_model_a_place = self.room(GPUS if self._found.gpus else CORES) == 1
        if self._home is None:  # others' machines
            check_workers(self.address)

    def _begin_session(self) -> int | None:
        """Connect, or start a cluster; how many threads its processes have from the start."""
        logging.getLogger("ray").setLevel(logging.CRITICAL)
        options: dict[str, Any] = {"log_to_driver": False, "namespace": "circuit-grid"}
        if self._is_local:
            options |= self._local_options()
        answers_signals = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGTERM)
        said = os.environ.get("OMP_NUM_THREADS")
        inherited = None
        try:
            if self._is_local:
                inherited = self._threads()
                os.environ["OMP_NUM_THREADS"] = str(inherited)
            ray.init(self.address, logging_level=logging.CRITICAL, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            where = "does not start" if self._is_local else f"at {self.address} cannot be used"
            raise GridError(f"the Ray cluster {where}: {first}") from None
        finally:
            os.environ.pop("OMP_NUM_THREADS", None)
            if said is not None:
                os.environ["OMP_NUM_THREADS"] = said
            if answers_signals:
                signal.signal(signal.SIGTERM, handler)  # Ray's would end the run by sys.exit
        return inherited

    def _local_options(self) -> dict[str, Any]:
        """A cluster of this machine's cores and GPUs, in a directory of its own, without a door."""
        self._home = Path(tempfile.mkdtemp(prefix="circuit-grid-ray-", dir="/tmp"))
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray keeps one at home
        warden = [sys.executable, str(Path(__file__).with_name("ray_warden.py"))]
        subprocess.Popen(
            [*warden, str(os.getpid()), str(self._home)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        # A core more or less costs Ray nothing: it counts, and binds nobody to one.
        cores = max(_cores(), (self.workers or 1) * (_threads_said() or 1))
        self._nodes = (time.monotonic(), [{"CPU": float(cores)}])
        return {
            "_temp_dir": str(self._home),
            "include_dashboard": False,
            "object_store_memory": _OBJECTS_BYTES,
            "num_cpus": cores,
        }

    # Places ------------------------------------------------------------------------------------

    def place_of(self, device: str | None) -> str:
        """The cluster's GPUs, or its cores; what needs no model leaves GPUs to those that do.

        The same for a device as long as the runner lives. GridError where there is none such.
        """
        gpus = self._found.gpus
        if device is None:
            return HOST if gpus else CORES
        if device in ("cpu", "mps") or (device == "auto" and not gpus):
            return CORES
        if device not in ("auto", "cuda"):
            raise GridError(f"device: {device}: on Ray it is auto, cpu or cuda; Ray says which GPU")
        if not gpus:
            raise GridError("device: cuda: the Ray cluster has no GPU; use auto or cpu")
        return GPUS

    def room(self, place: str) -> int:
        """A stage a GPU or a worker; beside GPUs, one without a model on every machine.

        Never none: where all GPUs have left, a stage waits with Ray until one is back.
        """
        if place == HOST:
            return max(1, len(self._each_node("CPU")))
        if place == GPUS:
            n = max(1, int(sum(self._each_node("GPU"))))
        else:
            n = _fit(self._each_node("CPU"), self.threads)
        return min(n, self.workers or n)

    @property
    def threads(self) -> int:
        """How many threads a worker has: OMP_NUM_THREADS, or as many as let all workers run."""
        return self._found.threads

    @property
    def _found(self) -> Decided:
        assert self._decided is not None, "places are known once the runner is connected"
        return self._decided

    def _threads(self) -> int:
        cores = self._each_node("CPU")
        most = int(max(cores, default=1))
        if (said := _threads_said()) is not None:
            return min(said, most)
        wanted = self.workers or int(sum(self._each_node("GPU"))) or 1
        return next((t for t in range(most, 1, -1) if _fit(cores, t) >= wanted), 1)

    def _each_node(self, resource: str) -> list[float]:
        """How much of a resource each machine of the cluster has, those that have some."""
        looked, nodes = self._nodes
        if time.monotonic() - looked > _SECONDS_BETWEEN_LOOKS:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            self._nodes = (time.monotonic(), nodes)
        return [node[resource] for node in nodes if node.get(resource)]

    # Stages ------------------------------------------------------------------------------------

    def work(self, order: Order | Sealed) -> Done | None:
        """Do it in the worker that Ray chose."""
        from flows.doing import carry_out

        if not isinstance(order, Sealed):
            return carry_out(order)
        if order.order.stage.runs is not None:  # starting a worker is not the stage's own time
            import transformer_lens.model_bridge  # noqa: F401
        with marked(order.mark):
            return carry_out(order.order)

    def options_at(self, place: str) -> dict[str, Any]:
        """What Ray is asked for to do a stage at a place."""
        options: dict[str, Any] = {"num_cpus": 0, "max_retries": 0, "max_calls": 0}
        if place == GPUS:
            options["num_gpus"] = 1
        elif place == CORES:
            options["num_cpus"] = self.threads
        if place != CORES or self._found.inherited != self.threads:
            # An environment of their own makes them processes of their own: one that has held a
            # GPU does nothing else. Those of a local cluster's cores have that of the cluster.
            mine = {"OMP_NUM_THREADS": str(self.threads), "CIRCUIT_GRID_PLACE": place}
            options["runtime_env"] = {"env_vars": mine}
        return options

    def submit(self, task: Task[Any, Any], order: Order) -> PrefectFuture[Any]:
        """Hand it to Ray, with what its place needs."""
        place = self.place_of(None if order.stage.runs is None else order.stage.runs.device)
        location = Location.parse(order.location)
        if location.is_local:  # workers have working directories of their own
            order = replace(order, location=location.root)
        with remote_options(**self.options_at(place)):
            sealed = Sealed(order, self._marks.new())
            submitted = task.submit(sealed)
        future = RayFuture(submitted.task_run_id, submitted.wrapped_future)
        future.mark = sealed.mark
        with self._noting:
            self._running.add(future)
        future.add_done_callback(self._forget)
        return future

    def seconds(self, future: PrefectFuture[Any]) -> float:
        """Since its worker began with it, as seen from here."""
        assert isinstance(future, RayFuture)
        return self._marks.seconds(future.mark)

    def abandon(self, future: PrefectFuture[Any]) -> None:
        """Kill the worker process."""
        with suppress(ray.exceptions.RayError, ValueError):
            ray.cancel(future.wrapped_future, force=True)

    def close(self) -> None:
        """Kill what is being done, and the cluster if it is the run's own.

        A session with Ray that this process had before is left as it was.
        """
        if self._closed:
            return
        self._closed = True
        if ray.is_initialized():
            with self._noting:
                running = list(self._running)
            for future in running:
                self.abandon(future)
            if self._home is None:
                with suppress(ray.exceptions.RayError):  # the cluster may have gone
                    self._marks.clear()
            if self._is_mine:
                ray.shutdown()
        if self._home is not None:  # also of a cluster that did not start
            shutil.rmtree(self._home, ignore_errors=True)

    def _forget(self, future: RayFuture) -> None:
        with self._noting:
            self._running.discard(future)


@dataclass(frozen=True)
class Decided:
    """What a runner goes by, from when it connected until it is closed.

    Whether the cluster has GPUs, how many threads a worker has, and how many its processes have
    without being told; None for those of other people's clusters.
    """

    gpus: bool
    threads: int
    inherited: int | None


def _threads_said() -> int | None:
    """OMP_NUM_THREADS, if it is set to a number."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) else None


def _cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _fit(cores: list[float], threads: int) -> int:
    """How many workers of so many threads machines of so many cores have room for."""
    return max(1, sum(int(one // threads) for one in cores))
