"""The way of a cell through its stages, walked with or without doing the work.

`walk` is a generator: it yields stages that do not depend on each other, and is sent what came of
them (their artifacts, or None for what is not finished). Sent only what the store already holds,
it is a plan; sent what the stages build, it is the run. So a plan and a run cannot disagree.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

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
    MeansStage,
    MethodStage,
    ModelStage,
    ScoresStage,
    ShardStage,
    Stage,
)
from flows.units import UnitSpace
from flows.workbench import Workbench
from tasks import Dataset, TaskError, default_metric


@dataclass(frozen=True)
class Products:
    """What a cell ends in: its scores, its circuits, and what they were measured between."""

    scores: Found | None
    circuits: tuple[Found | None, ...]
    baselines: tuple[Found | None, ...]
    evaluations: tuple[Found | None, ...]


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


Steps = Generator[tuple[Stage, ...], tuple[Found | None, ...], Found | None]
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
    kinds = _kinds_of_means(cell)

    def drawn(split: str, size: int | None) -> DatasetStage:
        return DatasetStage(on_task, cell.task, content, split, size, model)

    method = MethodStage.of(cell.method, metric)
    described, train, test, _, *others = yield (
        ModelStage(model.label, model),
        drawn(cell.task.train_on, asked[0]),
        drawn(cell.task.evaluate_on, asked[1]),
        method,
        *([] if method.ranking is None else [method.ranking]),
        *([drawn(*config.means_of(cell.task))] if kinds else []),
    )
    found: tuple[Found | None, ...] = ()
    if kinds:
        found = yield tuple(MeansStage(on_task, model, others[-1], kind) for kind in kinds)
    means = dict(zip(kinds, found, strict=True))
    attribution = _Attribution(cell, config, bench, model, described, train, means)
    attribution.check_sizes()

    scores = yield from attribution.walk(method)
    rules = config.extractions_of(cell.method)
    circuits = yield tuple(
        CircuitsStage(cell.label, described, scores, cell.method.level, rule, config.sizes_of(rule))
        for rule in rules
    )
    judges = tuple(dict.fromkeys(cell.task.judged_by or (metric,)))
    wholes = tuple(
        BaselinesStage(on_task, model, test, judge, under, means.get(under), under in means)
        for judge in judges
        for under in cell.method.evaluated_under
    )
    baselines = yield wholes
    evaluations = yield tuple(
        EvaluationStage(
            *(cell.label, model, described, extracted, test, baseline, whole),
            *(cell.method.level, rule.label),
        )
        for whole, baseline in zip(wholes, baselines, strict=True)
        for rule, extracted in zip(rules, circuits, strict=True)
    )
    return Products(scores, circuits, baselines, evaluations)


def _kinds_of_means(cell: Cell) -> tuple[str, ...]:
    """The kinds of mean activations that a cell needs."""
    from circuits.intervention import MEANS

    return tuple(kind for kind in MEANS if kind in cell.method.interventions)


@dataclass(frozen=True)
class _Attribution:
    """What the scores of a cell are made from, as far as it is there."""

    cell: Cell
    config: GridConfig
    bench: Workbench
    model: ModelIdentity
    described: Found | None
    train: Found | None
    means: Mapping[str, Found | None]

    def walk(self, method: MethodStage) -> Steps:
        """The stages of a method's scores; those that choose its units go before."""
        ranking = None
        if method.ranking is not None:
            ranking = yield from self.walk(method.ranking)
        shards = self._shards(method, ranking)
        found = yield shards
        runs = tuple(shard.index for shard in shards)
        (scores,) = yield (
            ScoresStage(
                *(self._scope(method), self.model, self.described, self.train),
                *(method, found, runs),
            ),
        )
        return scores

    def check_sizes(self) -> None:
        """Refuse names and sizes that the model does not have, before anything is scored."""
        method = self.cell.method
        space = self._space(method.level)
        if space is None:
            return
        if method.named_units is not None:
            space.targets_named(method.named_units)
        if method.top is not None:
            space.n_asked(method.top)
        for rule in self.config.extractions_of(method):
            for size in self.config.sizes_of(rule) if rule.values is None else ():
                if isinstance(size, int) and size > space.n_units:
                    raise GridError(
                        f"a circuit of {size} {space.level}s was asked for, but {self.model.label} "
                        f"has {space.n_units}: ask for 1 to {space.n_units}"
                    )

    def _space(self, level: str) -> UnitSpace | None:
        return None if self.described is None else self.bench.units(self.described, level)

    @cached_property
    def _dataset(self) -> Dataset | None:
        return None if self.train is None else self.bench.dataset(self.train["examples"].key)

    def _scope(self, method: MethodStage) -> str:
        return f"{self.model.label} · {self.cell.task.label} · {method.method.label}"

    def _shards(self, method: MethodStage, ranking: Found | None) -> tuple[ShardStage, ...]:
        """The shards; while a dataset or a graph is missing, about as many as there will be."""
        from circuits.attribution import METHODS

        choice, dataset = method.method, self._dataset
        accepts = METHODS[choice.name]
        asked = self.config.counts_of(self.cell.task)[0]
        n = (asked or 1) if dataset is None else len(dataset)
        size = self.config.shard_size if accepts.runs_model else n
        runs = [(i, min(i + size, n)) for i in range(0, n, size)]
        space = self._space(choice.level)
        chunks = self._chunks(method, ranking) if accepts.takes_units else ((),)
        is_known = space is not None and (method.ranking is None or ranking is not None)
        return tuple(
            ShardStage(
                scope=self._scope(method),
                model=self.model,
                method=method,
                described=self.described,
                dataset=self.train,
                means=self.means.get(choice.intervention or ""),
                takes_means=choice.intervention in self.means,
                index=i,
                first=first,
                last=last,
                examples=None if dataset is None else dataset[first:last].digest,
                targets=chunk if accepts.takes_units and is_known else None,
                by_targets=accepts.takes_units,
                n_units=len(chunk) * (1 if space is None else space.units_per_target),
                n_layers=1 if space is None else space.graph.n_layers,
                number=i * len(chunks) + j,
                n_shards=len(runs) * len(chunks),
            )
            for i, (first, last) in enumerate(runs)
            for j, chunk in enumerate(chunks)
        )

    def _chunks(self, method: MethodStage, ranking: Found | None) -> tuple[tuple[int, ...], ...]:
        """The targets of each chunk; while they are not known, as many others."""
        choice = method.method
        space = self._space(choice.level)
        if space is None:
            return ((),)
        targets = None
        if choice.named_units is not None:
            targets = space.targets_named(choice.named_units)
        elif choice.top is not None:
            targets = tuple(range(space.n_asked(choice.top)))
        if method.ranking is not None and choice.top is not None and ranking is not None:
            ranked = self.bench.units(self.described or {}, method.ranking.method.level)
            values = self.bench.scores(ranked, ranking["scores"].key).values
            targets = ranked.best_targets(ranked.in_order(values), choice.top)
        return space.chunks(targets, self.config.shard_units)


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


def planned(stage: Stage) -> PlannedStage:
    """The stage as the store notes it for `status`."""
    return PlannedStage(stage.name, stage.scope, stage.kinds[-1], stage.key)


def cell_key(cell: Cell) -> str:
    """What a failure of a cell outside any stage is noted under."""
    method = cell.method.model_dump(mode="json")
    return stage_key("cell", 2, {"cell": cell.label, "method": method}, {})
