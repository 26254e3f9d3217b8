"""Where grids stand, for people: a table a grid, once or again and again until all is done."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from datetime import UTC, datetime

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from data import GridNote
from flows.progress import whom
from flows.prospect import is_empty
from flows.standing import CONDITIONS, Condition, GridStanding, Running, Standing, Standings
from flows.terminal import about, as_duration
from flows.wrapping import counted, say, wrapped

_ALWAYS: tuple[Condition, ...] = ("done", "missing", "failed")  # columns, whatever is in them
_STYLES: dict[Condition, str] = {"failed": "red", "stale": "yellow", "running": "green"}
_LABEL = len("running ")  # below which nothing is written
_MOST_RUNNING = 8  # shown of a grid
_QUIET_SECONDS = 30.0  # after which what nobody works at is given up


def show_status(standing: Standing, console: Console) -> None:
    """Print a table a grid, and every failure and damaged file of the store."""
    for part in _parts(standing):
        if isinstance(part, Text):
            say(console, part, _LABEL)
        else:
            console.print(part)


def wait_for_store(location: str, console: Console, every: float) -> None:
    """Return once there is something at a place; until then, look every so many seconds."""
    if is_empty(location):
        say(console, f"no store at {location} yet: waiting")
    while is_empty(location):
        time.sleep(every)


def watch(
    standings: Standings, console: Console, every: float, planned: GridNote | None = None
) -> Standing:
    """Show how everything stands until all is done; returns how it stood at last.

    It ends, too, where a stage failed, a grid's note cannot be read, or there is no grid, and
    nothing has happened for a while. Looks every so many seconds; in a terminal what was shown is
    replaced, anywhere else a line tells what has changed.
    """
    looks = _looks(standings, every, planned)
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            for standing in looks:
                live.update(_whole(standing, console.width), refresh=True)
        return standing
    before: tuple[str, ...] = ()
    for standing in looks:
        lines = (
            *(_line(grid) for grid in standing.grids),
            *(one.sentence for one in standing.unreadable),
        )
        for line in lines:
            if line not in before:
                now = f"{datetime.now():%H:%M:%S}"
                console.print(f"{now} {line}", markup=False, highlight=False, soft_wrap=True)
        before = lines
    for part in _parts(standing, with_grids=False):
        console.print(part, soft_wrap=True)
    return standing


def _whole(standing: Standing, width: int) -> Group:
    """Everything, as a terminal shows it that is watched."""
    parts = _parts(standing, watched=True)
    return Group(
        *(
            Text("\n").join(wrapped(one, width, _LABEL)) if isinstance(one, Text) else one
            for one in parts
        )
    )


def _looks(standings: Standings, every: float, planned: GridNote | None) -> Iterator[Standing]:
    """How everything stands, every so many seconds, until nothing more is to be expected."""
    before, since = None, time.monotonic()
    while True:
        standing = standings.look(planned)
        yield standing
        counts = [grid.counts for grid in standing.grids]
        if counts != before or not standing.is_idle:
            before, since = counts, time.monotonic()
        gave_up = any(one["failed"] for one in counts) or standing.failures or standing.unreadable
        is_quiet = time.monotonic() - since > _QUIET_SECONDS
        if standing.grids and standing.is_finished and standing.is_idle:
            return
        if is_quiet and (gave_up or not standing.grids):
            return
        time.sleep(every)


def _parts(
    standing: Standing, with_grids: bool = True, watched: bool = False
) -> Iterator[Table | Text]:
    """Everything, one below the other."""
    for holder in standing.beginning:
        yield Text.from_markup(f"[green]running[/] a grid not noted yet, by {escape(whom(holder))}")
    if not (standing.grids or standing.beginning or standing.unreadable):
        yield Text("No grid was run on this store yet: `circuit-grid run` runs the demo.")
    for grid in standing.grids if with_grids else ():
        yield Text.from_markup(f"[bold]{escape(grid.note.name)}[/]  {escape(_state(grid))}")
        yield _table(grid, (*_ALWAYS, "running") if watched else _ALWAYS)
        yield from _besides(grid)
        yield Text()
    for file in standing.unreadable if with_grids else ():
        yield Text.from_markup(f"[yellow]damaged[/] {escape(file.sentence)}")
    for lease in standing.elsewhere:
        yield Text.from_markup(
            f"[green]running[/] a stage of no grid noted here,"
            f" by {escape(whom(f'{lease.host}:{lease.pid}'))}"
        )
    for failure in standing.failures:
        cell, stage = escape(failure.cell), escape(failure.stage)
        yield Text.from_markup(f"[red]failed[/]  {cell}, {stage}:")
        yield Text(f"        {failure.sentence}")
    for damage in standing.damaged:
        then = "then run again" if damage.blocked else "the next run rebuilds it"
        what = f"{escape(damage.path)}: {escape(damage.reason)}; {then}"
        yield Text.from_markup(f"[yellow]damaged[/] {what}")


def _table(grid: GridStanding, always: Collection[Condition]) -> Table:
    """A row a stage: how many are how, and how long the rest of them takes."""
    shown = [one for one in CONDITIONS if one in always or grid.counts[one]]
    timed = any(row.left.is_near and row.left.seconds for row in grid.rows)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    for name in (*shown, *(["time left"] if timed else [])):
        table.add_column(name, justify="right")
    for row in grid.rows:
        cells = [_number(row.counts[one], _STYLES.get(one, "")) for one in shown]
        known = row.left.is_near and row.left.seconds
        left = about(row.left.seconds) if known else ""
        table.add_row(Text(row.stage), *cells, *([left] if timed else []))
    return table


def _number(n: int, style: str) -> Text:
    return Text(str(n), style if n else "dim")


def _besides(grid: GridStanding) -> Iterator[Text]:
    """Who is at what now, and what lies in the store beside what the grid needs."""
    for one in grid.running[:_MOST_RUNNING]:
        what = f"{escape(one.stage.cell)}, {escape(one.stage.stage)}"
        yield Text.from_markup(
            f"[green]running[/] {what}, by {escape(whom(one.holder))}{_for(one)}"
        )
    if len(grid.running) > _MOST_RUNNING:
        yield Text.from_markup(f"[green]running[/] and {len(grid.running) - _MOST_RUNNING} more")
    if grid.counts["stale"]:
        n = grid.counts["stale"]
        yield Text.from_markup(
            f"[yellow]stale[/]   {counted(n, 'stage')} to be made anew: the inputs have changed"
            " since"
        )
    if grid.n_kept:
        yield Text(
            f"kept    {counted(grid.n_kept, 'earlier result')}, reused if the missing inputs come"
            " out the same"
        )
    if grid.n_outdated:
        yield Text(
            f"unused  {counted(grid.n_outdated, 'result')} that no grid needs any more:"
            f" `circuit-grid clean` removes {'it' if grid.n_outdated == 1 else 'them'}"
        )


def _for(one: Running) -> str:
    """For how long a stage has been running, by the clock of who does it."""
    try:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(one.since)).total_seconds()
    except (ValueError, TypeError):  # a time that says nothing
        return ""
    return f", for {as_duration(max(0.0, seconds))}"


def _state(grid: GridStanding) -> str:
    """The grid in some words: `finished`, or `12 of 40 stages done, ~0:01:10 left`."""
    if grid.is_finished:
        return "finished"
    said = f"{grid.counts['done']} of {len(grid.note.stages)} stages done"
    if grid.seconds_left is not None:
        n = len(grid.running)
        how = f" with {n} at a time" if n > 1 else ""
        how = " once it runs, one stage at a time" if grid.is_idle else how
        said += f", {about(grid.seconds_left)} left{how}"
    if grid.runs:
        said += f", being run by {' and '.join(map(whom, grid.runs))}"
    return said


def _line(grid: GridStanding) -> str:
    """The grid in a line."""
    others = [f"{grid.counts[one]} {one}" for one in CONDITIONS[2:] if grid.counts[one]]
    return ", ".join((f"{grid.note.name}: {_state(grid)}", *others))
