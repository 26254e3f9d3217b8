"""Prefect's runner with patience: of a server that is away, and of runs that are late."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from flows.patient_runner import PatientRunner, ServerWasAwayError

PARAMETERS = {"grid": "nightly.yaml", "store": "artifacts"}


class Poller:
    """What looks for runs, as Prefect's does: each look ends as it is told."""

    def __init__(self) -> None:
        self._submitting_flow_run_ids: set[UUID] = set()
        self.found: list[Any] = []
        self.looks: list[Exception | None] = []

    async def _get_and_submit_flow_runs(self) -> None:
        error = self.looks.pop(0)
        if error is not None:
            raise error

    async def _get_scheduled_flow_runs(self) -> list[Any]:
        return list(self.found)


class Client:
    """What tells the server: which runs are cancelled."""

    def __init__(self) -> None:
        self.cancelled: list[UUID] = []

    async def set_flow_run_state(self, run: UUID, state: Any, force: bool) -> None:
        assert state.is_cancelled()
        assert force
        self.cancelled.append(run)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def runner(told: list[str]) -> PatientRunner:
    """One that has begun, as far as looking goes."""
    made = PatientRunner("nightly", PARAMETERS, 5.0, lambda: None, told.append)
    made._scheduled_run_poller, made._client = Poller(), Client()
    made.look_for_runs()
    return made


def refusal(code: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://127.0.0.1/api")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(code))


def look(runner: PatientRunner, outcome: Exception | None = None) -> None:
    poller = runner._scheduled_run_poller
    poller.looks.append(outcome)
    asyncio.run(poller._get_and_submit_flow_runs())


@pytest.mark.parametrize("away", [httpx.ConnectError("refused"), refusal(503)])
def test_a_server_that_is_away_is_no_error_during_a_run_and_a_reason_to_begin_anew_after_it(
    runner: PatientRunner, told: list[str], away: Exception
):
    run = uuid4()
    look(runner)
    runner._scheduled_run_poller._submitting_flow_run_ids.add(run)
    for _ in range(5):
        look(runner, away)
    assert told == ["the Prefect server does not answer; the run in progress goes on"]
    look(runner)  # it is back
    runner._scheduled_run_poller._submitting_flow_run_ids.clear()
    with pytest.raises(ServerWasAwayError):
        look(runner)


def test_without_a_run_in_progress_it_is_an_error(runner: PatientRunner, told: list[str]):
    with pytest.raises(httpx.ConnectError):
        look(runner, httpx.ConnectError("refused"))
    assert told == []


def test_what_will_not_pass_is_an_error_at_any_time(runner: PatientRunner):
    runner._scheduled_run_poller._submitting_flow_run_ids.add(uuid4())
    with pytest.raises(httpx.HTTPStatusError):
        look(runner, refusal(401))


def scheduled(minutes: float, by_hand: bool = False, **changes: str) -> Any:
    """A run that falls due in so many minutes."""
    return SimpleNamespace(
        id=uuid4(),
        auto_scheduled=not by_hand,
        next_scheduled_start_time=datetime.now(UTC) + timedelta(minutes=minutes),
        parameters=PARAMETERS | changes,
    )


def test_of_late_runs_the_last_is_started_and_the_others_are_left_out(
    runner: PatientRunner, told: list[str]
):
    late = [scheduled(minutes) for minutes in (-30, -10, -20)]
    started, soon, by_hand = scheduled(-40), scheduled(1), scheduled(-50, by_hand=True)
    poller = runner._scheduled_run_poller
    poller._submitting_flow_run_ids.add(started.id)
    poller.found = [*late, started, soon, by_hand]
    found = asyncio.run(poller._get_scheduled_flow_runs())
    assert found == [late[1], started, soon, by_hand]
    assert set(runner._client.cancelled) == {late[0].id, late[2].id}
    assert told == [
        "2 runs that fell due before: left out, for a later run of the schedule does what is to be"
        " done"
    ]


def test_a_late_run_of_a_former_deployment_is_left_out(runner: PatientRunner, told: list[str]):
    former, soon = scheduled(-1, store="elsewhere"), scheduled(1)
    poller = runner._scheduled_run_poller
    poller.found = [former, soon]
    assert asyncio.run(poller._get_scheduled_flow_runs()) == [soon]
    assert runner._client.cancelled == [former.id]
    assert told[0].startswith("1 run that fell due before: left out")


def test_one_late_run_is_none_too_many(runner: PatientRunner, told: list[str]):
    poller = runner._scheduled_run_poller
    poller.found = [scheduled(-0.1)]
    assert asyncio.run(poller._get_scheduled_flow_runs()) == poller.found
    assert (runner._client.cancelled, told) == ([], [])
