"""Score every edge, node or neuron of a model's graph on a task.

`attribute` runs in a notebook, with no store and no server; `attribute_partial` gives the sums over
some of the examples, which add up to the same scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TypedDict, Unpack

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.attribution import (
    clean_corrupted,
    eap,
    eap_ig_activations,
    eap_ig_inputs,
    exact,
    information_flow_routes,
    random,
)
from circuits.attribution.method import METHODS, SCOPES, Method, Options, quadrature_names
from circuits.attribution.run import Run
from circuits.batching import (
    DEFAULT_MEMORY_BUDGET,
    batches,
    check_counterfactuals,
    check_examples,
)
from circuits.circuit import Circuit
from circuits.errors import AttributionError
from circuits.intervention import (
    INTERVENTIONS,
    MEANS,
    MeanActivations,
    check_means,
    check_source,
    mean_activations,
)
from circuits.model import Model
from circuits.reader_gradients import planned_bytes
from circuits.scores import PartialScores, Scores
from tasks import Dataset, Example, Metric

__all__ = [
    "INTERVENTIONS",
    "METHODS",
    "SCOPES",
    "Method",
    "Options",
    "attribute",
    "attribute_partial",
    "clean_corrupted",
    "eap",
    "eap_ig_activations",
    "eap_ig_inputs",
    "exact",
    "example_scores",
    "information_flow_routes",
    "mean_activations",
    "method_names",
    "quadrature_names",
    "random",
]

Edges = Iterable[str] | Circuit | Bool[np.ndarray, "writers readers"]


def method_names() -> tuple[str, ...]:
    """The names of the attribution methods."""
    return METHODS.names()


def attribute(
    model: Model,
    dataset: Dataset,
    method: str = "EAP-IG-inputs",
    *,
    level: str = "edge",
    intervention: str | None = None,
    intervention_dataset: Dataset | None = None,
    steps: int | None = None,
    quadrature: str | None = None,
    scope: str | None = None,
    seed: int | None = None,
    edges: Edges | None = None,
    nodes: Iterable[str] | None = None,
    metric: str | Metric | Callable[..., Tensor] | None = None,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
    progress: bool = False,
) -> Scores:
    """Score every edge, node or neuron: the mean over the examples, with its standard error.

    `level` is edge, node or neuron. `intervention` is patching (where the method takes one), zero,
    mean or mean-positional; means are over the clean inputs of `intervention_dataset`, by default
    the dataset itself. `steps` and `quadrature` belong to methods that integrate along a path
    (default: 5 points by the midpoint rule), `scope` (component or all) to EAP-IG-activations,
    `seed` to random. `edges` (names, a circuit or a mask) and `nodes` (names) restrict exact; what
    is not asked for scores NaN, and neurons are scored of named nodes only. `metric` is a name (by
    default `logit-diff`, where the method follows one), a `Metric` or a function of (logits,
    answers) or (logits, answers, clean logits), higher being better. `memory_budget` is in bytes,
    and bounds what is held beside the model. `progress` shows how far it is, on stderr.

    Raises `AttributionError` for an unknown method, a combination it does not take, or a metric
    that is not finite, and `CircuitError` for examples the model cannot take.
    """
    means = None
    options = METHODS[method].check(
        metric, level=level, intervention=intervention, steps=steps,
        quadrature=quadrature, scope=scope, seed=seed,
    )  # fmt: skip
    check_source(options.intervention, intervention_dataset, AttributionError)
    if edges is not None and not isinstance(edges, str | Circuit | np.ndarray):
        edges = list(edges)
    if nodes is not None and not isinstance(nodes, str):
        nodes = list(nodes)
    _units(model, METHODS[method], level, edges, nodes)  # refuses what the method does not take
    check_examples(dataset.examples, model.architecture)
    if options.intervention in MEANS:
        source = dataset if intervention_dataset is None else intervention_dataset
        means = mean_activations(model, source, options.intervention, memory_budget=memory_budget)
    with _counting(method, progress) as counter:
        total = attribute_partial(
            model,
            dataset.examples,
            method,
            level=level,
            intervention=intervention,
            means=means,
            steps=steps,
            quadrature=quadrature,
            scope=scope,
            seed=seed,
            edges=edges,
            nodes=nodes,
            metric=metric,
            memory_budget=memory_budget,
            progress=counter,
        )
    return total.finish(method)


class How(TypedDict, total=False):
    """What `example_scores` takes besides a model, examples and a method."""

    level: str
    intervention: str | None
    means: MeanActivations | None
    steps: int | None
    quadrature: str | None
    scope: str | None
    seed: int | None
    edges: Edges | None
    nodes: Iterable[str] | None
    metric: str | Metric | Callable[..., Tensor] | None
    memory_budget: int
    first_example: int
    suffix_only: bool
    progress: Callable[[float, int], None] | None


def attribute_partial(
    model: Model, examples: Sequence[Example], method: str = "EAP-IG-inputs", **how: Unpack[How]
) -> PartialScores:
    """The sums of the per-example scores and of their squares over some examples, in float64.

    Takes what `example_scores` takes, and raises as it does.
    """
    level = how.get("level", "edge")
    total = PartialScores.zero(model.graph, level, model.architecture.d_model)
    for indices, scores in example_scores(model, examples, method, **how):
        total += PartialScores(
            model.graph,
            scores.sum(0).cpu().numpy(),
            scores.square().sum(0).cpu().numpy(),
            len(indices),
            level,
        )
    return total


def example_scores(
    model: Model,
    examples: Sequence[Example],
    method: str = "EAP-IG-inputs",
    *,
    level: str = "edge",
    intervention: str | None = None,
    means: MeanActivations | None = None,
    steps: int | None = None,
    quadrature: str | None = None,
    scope: str | None = None,
    seed: int | None = None,
    edges: Edges | None = None,
    nodes: Iterable[str] | None = None,
    metric: str | Metric | Callable[..., Tensor] | None = None,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
    first_example: int = 0,
    suffix_only: bool = True,
    progress: Callable[[float, int], None] | None = None,
) -> Iterator[tuple[tuple[int, ...], Float[Tensor, "batch writers ..."]]]:
    """The scores of every example, batch by batch: places in `examples`, and scores in float64.

    `means` are needed under mean interventions. `first_example` is the place of the first one in
    its dataset, for messages. `suffix_only=False` computes the shared prefix again in every run;
    the scores are the same. `progress` is told how many examples are done (in exact also parts of
    one) and how many there are. Raises as `attribute`.
    """
    chosen = METHODS[method]
    options = chosen.check(
        metric, level=level, intervention=intervention, steps=steps,
        quadrature=quadrature, scope=scope, seed=seed,
    )  # fmt: skip
    units = _units(model, chosen, level, edges, nodes)
    check_examples(examples, model.architecture, first_example)
    check_counterfactuals(options.intervention, examples, first_example)
    check_means(model, options.intervention, means, examples, AttributionError)
    suffix_only &= options.intervention in (None, "patching") and not chosen.reads_all_positions
    plan = planned_bytes(model, options.steps or 1, holds_all=chosen.takes_scope)
    # a method that runs units as copies of a batch keeps half for the copies
    budget = (memory_budget + 1) // 2 if chosen.takes_units else memory_budget
    done = 0
    for batch in batches(examples, model.device, budget, plan, suffix_only=suffix_only):
        told = progress and partial(_tell, progress, done, batch.size, len(examples))
        now = replace(options, units=units, progress=told)
        run = Run(model, batch, now, means, first_example)
        scores = chosen.score(run)
        scores = (scores.cpu() if model.device.type == "mps" else scores).double()
        _check_finite(run, scores)
        done += batch.size
        if progress is not None:
            progress(done, len(examples))
        yield batch.indices, scores


def _tell(
    progress: Callable[[float, int], None], done: int, size: int, total: int, units: int, of: int
) -> None:
    """Say how far a batch of `size` examples is, of whose units so many are done."""
    progress(done + size * units / of, total)


def _units(
    model: Model,
    method: Method,
    level: str,
    edges: Edges | None,
    nodes: Iterable[str] | None,
) -> np.ndarray | None:
    """What is asked for, as a mask of the level's shape; None for everything."""
    if edges is not None and not (method.takes_units and level == "edge"):
        raise AttributionError(
            f"{method.name} at {level} level takes no edges: only exact at edge level does"
        )
    if nodes is not None and not (method.takes_units and level != "edge"):
        raise AttributionError(
            f"{method.name} at {level} level takes no nodes: only exact at node and neuron level "
            f"does"
        )
    if method.takes_units and level == "neuron" and nodes is None:
        raise AttributionError(
            "exact runs the model once a neuron, so it scores those of named nodes: give nodes="
        )
    for name, asked in (("edges", edges), ("nodes", nodes)):
        if isinstance(asked, str):
            raise AttributionError(f"{name} is a list of names: write {name}=[{asked!r}]")
    if edges is not None:
        return _edge_mask(model, edges)
    return None if nodes is None else _node_mask(model, level, nodes)


def _edge_mask(model: Model, edges: Edges) -> np.ndarray:
    graph = model.graph
    if isinstance(edges, np.ndarray):
        edges = Circuit(graph, edges)
    elif not isinstance(edges, Circuit):
        edges = Circuit.from_edges(graph, edges)
    if edges.graph != graph:
        raise AttributionError(
            f"the circuit given as edges belongs to another graph than that of {model.name!r}: "
            f"{edges.graph}, not {graph}"
        )
    if not edges.n_edges:
        raise AttributionError("no edge is asked for: leave edges out to score all of them")
    return edges.mask


def _node_mask(model: Model, level: str, nodes: Iterable[str]) -> np.ndarray:
    graph = model.graph
    mask = np.zeros(graph.n_writers, dtype=bool)
    for node in nodes:
        if node not in graph.writers:
            raise AttributionError(
                f"there is no writer {node!r} in this graph: they are {graph.writers[0]}, "
                f"{graph.writers[1]} … {graph.writers[-1]}"
            )
        mask[graph.writers.index(node)] = True
    if not mask.any():
        raise AttributionError("no node is asked for: leave nodes out to score all of them")
    d_model = model.architecture.d_model
    return mask if level == "node" else np.repeat(mask[:, None], d_model, axis=1)


def _check_finite(run: Run, scores: Tensor) -> None:
    finite = scores.isfinite()
    if run.options.units is not None:
        finite = finite | torch.from_numpy(~run.options.units).to(scores.device)
    finite = finite.flatten(1).all(1)
    if not finite.all():
        example = run.example(run.batch.first_unsound(finite.to(run.batch.last.device)))
        raise AttributionError(
            f"the scores of example {example} are not finite: its gradients overflow or are NaN "
            f"in {str(run.model.dtype).removeprefix('torch.')}"
        )


@contextmanager
def _counting(method: str, shown: bool) -> Iterator[Callable[[float, int], None] | None]:
    """Shows on stderr how many examples are done, while it lasts."""
    if not shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(method, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
