"""Score every edge of a model's graph on a task.

`attribute` runs in a notebook, with no store and no server; `attribute_partial` gives the sums over
some of the examples, which add up to the same scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.attribution import clean_corrupted, eap, eap_ig_inputs
from circuits.attribution.method import METHODS, Method, Options, quadrature_names
from circuits.batching import DEFAULT_MEMORY_BUDGET, Batch, batches, check_examples
from circuits.errors import AttributionError
from circuits.model import Model
from circuits.reader_gradients import ReaderGradients, planned_bytes, writer_changes
from circuits.recording import Contributions, Recorder
from circuits.scores import PartialScores, Scores
from tasks import Dataset, Example, Metric, get_metric

__all__ = [
    "METHODS",
    "Method",
    "Options",
    "attribute",
    "attribute_partial",
    "clean_corrupted",
    "eap",
    "eap_ig_inputs",
    "method_names",
    "quadrature_names",
]


def method_names() -> tuple[str, ...]:
    """The names of the attribution methods."""
    return METHODS.names()


def attribute(
    model: Model,
    dataset: Dataset,
    method: str = "EAP-IG-inputs",
    *,
    steps: int | None = None,
    quadrature: str | None = None,
    metric: str | Metric = "logit-diff",
    level: str = "edge",
    intervention: str = "patching",
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
) -> Scores:
    """Score every edge: the mean over the dataset's examples, with its standard error.

    `steps` and `quadrature` belong to methods that integrate along a path (default: 5 points by
    the midpoint rule). `memory_budget` is in bytes, and bounds what is held beside the model.
    Raises `AttributionError` for an unknown method, a combination it does not take, or a metric
    that is not finite, and `CircuitError` for examples the model cannot take.
    """
    return attribute_partial(
        model,
        dataset.examples,
        method,
        steps=steps,
        quadrature=quadrature,
        metric=metric,
        level=level,
        intervention=intervention,
        memory_budget=memory_budget,
    ).finish(method)


def attribute_partial(
    model: Model,
    examples: Sequence[Example],
    method: str = "EAP-IG-inputs",
    *,
    steps: int | None = None,
    quadrature: str | None = None,
    metric: str | Metric = "logit-diff",
    level: str = "edge",
    intervention: str = "patching",
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
    first_example: int = 0,
    suffix_only: bool = True,
) -> PartialScores:
    """The sums of the per-example scores and of their squares over some examples, in float64.

    `first_example` is the place of the first one in its dataset, for messages. `suffix_only=False`
    computes the shared prefix again in every run; the scores are the same. Raises as `attribute`.
    """
    chosen = METHODS[method]
    measure = get_metric(metric) if isinstance(metric, str) else metric
    options = chosen.check(measure, steps, quadrature, level, intervention)
    check_examples(examples, model.architecture, first_example)
    path = chosen.path(options)
    total = PartialScores.zero(model.graph)
    plan = planned_bytes(model, len(path))
    for batch in batches(examples, model.device, memory_budget, plan, suffix_only=suffix_only):
        scores = _score_batch(model, batch, options, path, first_example)
        scores = (scores.cpu() if model.device.type == "mps" else scores).double()
        total += PartialScores(
            model.graph,
            scores.sum(0).cpu().numpy(),
            scores.square().sum(0).cpu().numpy(),
            batch.size,
        )
    return total


def _score_batch(
    model: Model,
    batch: Batch,
    options: Options,
    path: tuple[tuple[float, float], ...],
    first_example: int,
) -> Float[Tensor, "batch writers readers"]:
    """Each example's score of every edge.

    The clean and the corrupted run give the writers' changes; where the path has a point at either
    end, that run takes its gradient too.
    """
    recorder = Recorder(model, batch)
    gradients = ReaderGradients(model, batch)
    weights: dict[float, float] = {}
    for alpha, weight in path:
        weights[alpha] = weights.get(alpha, 0.0) + weight
    reference: Tensor | None = None

    def run(tokens: Tensor, alpha: float, embedding: Tensor | None = None) -> Contributions:
        def loss(logits: Float[Tensor, "batch vocab"]) -> Float[Tensor, " batch"]:
            clean_logits = logits.detach() if reference is None else reference
            values = options.metric.loss(logits, batch.answers, clean_logits)
            place = f"step {list(weights).index(alpha) + 1} of {len(weights)} (α = {alpha:.4g})"
            _check_finite(values.detach(), batch, first_example, options, place)
            return values

        weight = weights.get(alpha)
        contributions, found = recorder.record(
            tokens, loss if weight is not None else None, embedding
        )
        if found is not None and weight is not None:
            gradients.add(found, weight)
        return contributions

    clean = run(batch.clean, 1.0)
    reference = clean.logits
    corrupted = run(batch.corrupted, 0.0)
    for alpha in weights:
        if alpha not in (0.0, 1.0):
            between = torch.lerp(corrupted.embedding, clean.embedding, alpha)
            run(batch.clean, alpha, between)
    scores = gradients.edge_scores(writer_changes(model, batch, clean, corrupted))
    finite = scores.isfinite().flatten(1).all(1)
    if not finite.all():
        example = first_example + batch.indices[int((~finite).nonzero()[0])]
        raise AttributionError(
            f"the scores of example {example} are not finite: its gradients overflow or are NaN "
            f"in {str(model.dtype).removeprefix('torch.')}"
        )
    return scores


def _check_finite(
    values: Tensor, batch: Batch, first_example: int, options: Options, place: str
) -> None:
    finite = values.isfinite()
    if finite.all():
        return
    row = int((~finite).nonzero()[0])
    raise AttributionError(
        f"the metric {options.metric.name!r} is {float(values[row])} for example "
        f"{first_example + batch.indices[row]}, at {place} on the way from the corrupted to the "
        f"clean input"
    )
