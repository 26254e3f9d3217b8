"""How far a circuit depends on which examples were drawn: bootstrap resamples of the examples.

1. The attribution runs once and gives each example's scores.
2. A resample draws as many examples as there are, with replacement (Efron 1979): its scores are the
   mean over the examples drawn, each counted as often as it was drawn.
3. In every resample the n best units by |score| are taken, as top-n takes them but unpruned; a
   unit's *frequency* is the share of resamples in which it is among them.

A unit of frequency 1 keeps its place whichever examples are drawn; one of frequency 1/2 owes it to
the draw. Units with the same scores on every example tie in every resample, to the last bit, and
ties go to the first unit. Means of mean interventions are not resampled: they belong to the
intervention.

The resamples are those of `circuits.confidence.Bootstrap` with the same seed, so that intervals and
frequencies speak of the same draws. Memory, beside the attribution's: 8 bytes a scored unit for
every example or every resample, whichever are fewer, and a block of resamples at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.attribution import METHODS, Edges, example_scores
from circuits.batching import DEFAULT_MEMORY_BUDGET
from circuits.confidence import Bootstrap
from circuits.errors import AttributionError
from circuits.extraction import check_size, units_for_share
from circuits.intervention import MEANS, MeanActivations, check_source, mean_activations
from circuits.model import Model
from circuits.scores import PartialScores, Scores, unit_values
from tasks import Dataset, Metric

if TYPE_CHECKING:
    import pandas as pd

_BLOCK_BYTES = 16 << 20  # what the scores of a block of resamples may take


@dataclass(frozen=True, eq=False)
class Stability:
    """How often each unit is among the `size` best over bootstrap resamples of the examples.

    `frequency` has the shape of `scores.values`, from 0 to 1: NaN for units that were not scored,
    0 where there is no edge. `mean_jaccard` is the mean over resamples of the Jaccard index between
    the best units of the resample and those of all examples. One example cannot be resampled: then
    every frequency is NaN, and the mean None, as it is where nothing was scored.
    """

    scores: Scores  # over all examples, as `attribute` gives them
    size: int
    n_resamples: int
    frequency: Float[np.ndarray, "writers ..."]
    mean_jaccard: float | None

    def __repr__(self) -> str:
        jaccard = "undefined" if self.mean_jaccard is None else f"{self.mean_jaccard:.4f}"
        return (
            f"Stability({self.size} of {self.scores.n_units} {self.scores.level}s, "
            f"{self.n_resamples} resamples, mean Jaccard {jaccard})"
        )

    def to_pandas(self) -> pd.DataFrame:
        """The table of the scores, one row a unit, with the frequency last."""
        table = self.scores.to_pandas()
        table["frequency"] = unit_values(self.scores.graph, self.scores.level, self.frequency)
        return table


@dataclass(frozen=True, eq=False)
class ResampledScores:
    """Scores and what their resamples are made of; `stability(size)` may be asked several times.

    `counts` says how often each resample drew each example. `rows` are the scores of each example
    (`by_example`) or the sums of each resample, of the units that were scored.
    """

    scores: Scores
    counts: Int[np.ndarray, "resamples examples"]
    rows: Float[np.ndarray, "rows scored"]
    by_example: bool

    def blocks(self) -> Iterator[Float[np.ndarray, "block scored"]]:
        """The mean scores of all resamples in turn, a block of resamples at a time.

        They are those of the scored units, in unit order.
        """
        n_resamples, n_examples = self.counts.shape
        size = max(1, _BLOCK_BYTES // max(1, 8 * self.rows.shape[1]))
        for start in range(0, n_resamples, size):
            chosen = slice(start, start + size)
            if self.by_example:
                yield _sums(self.counts[chosen], self.rows) / n_examples
            else:
                yield self.rows[chosen] / n_examples

    def stability(self, size: int | float | np.number) -> Stability:
        """How often each unit is among the best; a `size` with a point is a share of the units.

        Raises `ExtractionError` for a size that the graph does not have.
        """
        scores, (n_resamples, n_examples) = self.scores, self.counts.shape
        size = _size(scores, size)
        scored = ~np.isnan(scores.unit_values)
        frequency = np.full(scores.n_units, np.nan)
        jaccard = None
        if n_examples > 1 and scored.any():
            best = _best(np.abs(scores.unit_values[None, scored]), size)[0]
            hits, jaccards = np.zeros(len(best)), 0.0
            for block in self.blocks():
                taken = _best(np.abs(block), size)
                hits += taken.sum(axis=0)
                shared = (taken & best).sum(axis=1)
                jaccards += float((shared / (2 * best.sum() - shared)).sum())
            frequency[scored], jaccard = hits / n_resamples, jaccards / n_resamples
        return Stability(scores, size, n_resamples, _spread(scores, frequency), jaccard)


def stability(
    model: Model,
    dataset: Dataset,
    method: str = "EAP-IG-inputs",
    *,
    size: int | float | np.number,
    resamples: int = 100,
    seed: int = 0,
    level: str = "edge",
    intervention: str | None = None,
    intervention_dataset: Dataset | None = None,
    means: MeanActivations | None = None,
    steps: int | None = None,
    quadrature: str | None = None,
    scope: str | None = None,
    method_seed: int | None = None,
    edges: Edges | None = None,
    nodes: Iterable[str] | None = None,
    metric: str | Metric | Callable[..., Tensor] | None = None,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
) -> Stability:
    """How often each unit is among the `size` best when the examples are drawn again.

    A whole `size` is a number of units, one with a point a share of them. `seed` is that of the
    `resamples`; that of the method `random` is `method_seed`. `means`, where they are known
    already, save the runs over the intervention dataset. All else is as in `attribute`. For several
    sizes see `resample`.

    Raises what `attribute` does, `EvaluationError` for fewer than two resamples or a negative seed,
    and `ExtractionError` for a size that the graph does not have.
    """
    return resample(
        model, dataset, method, resamples=resamples, seed=seed, level=level,
        intervention=intervention, intervention_dataset=intervention_dataset, means=means,
        steps=steps, quadrature=quadrature, scope=scope, method_seed=method_seed, edges=edges,
        nodes=nodes, metric=metric, memory_budget=memory_budget,
    ).stability(size)  # fmt: skip


def resample(
    model: Model,
    dataset: Dataset,
    method: str = "EAP-IG-inputs",
    *,
    resamples: int = 100,
    seed: int = 0,
    level: str = "edge",
    intervention: str | None = None,
    intervention_dataset: Dataset | None = None,
    means: MeanActivations | None = None,
    steps: int | None = None,
    quadrature: str | None = None,
    scope: str | None = None,
    method_seed: int | None = None,
    edges: Edges | None = None,
    nodes: Iterable[str] | None = None,
    metric: str | Metric | Callable[..., Tensor] | None = None,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
) -> ResampledScores:
    """One attribution, and all that its resamples need. Takes and raises what `stability` does."""
    if means is not None and intervention_dataset is not None:
        raise AttributionError("give means or an intervention_dataset to take them over, not both")
    options = METHODS[method].check(
        metric, level=level, intervention=intervention, steps=steps,
        quadrature=quadrature, scope=scope, seed=method_seed,
    )  # fmt: skip
    check_source(options.intervention, intervention_dataset, AttributionError)
    if options.intervention in MEANS and means is None:
        source = dataset if intervention_dataset is None else intervention_dataset
        means = mean_activations(model, source, options.intervention, memory_budget=memory_budget)
    counts = Bootstrap(resamples, seed=seed).counts(len(dataset))
    found = example_scores(
        model, dataset.examples, method, level=level, intervention=intervention, means=means,
        steps=steps, quadrature=quadrature, scope=scope, seed=method_seed, edges=edges,
        nodes=nodes, metric=metric, memory_budget=memory_budget,
    )  # fmt: skip
    nothing = PartialScores.zero(model.graph, level, model.architecture.d_model)
    return _collected(nothing, found, counts, method)


def _collected(
    total: PartialScores,
    found: Iterable[tuple[tuple[int, ...], Tensor]],
    counts: Int[np.ndarray, "resamples examples"],
    method: str,
) -> ResampledScores:
    """Each example's scores, kept or added to the resamples that drew it, from a total of none."""
    graph, level, (n_resamples, n_examples) = total.graph, total.level, counts.shape
    by_example, rows = n_examples <= n_resamples, None
    for indices, scores in found:
        total += PartialScores(
            graph,
            scores.sum(0).cpu().numpy(),
            scores.square().sum(0).cpu().numpy(),
            len(indices),
            level,
        )
        scored = unit_values(graph, level, ~np.isnan(total.total))
        values = scores.cpu().numpy()
        flat = values[:, graph.edge_mask] if level == "edge" else values.reshape(len(values), -1)
        flat, drawn = flat[:, scored], list(indices)
        if rows is None:
            rows = np.zeros((min(n_examples, n_resamples), flat.shape[1]))
        if by_example:
            rows[drawn] = flat
        else:
            _sums(counts[:, drawn], flat, rows)
    assert rows is not None
    return ResampledScores(total.finish(method), counts, rows, by_example)


def _sums(
    counts: Int[np.ndarray, "resamples examples"],
    rows: Float[np.ndarray, "examples scored"],
    sums: Float[np.ndarray, "resamples scored"] | None = None,
) -> Float[np.ndarray, "resamples scored"]:
    """`sums + counts @ rows`, in place, one example after another.

    A matrix product would add up some columns in another order than others, and so break ties.
    """
    if sums is None:
        sums = np.zeros((len(counts), rows.shape[1]))
    for times, row in zip(counts.T, rows, strict=True):
        for resample in np.flatnonzero(times):
            sums[resample] += times[resample] * row
    return sums


def _size(scores: Scores, size: int | float | np.number) -> int:
    """A size in units: a share is of the units of the graph."""
    if isinstance(size, float | np.floating):
        return units_for_share(scores, float(size))
    check_size(scores, size)
    return int(size)


def _best(ranking: Float[np.ndarray, "rows units"], n: int) -> Bool[np.ndarray, "rows units"]:
    """The n greatest of every row, ties by unit order; all of them where there are no more."""
    n_units = ranking.shape[1]
    if n >= n_units:
        return np.ones(ranking.shape, dtype=bool)
    bar = np.partition(ranking, n_units - n, axis=1)[:, n_units - n, None]
    best = ranking >= bar
    for row in np.flatnonzero(best.sum(axis=1) > n):  # more units at the bar than places left
        at_bar = np.flatnonzero(ranking[row] == bar[row])
        best[row, at_bar[len(at_bar) - (int(best[row].sum()) - n) :]] = False
    return best


def _spread(
    scores: Scores, values: Float[np.ndarray, " units"]
) -> Float[np.ndarray, "writers ..."]:
    """Values of units in the shape of scores; 0 where there is no edge."""
    if scores.level != "edge":
        return values.reshape(scores.values.shape)
    spread = np.zeros(scores.values.shape)
    spread[scores.graph.edge_mask] = values
    return spread
