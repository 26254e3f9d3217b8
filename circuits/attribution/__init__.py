"""Score every edge, node or neuron of a model's graph on a task.

`attribute` runs in a notebook, with no store and no server; `attribute_partial` gives the sums over
some of the examples, which add up to the same scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Bool
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
from circuits.batching import DEFAULT_MEMORY_BUDGET, batches, check_examples
from circuits.circuit import Circuit
from circuits.errors import AttributionError
from circuits.intervention import (
    INTERVENTIONS,
    MEANS,
    MeanActivations,
    check_means,
    mean_activations,
)
from circuits.model import Model
from circuits.reader_gradients import planned_bytes
from circuits.scores import PartialScores, Scores
from tasks import Dataset, Example, Metric, as_metric

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
    metric: str | Metric | Callable[..., Tensor] = "logit-diff",
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
    progress: bool = False,
) -> Scores:
    """Score every edge, node or neuron: the mean over the examples, with its standard error.

    `level` is edge, node or neuron. `intervention` is patching (where the method takes one), zero,
    mean or mean-positional; means are over the clean inputs of `intervention_dataset`, by default
    the dataset itself. `steps` and `quadrature` belong to methods that integrate along a path
    (default: 5 points by the midpoint rule), `scope` (component or all) to EAP-IG-activations,
    `seed` to random. `edges` (names, a circuit or a mask) and `nodes` (names) restrict exact; what
    is not asked for scores NaN, and neurons are scored of named nodes only. `metric` is a name, a
    `Metric` or a function of (logits, answers) or (logits, answers, clean logits), higher being
    better. `memory_budget` is in bytes, and bounds what is held beside the model. `progress` shows
    how far exact is, on stderr.

    Raises `AttributionError` for an unknown method, a combination it does not take, or a metric
    that is not finite, and `CircuitError` for examples the model cannot take.
    """
    means = None
    options = METHODS[method].check(
        as_metric(metric), level=level, intervention=intervention, steps=steps,
        quadrature=quadrature, scope=scope, seed=seed,
    )  # fmt: skip
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


def attribute_partial(
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
    metric: str | Metric | Callable[..., Tensor] = "logit-diff",
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
    first_example: int = 0,
    suffix_only: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> PartialScores:
    """The sums of the per-example scores and of their squares over some examples, in float64.

    `means` are needed under mean interventions. `first_example` is the place of the first one in
    its dataset, for messages. `suffix_only=False` computes the shared prefix again in every run;
    the scores are the same. `progress` is told of units done and units in all. Raises as
    `attribute`.
    """
    chosen = METHODS[method]
    options = chosen.check(
        as_metric(metric), level=level, intervention=intervention, steps=steps,
        quadrature=quadrature, scope=scope, seed=seed,
    )  # fmt: skip
    units = _units(model, chosen, level, edges, nodes)
    options = Options(**(options.__dict__ | {"units": units, "progress": progress}))
    check_examples(examples, model.architecture, first_example)
    check_means(options.intervention, means, examples, AttributionError)
    suffix_only &= options.intervention in (None, "patching") and not chosen.reads_all_positions
    plan = planned_bytes(model, options.steps or 1)
    # a method that runs units as copies of a batch keeps half for the copies
    budget = memory_budget // 2 if chosen.takes_units else memory_budget
    d_model = model.architecture.d_model
    total = PartialScores.zero(model.graph, level, d_model)
    for batch in batches(examples, model.device, budget, plan, suffix_only=suffix_only):
        run = Run(model, batch, options, means, first_example, budget)
        scores = chosen.score(run)
        scores = (scores.cpu() if model.device.type == "mps" else scores).double()
        _check_finite(run, scores)
        total += PartialScores(
            model.graph,
            scores.sum(0).cpu().numpy(),
            scores.square().sum(0).cpu().numpy(),
            batch.size,
            level,
        )
    return total


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
    graph = model.graph
    if edges is not None:
        if isinstance(edges, Circuit):
            return edges.mask
        if isinstance(edges, np.ndarray):
            return Circuit(graph, edges).mask
        return Circuit.from_edges(graph, edges).mask
    if nodes is None:
        return None
    mask = np.zeros(graph.n_writers, dtype=bool)
    for node in nodes:
        if node not in graph.writers:
            raise AttributionError(
                f"there is no writer {node!r} in this graph: they are {graph.writers[0]}, "
                f"{graph.writers[1]} … {graph.writers[-1]}"
            )
        mask[graph.writers.index(node)] = True
    d_model = model.architecture.d_model
    return mask if level == "node" else np.repeat(mask[:, None], d_model, axis=1)


def _check_finite(run: Run, scores: Tensor) -> None:
    finite = scores.isfinite()
    if run.options.units is not None:
        finite = finite | torch.from_numpy(~run.options.units).to(scores.device)
    finite = finite.flatten(1).all(1)
    if not finite.all():
        example = run.example(int((~finite).nonzero()[0]))
        raise AttributionError(
            f"the scores of example {example} are not finite: its gradients overflow or are NaN "
            f"in {str(run.model.dtype).removeprefix('torch.')}"
        )


@contextmanager
def _counting(method: str, shown: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Shows on stderr how many units of a batch are done, while it lasts."""
    if not shown:
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(method, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
