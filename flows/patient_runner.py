"""Prefect's runner of a deployment, with patience for a server that goes away and comes back.

Prefect ends a runner whose server did not answer three times in a row, and with it the runs in
progress. This one goes on while a run is in progress: a grid needs no server. Once that is over it
ends, to begin anew with all that listens to the server.

Prefect starts every run that fell due while nobody looked, one after the other, with the parameters
that the deployment had then. Of those the last does what is to be done: this one leaves out the
others. It counts on how Prefect 3.8 looks for runs (`ScheduledRunPoller`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import httpx
from prefect.client.schemas.objects import FlowRun
from prefect.runner import Runner
from prefect.states import Cancelled

from flows.wrapping import counted

_MOST_RUNS = 2  # one that works, and one that sees that it does
_LEFT_OUT = "a later run of the schedule does what is to be done"


class ServerWasAwayError(Exception):
    """The server was away during a run; the runner has ended to listen to it anew."""


class PatientRunner(Runner):
    """A runner of one deployment whose runs have these parameters, at most two runs at a time.

    `began` is called once it looks for runs, `tell` is given what happens, a line each.
    """

    def __init__(
        self,
        name: str,
        parameters: Mapping[str, Any],
        query_seconds: float,
        began: Callable[[], None],
        tell: Callable[[str], None],
    ) -> None:
        super().__init__(name=name, query_seconds=query_seconds, limit=_MOST_RUNS)
        self._parameters = dict(parameters)
        self._began = began
        self._tell = tell
        self._was_away = False

    async def __aenter__(self) -> PatientRunner:
        """Begin as Prefect's runner does, and look for runs in this one's way."""
        await super().__aenter__()
        self.look_for_runs()
        self._began()
        return self

    def look_for_runs(self) -> None:
        """From now on look for runs in this one's way."""
        poller = self._scheduled_run_poller
        self._look, self._find = poller._get_and_submit_flow_runs, poller._get_scheduled_flow_runs
        poller._get_and_submit_flow_runs = self._look_patiently
        poller._get_scheduled_flow_runs = self._find_last

    @property
    def is_busy(self) -> bool:
        """Whether a run is in progress."""
        return bool(self._scheduled_run_poller._submitting_flow_run_ids)

    async def _look_patiently(self) -> None:
        """Start what is due. While a run is in progress, a server that is away is no error."""
        try:
            await self._look()
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            if not self.is_busy or not _may_pass(error):
                raise
            if not self._was_away:
                self._tell("the Prefect server does not answer; the run in progress goes on")
            self._was_away = True
            return
        if self._was_away and not self.is_busy:
            raise ServerWasAwayError

    async def _find_last(self) -> list[FlowRun]:
        """The runs to start: of those of the schedule that are late, the last alone."""
        found: list[FlowRun] = await self._find()
        started = self._scheduled_run_poller._submitting_flow_run_ids
        now = datetime.now(UTC)
        late = [
            (run.next_scheduled_start_time, run)
            for run in found
            if run.auto_scheduled and run.id not in started
            if run.next_scheduled_start_time is not None and run.next_scheduled_start_time < now
        ]
        late.sort(key=lambda timed: timed[0])
        out = {run.id for _, run in late[:-1]}
        out |= {run.id for _, run in late if run.parameters != self._parameters}
        for one in out:
            await self._client.set_flow_run_state(one, Cancelled(message=_LEFT_OUT), force=True)
        if out:
            n = counted(len(out), "run")
            self._tell(f"{n} that fell due before: left out, for {_LEFT_OUT}")
        return [run for run in found if run.id not in out]


def _may_pass(error: httpx.HTTPError) -> bool:
    """Whether a server that cannot be asked now may be asked later."""
    return not isinstance(error, httpx.HTTPStatusError) or error.response.status_code >= 500
