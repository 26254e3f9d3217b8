"""Commands that run grids, by hand or by the clock, and say where they stand."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from flows.commands.options import StoreOption
from flows.endings import ending_for_sure, plainly

DEMO = Path(__file__).parents[1] / "grids" / "demo.yaml"


def run(
    grid: Annotated[
        Path | None, typer.Argument(help="A grid in YAML; without one, the bundled demo.")
    ] = None,
    store: StoreOption = "artifacts",
    runner: Annotated[
        Literal["threads", "ray", "inline"],
        typer.Option(
            help="Where stages are done: worker processes here, a Ray cluster, or this process."
        ),
    ] = "threads",
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many stages a Ray cluster does at a time.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(envvar="RAY_ADDRESS", help="A Ray cluster that is running: ray://host:10001."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would run, and what it takes; change nothing."),
    ] = False,
) -> None:
    """Run a grid: compute what is missing and reuse the rest. It prints the leaderboard."""
    began = time.monotonic()
    with plainly(), ending_for_sure():
        from flows.reading import read_grid
        from flows.wrapping import open_console, say

        config, file = read_grid(grid or DEMO), str(grid or DEMO)
        if dry_run:
            from flows.dry_run import show_dry_run
            from flows.prospect import look_ahead

            show_dry_run(look_ahead(config, store, file), open_console())
            return
        from flows.grid import run_grid
        from flows.report import namesake, report
        from flows.terminal import LineWatcher, LiveWatcher

        errors = open_console(to_stderr=True)
        if other := namesake(config, store, file):
            say(errors, other, style="yellow")
        watcher = LiveWatcher(errors, began) if errors.is_terminal else LineWatcher(errors)
        try:
            done = run_grid(
                *(config, store, watcher, runner),
                workers=workers,
                address=address if runner == "ray" else None,
                file=file,
            )
        finally:
            watcher.close()
        report(done, open_console(), time.monotonic() - began)
        if done.outcome.failures:
            raise typer.Exit(1)


def status(
    grid: Annotated[
        Path | None,
        typer.Argument(help="A grid in YAML, held against its files as they are now; else all."),
    ] = None,
    watching: Annotated[
        bool, typer.Option("--watch", help="Look again and again, until all is done.")
    ] = False,
    every: Annotated[
        float, typer.Option(min=0.1, max=86400, help="Seconds between two looks of --watch.")
    ] = 5.0,
    store: StoreOption = "artifacts",
) -> None:
    """Say what is done, running, failed, stale and missing. It reads the store alone."""
    with plainly():
        from data import Store
        from flows.wrapping import complain, open_console

        if watching:
            from flows.status import wait_for_store

            wait_for_store(store, open_console(to_stderr=True), every)
        opened, planned = Store.open(store, create=False), None
        if grid is not None:
            from flows.prospect import look_ahead
            from flows.reading import read_grid

            ahead = look_ahead(read_grid(grid), store, str(grid))
            planned = ahead.note
            for turn, reason in ahead.reasons.items():
                complain(f"not planned, and not counted below: {turn.label}: {reason}")
        from flows.standing import Standings
        from flows.status import show_status, watch

        standings = Standings(opened, None if planned is None else planned.name)
        if watching:
            watch(standings, open_console(), every, planned)
        else:
            show_status(standings.look(planned), open_console())


def schedule(
    grid: Annotated[Path, typer.Argument(help="A grid in YAML; every run reads it anew.")],
    cron: Annotated[
        str | None, typer.Option(help='When to run: "0 2 * * *" is every night at two.')
    ] = None,
    every: Annotated[
        str | None, typer.Option(help="Or how often: 15m, 2h, 1d; first at once.")
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(help="What --cron is read in, such as Europe/Berlin; else UTC.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The Prefect deployment's name; else the grid's.")
    ] = None,
    runner: Annotated[
        Literal["threads", "ray"], typer.Option(help="Where stages are done, as for `run`.")
    ] = "threads",
    workers: Annotated[
        int | None, typer.Option(min=1, help="How many Ray workers at a time.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster to use, as ray://head:10001.")
    ] = None,
    store: StoreOption = "artifacts",
) -> None:
    """Serve a grid to a Prefect server that runs it by the clock. Ctrl-C ends it."""
    with plainly("the schedule is served no more"):
        from flows.reading import read_grid

        config = read_grid(grid)
        from flows.deployment import check_server, store_of
        from flows.service import Service
        from flows.timetable import schedule_of

        when = schedule_of(cron, every, timezone)
        check_server()  # before a store is made
        Service(
            name or config.name,
            when,
            {
                "grid": str(grid.resolve()),
                "store": store_of(store),
                "runner": runner,
                "workers": workers,
                "address": address,
            },
            lambda line: print(line, file=sys.stderr, flush=True),
        ).serve()
