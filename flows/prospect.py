"""What a run would find if it began now: planned from files alone, and nothing changed by it.

No model is loaded, nothing is fetched from a hub, no store is made and none is written to. A place
without a store is looked at as an empty one.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial

from circuits.errors import CircuitError
from data import GridNote, Store, StoreError
from data.bundled import is_bundled_name
from data.ledger import renewed
from data.location import Location
from data.marker import MARKER
from data.origin import now
from flows.config import Cell, GridConfig
from flows.errors import GridError
from flows.estimates import Estimates, recorded
from flows.identity import Identities
from flows.plan import Plan, finished, make_plan, planned
from flows.stages import Stage
from flows.walk import Turn, follow, walk
from flows.workbench import Workbench
from tasks import TaskError

_OFFLINE = "HF_HUB_OFFLINE"


@dataclass(frozen=True)
class Prospect:
    """A grid, its plan on a store as both are now, and what the store tells beside that.

    `reasons` say why turns cannot be planned; `store` is None where there is none.
    """

    config: GridConfig
    location: str
    plan: Plan
    note: GridNote
    reasons: Mapping[Turn, str]
    estimates: Estimates
    store: Store | None
    leased: Mapping[str, str]  # which process (`host:pid`) is at which stage, by key
    failed: frozenset[str]  # keys of stages that failed when they were tried last

    @cached_property
    def to_do(self) -> Mapping[Turn, tuple[Stage, ...]]:
        """What would be done in each turn; what several turns need is in the first alone."""
        seen: set[str] = set()
        found = {}
        for turn, stages in self.plan.missing.items():
            new = {stage.key or stage.place: stage for stage in stages}
            found[turn] = tuple(stage for name, stage in new.items() if name not in seen)
            seen |= set(new)
        return found


def look_ahead(config: GridConfig, location: str, file: str | None = None) -> Prospect:
    """Plan a grid on a store; StoreError for what is there and is no store that can be read."""
    with ExitStack() as stack:
        stack.enter_context(_without_hub())
        store: Store | None = None
        if is_empty(location):
            empty = stack.enter_context(tempfile.TemporaryDirectory(prefix="circuit-grid-"))
            bench = Workbench(empty, config.memory_budget)
        else:
            bench = Workbench(location, config.memory_budget, create=False)
            store = bench.store
        identities = Identities()
        plan = make_plan(config, bench, identities)
        reasons = {
            turn: _reason(turn, config, bench, identities, plan)
            for turn in plan.missing
            if turn in plan.unplannable
        }
    stages = tuple(planned(stage) for stage in plan.stages)
    note = GridNote(config.name, stages, file, now())
    if store is None:
        return Prospect(config, location, plan, note, reasons, Estimates(), None, {}, frozenset())
    return Prospect(
        config,
        location,
        plan,
        renewed(store.grid_notes().get(config.name), note, whole=not plan.unplannable),
        reasons,
        Estimates(recorded(store)),
        store,
        {one.key: f"{one.host}:{one.pid}" for one in store.leases()},
        frozenset(one.key for one in store.failures()),
    )


def _reason(
    turn: Turn, config: GridConfig, bench: Workbench, identities: Identities, plan: Plan
) -> str:
    """Why a turn cannot be planned."""
    model = turn.model if isinstance(turn, Cell) else None
    try:
        if model is not None:
            identities.model(model, config.device_of(model))
    except CircuitError as error:
        if model is None or model.is_directory or is_bundled_name(model.name):
            return str(error)
        return f"{model.short_name} is not on this machine; a run fetches it from the hub first"
    try:
        follow(walk(turn, config, bench, identities, plan.products), partial(finished, bench.store))
    except (TaskError, CircuitError, StoreError, GridError) as error:
        return str(error)
    return "it could not be planned a moment ago"


def is_empty(location: str) -> bool:
    """Whether there is nothing at a place where a store could be made."""
    place = Location.parse(location)
    return place.read(MARKER) is None and not place.entries()


@contextmanager
def _without_hub() -> Iterator[None]:
    """Within it, models of a hub are those that were fetched before."""
    before = os.environ.get(_OFFLINE)
    os.environ[_OFFLINE] = "1"
    constants = sys.modules.get("huggingface_hub.constants")
    was = getattr(constants, _OFFLINE, None)
    if constants is not None:
        setattr(constants, _OFFLINE, True)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_OFFLINE]
        else:
            os.environ[_OFFLINE] = before
        constants = sys.modules.get("huggingface_hub.constants")
        if constants is not None:
            setattr(constants, _OFFLINE, was if was is not None else before in ("1", "true"))
