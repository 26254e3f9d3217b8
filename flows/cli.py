"""The command line, `circuit-grid`: run a grid, see where it stands, ask the results, draw.

Nothing heavy is imported until a command needs it. A user's mistake is one sentence and exit code
2; a run in which cells failed ends with 1; an interrupted one with 130 (or 143).
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from flows.commands import results, running, upkeep
from flows.endings import leave

app = typer.Typer(
    name="circuit-grid",
    help="Find, evaluate and compare circuits in language models, as grids that resume.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """The entry point."""
    try:
        app()
    except SystemExit as end:
        leave(end.code if isinstance(end.code, int) else 0 if end.code is None else 1)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"circuit-grid {version('circuit-grid')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", is_eager=True, callback=_show_version
        ),
    ] = False,
) -> None:
    pass


for _command in (
    *(running.run, running.status),
    *(results.query, results.draw, results.compare, results.export),
    running.schedule,
    *(upkeep.clean, upkeep.doctor),
):
    app.command()(_command)


if __name__ == "__main__":
    main()
