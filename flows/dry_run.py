"""What a run would do, said without doing it: its stages, time, memory, disk, and what is open."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from data import PlannedStage, Store
from data.address import shown
from data.schema import companions
from flows.estimates import LIKENESSES, Total, Work, kind_of_device
from flows.identity import ModelIdentity
from flows.progress import whom
from flows.prospect import Prospect
from flows.stages import DatasetStage, ModelStage, ShardStage, Stage
from flows.terminal import about, as_duration
from flows.wrapping import counted, say

_MOST_TURNS = 40  # shown one by one
_MOST_REASONS = 10
_OPEN = "not yet known"
_LABEL = len(_OPEN) + 2


def show_dry_run(prospect: Prospect, console: Console) -> None:
    """Print what would be done and reused, and what it would take, as far as that can be known."""
    to_do = [stage for stages in prospect.to_do.values() for stage in stages]
    n_there = len(prospect.plan.stages) - len(to_do)
    heading = Text()
    heading.append(prospect.config.name, "bold")
    heading.append(f" on {shown(prospect.location)}: ")
    if prospect.plan.done:
        heading.append(f"nothing to do, all {n_there} stages would be reused")
    else:
        heading.append(f"{counted(len(to_do), 'stage')} would run, {n_there} would be reused")
    say(console, heading)
    if to_do:
        console.print()
        console.print(_by_turn(prospect))
        console.print()
        console.print(_by_stage(prospect))
        console.print()
        for name, line in _costs(prospect, to_do):
            say(console, _labelled(name, line), _LABEL)
    for name, line in _notes(prospect, to_do):
        say(console, _labelled(name, line), _LABEL)


def _by_turn(prospect: Prospect) -> Table:
    """What would run, cell by cell."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("cell", overflow="fold")
    table.add_column("would run", overflow="fold")
    table.add_column("time", justify="right", no_wrap=True)
    wanting = [(turn, stages) for turn, stages in prospect.to_do.items() if stages]
    for turn, stages in wanting[:_MOST_TURNS]:
        total = prospect.estimates.total(map(Work.of, stages))
        table.add_row(turn.label, _counted(stages), _time(total))
    rest = [stage for _, stages in wanting[_MOST_TURNS:] for stage in stages]
    if rest:
        total = prospect.estimates.total(map(Work.of, rest))
        table.add_row(f"and {len(wanting) - _MOST_TURNS} more", _counted(rest), _time(total))
    return table


def _by_stage(prospect: Prospect) -> Table:
    """What would run and what would be reused, by the name of the stage."""
    to_do: dict[str, list[Stage]] = {}
    for stages in prospect.to_do.values():
        for stage in stages:
            to_do.setdefault(stage.name, []).append(stage)
    all_of = Counter(stage.name for stage in prospect.plan.stages)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    for name in ("would run", "reused", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    timed = not prospect.estimates.is_empty
    if timed:
        table.add_column("times known from", overflow="fold")
    for name, n in all_of.items():
        mine = to_do.get(name, [])
        total = prospect.estimates.total(map(Work.of, mine))
        counts = (len(mine), n - len(mine))
        table.add_row(
            name,
            *(Text(str(count), "" if count else "dim") for count in counts),
            _time(total) if mine else "",
            *([_basis(total)] if timed else []),
        )
    return table


def _costs(prospect: Prospect, to_do: list[Stage]) -> Iterator[tuple[str, str]]:
    """Time, memory and disk."""
    total = prospect.estimates.total(map(Work.of, to_do))
    if total.seconds:
        said = f"about {as_duration(total.seconds)}, one stage after another"
        said += "" if total.is_near else "; a guess, for most of it was never timed"
        if total.unknown:
            said += f"; without {counted(total.unknown, 'stage')} like which nothing was ever timed"
        yield "time", f"{said}. Loading models and starting processes come on top."
    else:
        yield "time", "not known: nothing was ever timed on this store"
    models = {stage.runs: None for stage in to_do if stage.runs is not None}
    for model in models:
        yield "memory", _memory(prospect, model, [one for one in to_do if one.runs == model])
    yield "disk", _disk(prospect, to_do)


def _memory(prospect: Prospect, model: ModelIdentity, stages: list[Stage]) -> str:
    """What a model and its stages hold at most, as recorded, or as its files let expect."""
    from circuits.model import weight_count

    weights = weight_count(model.name, model.revision) * _bytes_of(model.dtype)
    budget = prospect.config.memory_budget
    said = (
        f"{model.label}: weights {as_bytes(weights)} ({model.dtype}) and up to "
        f"{as_bytes(budget)} (memory_budget) beside them"
    )
    peaks = [prospect.estimates.peak_bytes(Work.of(stage)) for stage in stages]
    known = [peak for peak in peaks if peak is not None]
    device = kind_of_device(model.device)
    if known:
        return f"{said}; stages like these took {as_bytes(max(known))} at most on {device}"
    return f"{said}; none like these was measured on {device} yet"


def _disk(prospect: Prospect, to_do: list[Stage]) -> str:
    """How large the results will be, by those of the same tables, and how much room there is."""
    kinds = Counter(one for s in to_do for kind in s.kinds for one in (*companions(kind), kind))
    sizes = {} if prospect.store is None else _mean_bytes(prospect.store, kinds)
    unknown = sum(n for kind, n in kinds.items() if kind not in sizes)
    expected = sum(n * sizes[kind] for kind, n in kinds.items() if kind in sizes)
    said = f"about {as_bytes(expected)} of results" if sizes else "not known: no such results yet"
    if sizes and unknown:
        said += f", and {counted(unknown, 'table')} of kinds that were never stored"
    room = _room(prospect)
    return said if room is None else f"{said}; {as_bytes(room)} are free"


def _mean_bytes(store: Store, kinds: Iterable[str]) -> dict[str, float]:
    """The mean size of a table's artifacts, both files, of those that the store has."""
    found = {}
    for kind in kinds:
        files = store.location.files(kind)
        if files:
            infos = store.location.info(*files)
            n = sum(path.endswith(".parquet") for path in files)
            found[kind] = sum(info.size or 0 for info in infos) / max(1, n)
    return found


def _room(prospect: Prospect) -> int | None:
    """Free bytes where the store lies or would lie; None for an object store."""
    if "://" in prospect.location:
        return None
    place = Path(prospect.location).expanduser().absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def _notes(prospect: Prospect, to_do: list[Stage]) -> Iterator[tuple[str, str]]:
    """What else there is to know, and what cannot be known yet."""
    keys = {stage.key for stage in to_do}
    again = len(keys & prospect.failed)
    if again:
        yield "again", f"{counted(again, 'stage')} failed last time and would be tried again"
    busy = Counter(holder for key, holder in prospect.leased.items() if key in keys)
    for holder, n in busy.items():
        yield "running", f"{counted(n, 'stage')} of these, by {whom(holder)}, at this moment"
    yield from _from_before(prospect)
    new = dict.fromkeys(s.runs.label for s in to_do if isinstance(s, ModelStage) and s.runs)
    if new and any(isinstance(stage, ShardStage) and stage.by_targets for stage in to_do):
        yield (
            _OPEN,
            f"how many shards the methods take that run the model for each unit: the graph of"
            f" {', '.join(new)} is not described yet",
        )
    files = dict.fromkeys(
        one.task.label for one in to_do if isinstance(one, DatasetStage) and one.size is None
    )
    if files:
        yield (
            _OPEN,
            f"how many shards {', '.join(files)} takes: the file's examples are not counted yet,"
            " and stand for one shard here",
        )
    waiting = sum(stage.key is None and bool(stage.former) for stage in prospect.note.stages)
    if waiting:
        yield (
            _OPEN,
            f"{counted(waiting, 'stage')} of these wait for others, and have results from before,"
            " which are reused where these come out the same",
        )
    alike: dict[str, list[str]] = {}
    for turn, reason in prospect.reasons.items():
        alike.setdefault(reason, []).append(turn.label)
    for reason, labels in list(alike.items())[:_MOST_REASONS]:
        others = f" and {len(labels) - 1} more" if len(labels) > 1 else ""
        yield _OPEN, f"{labels[0]}{others} cannot be planned: {reason}"
    if len(alike) > _MOST_REASONS:
        yield _OPEN, f"and {len(alike) - _MOST_REASONS} more that cannot be planned"


def _from_before(prospect: Prospect) -> Iterator[tuple[str, str]]:
    """Stages whose inputs have changed since their results were made."""
    stale = sum(_is_stale(prospect.store, stage) for stage in prospect.note.stages)
    if stale:
        yield (
            "stale",
            f"{counted(stale, 'stage')} of these, made from inputs that have changed since",
        )


def _is_stale(store: Store | None, stage: PlannedStage) -> bool:
    if store is None or stage.key is None or not stage.former:
        return False
    return store.complete(stage.kind, stage.key) is None and any(
        store.complete(stage.kind, key) is not None for key in stage.former
    )


def _counted(stages: Iterable[Stage]) -> str:
    """Stages by name: `4 shard, scores, 2 circuits`."""
    names = Counter(stage.name for stage in stages)
    return ", ".join(name if n == 1 else f"{n} {name}" for name, n in names.items())


def _time(total: Total) -> str:
    if not total.seconds:
        return "?"
    said = about(total.seconds)
    return said if not total.unknown else f"{said} + ?"


def _basis(total: Total) -> str:
    """What an estimate rests on: `this cell 6, nothing 2`."""
    said = [f"{LIKENESSES[i]} {total.by_likeness[i]}" for i in sorted(total.by_likeness)]
    return ", ".join((*said, *([f"nothing {total.unknown}"] if total.unknown else [])))


def _labelled(name: str, line: str) -> Text:
    text = Text()
    text.append(f"{name:{_LABEL}}", "yellow" if name in (_OPEN, "stale", "again") else "bold")
    return text.append(line)


def _bytes_of(dtype: str) -> int:
    """Bytes of a number: 2 for `bfloat16`."""
    found = re.search(r"\d+", dtype)
    return int(found[0]) // 8 if found else 4


def as_bytes(n: float) -> str:
    """A number of bytes for people: `1.2 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.0f} {unit}" if unit == "B" or n >= 100 else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} TiB"
