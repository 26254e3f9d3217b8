"""The command line, `circuit-grid`: run a grid, see where it stands, ask the results, draw.

Nothing heavy is imported until a command needs it. A user's mistake is one sentence and exit code
2; a run in which cells failed ends with 1; an interrupted one with 130 (or 143).
"""

from __future__ import annotations

import os
import signal
import sys
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

DEMO = Path(__file__).with_name("grids") / "demo.yaml"
StoreOption = Annotated[
    str,
    typer.Option("--store", envvar="CIRCUIT_GRID_STORE", help="Directory or URL of the store."),
]
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
) -> None:
    """Run a grid: compute what is missing, reuse the rest, print the leaderboard."""
    began = time.monotonic()
    with _plainly():
        from flows.reading import read_grid

        config = read_grid(grid or DEMO)
        from flows.grid import run_grid
        from flows.progress import LineWatcher, LiveWatcher
        from flows.report import report

        errors = _console(to_stderr=True)
        watcher = LiveWatcher(errors) if errors.is_terminal else LineWatcher(errors)
        try:
            done = run_grid(config, store, watcher)
        finally:
            watcher.close()
        report(done, _console(), time.monotonic() - began)
        if done.outcome.failures:
            raise typer.Exit(1)


@app.command()
def status(store: StoreOption = "artifacts") -> None:
    """Say what is done, missing and failed, from the store alone."""
    with _plainly():
        from data import Catalog, Store
        from flows.status import show_status

        show_status(Catalog(Store.open(store, create=False)), _console())


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


def _console(to_stderr: bool = False) -> Console:
    """A console as wide as its terminal; wide enough for tables where there is none."""
    from rich.console import Console

    console = Console(stderr=to_stderr)
    return console if console.is_terminal else Console(stderr=to_stderr, width=140)


@contextmanager
def _plainly() -> Iterator[None]:
    """Turn what goes wrong into a sentence and an exit code, and other libraries' talk off."""
    _silence_libraries()
    signal.signal(signal.SIGTERM, _terminated)
    try:
        yield
    except typer.Exit:  # it is a RuntimeError
        raise
    except KeyboardInterrupt as error:
        _say("interrupted: what is finished is kept, and the next run goes on from there")
        sys.stdout.flush()
        # At once: libraries interrupted in the middle of something wait, or complain, at the end.
        os._exit(143 if error.args == (signal.SIGTERM,) else 130)
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
    console = _console(to_stderr=True)
    console.print(sentence, style="red", markup=False, highlight=False, soft_wrap=True)


def _silence_libraries() -> None:
    """Warnings and log lines of libraries are no news to people; Python's -W shows warnings."""
    import logging
    import warnings

    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())
    for name in ("TRANSFORMERS_VERBOSITY", "HF_HUB_VERBOSITY"):
        os.environ.setdefault(name, "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


if __name__ == "__main__":
    main()
