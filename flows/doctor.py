"""`circuit-grid doctor`: whether everything that a run rests on is as it should be, and what to do.

The installation (Python, every declared dependency, Prefect's server, the device) and the store:
that it opens, that every artifact is what vouches for it and has the digest it is known by, that
the index says the same, that leases work where it lies, that there is room, and that clocks agree.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from rich.console import Console

from data import Store, StoreError, content_digest, stage_key
from data.location import MARKER, Location
from data.marker import version_of
from data.schema import TABLES
from data.states import files_of
from flows.housekeeping import look_over
from flows.server import is_reachable
from flows.settings import own_server
from flows.wrapping import counted

_PROJECT = "circuit-grid"
_LEAST_BYTES = 2**30
_LEAST_FILES = 10_000
_MOST_SKEW = 60.0  # seconds between this machine's clock and that of the store
_SHOWN = 5  # damaged files that are named one by one


@dataclass(frozen=True)
class Finding:
    """What was looked at and how it is; where it is not well, what to do."""

    well: bool
    what: str
    advice: str = ""


def examine(location: str, quick: bool = False) -> Iterator[Finding]:
    """All findings, each as soon as it is known; `quick` leaves out reading all artifacts."""
    yield _python()
    yield from _dependencies()
    yield _prefect()
    yield _device()
    yield from _store(location, quick)


def show_findings(findings: Iterator[Finding], console: Console) -> bool:
    """Print a line a finding, and what to do; whether all is well."""
    wrong = 0
    for one in findings:
        mark = "[green]✓[/]" if one.well else "[red]✗[/]"
        console.print(mark, end=" ")
        console.print(one.what, markup=False, highlight=False, soft_wrap=True)
        if one.advice:
            console.print(f"  → {one.advice}", markup=False, highlight=False, soft_wrap=True)
        wrong += not one.well
    sentence = f"{wrong} of these are wrong." if wrong else "All is well."
    console.print(sentence, highlight=False)
    return not wrong


def _python() -> Finding:
    """This Python against the versions that the project declares."""
    found, wanted = platform.python_version(), metadata(_PROJECT)["Requires-Python"] or ""
    if SpecifierSet(wanted).contains(found, prereleases=True):
        return Finding(True, f"Python {found}")
    advice = f"install {_PROJECT} into an environment of Python {wanted}"
    return Finding(False, f"Python {found}, and {_PROJECT} is for {wanted}", advice)


def _dependencies() -> Iterator[Finding]:
    """What is installed against what the project declares; extras only where they are installed."""
    wrong, right = [], 0
    for line in requires(_PROJECT) or ():
        wanted = Requirement(line)
        extra = wanted.marker is not None and not wanted.marker.evaluate({"extra": ""})
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            if not extra:
                wrong.append(Finding(False, f"{wanted.name} is not installed", _install(wanted)))
            continue
        if wanted.specifier.contains(found, prereleases=True):
            right += 1
        else:
            what = f"{wanted.name} {found}, and {_PROJECT} needs {wanted.specifier}"
            wrong.append(Finding(False, what, _install(wanted)))
    yield from wrong
    if not wrong:
        yield Finding(True, f"{_PROJECT} {version(_PROJECT)} and {right} packages it declares")


def _install(wanted: Requirement) -> str:
    return f"pip install '{wanted.name}{wanted.specifier}'"


def _prefect() -> Finding:
    """The user's Prefect server, if one is set, answers."""
    url = own_server()
    if url is None:
        return Finding(
            True, f"Prefect {version('prefect')}; no server is set, runs start their own"
        )
    if is_reachable(str(url)):
        return Finding(True, f"Prefect {version('prefect')}; its server answers at {url}")
    advice = "start it (`prefect server start`), or unset PREFECT_API_URL to do without"
    return Finding(False, f"nothing answers at {url}, where PREFECT_API_URL points", advice)


def _device() -> Finding:
    """What `device: auto` takes, and its memory."""
    try:
        import torch
    except (ImportError, OSError) as error:
        advice = "install it again, for this machine's Python and device (see pytorch.org)"
        return Finding(False, f"torch cannot be imported: {error}", advice)
    if torch.cuda.is_available():
        devices = []
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            name = torch.cuda.get_device_name(number)
            devices.append(f"cuda:{number} {name}, {_amount(free)} of {_amount(total)} free")
        return Finding(True, f"torch {torch.__version__}: {'; '.join(devices)}")
    if torch.backends.mps.is_available():
        return Finding(True, f"torch {torch.__version__}: mps")
    threads = counted(torch.get_num_threads(), "thread")
    return Finding(
        True, f"torch {torch.__version__}: cpu, {threads}{_memory()}, no GPU that it sees"
    )


def _memory() -> str:
    """This machine's memory, where the system tells."""
    with suppress(ValueError, OSError, AttributeError):
        return f", {_amount(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))} of memory"
    return ""


def _store(location: str, quick: bool) -> Iterator[Finding]:
    """All about the store; nothing is made where there is none."""
    try:
        place = Location.parse(location)
        if place.read(MARKER) is None and not place.entries():
            yield Finding(True, f"no store at {place.name} yet: the first run makes it")
            return
        store = Store.open(location, create=False)
        yield Finding(True, f"store {place.name}, schema version {version_of(place)}")
        for check in (_artifacts, _grids, _leases, _room):
            yield from check(store, quick)
    except StoreError as error:
        yield Finding(False, str(error))


def _artifacts(store: Store, quick: bool) -> Iterator[Finding]:
    """Every artifact is what vouches for it; the index says what the files say."""
    number, disagreeing = 0, []
    for kind in TABLES:
        for key in sorted(files_of(store.location, kind)):
            known = store.find(kind, key)
            if known is None:
                continue
            number += 1
            if quick:
                continue
            with suppress(StoreError):  # then it is among the damaged
                rows = store.read(kind, key)
                if (content_digest(rows), rows.num_rows) != (known.digest, known.rows):
                    disagreeing.append(store.path(kind, key))
    read = "" if quick else ", every one read"
    damaged = store.damaged
    if damaged:
        for one in damaged[:_SHOWN]:
            advice = "the next run rebuilds it if a grid needs it; `circuit-grid clean` removes it"
            if one.blocked:
                advice = "remove it, then run again"
            yield Finding(False, f"{one.path} is damaged: {one.reason}", advice)
        if len(damaged) > _SHOWN:
            yield Finding(False, f"and {counted(len(damaged) - _SHOWN, 'more damaged artifact')}")
    if disagreeing:
        advice = f"remove the folder {store.location.path('index')}: it is made anew"
        what = f"{counted(len(disagreeing), 'artifact')} not as the index knows them"
        yield Finding(False, f"{what}, first {disagreeing[0]}", advice)
    if not damaged and not disagreeing:
        yield Finding(True, f"{counted(number, 'artifact')}{read}; the index agrees")
    store.save_index()
    if store.outdated:
        kinds = Counter(one.path.split("/")[0] for one in store.outdated)
        named = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
        sentence = f"{counted(len(store.outdated), 'artifact')} of older tables ({named})"
        yield Finding(True, sentence, "the next run builds those anew that its grid needs")


def _grids(store: Store, quick: bool) -> Iterator[Finding]:
    """The notes of grids can be read; what they do not need."""
    notes, unreadable = store.noted_grids()
    for one in unreadable:
        what = (
            f"{one.path} cannot be read ({one.reason}): what grid {one.grid!r} needs is not known"
        )
        yield Finding(False, what, one.advice)
    found = look_over(store)
    counts = Counter(one.reason for one in found.removals)
    named = ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items()))
    grids = counted(len(notes), "grid")
    if counts:
        sentence = f"{grids}; {named}, {_amount(found.n_bytes)}"
        yield Finding(True, sentence, "`circuit-grid clean --dry-run` shows them")
    else:
        yield Finding(True, f"{grids}; nothing to clean")


def _leases(store: Store, quick: bool) -> Iterator[Finding]:
    """Leases work where the store lies, and its clock is this machine's."""
    live = store.leases()
    if live:
        hosts = ", ".join(sorted({f"{one.host} ({one.pid})" for one in live}))
        yield Finding(True, f"{counted(len(live), 'stage')} being done now, by {hosts}")
    key = stage_key("doctor", 1, {"time": time.time_ns()}, {})
    other = Store.open(store.location.address, create=False)
    try:
        lease = store.lease(key)
    except StoreError as error:
        yield Finding(False, str(error), "a store that cannot be written to can be asked, no more")
        return
    began = time.time()
    if lease is None:
        yield Finding(False, "no lease can be taken", "see that listings of the store are current")
        return
    with lease:
        second = other.lease(key)
        claims = [one for one in store.location.listing("leases") if key in one.path]
    if second is not None:
        second.release()
        advice = "let one process at a time use it, or put it where listings are current"
        yield Finding(False, "two leases of one stage were given where the store lies", advice)
        return
    skew = max((abs(one.mtime_ns / 1e9 - began) for one in claims if one.mtime_ns), default=0.0)
    if skew > _MOST_SKEW:
        advice = "set both clocks; `clean` goes by the age of files"
        yield Finding(False, f"the store's clock is {skew:.0f} s from this machine's", advice)
    else:
        yield Finding(True, "leases work, and the clocks agree")


def _room(store: Store, quick: bool) -> Iterator[Finding]:
    """There is room for more files where the store lies."""
    if not store.location.is_local:
        return
    free = shutil.disk_usage(store.location.root).free
    numbers = os.statvfs(store.location.root)
    files = numbers.f_favail if numbers.f_files else None
    room = _amount(free) if files is None else f"{_amount(free)} and {files:,} files"
    if free < _LEAST_BYTES or (files is not None and files < _LEAST_FILES):
        advice = "make room there: `circuit-grid clean --dry-run` shows what nobody needs"
        yield Finding(False, f"{room} free at the store", advice)
    else:
        yield Finding(True, f"{room} free at the store")


def _amount(n_bytes: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f} TiB"
