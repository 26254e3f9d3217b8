"""Grids by the clock: the flow that a Prefect deployment runs.

A scheduled run is a flow run of a Prefect server that stays. It reads the grid's file anew, runs
what is missing and reuses the rest; where nothing is missing it says so and ends. The grid itself
is a flow run `circuit-grid` within it, as it is by hand.

Where a run of the grid is going already, by the clock or by hand, it does the work, and the new one
is cancelled. The store tells, whose leases end with their holders. The concurrency limits of a
Prefect server would not do: the slot of a run that was killed is taken for minutes, or for good if
the server went, too; and a run whose server is away for long is ended by them.
"""

from __future__ import annotations

import atexit
import os
import sys
from datetime import datetime
from pathlib import Path

from prefect import flow
from prefect import runtime as prefect_runtime
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Failed

from data import Store, StoreError
from data.address import has_secrets, shown
from data.leases import LeaseInfo
from flows.endings import say_of_lost
from flows.errors import GridError
from flows.grid import run_grid, state_of
from flows.quiet import silence_libraries
from flows.reading import read_grid
from flows.server import ServerError, is_reachable
from flows.settings import own_server
from flows.terminal import LineWatcher
from flows.wrapping import say

NO_SERVER = (
    "a schedule needs a Prefect server that stays: start one (`prefect server start`), and set "
    "PREFECT_API_URL to its address, such as http://127.0.0.1:4200/api"
)


def _say_no_more() -> None:
    """Close the process's mouth: DuckDB counts at the very end what it has left behind."""
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


if "PREFECT__FLOW_RUN_ID" in os.environ:  # this process was started for one scheduled run
    silence_libraries()
    sys.unraisablehook = say_of_lost
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

    Completed with what was done, or that nothing was to do; Cancelled where a run of the grid is
    going already; Failed with what is wrong with the grid or the store in a sentence, or with the
    list of what failed.
    """
    from rich.console import Console

    watcher = LineWatcher(Console(stderr=True, width=140))
    try:
        config = read_grid(Path(grid))
        # of a host that is gone nothing is known for half a minute
        mine = Store.open(store).scheduled(config.name)
        if isinstance(mine, LeaseInfo):
            who = f"{mine.host}:{mine.pid}"
            state = Cancelled(message=f"a run of it is going already ({who})")
        else:
            how = (config, store, watcher, runner)
            with mine:
                run = run_grid(*how, workers=workers, address=address, file=grid)
            state = state_of(run.outcome)
    except (GridError, StoreError, ServerError) as error:
        state = Failed(message=str(error))
    finally:
        watcher.close()
    lines = str(state.message).splitlines()  # of a failure the first says how many, then each
    said = lines[0]
    if state.is_failed():
        said = f"FAILED: {'; '.join(lines[:2])}"
    elif state.is_cancelled():
        said = f"cancelled: {said}"
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
