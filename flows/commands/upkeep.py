"""Commands that keep a store in order and an installation well."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from flows.commands.options import StoreOption
from flows.endings import plainly


def clean(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be removed, and remove nothing.")
    ] = False,
    older_than: Annotated[
        str | None, typer.Option(help="Remove only what is older: 12h, 30d, 2w.")
    ] = None,
    grid: Annotated[
        list[str] | None, typer.Option(help="Forget a grid, with what it alone needs.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Remove nothing but stale, unreferenced or leftover; several times."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, in a terminal.")] = False,
    store: StoreOption = "artifacts",
) -> None:
    """Remove what no grid needs: stale, unreferenced, leftovers. See --dry-run first."""
    with plainly():
        from data import Store
        from flows import cleaning, housekeeping
        from flows.wrapping import open_console

        opened, console = Store.open(store, create=False), open_console()
        age = None if older_than is None else cleaning.seconds_of(older_than)
        reasons = cleaning.reasons_of(only or cleaning.REASONS)
        found = housekeeping.look_over(opened, grid or (), age, reasons)
        if dry_run:
            cleaning.show_cleaning(found, console, done=False)
            return
        asked = sys.stdin.isatty() and not yes and found.question
        if asked and not typer.confirm(found.question):
            raise typer.Exit(1)
        cleaning.show_cleaning(housekeeping.clean(opened, found), console, done=True)


def doctor(
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not read all artifacts of the store.")
    ] = False,
    store: StoreOption = "artifacts",
) -> None:
    """Check the installation, the device and the store. It says what to do."""
    with plainly():
        from flows.doctor import examine, show_findings
        from flows.wrapping import open_console

        if not show_findings(examine(store, quick), open_console()):
            raise typer.Exit(1)
