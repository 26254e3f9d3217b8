"""Options that several commands take."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

StoreOption = Annotated[
    str,
    typer.Option("--store", envvar="CIRCUIT_GRID_STORE", help="Directory or URL of the store."),
]
FormOption = Annotated[
    Literal["table", "csv", "json"], typer.Option("--format", help="How rows are printed.")
]
