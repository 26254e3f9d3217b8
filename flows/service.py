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

from prefect.runner import Runner as Server
from prefect.schedules import Schedule
from prefect.types.entrypoint import EntrypointType

from flows.deployment import check_server, scheduled_grid
from flows.errors import GridError
from flows.server import is_reachable
from flows.settings import own_server
from flows.timetable import next_run

_NOT_IN_NAMES = "/%&<>"
_SECONDS_BETWEEN_LOOKS = 5.0
_MOST_LOOKS_LEFT_OUT = 12  # between two trials of which none got to serving
_SECONDS_TO_STOP = 45.0
_MOST_RUNS = 2  # one that works, and one that sees that it does; others wait, as after an outage


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
        deployment = await scheduled_grid.ato_deployment(
            self.name,
            schedule=self.schedule,
            parameters=self.parameters,
            description=f"What is missing of {self.parameters['grid']}.",
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        self._server = Server(
            name=self.name, query_seconds=_SECONDS_BETWEEN_LOOKS, limit=_MOST_RUNS
        )
        await self._server.aadd_deployment(deployment)
        self.tell(
            f"serving {deployment.full_name} at {own_server()}; next run {due:%Y-%m-%d %H:%M:%S %Z}"
        )
        self._serving = True
        await self._server.start()

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
