"""What a cell ends in, and how its circuits are judged: on its own task, and on others."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from flows.config import Cell, GridConfig
from flows.identity import ModelIdentity
from flows.stages import (
    COMPLEMENT,
    BaselinesStage,
    ConfidenceStage,
    EvaluationStage,
    Found,
    MinimalityStage,
    Stage,
)


@dataclass(frozen=True)
class Extracted:
    """The circuits of one rule, or those of a file."""

    rule: str
    circuits: Found | None


@dataclass(frozen=True)
class Trial:
    """What circuits are judged on: a task's examples, a metric, an intervention, the baselines."""

    task: str
    test: Found | None
    whole: BaselinesStage
    baselines: Found | None


@dataclass(frozen=True)
class Products:
    """What a cell ends in: its scores, its circuits, and what they were judged on."""

    model: ModelIdentity
    described: Found | None
    scores: Found | None
    extracted: tuple[Extracted, ...]
    trials: tuple[Trial, ...]


def judge(
    cell: Cell,
    config: GridConfig,
    products: Products,
    trials: tuple[Trial, ...],
    in_full: bool,
) -> Generator[tuple[Stage, ...], tuple[Found | None, ...], None]:
    """A cell's circuits on trials: how faithful, how surely; in full also what judging asks for.

    In full is for the trials of the cell's own task.
    """
    judging, level = config.judging, cell.method.level
    evaluations = []
    for trial in trials:
        elsewhere = "" if in_full else f" on {trial.task}"
        for one in products.extracted:
            about = (cell.label, products.model, products.described, one.circuits, trial.test)
            rule = one.rule + elsewhere
            how = (*about, trial.baselines, trial.whole, level)
            evaluations.append((one, trial, EvaluationStage(*how, rule)))
            if in_full and judging.completeness:
                evaluations.append((one, trial, EvaluationStage(*how, rule, COMPLEMENT)))
    found = yield tuple(stage for _, _, stage in evaluations)
    after: list[Stage] = [
        ConfidenceStage(
            *(cell.label, one.circuits, evaluation, trial.baselines, judging, stage.label),
        )
        for (one, trial, stage), evaluation in zip(evaluations, found, strict=True)
    ]
    if in_full and judging.minimality is not None:
        after += [
            MinimalityStage(
                *(cell.label, products.model, products.described, one.circuits, trial.test),
                *(trial.baselines, trial.whole, level, judging.minimality, one.rule),
            )
            for trial in trials
            for one in products.extracted
        ]
    if after:
        yield tuple(after)
