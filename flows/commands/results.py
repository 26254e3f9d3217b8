"""Commands that ask the results: by query, as a picture, side by side, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import FormOption, StoreOption
from flows.endings import plainly


def query(
    question: Annotated[
        str | None, typer.Argument(help="A named query, a view or a SELECT; without one, a list.")
    ] = None,
    values: Annotated[
        list[str] | None, typer.Argument(help="Values of its parameters, as name=value.")
    ] = None,
    form: FormOption = "table",
    store: StoreOption = "artifacts",
) -> None:
    """Ask the results: a named query, or SQL over the catalog's views."""
    with plainly():
        from data import Catalog, Store
        from flows.asking import nothing_fits, parameters_of, show_queries, show_rows
        from flows.wrapping import complain, open_console

        catalog = Catalog(Store.open(store, create=False))
        if question is None:
            show_queries(catalog, open_console())
            return
        given = parameters_of(values or [])
        rows = catalog.query(question, **given)
        show_rows(rows, form, open_console())
        if not rows.num_rows and given:
            complain(nothing_fits(catalog, question, given))


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
    with plainly():
        from data import Catalog, Store
        from flows.finding import find_circuit, load_circuit, size_of
        from flows.wrapping import open_console

        catalog = Catalog(Store.open(store, create=False))
        filters: dict[str, object] = {"model": model, "task": task, "method": method}
        filters |= {"level": level, "algorithm": algorithm}
        filters |= {"size": None if size is None else size_of(size)}
        found = find_circuit(catalog, circuit, filters)
        drawn, title = load_circuit(catalog, found)
        path = drawn.draw(output, title=title)
        open_console().print(f"{path}: {title}", highlight=False, soft_wrap=True, markup=False)


def compare(
    first: Annotated[
        str, typer.Argument(help="The id of a circuit or of scores (its beginning), or a file.")
    ],
    second: Annotated[str, typer.Argument(help="What to set beside it, likewise.")],
    form: FormOption = "table",
    store: StoreOption = "artifacts",
) -> None:
    """Compare two circuits, or two sets of scores, of the store or files."""
    with plainly():
        from flows.asking import show_rows
        from flows.comparing import compared, side_of
        from flows.wrapping import open_console

        console = open_console()
        sides = side_of(first, store), side_of(second, store)
        rows = compared(*sides)
        if form == "table":
            for name, side in zip(("first", "second"), sides, strict=True):
                line = f"{name:8}{side.title}"
                console.print(line, highlight=False, soft_wrap=True, markup=False)
            console.print()
        show_rows(rows, form, console)


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
    """Write a stored circuit, or scores, as a file for other tools."""
    with plainly():
        from data import Catalog, Store
        from flows import exporting
        from flows.wrapping import open_console

        path, title = exporting.export(Catalog(Store.open(store, create=False)), name, output)
        open_console().print(f"{path}: {title}", highlight=False, soft_wrap=True, markup=False)
