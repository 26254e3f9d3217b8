"""`circuit-grid clean`: what a store holds and no grid needs, and its removal.

A key is *needed* by a grid that has it among its stages, or may have it again as far as is known
now; it is *stale* where a grid made it from upstream content that has changed since, and
*unreferenced* where no grid names it. Needed keys stay, with all their tables and the parts that
their provenance names, and so does whatever a process has a lease on. A run finishes stages before
its grid's note tells of them: so what is unreferenced stays for an hour. *Leftovers* are temporary
files of killed writers, damaged files, claims of dead processes, failures of stages that no grid
has, and what the index of another version derived.

What a run finds it counts on, and only its end tells what that was: while a run of any grid goes
on, every artifact stays, and a run that begins while a cleaning goes on waits until it gave way.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from data import GridNote, Store
from data.leases import CLAIM, Lease
from data.location import Listed
from data.marker import version_of
from data.runs import is_run
from data.schema import SCHEMA_VERSION, TABLES
from data.states import files_of
from flows.cleaning import REASONS, Cleaning, Reason, Removal
from flows.errors import GridError

GRACE = 3600.0  # seconds for which what no grid names stays
_SECONDS_BETWEEN_LOOKS = 1.0
_NOTED = ("failures", "grids", "leases", "index")


def look_over(
    store: Store,
    forget: Collection[str] = (),
    older_than: float | None = None,
    reasons: Collection[Reason] = REASONS,
) -> Cleaning:
    """What `clean` would remove now; nothing is changed.

    `forget` are grids that count as none, `older_than` (seconds) is how old files must be at least.
    GridError for a grid that is not there or is being run.
    """
    notes, unreadable = store.noted_grids()
    _check_forgotten(store, notes, forget)
    gone = frozenset[str]().union(*(notes[name].needed for name in forget))
    notes = {name: note for name, note in notes.items() if name not in forget}
    claims = store.location.listing("leases")
    leased = {lease.key for lease in store.leases()}
    running = _running(store, (*notes, *forget))
    needed = _needed(store, notes.values())
    stale = frozenset[str]() if unreadable else _stale(notes.values()) - needed
    damaged = {one.path for one in store.damaged}
    blocked = {one.path for one in store.damaged if one.blocked}  # for people to remove
    if version_of(store.location) == SCHEMA_VERSION:
        damaged |= {one.path for one in store.outdated}
    least, young = _least_ages(older_than), 0
    removals: list[Removal] = []
    for kind in TABLES if not running else ():
        for key, files in sorted(files_of(store.location, kind).items()):
            path = f"{kind}/{key[:2]}/{key}.parquet"
            if key in leased or path in blocked:
                continue
            reason: Reason
            if key in stale:
                reason, age = "stale", older_than or 0.0
            elif key not in needed and not unreadable:
                reason, age = "unreferenced", (older_than or 0.0) if key in gone else least
            elif path in damaged:
                reason, age = "leftover", least
            else:
                continue
            if reason not in reasons:
                continue
            if _age(files) < age:
                young += 1
                continue
            paths, size = tuple(one.path for one in files), sum(one.size for one in files)
            removals.append(Removal(reason, kind, key, paths, size))
    if "leftover" in reasons:
        dead = _dead_claims(store, claims, leased, older_than)
        removals += [*dead, *_leftovers(store, notes.values(), leased, least, bool(unreadable))]
    return Cleaning(tuple(removals), tuple(forget), young, unreadable, running)


def clean(store: Store, cleaning: Cleaning) -> Cleaning:
    """Remove what was found, less what a grid or a process has come to need; what was removed.

    Notes of grids and runs are looked at again every second. A stage's primary goes first: one that
    is half removed is not finished, and what is left of it is found by the next cleaning. GridError
    where another cleaning goes on, or a run of a grid that is to be forgotten.
    """
    lease = store.cleaning()
    if lease is None:
        raise GridError("the store is being cleaned by another process: wait until that ends")
    with lease:
        return _clean(store, cleaning, lease)


def _clean(store: Store, cleaning: Cleaning, lease: Lease) -> Cleaning:
    """As `clean`, under the lease that makes runs wait, which is given back once one does."""
    _check_forgotten(store, store.grid_notes(), cleaning.forgotten)
    running = _running(store, store.grid_notes())
    for name in cleaning.forgotten:
        store.forget_grid(name)
    done: list[Removal] = []
    needed = leased = frozenset[str]()
    looked = float("-inf")
    for key, group in _by_key(cleaning.removals):
        if time.monotonic() - looked > _SECONDS_BETWEEN_LOOKS:
            needed = frozenset().union(*(one.needed for one in store.grid_notes().values()))
            leased = frozenset(one.key for one in store.leases())
            running = running or _running(store, (*store.grid_notes(), *cleaning.forgotten))
            if running:
                lease.release()
            looked = time.monotonic()
        if key in leased:
            continue
        if any(one.kind in TABLES for one in group) and (running or lease.lost):
            continue
        going = [one for one in group if _may_go(store, one, needed)]
        if key is not None:
            store.remove_all(key, [one.kind for one in going if one.kind in TABLES])
        for path in (path for one in going if one.kind not in TABLES for path in one.paths):
            store.location.remove(path)
        done += going
    if any(one.kind in TABLES for one in done):
        store.tidy_index()
    return replace(cleaning, removals=tuple(done), running=running)


def _may_go(store: Store, one: Removal, needed: Collection[str]) -> bool:
    """Whether files may still be removed: nobody needs them now, or they are damaged still."""
    if one.key is None or one.kind not in TABLES:
        return True
    if one.reason == "leftover":
        return store.find(one.kind, one.key) is None
    return one.key not in needed


def _running(store: Store, grids: Iterable[str]) -> tuple[str, ...]:
    """The runs that go on, each as half a sentence.

    A claim of one that has not changed for an hour is that of a host that is gone.
    """
    runs = store.runs()
    if not runs:
        return ()
    ages: dict[str, float] = {}
    for claim in store.location.listing("leases"):
        if match := CLAIM.fullmatch(claim.path):
            ages[match["key"]] = _age([claim])
    names = tuple(grids)
    found = []
    for one in runs:
        if ages.get(one.key, 0.0) < GRACE:
            grid = next((repr(name) for name in names if is_run(one.key, name)), "that is new here")
            found.append(f"grid {grid} is being run, by process {one.pid} on {one.host}")
    return tuple(found)


def _check_forgotten(store: Store, notes: Mapping[str, GridNote], forget: Iterable[str]) -> None:
    """GridError for a grid that is not there or is being run."""
    leases = {lease.key: lease for lease in store.leases()}
    for name in forget:
        if name not in notes:
            known = f"there are {', '.join(sorted(notes))}" if notes else "there is none"
            raise GridError(f"the store has no grid {name!r}: {known}")
        for run in _running(store, [name]):
            if run.startswith(f"grid {name!r} "):
                raise GridError(f"{run}: end that run first")
        for key in notes[name].needed & set(leases):
            lease = leases[key]
            raise GridError(
                f"grid {name!r} is being run, by process {lease.pid} on {lease.host}: end that"
                " run first"
            )


def _needed(store: Store, notes: Iterable[GridNote]) -> frozenset[str]:
    """The keys that grids need, with the parts of what lies under them."""
    needed = frozenset[str]().union(*(note.needed for note in notes))
    parts: set[str] = set()
    for kind in TABLES:
        for artifact in store.artifacts(kind):
            if artifact.key in needed:
                said = artifact.provenance.get("parts")
                parts |= (
                    {part for part in said if isinstance(part, str)}
                    if isinstance(said, list)
                    else set()
                )
    return needed | parts


def _stale(notes: Iterable[GridNote]) -> frozenset[str]:
    return frozenset[str]().union(*(note.stale for note in notes))


def _dead_claims(
    store: Store, claims: Iterable[Listed], leased: Collection[str], older_than: float | None
) -> Iterator[Removal]:
    """Claims of processes that are known to have ended, or that have said nothing for an hour."""
    known = set(store.dead_claims())
    for claim in claims:
        match = CLAIM.fullmatch(claim.path)
        if match is None:
            continue  # not the store's
        is_dead = claim.path in known or (match["key"] not in leased and _age([claim]) >= GRACE)
        if is_dead and _age([claim]) >= (older_than or 0.0):
            yield Removal("leftover", "dead leases", None, (claim.path,), claim.size)


def _leftovers(
    store: Store,
    notes: Iterable[GridNote],
    leased: Collection[str],
    least: float,
    unreadable: bool,
) -> Iterator[Removal]:
    """Files that belong to nothing: of killed writers, lost failures, old indexes."""
    place = store.location
    folders = (*TABLES, *_NOTED)
    for path in place.leftovers(max(least, GRACE)):
        if path.split("/")[0] in folders or path.startswith(".store.json."):
            (info,) = place.info(path)
            yield Removal("leftover", "temporary files", None, (path,), info.size or 0)
    current = f"index/{SCHEMA_VERSION}/"
    for file in place.listing("index", recursive=True):
        if not file.path.startswith(current) and _age([file]) >= least:
            yield Removal("leftover", "index", None, (file.path,), file.size)
    if unreadable:
        return
    notes = list(notes)
    keys = frozenset[str]().union(*(note.needed for note in notes))
    cells = {stage.cell for note in notes for stage in note.stages}
    whole = all(note.whole and not note.kept for note in notes)
    files = {file.path: file for file in place.listing("failures")}
    for failure in store.failures():
        of_turn = failure.stage == "cell"  # its key is no stage's
        lost = whole and failure.cell not in cells if of_turn else failure.key not in keys
        noted = files.get(f"failures/{failure.key}.json")
        if lost and noted is not None and failure.key not in leased and _age([noted]) >= least:
            yield Removal("leftover", "failures", failure.key, (noted.path,), noted.size)


def _by_key(removals: Iterable[Removal]) -> Iterator[tuple[str | None, list[Removal]]]:
    """The removals of one key together; those of none one by one."""
    groups: dict[str, list[Removal]] = defaultdict(list)
    for one in removals:
        if one.key is None:
            yield None, [one]
        else:
            groups[one.key].append(one)
    yield from groups.items()


def _least_ages(older_than: float | None) -> float:
    """How old what no grid names must be, in seconds."""
    return GRACE if older_than is None else max(GRACE, older_than)


def _age(files: Iterable[Listed]) -> float:
    """Seconds since the last of some files was written; 0 where the store does not tell."""
    times = [file.mtime_ns for file in files]
    known = [one for one in times if one is not None]
    return time.time() - max(known) / 1e9 if len(known) == len(times) else 0.0
