"""The way of a cell to its scores: attribution shard by shard, an ensemble of members, a file.

Each way is a generator of stages, as `flows/walk.py` walks them; it ends in the scores' stage.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import cached_property

from flows.config import Cell, GridConfig
from flows.identity import Identities, ModelIdentity
from flows.methods import EnsembleChoice, FileChoice, MethodChoice, Source
from flows.stages import (
    EnsembleMethodStage,
    EnsembleStage,
    FileMethodStage,
    FileStage,
    Found,
    MethodStage,
    ScoresStage,
    ShardStage,
    Stage,
)
from flows.units import UnitSpace
from flows.workbench import Workbench
from tasks import Dataset

Steps = Generator[tuple[Stage, ...], tuple[Found | None, ...], Found | None]
SourceStage = MethodStage | EnsembleMethodStage | FileMethodStage


def described_as(
    source: Source, metric: str, means: str | None, identities: Identities
) -> SourceStage:
    """The stage that describes a source of scores on a task with this metric and these means."""
    if isinstance(source, EnsembleChoice):
        return EnsembleMethodStage.of(source, metric, means)
    if isinstance(source, FileChoice):
        return FileMethodStage(source.label, source, identities.file(source.path))
    assert isinstance(source, MethodChoice)
    return MethodStage.of(source, metric, means)


def with_parts(stage: SourceStage) -> tuple[SourceStage, ...]:
    """The stage, and those of the methods that it is made of or that choose its units."""
    if isinstance(stage, EnsembleMethodStage):
        return (stage, *(one for member in stage.members for one in with_parts(member)))
    if isinstance(stage, MethodStage) and stage.ranking is not None:
        return (stage, *with_parts(stage.ranking))
    return (stage,)


@dataclass(frozen=True)
class Scoring:
    """What the scores of a cell are made from, as far as it is there."""

    cell: Cell
    config: GridConfig
    bench: Workbench
    model: ModelIdentity
    described: Found | None
    train: Found | None
    means: Mapping[str, Found | None]

    def walk(self, stage: SourceStage) -> Steps:
        """The stages of a source's scores."""
        if isinstance(stage, EnsembleMethodStage):
            return (yield from self._ensemble(stage))
        if isinstance(stage, FileMethodStage):
            scope = f"{self.model.label} · {stage.file.label}"
            (found,) = yield (FileStage(scope, self.model, self.described, stage),)
            return found
        return (yield from self._attribution(stage))

    def shards(self, method: MethodStage, ranking: Found | None = None) -> tuple[ShardStage, ...]:
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
                means=self.means_of(choice),
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

    def means_of(self, method: MethodChoice) -> Found | None:
        """The mean activations that a method replaces by; None for other interventions."""
        return self.means.get(method.intervention or "")

    def _attribution(self, method: MethodStage) -> Steps:
        """The shards of a method and their sums; what chooses its units goes before."""
        ranking = None
        if method.ranking is not None:
            ranking = yield from self._attribution(method.ranking)
        shards = self.shards(method, ranking)
        found = yield shards
        (scores,) = yield (
            ScoresStage(
                *(self._scope(method), self.model, self.described, self.train),
                *(method, found, tuple(shard.index for shard in shards)),
            ),
        )
        return scores

    def _ensemble(self, ensemble: EnsembleMethodStage) -> Steps:
        """The members' scores, each as if it were a method of its own, then all of them."""
        members = []
        for member in ensemble.members:
            members.append((yield from self._attribution(member)))
        (scores,) = yield (
            EnsembleStage(
                *(self._scope(ensemble), self.model, self.described, self.train),
                *(ensemble, tuple(members)),
            ),
        )
        return scores

    def _space(self, level: str) -> UnitSpace | None:
        return None if self.described is None else self.bench.units(self.described, level)

    @cached_property
    def _dataset(self) -> Dataset | None:
        return None if self.train is None else self.bench.dataset(self.train["examples"].key)

    def _scope(self, method: MethodStage | EnsembleMethodStage) -> str:
        return f"{self.model.label} · {self.cell.task.label} · {method.scope}"

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
