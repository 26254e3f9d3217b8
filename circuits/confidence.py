"""How far the numbers of an evaluation would move with other examples: a paired bootstrap.

The examples are drawn again, as many as there are, with replacement; a quantity is computed anew
from each such resample. The standard deviation over resamples is its standard error, and its
percentiles are the ends of its interval (Efron and Tibshirani 1993, *An Introduction to the
Bootstrap*). It says nothing of the spread over seeds, templates of prompts, or models.

It is *paired*: one draw decides how often each example counts, for the circuit, the clean and the
corrupted run, for every size of a curve, and for every circuit evaluated on the same examples with
the same `Bootstrap`. Numerator and denominator of faithfulness move together.

A mean over a resample is a weighted mean over the examples, so all means are one matrix product,
`counts [resamples, examples] · values [examples, quantities]`, some resamples at a time where the
examples are many.

Faithfulness divides by `m(N) − m(∅)`. A resample in which that gap vanishes, or has the other sign
than over all examples, has no faithfulness. Such resamples are left out of the standard error and
lie beyond both ends of the interval, so the interval holds whatever they might be. Where they are
so many that an end is among them (more than a share of about (1 − confidence)/2), the gap is not
told apart from zero: the interval is None, like that of a quantity that is itself undefined.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

from circuits.errors import EvaluationError
from circuits.extraction import is_whole
from circuits.faithfulness import Axis, areas, differ, places

_DRAWN_AT_ONCE = 2**20  # drawn examples, over all resamples, that are held at a time

PerExample = Float[np.ndarray, " _"]


@dataclass(frozen=True)
class Interval:
    """A quantity over all examples, its standard error, and the ends of its interval."""

    estimate: float
    standard_error: float
    low: float
    high: float


@dataclass(frozen=True)
class Bootstrap:
    """How often the examples are drawn again, from which seed, and what share an interval covers.

    Raises `EvaluationError` for fewer than two resamples, a confidence outside (0, 1), a negative
    seed, and what is no whole number of resamples or no whole seed.
    """

    n_resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if not is_whole(self.n_resamples) or self.n_resamples < 2:
            raise EvaluationError(
                f"a bootstrap needs two or more resamples, a whole number, not {self.n_resamples!r}"
            )
        if not isinstance(self.confidence, float | np.floating) or not 0 < self.confidence < 1:
            raise EvaluationError(
                f"the confidence of an interval lies between 0 and 1, not at {self.confidence!r}"
            )
        if not is_whole(self.seed) or self.seed < 0:
            raise EvaluationError(
                f"the seed of a bootstrap is a whole number, 0 or more, not {self.seed!r}"
            )

    def counts(self, n_examples: int) -> Int[np.ndarray, "resamples examples"]:
        """How often each example is in each resample; every row adds up to `n_examples`.

        Row r counts row r of `np.random.default_rng(seed).integers(n_examples, size=(n_resamples,
        n_examples))`. They depend on nothing but the seed and both numbers: quantities of the same
        examples are paired. Raises `EvaluationError` for no example.
        """
        return np.concatenate(list(self._blocks(n_examples)))

    def means(
        self, values: Float[np.ndarray, "quantities examples"]
    ) -> Float[np.ndarray, "resamples quantities"]:
        """The means of quantities over every resample."""
        n_examples = values.shape[1]
        if self.n_resamples * n_examples <= _DRAWN_AT_ONCE:
            return _weights(self, n_examples) @ values.T
        blocks = self._blocks(n_examples)
        return np.concatenate([block.astype(float) @ values.T for block in blocks]) / n_examples

    def _blocks(self, n_examples: int) -> Iterator[Int[np.ndarray, "rows examples"]]:
        """The counts, some resamples at a time."""
        if n_examples < 1:
            raise EvaluationError("there is no example to draw again")
        rng, done = np.random.default_rng(self.seed), 0
        while done < self.n_resamples:
            rows = min(max(1, _DRAWN_AT_ONCE // n_examples), self.n_resamples - done)
            drawn = rng.integers(n_examples, size=(rows, n_examples))
            drawn += np.arange(rows)[:, None] * n_examples
            counts = np.bincount(drawn.ravel(), minlength=drawn.size)
            yield counts.reshape(rows, n_examples)
            done += rows


DEFAULT_BOOTSTRAP = Bootstrap()


@lru_cache(maxsize=1)
def _weights(bootstrap: Bootstrap, n_examples: int) -> Float[np.ndarray, "resamples examples"]:
    """The share of each resample that each example is: kept for the next circuit on them."""
    return bootstrap.counts(n_examples) / n_examples


def bootstrap_mean(values: PerExample, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP) -> Interval | None:
    """The mean of values [examples], in their units; None for a single example.

    Raises `EvaluationError` for no example and for a value that is not finite.
    """
    _check(values[None], values, values)
    estimate = float(values.mean(dtype=float))
    return _interval(estimate, bootstrap.means(values[None])[:, 0], values, bootstrap)


def bootstrap_faithfulness(
    values: PerExample,
    clean: PerExample,
    corrupted: PerExample,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> Interval | None:
    """Faithfulness of a circuit with these values [examples], between clean and corrupted ones.

    None where it is undefined, where too many resamples have none (see above), and for a single
    example. Raises as `bootstrap_mean`, and where the three are not of the same examples.
    """
    found = _resampled_faithfulness(values[None], clean, corrupted, bootstrap)
    if found is None:
        return None
    estimate, resampled = found
    return _interval(float(estimate[0]), resampled[:, 0], values, bootstrap)


def bootstrap_cpr(
    fractions: Sequence[float] | Float[np.ndarray, " _"],
    values: Float[np.ndarray, "sizes _"],
    clean: PerExample,
    corrupted: PerExample,
    axis: Axis = "linear",
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> Interval | None:
    """CPR of circuits of these fractions [sizes] and values [sizes, examples].

    None where `bootstrap_faithfulness` is, on the log axis where a circuit is empty, and where the
    axis has no length: fewer than two different fractions. Raises as
    `bootstrap_faithfulness`, for an unknown axis and fractions outside [0, 1] as `cpr`, and where
    there is not one fraction a size.
    """
    return _area(fractions, values, clean, corrupted, axis, bootstrap, distance=False)


def bootstrap_cmd(
    fractions: Sequence[float] | Float[np.ndarray, " _"],
    values: Float[np.ndarray, "sizes _"],
    clean: PerExample,
    corrupted: PerExample,
    axis: Axis = "linear",
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> Interval | None:
    """CMD of circuits of these fractions [sizes] and values [sizes, examples]; as `bootstrap_cpr`.

    |1 − f| is taken in every resample: where circuits are near f = 1, noise adds to CMD and takes
    nothing away, and the interval can lie above the estimate.
    """
    return _area(fractions, values, clean, corrupted, axis, bootstrap, distance=True)


def _area(
    fractions: Sequence[float] | np.ndarray,
    values: np.ndarray,
    clean: np.ndarray,
    corrupted: np.ndarray,
    axis: Axis,
    bootstrap: Bootstrap,
    *,
    distance: bool,
) -> Interval | None:
    points = np.asarray(fractions, dtype=float)
    if len(points) != len(values):
        raise EvaluationError(
            f"a curve needs one fraction a circuit, not {len(points)} for {len(values)}"
        )
    if np.isnan(places(points, axis)).any() or len(np.unique(points)) < 2:
        return None
    found = _resampled_faithfulness(values, clean, corrupted, bootstrap)
    if found is None:
        return None
    heights = [np.abs(1 - f) if distance else f for f in found]
    estimate, resampled = (areas(points.tolist(), h, axis) for h in heights)
    return _interval(float(estimate), resampled, clean, bootstrap)


def _resampled_faithfulness(
    values: np.ndarray, clean: np.ndarray, corrupted: np.ndarray, bootstrap: Bootstrap
) -> tuple[np.ndarray, np.ndarray] | None:
    """Faithfulness [sizes] over all examples and [resamples, sizes]; None where the first is."""
    _check(values, clean, corrupted)
    runs = np.concatenate([values, clean[None], corrupted[None]]).astype(float)
    whole, means = runs.mean(axis=1)[None], bootstrap.means(runs)
    if not differ(whole[:, -2], whole[:, -1]).item():
        return None
    gap, gaps = (m[:, -2:-1] - m[:, -1:] for m in (whole, means))
    defined = differ(means[:, -2], means[:, -1])[:, None] & (gaps * gap > 0)
    estimate = (whole[:, :-2] - whole[:, -1:]) / gap
    resampled = (means[:, :-2] - means[:, -1:]) / np.where(defined, gaps, np.nan)
    return estimate[0], resampled


def _interval(
    estimate: float, resampled: np.ndarray, examples: np.ndarray, bootstrap: Bootstrap
) -> Interval | None:
    """The interval from a quantity's values over resamples, NaN where it has none."""
    defined = resampled[~np.isnan(resampled)]
    if len(examples) < 2 or len(defined) < 2:
        return None
    beyond = np.full(len(resampled) - len(defined), np.inf)
    tail = (1 - bootstrap.confidence) / 2
    with np.errstate(invalid="ignore"):  # between a number and infinity
        low = float(np.quantile(np.append(defined, -beyond), tail))
        high = float(np.quantile(np.append(defined, beyond), 1 - tail))
    if not np.isfinite([low, high]).all():
        return None
    return Interval(estimate, float(defined.std(ddof=1)), low, high)


def _check(values: np.ndarray, clean: np.ndarray, corrupted: np.ndarray) -> None:
    counts = [values.shape[1], len(clean), len(corrupted)]
    if 0 in counts:
        raise EvaluationError("there is no example to draw again")
    if len(set(counts)) > 1:
        raise EvaluationError(
            f"a bootstrap is over the same examples, not over {counts[0]} of the circuit, "
            f"{counts[1]} clean and {counts[2]} corrupted ones"
        )
    for what, array in (("circuit", values), ("clean run", clean), ("corrupted run", corrupted)):
        if not np.isfinite(array).all():
            example = int(np.argwhere(~np.isfinite(array))[0, -1])
            raise EvaluationError(
                f"a bootstrap is over finite values, and one of the {what} is not, of example "
                f"{example}"
            )
