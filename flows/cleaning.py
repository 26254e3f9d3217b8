"""A cleaning in words: what is to be removed and why, what is asked before, what is told after."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from rich.console import Console
from rich.table import Table

from data.ledger import UnreadableNote
from data.schema import TABLES
from flows.errors import GridError
from flows.wrapping import counted

Reason = Literal["stale", "unreferenced", "leftover"]
REASONS: tuple[Reason, ...] = get_args(Reason)
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


@dataclass(frozen=True)
class Removal:
    """Files to be removed, as one or not at all: why, what they are, their paths and bytes."""

    reason: Reason
    kind: str
    key: str | None
    paths: tuple[str, ...]
    n_bytes: int


@dataclass(frozen=True)
class Cleaning:
    """What is to be removed, grids to be forgotten, and what stays for reasons worth a word."""

    removals: tuple[Removal, ...]
    forgotten: tuple[str, ...] = ()
    young: int = 0
    unreadable: tuple[UnreadableNote, ...] = ()
    running: tuple[str, ...] = ()  # runs for the sake of which all artifacts stay

    @property
    def n_bytes(self) -> int:
        """Bytes of all files to be removed."""
        return sum(one.n_bytes for one in self.removals)

    @property
    def amount(self) -> str:
        """What is to be removed, in words; empty where that is nothing."""
        n_artifacts = sum(one.kind in TABLES for one in self.removals)
        numbers = {"artifact": n_artifacts, "leftover": len(self.removals) - n_artifacts}
        named = " and ".join(counted(n, what) for what, n in numbers.items() if n)
        return f"{named}, {counted(self.n_bytes, 'byte')}" if named else ""

    @property
    def question(self) -> str:
        """What to ask before it is done; empty where there is nothing to do."""
        remove = f"Remove {self.amount}" if self.amount else ""
        if not self.forgotten:
            return f"{remove}?" if remove else ""
        grids = f"grid {' and '.join(map(repr, self.forgotten))}"
        return f"{remove}, and forget {grids}?" if remove else f"Forget {grids}?"


def seconds_of(age: str) -> float:
    """The seconds of an age as `90m`, `12h`, `30d` or `2w`; GridError for anything else."""
    number, unit = age.strip()[:-1], age.strip()[-1:]
    try:
        seconds = float(number) * _UNITS[unit]
    except (ValueError, KeyError):
        seconds = float("nan")
    if not 0 <= seconds < float("inf"):
        raise GridError(f"{age!r} is no age: say 90m, 12h, 30d or 2w")
    return seconds


def reasons_of(names: Iterable[str]) -> tuple[Reason, ...]:
    """The reasons that are meant; GridError for what is none."""
    chosen = tuple(names)
    for name in chosen:
        if name not in REASONS:
            raise GridError(f"{name!r} is nothing that can be removed: say {', '.join(REASONS)}")
    return tuple(reason for reason in REASONS if reason in chosen)


def show_cleaning(cleaning: Cleaning, console: Console, done: bool) -> None:
    """Print what was removed, or each file that would be, and how many bytes by reason and kind."""
    if not done:
        for one in cleaning.removals:
            for path in one.paths:
                console.print(f"{one.reason:13}{path}", highlight=False, soft_wrap=True)
        for name in cleaning.forgotten:
            console.print(f"{'grid':13}grids/{name}.json", highlight=False, soft_wrap=True)
    counts: dict[tuple[str, str], list[int]] = defaultdict(list)
    for one in cleaning.removals:
        counts[one.reason, one.kind].append(one.n_bytes)
    if counts:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("removed" if done else "to be removed")
        table.add_column("kind")
        table.add_column("number", justify="right")
        table.add_column("bytes", justify="right")
        for (reason, kind), sizes in sorted(counts.items()):
            table.add_row(reason, kind, f"{len(sizes):,}", f"{sum(sizes):,}")
        console.print(table)
    sentences = []
    if cleaning.amount:
        sentences.append(f"{cleaning.amount} {'removed' if done else 'would be removed'}")
    elif not cleaning.forgotten:
        sentences.append("nothing to remove")
    if cleaning.young:
        kept = "is kept, too young" if cleaning.young == 1 else "are kept, too young"
        sentences.append(f"{counted(cleaning.young, 'artifact')} {kept} to be removed")
    for name in cleaning.forgotten:
        sentences.append(f"grid {name!r} {'is' if done else 'would be'} forgotten")
    for run in cleaning.running:
        sentences.append(f"{run}: all artifacts are kept while it lasts")
    for file in cleaning.unreadable:
        sentences.append(
            f"{file.path} cannot be read ({file.reason}), so what grid {file.grid!r} needs is not"
            f" known, and all artifacts are kept: {file.advice}"
        )
    for sentence in sentences:
        console.print(sentence, highlight=False, soft_wrap=True, markup=False)
