"""The command line, `circuit-grid`: run a grid, see where it stands, ask the results, draw.

Nothing heavy is imported until a command needs it. A user's mistake is one sentence and exit code
2; a run in which cells failed ends with 1; an interrupted one with 130 (or 143).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="circuit-grid",
    help="Find, evaluate and compare circuits in language models, as grids that resume.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_SECONDS_TO_END = 5.0
DEMO = Path(__file__).with_name("grids") / "demo.yaml"
StoreOption = Annotated[
    str,
    typer.Option("--store", envvar="CIRCUIT_GRID_STORE", help="Directory or URL of the store."),
]
_INTERRUPTED = "interrupted: what is finished is kept, and the next run goes on from there"
_OUR_ERRORS = {
    "flows.errors": "GridError",
    "flows.server": "ServerError",
    "data.errors": "StoreError",
    "circuits.errors": "CircuitError",
    "tasks.task": "TaskError",
}


def main() -> None:
    """The entry point."""
    try:
        app()
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        # All is stored and closed; libraries that count what is left would talk about it.
        os._exit(end.code if isinstance(end.code, int) else 0 if end.code is None else 1)


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


@app.command()
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
    """Run a grid: compute what is missing, reuse the rest, print the leaderboard."""
    began = time.monotonic()
    with _plainly(), _ending_for_sure():
        from flows.reading import read_grid

        config, file = read_grid(grid or DEMO), str(grid or DEMO)
        if dry_run:
            from flows.dry_run import show_dry_run
            from flows.prospect import look_ahead

            show_dry_run(look_ahead(config, store, file), _console())
            return
        from flows.grid import run_grid
        from flows.report import report
        from flows.terminal import LineWatcher, LiveWatcher

        errors = _console(to_stderr=True)
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
        report(done, _console(), time.monotonic() - began)
        if done.outcome.failures:
            raise typer.Exit(1)


@app.command()
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
    """Say what is done, running, failed, stale and missing, from the store alone."""
    with _plainly():
        from data import Store

        if watching:
            from flows.status import wait_for_store

            wait_for_store(store, _console(to_stderr=True), every)
        opened, planned = Store.open(store, create=False), None
        if grid is not None:
            from flows.prospect import look_ahead
            from flows.reading import read_grid

            ahead = look_ahead(read_grid(grid), store, str(grid))
            planned = ahead.note
            for turn, reason in ahead.reasons.items():
                _say(f"not planned, and not counted below: {turn.label}: {reason}")
        from flows.standing import Standings
        from flows.status import show_status, watch

        standings = Standings(opened, None if planned is None else planned.name)
        if watching:
            watch(standings, _console(), every, planned)
        else:
            show_status(standings.look(planned), _console())


@app.command()
def query(
    question: Annotated[
        str | None, typer.Argument(help="A named query, a view or a SELECT; without one, a list.")
    ] = None,
    values: Annotated[
        list[str] | None, typer.Argument(help="Values of its parameters, as name=value.")
    ] = None,
    form: Annotated[
        Literal["table", "csv", "json"], typer.Option("--format", help="How rows are printed.")
    ] = "table",
    store: StoreOption = "artifacts",
) -> None:
    """Ask the results: a named query, or SQL over the catalog's views."""
    with _plainly():
        from data import Catalog, Store
        from flows.asking import nothing_fits, parameters_of, show_queries, show_rows

        catalog = Catalog(Store.open(store, create=False))
        if question is None:
            show_queries(catalog, _console())
            return
        given = parameters_of(values or [])
        rows = catalog.query(question, **given)
        show_rows(rows, form, _console())
        if not rows.num_rows and given:
            _say(nothing_fits(catalog, question, given))


@app.command()
def draw(
    circuit: Annotated[
        str | None, typer.Argument(help="A circuit's id, or enough of its beginning.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="A file that ends in .svg, .png or .dot.")
    ] = Path("circuit.svg"),
    model: Annotated[str | None, typer.Option(help="The model's name.")] = None,
    task: Annotated[str | None, typer.Option(help="The task it was found on.")] = None,
    method: Annotated[str | None, typer.Option(help="The attribution method.")] = None,
    level: Annotated[str | None, typer.Option(help="edge, node or neuron.")] = None,
    algorithm: Annotated[str | None, typer.Option(help="top-n, greedy or threshold.")] = None,
    size: Annotated[
        str | None,
        typer.Option(help="The size asked for: a fraction as 0.1 or 1.0, or units as 9."),
    ] = None,
    store: StoreOption = "artifacts",
) -> None:
    """Draw a stored circuit as SVG, PNG or DOT."""
    with _plainly():
        from data import Catalog, Store
        from flows.finding import find_circuit, load_circuit, size_of

        catalog = Catalog(Store.open(store, create=False))
        filters: dict[str, object] = {"model": model, "task": task, "method": method}
        filters |= {"level": level, "algorithm": algorithm}
        filters |= {"size": None if size is None else size_of(size)}
        found = find_circuit(catalog, circuit, filters)
        drawn, title = load_circuit(catalog, found)
        path = drawn.draw(output, title=title)
        _console().print(f"{path}: {title}", highlight=False, soft_wrap=True, markup=False)


@app.command()
def compare(
    first: Annotated[
        str, typer.Argument(help="The id of a circuit or of scores (its beginning), or a file.")
    ],
    second: Annotated[str, typer.Argument(help="What to set beside it, likewise.")],
    form: Annotated[
        Literal["table", "csv", "json"], typer.Option("--format", help="How rows are printed.")
    ] = "table",
    store: StoreOption = "artifacts",
) -> None:
    """Compare two circuits or two sets of scores, from the store or from files."""
    with _plainly():
        from flows.asking import show_rows
        from flows.comparing import compared, side_of

        console = _console()
        sides = side_of(first, store), side_of(second, store)
        rows = compared(*sides)
        if form == "table":
            for name, side in zip(("first", "second"), sides, strict=True):
                line = f"{name:8}{side.title}"
                console.print(line, highlight=False, soft_wrap=True, markup=False)
            console.print()
        show_rows(rows, form, console)


@app.command()
def export(
    name: Annotated[
        str, typer.Argument(help="The id of a circuit or of scores, or enough of its beginning.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Ends in .json, .pt, .graphml or .csv; a directory makes scores a submission.",
        ),
    ],
    store: StoreOption = "artifacts",
) -> None:
    """Write a stored circuit, or scores, as a file that other tools read."""
    with _plainly():
        from data import Catalog, Store
        from flows import exporting

        path, title = exporting.export(Catalog(Store.open(store, create=False)), name, output)
        _console().print(f"{path}: {title}", highlight=False, soft_wrap=True, markup=False)


@app.command()
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
    """Serve a grid to a Prefect server that runs it by the clock, until interrupted."""
    with _plainly("schedule paused; start the same command to resume"):
        from flows.reading import read_grid

        config = read_grid(grid)
        from flows.deployment import Service, schedule_of, store_of

        when = schedule_of(cron, every, timezone)
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


@app.command()
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
    with _plainly():
        from data import Store
        from flows import housekeeping

        opened, console = Store.open(store, create=False), _console()
        age = None if older_than is None else housekeeping.seconds_of(older_than)
        reasons = housekeeping.reasons_of(only or housekeeping.REASONS)
        found = housekeeping.look_over(opened, grid or (), age, reasons)
        if dry_run:
            housekeeping.show_cleaning(found, console, done=False)
            return
        question = f"Remove {len(found.removals):,} things, {found.n_bytes:,} bytes?"
        asked = sys.stdin.isatty() and not yes and (found.removals or found.forgotten)
        if asked and not typer.confirm(question):
            raise typer.Exit(1)
        housekeeping.show_cleaning(housekeeping.clean(opened, found), console, done=True)


@app.command()
def doctor(
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not read all artifacts of the store.")
    ] = False,
    store: StoreOption = "artifacts",
) -> None:
    """Check the installation, the device and the store, and say what to do."""
    with _plainly():
        from flows.doctor import examine, show_findings

        if not show_findings(examine(store, quick), _console()):
            raise typer.Exit(1)


def _console(to_stderr: bool = False) -> Console:
    """A console as wide as its terminal; wide enough for tables where there is none."""
    from rich.console import Console

    console = Console(stderr=to_stderr)
    return console if console.is_terminal else Console(stderr=to_stderr, width=140)


@contextmanager
def _plainly(interrupted: str = _INTERRUPTED) -> Iterator[None]:
    """Turn what goes wrong into a sentence and an exit code, and other libraries' talk off."""
    from flows.quiet import silence_libraries

    silence_libraries()
    signal.signal(signal.SIGTERM, _terminated)
    try:
        yield
    except typer.Exit:  # it is a RuntimeError
        raise
    except KeyboardInterrupt as error:
        _end(signal.SIGTERM if error.args == (signal.SIGTERM,) else signal.SIGINT, interrupted)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except Exception as error:  # the last boundary: what nobody foresaw becomes a file to report
        if isinstance(error, _our_errors()):
            _say(str(error))
            raise typer.Exit(2) from None
        _say(f"a fault of circuit-grid: {type(error).__name__}: {error}")
        _say(f"the whole story is in {_traceback_file(error)}; please report it")
        raise typer.Exit(1) from None


def _end(number: int, sentence: str = _INTERRUPTED) -> None:
    """End an interrupted command with a sentence and the exit code that says by which signal."""
    _say(sentence)
    sys.stdout.flush()
    # At once: libraries interrupted in the middle of something wait, or complain, at the end.
    os._exit(128 + number)


@contextmanager
def _ending_for_sure() -> Iterator[None]:
    """Inside, SIGINT and SIGTERM end the process within seconds, whatever becomes of them.

    An interruption is an exception, which may be lost where Python has no place for one, as in a
    `__del__`. So a thread is told of the signal itself, and ends what has not ended by then.
    """
    hears, tells = os.pipe()
    os.set_blocking(tells, False)
    before = signal.set_wakeup_fd(tells, warn_on_full_buffer=False)

    def watch() -> None:
        while True:
            (number,) = os.read(hears, 1)
            if number in (signal.SIGINT, signal.SIGTERM):
                time.sleep(_SECONDS_TO_END)
                if sys.stderr.isatty():
                    sys.stderr.write("\x1b[?25h\n")  # the cursor, which a live bar hides
                _end(number)

    def lost(what: sys.UnraisableHookArgs) -> None:
        if what.exc_type.__name__ not in ("KeyboardInterrupt", "TerminationSignal"):
            sys.__unraisablehook__(what)

    threading.Thread(target=watch, daemon=True).start()
    sys.unraisablehook = lost
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        sys.unraisablehook = sys.__unraisablehook__


def _traceback_file(error: Exception) -> str:
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile(
        "w", prefix="circuit-grid-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:
        traceback.print_exception(error, file=log)
    return log.name


def _terminated(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.SIGTERM)


def _our_errors() -> tuple[type[Exception], ...]:
    """The errors that speak to people, of the rooms that were entered."""
    loaded = [
        (sys.modules[room], name) for room, name in _OUR_ERRORS.items() if room in sys.modules
    ]
    return tuple(getattr(room, name) for room, name in loaded)


def _say(sentence: str) -> None:
    from flows.wrapping import say

    console = _console(to_stderr=True)
    say(console, sentence, style="red")


if __name__ == "__main__":
    main()
