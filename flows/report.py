"""What people are told after a run: what was done, what failed, who leads, where everything is."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from circuits.errors import DrawingError
from data import Catalog, Store, StoreError
from flows.config import GridConfig
from flows.drawings import draw_best
from flows.leaderboard import leaderboard_table, rows_of_run
from flows.run import Run
from flows.terminal import AT_THE_END
from flows.wrapping import counted, say

_LABEL = len("damaged   ")  # below which nothing is written


def namesake(config: GridConfig, location: str, file: str) -> str | None:
    """What to say where the store has a grid of the same name from another file that is there."""
    try:
        note = Store.open(location, create=False).grid_notes().get(config.name)
    except StoreError:  # none yet, or the run will say what is wrong with it
        return None
    if note is None or note.file is None:
        return None
    before, now = Path(note.file), Path(file)
    if not before.is_file() or before.samefile(now):
        return None
    return (
        f"{config.name} is also the name of the grid in {before}: from now on the store takes it "
        f"for that of {now}, and `circuit-grid clean` removes what {before} alone needs; give one "
        f"of them another `name:` to keep both"
    )


def report(run: Run, console: Console, seconds: float) -> None:
    """Print the leaderboard, the pictures made, the stages by what became of them, the failures."""
    store, outcome = run.bench.store, run.outcome
    catalog = Catalog(store)
    drawings: list[Path] = []
    lines: list[Text | str] = []
    with console.status(AT_THE_END):  # seen in a terminal alone
        rows = rows_of_run(catalog, outcome.products.values())
        try:
            drawings = draw_best(catalog, rows, run.folder("drawings"))
        except DrawingError as error:
            lines.append(Text.assemble(("no drawing: ", "yellow"), str(error)))
    if rows:
        console.print()
        console.print(leaderboard_table(rows, console.width))
        console.print()
    lines += [f"drawn     {_nearby(path)}" for path in drawings]
    for line in (*lines, *_left_out(run.config), *_drops(run)):
        say(console, line, _LABEL)
    where = f"--store {store.location.name}" if store.location.name != "artifacts" else ""
    ask = f"{_nearby(Path(sys.argv[0]).absolute())} query leaderboard {where}".strip()
    for line in (f"store     {store.location.name}", f"ask       {ask}"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)  # whole, to be copied
    for damage in store.damaged:
        line = Text.assemble(("damaged", "yellow"), f"   {damage.path}: {damage.reason}")
        say(console, line, _LABEL)
    console.print()
    console.print(_stages(run))
    console.print()
    computed, reused = outcome.count("computed"), outcome.count("reused")
    failed = len(outcome.failures)
    if not computed and not failed:
        console.print(f"Every stage was reused ({reused}), in {seconds:.1f} s.", highlight=False)
    else:
        n = counted(computed, "stage")
        console.print(f"{n} computed, {reused} reused, in {seconds:.1f} s.", highlight=False)
    if failed:
        n_cells = sum(1 for _ in run.config.cells())
        lost = n_cells - len(outcome.products)
        what = f"{lost} of {counted(n_cells, 'cell')}" if lost else "what needs several cells"
        console.print(f"[bold red]{what} failed:[/]")
        for failure in outcome.failures:
            say(console, Text.assemble("  ", ("✗", "red"), f" {failure.turn.label}"), 4)
            say(console, f"    {failure.told}", 4)


def _left_out(config: GridConfig) -> list[str]:
    """A line on the pairs of a model and a task that have no cells, if there are any."""
    n, kept = len(config.models) * len(config.tasks), len(config.pairs)
    if n == kept:
        return []
    reason = "a model truth/… and the task of its name go with each other alone"
    return [f"left out  {n - kept} of {n} pairs of a model and a task: {reason}"]


def _drops(run: Run) -> list[str]:
    """A line for every dataset from which pairs were dropped: how many, and why."""
    lines = []
    for dataset in run.bench.datasets_at_hand:
        if dataset.dropped:
            reasons = "; ".join(f"{n} × {reason}" for reason, n in sorted(dataset.dropped.items()))
            lines.append(
                f"dropped   {dataset.task}, split {dataset.split}: {sum(dataset.dropped.values())} "
                f"pairs, {len(dataset)} used ({reasons})"
            )
    return lines


def _nearby(path: Path) -> Path:
    """The path from here, if it lies below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _stages(run: Run) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    for name in ("computed", "reused", "failed"):
        table.add_column(name, justify="right")
    for name in _in_order(run):
        counts = [run.outcome.count(how, name) for how in ("computed", "reused", "failed")]
        table.add_row(name, *(str(count) if count else "[dim]0[/]" for count in counts))
    return table


def _in_order(run: Run) -> list[str]:
    """The names of the run's stages, in the order of the grid's note, which is the plan's."""
    noted = run.bench.store.grids().get(run.config.name, ())
    met = run.outcome.stage_names
    return [name for name in dict.fromkeys((*(one.stage for one in noted), *met)) if name in met]
