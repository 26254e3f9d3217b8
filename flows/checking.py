"""What can be refused of a cell once its model and its examples are known, before any work."""

from __future__ import annotations

from flows.config import PATCHING, Cell, GridConfig
from flows.errors import GridError
from flows.methods import MethodChoice
from flows.stages import Found
from flows.units import UnitSpace
from flows.workbench import Workbench

POSITIONAL = "mean-positional"


def check_units(cell: Cell, config: GridConfig, bench: Workbench, described: Found) -> None:
    """Refuse names and sizes that the model does not have, and a graph that is listed twice."""
    _check_graph(cell, config, bench.units(described, cell.method.level))
    for method in cell.method.methods:
        _check_targets(method, bench.units(described, method.level))
    level, judging = cell.method.level, config.judging
    space = bench.units(described, level)
    sizes: list[int | float] = []
    for rule in config.extractions_of(cell.method):
        sizes += config.sizes_of(rule) if rule.values is None else ()
    sizes += [judging.stability.size] if judging.stability is not None else []
    for size in sizes:
        if isinstance(size, int) and size > space.n_units:
            raise GridError(
                f"a circuit of {size} {level}s was asked for, but {cell.model.label} "
                f"has {space.n_units}: ask for 1 to {space.n_units}"
            )


def check_lengths(
    cell: Cell, bench: Workbench, train: Found, test: Found, averaged: Found | None
) -> None:
    """Refuse prompts of several lengths where what replaces them is a mean at each position."""
    uses = [
        (cell.task.train_on, train, cell.method.scored_under),
        (cell.task.evaluate_on, test, cell.method.evaluated_under),
        (cell.task.means_on or cell.task.train_on, averaged, cell.method.interventions),
    ]
    lengths: dict[str, set[int]] = {}
    for split, examples, interventions in uses:
        if examples is not None and POSITIONAL in interventions:
            dataset = bench.dataset(examples["examples"].key)
            lengths.setdefault(split, set()).update(one.length for one in dataset)
    if len(set().union(*lengths.values())) > 1:
        each = "; ".join(
            f"those of split {split} have {', '.join(map(str, sorted(found)))} tokens"
            for split, found in lengths.items()
        )
        raise GridError(
            f"{POSITIONAL} needs inputs of one length, but {cell.task.label} has several: {each}; "
            f"choose one length, or use mean"
        )


def check_counterfactuals(cell: Cell, bench: Workbench, train: Found, test: Found) -> None:
    """Refuse examples without a corrupted prompt where patching puts it in place."""
    uses = [
        (cell.task.train_on, train, cell.method.scored_under),
        (cell.task.evaluate_on, test, cell.method.evaluated_under),
    ]
    for split, examples, interventions in uses:
        dataset = bench.dataset(examples["examples"].key)
        if PATCHING in interventions and not all(one.has_counterfactual for one in dataset):
            raise GridError(
                f"{cell.task.label}, split {split}, has examples without a corrupted prompt, which "
                f"patching puts in the clean one's place: give the file a column `corrupted`, or "
                f"the method `intervention: zero` or mean (`judged_under` for one that takes none)"
            )


def _check_graph(cell: Cell, config: GridConfig, space: UnitSpace) -> None:
    plain = cell.model.model_copy(update={"kv": "ungrouped"})
    if cell.model != plain and plain in config.models and not space.graph.grouped:
        raise GridError(
            f"{plain.label} is listed twice: its heads share no keys and values, so `kv: grouped` "
            f"changes nothing; leave one of the two out"
        )


def _check_targets(method: MethodChoice, space: UnitSpace) -> None:
    if method.named_units is not None:
        space.targets_named(method.named_units)
    if method.top is not None:
        space.n_asked(method.top)
