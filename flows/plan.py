"""What a grid still lacks: its turns walked on what the store holds now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from circuits.errors import CircuitError
from data import Artifact, PlannedStage, Store, StoreError, place_id, stage_key
from data.errors import ArtifactLostError, StoreUnavailableError
from data.schema import companions
from flows.config import Cell, GridConfig
from flows.errors import GridError
from flows.estimates import weight
from flows.identity import Identities
from flows.judgement import Products
from flows.stages import Found, Stage
from flows.walk import Turn, Walk, follow, turns, walk
from flows.workbench import Workbench
from tasks import TaskError


@dataclass(frozen=True)
class Plan:
    """All stages of a grid, those that each turn still needs, and cells of which nothing is known.

    A cell cannot be planned where its model or its file is not there; its run says what is wrong.
    """

    stages: tuple[Stage, ...]
    missing: Mapping[Turn, tuple[Stage, ...]]
    unplannable: frozenset[Turn]
    products: Mapping[Cell, Products]  # what the cells end in, as far as it is there

    @property
    def done(self) -> bool:
        """Whether there is nothing to do."""
        return not self.unplannable and not any(self.missing.values())


def finished(store: Store, stage: Stage) -> Found | None:
    """The artifacts of a stage if all it writes is in the store and intact, else None."""
    if stage.key is None:
        return None
    found: dict[str, Artifact] = {}
    for kind in _tables_of(stage):
        artifact = store.find(kind, stage.key)
        if artifact is None:
            return None
        found[kind] = artifact
    return found


def read_through(store: Store, stage: Stage) -> None:
    """Read all that is there of a stage, so that what is damaged is found by `finished`."""
    assert stage.key is not None
    for kind in _tables_of(stage):
        with suppress(ArtifactLostError):
            store.read(kind, stage.key)


def _tables_of(stage: Stage) -> tuple[str, ...]:
    """The tables that a stage writes, companions before those they belong to."""
    return tuple(one for kind in stage.kinds for one in (*companions(kind), kind))


def make_plan(config: GridConfig, bench: Workbench, identities: Identities) -> Plan:
    """Walk every turn of a grid on what the store holds now.

    Raises StoreUnavailableError where the store is out of reach.
    """
    missing: dict[Turn, tuple[Stage, ...]] = {}
    stages: dict[str, Stage] = {}
    done: dict[Cell, Products] = {}
    unplannable = set()
    with bench.store.listed():
        for turn in turns(config):
            lacking: list[Stage] = []
            look = partial(_look, bench.store, stages, lacking)
            try:
                begin = partial(walk, turn, config, bench, identities, done)
                products = _followed(begin, look, lacking)
                if isinstance(turn, Cell) and products is not None:
                    done[turn] = products
            except StoreUnavailableError:
                raise  # nothing is known of the turn, and it may be in a moment
            except (TaskError, CircuitError, StoreError, GridError):
                unplannable.add(turn)
            missing[turn] = tuple(lacking)
    return Plan(tuple(stages.values()), missing, frozenset(unplannable), done)


def _followed(
    begin: Callable[[], Walk], look: Callable[[Stage], Found | None], lacking: list[Stage]
) -> Products | None:
    """What a walk ends in; begun anew where it meets damage, which it finds missing then."""
    met: set[str] = set()
    while True:
        try:
            return follow(begin(), look)
        except ArtifactLostError as error:
            if error.key in met:
                raise
            met.add(error.key)
            lacking.clear()


def _look(
    store: Store, stages: dict[str, Stage], lacking: list[Stage], stage: Stage
) -> Found | None:
    """What the store holds of a stage, which is noted, and among what is lacking if it is."""
    found = finished(store, stage)
    stages.setdefault(stage.key or stage.place, stage)
    if found is None:
        lacking.append(stage)
    return found


def planned(stage: Stage) -> PlannedStage:
    """The stage as the store notes it for `status`."""
    place = place_id(stage.place)
    return PlannedStage(stage.name, stage.scope, stage.kinds[-1], stage.key, place, weight(stage))


def turn_key(turn: Turn) -> str:
    """What a failure of a turn outside any stage is noted under."""
    cell = turn if isinstance(turn, Cell) else None
    method = None if cell is None else cell.method.model_dump(mode="json")
    return stage_key("cell", 2, {"cell": turn.label, "method": method}, {})
