"""The way of a cell through its stages, walked with or without doing the work.

`walk` is a generator: it yields stages that do not depend on each other, and is sent what came of
them (their artifacts, or None for what is not finished). Sent only what the store already holds,
it is a plan; sent what the stages build, it is the run. So a plan and a run cannot disagree.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass

from circuits.errors import CircuitError
from data import Artifact, PlannedStage, Store, StoreError, stage_key
from data.schema import companions
from flows.config import Cell, GridConfig
from flows.errors import GridError
from flows.identity import Identities, ModelIdentity
from flows.stages import (
    BaselinesStage,
    CircuitsStage,
    DatasetStage,
    EvaluationStage,
    Found,
    MethodStage,
    ModelStage,
    ScoresStage,
    ShardStage,
    Stage,
)
from flows.workbench import Workbench
from tasks import TaskError, default_metric


@dataclass(frozen=True)
class Products:
    """What a cell ends in: its scores, and the evaluations of its circuits."""

    scores: Found | None
    circuits: tuple[Found | None, ...]
    evaluations: tuple[Found | None, ...]
    evaluated_on: str | None  # the id of the dataset


@dataclass(frozen=True)
class Plan:
    """All stages of a grid, those that each cell still needs, and cells of which nothing is known.

    A cell cannot be planned where its model or its file is not there; its run says what is wrong.
    """

    stages: tuple[Stage, ...]
    missing: Mapping[Cell, tuple[Stage, ...]]
    unplannable: frozenset[Cell]

    @property
    def done(self) -> bool:
        """Whether there is nothing to do."""
        return not self.unplannable and not any(self.missing.values())


Walk = Generator[tuple[Stage, ...], tuple[Found | None, ...], Products]


def finished(store: Store, stage: Stage) -> Found | None:
    """The artifacts of a stage if all it writes is in the store and intact, else None."""
    if stage.key is None:
        return None
    found: dict[str, Artifact] = {}
    for kind in stage.kinds:
        for one in (*companions(kind), kind):
            artifact = store.find(one, stage.key)
            if artifact is None:
                return None
            found[one] = artifact
    return found


def walk(cell: Cell, config: GridConfig, bench: Workbench, identities: Identities) -> Walk:
    """Yield a cell's stages in the order in which they can be done; see the module's docstring."""
    model = identities.model(cell.model, config.device_of(cell.model))
    content = identities.task(cell.task)
    metric = cell.task.metric or default_metric(cell.task.source, cell.task.rule)
    on_task = f"{model.label} · {cell.task.label}"
    asked = config.counts_of(cell.task)

    method = MethodStage(cell.method.label, cell.method, metric)
    described, train, test, _ = yield (
        ModelStage(model.label, model),
        DatasetStage(on_task, cell.task, content, cell.task.train_on, asked[0], model),
        DatasetStage(on_task, cell.task, content, cell.task.evaluate_on, asked[1], model),
        method,
    )
    _check_sizes(config, bench, described, model)

    shards = yield _shards(cell, config, bench, model, method, train, asked[0])
    (scores,) = yield (ScoresStage(cell.label, model, described, train, method, shards),)
    circuits = yield tuple(
        CircuitsStage(cell.label, described, scores, rule, config.sizes_of(rule))
        for rule in config.extraction
    )
    judges = tuple(dict.fromkeys(cell.task.judged_by or (metric,)))
    wholes = yield tuple(
        BaselinesStage(on_task, model, test, judge, cell.method.intervention) for judge in judges
    )
    evaluations = yield tuple(
        EvaluationStage(cell.label, model, described, found, test, whole, judge, rule.label)
        for judge, whole in zip(judges, wholes, strict=True)
        for rule, found in zip(config.extraction, circuits, strict=True)
    )
    evaluated_on = None if test is None else bench.dataset(test["examples"].key).name
    return Products(scores, circuits, evaluations, evaluated_on)


def make_plan(config: GridConfig, bench: Workbench, identities: Identities) -> Plan:
    """Walk every cell of a grid on what the store holds now."""
    missing: dict[Cell, tuple[Stage, ...]] = {}
    stages: dict[str, Stage] = {}
    unplannable = set()
    for cell in config.cells():
        lacking = []
        try:
            for stage, found in _look(walk(cell, config, bench, identities), bench):
                stages.setdefault(stage.key or stage.place, stage)
                if found is None:
                    lacking.append(stage)
        except (TaskError, CircuitError, StoreError, GridError):
            unplannable.add(cell)
        missing[cell] = tuple(lacking)
    return Plan(tuple(stages.values()), missing, frozenset(unplannable))


def _look(steps: Walk, bench: Workbench) -> Iterator[tuple[Stage, Found | None]]:
    """The stages of a walk and what the store holds of them."""
    stages = next(steps)
    while True:
        found = tuple(finished(bench.store, stage) for stage in stages)
        yield from zip(stages, found, strict=True)
        try:
            stages = steps.send(found)
        except StopIteration:
            return


def _shards(
    cell: Cell,
    config: GridConfig,
    bench: Workbench,
    model: ModelIdentity,
    method: MethodStage,
    train: Found | None,
    asked: int | None,
) -> tuple[ShardStage, ...]:
    """The shards of a dataset; as many as were asked for while the dataset is missing."""
    dataset = None if train is None else bench.dataset(train["examples"].key)
    n = (asked or 1) if dataset is None else len(dataset)
    runs = [(i, min(i + config.shard_size, n)) for i in range(0, n, config.shard_size)]
    return tuple(
        ShardStage(
            scope=cell.label,
            model=model,
            method=method,
            dataset=train,
            index=i,
            first=first,
            last=last,
            n_shards=len(runs),
            examples=None if dataset is None else dataset[first:last].digest,
        )
        for i, (first, last) in enumerate(runs)
    )


def _check_sizes(
    config: GridConfig, bench: Workbench, described: Found | None, model: ModelIdentity
) -> None:
    """Refuse a size above the number of edges before anything is scored."""
    if described is None:
        return
    n_edges = bench.graph(described["graphs"].key).n_edges
    for rule in config.extraction:
        for size in config.sizes_of(rule) if rule.values is None else ():
            if isinstance(size, int) and size > n_edges:
                raise GridError(
                    f"a circuit of {size} edges was asked for, but {model.label} has {n_edges}: "
                    f"ask for 1 to {n_edges}"
                )


def planned(stage: Stage) -> PlannedStage:
    """The stage as the store notes it for `status`."""
    return PlannedStage(stage.name, stage.scope, stage.kinds[-1], stage.key)


def cell_key(cell: Cell) -> str:
    """What a failure of a cell outside any stage is noted under."""
    return stage_key("cell", 1, {"cell": cell.label}, {})
