"""The flow: every turn of a grid through its stages, each stage once, failures beside the rest.

A run first walks the grid without working, so that it knows what is missing; finished stages are
never submitted, and where nothing is missing there is nothing more to do. Otherwise the dispatcher
hands missing stages to a runner: each is one Prefect task run, given names and keys and never
tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar

import httpx
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.config import GridConfig
from flows.errors import GridError
from flows.logs import LogWatcher
from flows.outcome import Outcome
from flows.plan import Plan
from flows.progress import Watcher
from flows.publishing import announce
from flows.run import Run
from flows.runner import InlineRunner, Runner
from flows.server import ServerError
from flows.settings import has_own_server, prefect_server
from flows.threads_runner import ThreadsRunner
from flows.watchers import Watchers

_CURRENT: ContextVar[tuple[Run, Plan, Runner]] = ContextVar("run")


def run_at_hand(grid: str, store: str) -> State:
    """Run the grid at hand; Completed, or Failed with the list of what failed."""
    run, plan, runner = _CURRENT.get()
    if plan.done:
        return state_of(run.take_over(plan))
    run.announcer = announce(run)
    outcome = run.carry_out(plan, runner)
    run.announcer.finish()
    return state_of(outcome)


# The function keeps a name of its own, by which Ray's workers find it; under the flow's they could
# not, and would be sent this module's variables.
circuit_grid = flow(name="circuit-grid", flow_run_name="{grid}", validate_parameters=False)(
    run_at_hand
)


def state_of(outcome: Outcome) -> State:
    """What Prefect is told of a run: Completed, or Failed with the list of what failed."""
    if outcome.failures:
        lines = "\n".join(f"{one.turn.label}: {one.told}" for one in outcome.failures)
        return Failed(message=f"{len(outcome.failures)} failed\n{lines}")
    computed, reused = outcome.count("computed"), outcome.count("reused")
    if not computed:
        return Completed(message=f"nothing to do: {reused} stages are there already")
    return Completed(message=f"{computed} stages computed, {reused} reused")


def make_runner(name: str, workers: int | None = None, address: str | None = None) -> Runner:
    """The runner of a name; `workers` and `address` are a Ray cluster's. GridError for others."""
    if name == "ray":
        from flows.ray_runner import RayRunner

        return RayRunner(workers=workers, address=address)
    if workers is not None or address is not None:
        option = "--workers" if workers is not None else "--address"
        raise GridError(f"{option} is for the Ray runner: add --runner ray, or leave it out")
    runners: Mapping[str, type[Runner]] = {"threads": ThreadsRunner, "inline": InlineRunner}
    if name not in runners:
        raise GridError(f"there is no runner {name!r}: choose threads, ray or inline")
    return runners[name]()


def run_grid(
    config: GridConfig,
    location: str,
    watcher: Watcher,
    runner: str = "threads",
    *,
    workers: int | None = None,
    address: str | None = None,
    file: str | None = None,
) -> Run:
    """Run a grid on a store and return the run with its outcome.

    `runner` says where stages are done: `threads` (worker processes on this machine), `ray` (a
    cluster, at `address` or started for the run, with so many `workers`) or `inline` (this
    process). `file` is the grid's file, which the store notes. Where nothing is missing and nobody
    keeps a Prefect server to tell, none is started. StoreError for a store that cannot be used.
    """
    doer = make_runner(runner, workers, address)
    run = Run(config, location, watcher, file)
    log = LogWatcher(config.name, run.folder("logs"), has_own_server(), tell=watcher.waiting)
    run.watcher = Watchers(watcher, log)
    try:
        with run.noted_as_running():
            plan = run.plan()
            if plan.done and not has_own_server():
                run.take_over(plan)
            else:
                watcher.waiting("starting Prefect")
                _run_flow(run, plan, doer)
    finally:
        doer.close()
        log.close()
    return run


def _run_flow(run: Run, plan: Plan, runner: Runner) -> None:
    """Carry a plan out as a Prefect flow."""
    shown = run.bench.store.location.name  # without secrets
    with prefect_server():
        token = _CURRENT.set((run, plan, runner))
        try:
            flow_of_runner = circuit_grid.with_options(task_runner=runner.task_runner)
            state = flow_of_runner(run.config.name, shown, return_state=True)
            if not run.outcome.whole:
                state.result()  # raises what ended the flow
        except httpx.TransportError as error:
            gone = f"the Prefect server does not answer any more ({error})"
            if not run.outcome.whole:
                raise ServerError(f"{gone}: run again; what is finished is kept") from error
            run.watcher.waiting(f"{gone}, and was not told how the run ended")
        finally:
            _CURRENT.reset(token)
