"""The way of a grid through its stages, walked with or without doing the work.

A grid is done in *turns*: every cell, then what needs several cells. A walk is a generator: it
yields stages that do not depend on each other, and is sent what came of them (their artifacts, or
None for what is not finished). Sent only what the store already holds, it is a plan; sent what the
stages build, it is the run. So a plan and a run cannot disagree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass

from data.keys import canonical_json
from flows.checking import check_counterfactuals, check_lengths, check_units
from flows.config import Cell, ExtractionChoice, GridConfig
from flows.identity import Identities
from flows.judgement import Extracted, Products, Trial, judge
from flows.methods import FileChoice
from flows.scoring import Scoring, SourceStage, described_as, with_parts
from flows.stages import (
    BaselinesStage,
    CircuitComparisonsStage,
    CircuitsStage,
    Compared,
    DatasetStage,
    Found,
    MeansStage,
    MethodStage,
    ModelStage,
    RecoveryStage,
    ScoreComparisonsStage,
    StabilityStage,
    Stage,
)
from flows.workbench import Workbench
from tasks import default_metric


@dataclass(frozen=True)
class CrossTask:
    """A turn: one cell's circuits on the examples of the other tasks."""

    cell: Cell

    @property
    def label(self) -> str:
        """The turn for people."""
        return f"{self.cell.label} · on other tasks"


@dataclass(frozen=True)
class Comparisons:
    """A turn: everything of one graph and level beside everything else."""

    label: str = "comparisons"


Turn = Cell | CrossTask | Comparisons
Walk = Generator[tuple[Stage, ...], tuple[Found | None, ...], Products | None]


def turns(config: GridConfig) -> Iterator[Turn]:
    """The turns of a grid, those that need one model together; comparisons are the last."""
    for model in config.models:
        cells = [cell for cell in config.cells() if cell.model == model]
        yield from cells
        if config.judging.cross_task:
            yield from (CrossTask(cell) for cell in cells)
    if config.judging.comparisons:
        yield Comparisons()


def walk(
    turn: Turn,
    config: GridConfig,
    bench: Workbench,
    identities: Identities,
    done: Mapping[Cell, Products],
) -> Walk:
    """The walk of a turn; `done` are the products of the cells that had theirs and did not fail."""
    match turn:
        case Cell():
            return _walk_cell(turn, config, bench, identities)
        case CrossTask():
            return _walk_cross_task(turn.cell, config, done)
    return _walk_comparisons(bench, done)


def follow(steps: Walk, do: Callable[[Stage], Found | None]) -> Products | None:
    """Take a walk to its end, sending it what `do` finds or makes of every stage."""
    try:
        stages = next(steps)
        while True:
            stages = steps.send(tuple(do(stage) for stage in stages))
    except StopIteration as end:
        products: Products | None = end.value
        return products


def _walk_cell(cell: Cell, config: GridConfig, bench: Workbench, identities: Identities) -> Walk:
    """A cell's stages, from its model to what its circuits are worth."""
    model = identities.model(cell.model, config.device_of(cell.model))
    content = identities.task(cell.task)
    metric = cell.task.metric or default_metric(cell.task.source, cell.task.rule)
    on_task = f"{model.label} · {cell.task.label}"
    asked = config.counts_of(cell.task)
    kinds = _kinds_of_means(cell)

    def drawn(split: str, size: int | None) -> DatasetStage:
        return DatasetStage(on_task, cell.task, content, split, size, model)

    source = described_as(cell.method, metric, config.means_said(cell.task), identities)
    train, test, *others, described = yield (
        drawn(cell.task.train_on, asked[0]),
        drawn(cell.task.evaluate_on, asked[1]),
        *([drawn(*config.means_of(cell.task))] if kinds else []),
        *with_parts(source),
        ModelStage(model.label, model),
    )
    averaged = others[0] if kinds else None
    if described is not None:
        check_units(cell, config, bench, described)
    if train is not None and test is not None:
        check_counterfactuals(cell, bench, train, test)
        check_lengths(cell, bench, train, test, averaged)
    found: tuple[Found | None, ...] = ()
    if kinds:
        found = yield tuple(MeansStage(on_task, model, averaged, kind) for kind in kinds)
    means = dict(zip(kinds, found, strict=True))
    scoring = Scoring(cell, config, bench, model, described, train, means)
    scores = yield from scoring.walk(source)
    beside = _of_scores(scoring, source, scores)
    if beside:
        yield beside
    rules = _rules(cell, config, bench, described, scores)
    circuits = yield tuple(
        CircuitsStage(cell.label, described, scores, cell.method.level, rule, config.sizes_of(rule))
        for rule in rules
    )
    extracted = [
        Extracted(rule.label, one) for rule, one in zip(rules, circuits, strict=True)
    ] + _imported(scores)

    judges = tuple(dict.fromkeys(cell.task.judged_by or (metric,)))
    wholes = tuple(
        BaselinesStage(on_task, model, test, judge, under, means.get(under), under in means)
        for judge in judges
        for under in cell.method.evaluated_under
    )
    baselines = yield wholes
    trials = tuple(
        Trial(cell.task.label, test, whole, found)
        for whole, found in zip(wholes, baselines, strict=True)
    )
    products = Products(model, described, scores, tuple(extracted), trials)
    yield from judge(cell, config, products, trials, in_full=True)
    return products


def _walk_cross_task(cell: Cell, config: GridConfig, done: Mapping[Cell, Products]) -> Walk:
    """A cell's circuits on what the cells of the same model and method were judged on."""
    if cell in done:
        trials = tuple(
            trial
            for other, products in done.items()
            if (other.model, other.method) == (cell.model, cell.method) and other != cell
            for trial in products.trials
        )
        yield from judge(cell, config, done[cell], trials, in_full=False)
    return None


def _of_scores(scoring: Scoring, source: SourceStage, scores: Found | None) -> tuple[Stage, ...]:
    """What is asked of the scores themselves: are they stable, do they find a known circuit."""
    from circuits.attribution import METHODS

    stages: list[Stage] = []
    choice = scoring.config.judging.stability
    if (
        choice is not None
        and isinstance(source, MethodStage)
        and METHODS[source.method.name].runs_model
    ):
        method = source.method
        passes = sum(shard.passes for shard in scoring.shards(source))
        stages.append(
            StabilityStage(
                *(scoring.cell.label, scoring.model, scoring.described, scoring.train, source),
                *(scoring.means_of(method), method.intervention in scoring.means, scores),
                *(choice, scoring.config.judging.seed, passes),
            )
        )
    return (*stages, *_recovery(scoring, scores))


def _recovery(scoring: Scoring, scores: Found | None) -> tuple[Stage, ...]:
    """The scores beside the circuit that is known, if the cell is a truth on its own task."""
    cell, described = scoring.cell, scoring.described
    truth, level = cell.model.name, cell.method.level
    if cell.task.name != truth or level == "neuron":
        return ()
    from circuits.recovery import is_truth, true_circuit

    if not is_truth(truth):
        return ()
    digest = None
    if described is not None:
        edges = true_circuit(truth, scoring.bench.graph(described["graphs"].key)).edges
        digest = hashlib.sha256(canonical_json(list(edges)).encode()).hexdigest()
    return (RecoveryStage(cell.label, described, scores, level, truth, digest),)


def _rules(
    cell: Cell, config: GridConfig, bench: Workbench, described: Found | None, scores: Found | None
) -> tuple[ExtractionChoice, ...]:
    """The rules that extract circuits; none where a file has a circuit and no scores."""
    rules = config.extractions_of(cell.method)
    if not isinstance(cell.method, FileChoice) or described is None or scores is None:
        return rules
    space = bench.units(described, cell.method.level)
    return rules if space.targets_scored(bench.scores(space, scores["scores"].key).values) else ()


def _imported(scores: Found | None) -> list[Extracted]:
    """The circuit that a file has beside its scores, if it has one."""
    if scores is None or "circuits" not in scores or not scores["circuits"].rows:
        return []
    return [Extracted("imported", scores)]


def _kinds_of_means(cell: Cell) -> tuple[str, ...]:
    """The kinds of mean activations that a cell needs."""
    from circuits.intervention import MEANS

    return tuple(kind for kind in MEANS if kind in cell.method.interventions)


def _walk_comparisons(bench: Workbench, done: Mapping[Cell, Products]) -> Walk:
    """Scores beside scores and circuits beside circuits, wherever graph and level are the same."""
    groups: dict[tuple[object, ...], list[tuple[Cell, Products]]] = {}
    for cell, products in done.items():
        if products.described is None:
            group: tuple[object, ...] = (cell.model, cell.method.level)  # not described yet
        else:
            space = bench.units(products.described, cell.method.level)
            group = (space.graph, space.level, space.n_units)
        groups.setdefault(group, []).append((cell, products))
    stages: list[Stage] = []
    for members in groups.values():
        level = members[0][0].method.level
        scope = ", ".join(dict.fromkeys(cell.model.label for cell, _ in members))
        scores = _sides((products.described, products.scores) for _, products in members)
        if len(scores) > 1:
            stages.append(ScoreComparisonsStage(scope, level, scores))
        rules = dict.fromkeys(one.rule for _, products in members for one in products.extracted)
        for rule in rules:
            circuits = _sides(
                (products.described, one.circuits)
                for _, products in members
                for one in products.extracted
                if one.rule == rule
            )
            if len(circuits) > 1:
                stages.append(CircuitComparisonsStage(scope, level, rule, circuits))
    if stages:
        yield tuple(stages)
    return None


def _sides(pairs: Iterable[tuple[Found | None, Found | None]]) -> tuple[Compared, ...]:
    """What is compared, each once, in the order of their keys; what is not there comes last."""
    found: dict[str, Compared] = {}
    for i, (described, one) in enumerate(pairs):
        key = f"~{i}" if one is None else next(iter(one.values())).key
        found[key] = Compared(described, one)
    return tuple(found[key] for key in sorted(found))
