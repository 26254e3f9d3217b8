"""Grids by the clock: the flow that a Prefect deployment runs, and the process that serves one.

A scheduled run is a flow run of a Prefect server that stays. It reads the grid's file anew, runs
what is missing and reuses the rest; where nothing is missing it says so and ends. The grid itself
is a flow run `circuit-grid` within it, as it is by hand. A deployment has one run at a time: one
that falls due while another is still going is cancelled, for the other does its work, and the
serving process says so. Whoever ends that process pauses the schedule and cancels a run in
progress; what it finished is kept, and the next run goes on from there.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect import flow
from prefect import runtime as prefect_runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import (
    ConcurrencyLimitConfig,
    ConcurrencyLimitStrategy,
    State,
    StateType,
)
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner as Server
from prefect.schedules import Schedule
from prefect.states import Failed
from prefect.types.entrypoint import EntrypointType

from data import Store, StoreError
from data.address import has_secrets, shown
from flows.errors import GridError
from flows.grid import run_grid, state_of
from flows.reading import read_grid
from flows.server import ServerError, is_reachable
from flows.settings import own_server
from flows.terminal import LineWatcher
from flows.timetable import next_run
from flows.wrapping import say

_NOT_IN_NAMES = "/%&<>"
_SECONDS_BETWEEN_LOOKS = 5.0
_MOST_LOOKS_LEFT_OUT = 12  # between two trials of which none got to serving
_BUSY = "concurrency limit reached"  # why Prefect cancels a run while another is going
_SECONDS_TO_STOP = 45.0

NO_SERVER = (
    "a schedule needs a Prefect server that stays: start one (`prefect server start`), and set "
    "PREFECT_API_URL to its address, such as http://127.0.0.1:4200/api"
)


def _say_no_more() -> None:
    """Close the process's mouth: DuckDB counts at the very end what it has left behind."""
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


if "PREFECT__FLOW_RUN_ID" in os.environ:  # this process was started for one scheduled run
    atexit.register(_say_no_more)


def _name_of_run() -> str:
    """The grid's file and when the run was due: the run within it has the grid's name alone."""
    due = prefect_runtime.flow_run.scheduled_start_time
    return f"{Path(prefect_runtime.flow_run.parameters['grid']).stem}, due {due:%Y-%m-%d %H:%M:%S}"


@flow(name="scheduled-grid", flow_run_name=_name_of_run)
def scheduled_grid(
    grid: str,
    store: str = "artifacts",
    runner: str = "threads",
    workers: int | None = None,
    address: str | None = None,
) -> State:
    """Run what is missing of the grid in a file, on a store; finished stages are reused.

    Completed with what was done, or that nothing was to do; Failed with what is wrong with the grid
    or the store in a sentence, or with the list of what failed.
    """
    from rich.console import Console

    watcher = LineWatcher(Console(stderr=True, width=140))
    try:
        config = read_grid(Path(grid))
        run = run_grid(config, store, watcher, runner, workers=workers, address=address, file=grid)
        state = state_of(run.outcome)
    except (GridError, StoreError, ServerError) as error:
        state = Failed(message=str(error))
    finally:
        watcher.close()
    lines = str(state.message).splitlines()  # of a failure the first says how many, then each
    said = f"FAILED: {'; '.join(lines[:2])}" if state.is_failed() else lines[0]
    say(watcher.console, f"{datetime.now():%H:%M:%S} {said}")
    return state


def check_server() -> None:
    """ServerError where nobody keeps a Prefect server, or it does not answer."""
    if own_server() is None:
        raise ServerError(NO_SERVER)
    if not is_reachable(str(own_server())):
        raise ServerError(
            f"nothing answers at {own_server()}, where PREFECT_API_URL says that your Prefect "
            f"server is: start it (`prefect server start`)"
        )


def store_of(store: str) -> str:
    """A store as a deployment may name it: an absolute path, or a URL without secrets.

    GridError for a URL with secrets, StoreError for a store that cannot be used.
    """
    if has_secrets(store):
        raise GridError(
            f"--store {shown(store)}: Prefect would keep its secrets in its database and show them "
            f"to everybody; leave them out of the URL, and give them to this process in its "
            f"environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for S3, "
            f"GOOGLE_APPLICATION_CREDENTIALS for Google, AZURE_CLIENT_SECRET for Azure)"
        )
    location = Store.open(store).location
    return location.root if location.is_local else store


@dataclass
class Service:
    """A deployment of a grid in the user's Prefect server, and the process that runs it when due.

    `parameters` are those of `scheduled_grid`, its paths absolute. `tell` is given what happens, a
    line each.
    """

    name: str
    schedule: Schedule
    parameters: dict[str, Any]
    tell: Callable[[str], None]
    sleep: Callable[[float], None] = time.sleep
    _server: Server | None = field(default=None, init=False)
    _loop: asyncio.AbstractEventLoop | None = field(default=None, init=False)
    _error: BaseException | None = field(default=None, init=False)
    _serving: bool = field(default=False, init=False)
    _ended: threading.Event = field(default_factory=threading.Event, init=False)
    _passed_over: set[UUID] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        if banned := next((one for one in _NOT_IN_NAMES if one in self.name), None):
            raise GridError(f"{self.name}: Prefect takes no {banned} in a name: give one by --name")

    def serve(self) -> None:
        """Serve until interrupted, whatever becomes of the Prefect server once it has been served.

        A server that went away is waited for. ServerError where there is no server that stays, or
        it does not answer at first; what keeps it from taking the deployment is raised.
        """
        check_server()
        has_served, in_vain = False, 0
        while True:
            self._ended.clear()
            threading.Thread(target=self._serve_once, name="schedule", daemon=True).start()
            try:
                self._ended.wait()
            except KeyboardInterrupt:
                self._stop()
                raise
            has_served |= self._serving
            in_vain = 0 if self._serving else in_vain + 1
            if not is_reachable(str(own_server())):
                self.tell(f"nothing answers at {own_server()}: waiting for it")
                while not is_reachable(str(own_server())):
                    self.sleep(_SECONDS_BETWEEN_LOOKS)
                continue
            if self._error is not None and not has_served:
                raise self._error
            why = "" if self._error is None else f" ({_told(_first(self._error))})"
            self.tell(f"Prefect stopped serving{why}: beginning again")
            self.sleep(_SECONDS_BETWEEN_LOOKS * min(2**in_vain, _MOST_LOOKS_LEFT_OUT))

    def _serve_once(self) -> None:
        """Serve in this thread; its error, if it ends with one, is left behind."""
        # A Ctrl-C in the terminal is for this process to answer, not for the runs it starts.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self._error, self._serving = None, False
        try:
            # Prefect prints tracebacks of a lost server
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                asyncio.run(self._start(next_run(self.schedule)))
        except BaseException as error:  # of a thread that nobody else would hear of
            self._error = error
        finally:
            self._ended.set()

    async def _start(self, due: datetime | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._hear)
        deployment = await self.deployed()
        self._server = Server(name=self.name, query_seconds=_SECONDS_BETWEEN_LOOKS, limit=None)
        await self._server.aadd_deployment(deployment)
        self.tell(
            f"serving {deployment.full_name} at {own_server()}; next run {due:%Y-%m-%d %H:%M:%S %Z}"
        )
        listening = asyncio.create_task(self._listen(datetime.now(UTC)))
        self._serving = True
        try:
            await self._server.start()
        finally:
            listening.cancel()

    def _hear(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Tell in a line of what went wrong where nobody waits; not of what was only called off."""
        error = context.get("exception")
        if not isinstance(error, asyncio.CancelledError):
            self.tell(f"in Prefect: {context['message'] if error is None else _told(error)}")

    async def deployed(self) -> RunnerDeployment:
        """The deployment, which has one run at a time."""
        return await scheduled_grid.ato_deployment(
            self.name,
            schedule=self.schedule,
            parameters=self.parameters,
            concurrency_limit=ConcurrencyLimitConfig(
                limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
            ),
            description=f"What is missing of {self.parameters['grid']}.",
            entrypoint_type=EntrypointType.MODULE_PATH,
        )

    async def _listen(self, since: datetime) -> None:
        """Say of every run that Prefect cancels, because another is still going, that it does.

        What keeps it from looking is told once, and it looks again.
        """
        told = set[str]()
        while True:
            await asyncio.sleep(_SECONDS_BETWEEN_LOOKS)
            try:
                await self.tell_of_cancelled(since)
            except httpx.HTTPError:  # the server may come back
                continue
            except Exception as error:  # of a task that nobody else would hear of
                said = _told(error)
                if said not in told:
                    self.tell(f"runs that are cancelled cannot be looked for ({said})")
                told.add(said)

    async def tell_of_cancelled(self, since: datetime) -> None:
        """Say of the runs due since then that were cancelled while another was going; once each."""
        async with get_client() as client:
            found = await client.read_flow_runs(
                deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[self.name])),
                flow_filter=FlowFilter(name=FlowFilterName(any_=[scheduled_grid.name])),
                flow_run_filter=FlowRunFilter(
                    state=FlowRunFilterState(
                        type=FlowRunFilterStateType(any_=[StateType.CANCELLED])
                    ),
                    expected_start_time=FlowRunFilterExpectedStartTime(after_=since),
                ),
                sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            )
        for run in reversed(found):
            if run.id in self._passed_over or _BUSY not in str(run.state and run.state.message):
                continue
            self._passed_over.add(run.id)
            assert run.expected_start_time is not None
            self.tell(
                f"the run due {run.expected_start_time:%Y-%m-%d %H:%M:%S %Z} was cancelled: the "
                f"one before it is still going, and does its work"
            )

    def _stop(self) -> None:
        """Cancel a run in progress and pause the schedule; waits for that, not for ever."""
        if self._server is None or self._loop is None or not self._server.started:
            return
        asyncio.run_coroutine_threadsafe(self._server.astop(), self._loop)
        self._ended.wait(_SECONDS_TO_STOP)


def _first(error: BaseException) -> BaseException:
    """The first error that is no group of others."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _told(error: BaseException) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"
