"""The process that serves a schedule: it keeps a deployment in the user's Prefect server.

Whoever ends that process pauses the schedule and cancels a run in progress; what it finished is
kept, and the next run goes on from there. A server that goes away is waited for, for as long as it
takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.deployments.runner import DeploymentApplyError
from prefect.schedules import Schedule
from prefect.types.entrypoint import EntrypointType

from flows.deployment import check_server, scheduled_grid
from flows.errors import GridError
from flows.patient_runner import PatientRunner, ServerWasAwayError
from flows.server import ServerError, is_reachable
from flows.settings import own_server
from flows.timetable import next_run

_NOT_IN_NAMES = "/%&<>"
_SECONDS_BETWEEN_LOOKS = 5.0
_MOST_LOOKS_LEFT_OUT = 12  # between two trials of which none got to serving
_SECONDS_TO_STOP = 45.0
_SECONDS_TO_ANSWER = 5.0


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
    _runner: PatientRunner | None = field(default=None, init=False)
    _loop: asyncio.AbstractEventLoop | None = field(default=None, init=False)
    _deployment: UUID | None = field(default=None, init=False)
    _error: BaseException | None = field(default=None, init=False)
    _serving: bool = field(default=False, init=False)
    _ended: threading.Event = field(default_factory=threading.Event, init=False)

    def __post_init__(self) -> None:
        if banned := next((one for one in _NOT_IN_NAMES if one in self.name), None):
            raise GridError(f"{self.name}: Prefect takes no {banned} in a name: give one by --name")

    def serve(self) -> None:
        """Serve until interrupted, whatever becomes of the Prefect server once it has been served.

        An interruption pauses the schedule and says so, or that it cannot be. ServerError where
        there is no server that stays, or it does not answer at first, or takes no deployments.
        """
        check_server()
        try:
            self._serve_on()
        except KeyboardInterrupt:
            self._stop()
            self.tell(self._paused())
            raise

    def _serve_on(self) -> None:
        """Serve again and again."""
        has_served, in_vain = False, 0
        while True:
            self._ended.clear()
            threading.Thread(target=self._serve_once, name="schedule", daemon=True).start()
            self._ended.wait()
            has_served |= self._serving
            in_vain = 0 if self._serving else in_vain + 1
            error = None if self._error is None else _first(self._error)
            if not is_reachable(str(own_server())):
                self.tell(f"nothing answers at {own_server()}: waiting for it")
                while not is_reachable(str(own_server())):
                    self.sleep(_SECONDS_BETWEEN_LOOKS)
                continue
            if isinstance(error, ServerWasAwayError):
                self.tell("the Prefect server is back: beginning again")
                continue
            if error is not None and not has_served:
                raise _understood(error)
            why = "" if error is None else f" ({_told(error)})"
            self.tell(f"Prefect stopped serving{why}: beginning again")
            self.sleep(_SECONDS_BETWEEN_LOOKS * min(2**in_vain, _MOST_LOOKS_LEFT_OUT))

    def _serve_once(self) -> None:
        """Serve in this thread; its error, if it ends with one, is left behind."""
        # A Ctrl-C in the terminal is for this process to answer, not for the runs it starts.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        self._error, self._serving, self._runner = None, False, None
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
        deployment = await scheduled_grid.ato_deployment(
            self.name,
            schedule=self.schedule,
            parameters=self.parameters,
            description=f"What is missing of {self.parameters['grid']}.",
            entrypoint_type=EntrypointType.MODULE_PATH,
        )

        def began() -> None:
            self._serving = True
            self.tell(
                f"serving {deployment.full_name} at {own_server()};"
                f" next run {due:%Y-%m-%d %H:%M:%S %Z}"
            )

        self._runner = PatientRunner(
            self.name, self.parameters, _SECONDS_BETWEEN_LOOKS, began, self.tell
        )
        self._deployment = await self._runner.aadd_deployment(deployment)
        await self._runner.start()

    def _stop(self) -> None:
        """Cancel a run in progress; waits for that, not for ever."""
        if self._runner is None or self._loop is None or not self._runner.started:
            return
        asyncio.run_coroutine_threadsafe(self._runner.astop(), self._loop)
        self._ended.wait(_SECONDS_TO_STOP)

    def _paused(self) -> str:
        """Pause the schedule; what came of that, in a line."""
        if self._deployment is None:
            return "nothing was scheduled yet"
        if not is_reachable(str(own_server()), _SECONDS_TO_ANSWER):
            return (
                f"nothing answers at {own_server()}, so the schedule could not be paused there:"
                f" runs fall due that nobody starts until this command is started again"
            )
        try:
            with get_client(sync_client=True) as client:
                client.pause_deployment(self._deployment)
        except httpx.HTTPError as error:
            return f"the schedule could not be paused ({_told(error)})"
        return "schedule paused; start the same command to resume"


def _understood(error: BaseException) -> BaseException:
    """What keeps a server from taking the deployment, as a sentence where people can act on it."""
    if not isinstance(error, httpx.HTTPError | DeploymentApplyError):
        return error
    return ServerError(
        f"what answers at {own_server()} takes no deployments ({_told(error)}): let"
        f" PREFECT_API_URL be the address of a Prefect server, and PREFECT_API_AUTH_STRING or"
        f" PREFECT_API_KEY what it asks for"
    )


def _first(error: BaseException) -> BaseException:
    """The first error that is no group of others."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _told(error: BaseException) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"
