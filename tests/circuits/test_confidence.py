"""The bootstrap against a plain loop over the resampled examples, and against closed forms."""

from __future__ import annotations

import math
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from circuits import EvaluationError, confidence
from circuits.confidence import (
    Bootstrap,
    Interval,
    bootstrap_cmd,
    bootstrap_cpr,
    bootstrap_faithfulness,
    bootstrap_mean,
)
from circuits.faithfulness import cmd, cpr, faithfulness

FRACTIONS = [0.001, 0.01, 0.1, 0.5, 1.0]


def runs(n_examples, n_sizes=len(FRACTIONS), seed=0, gap=3.0):
    """Values [sizes, examples] that grow from corrupted to beyond clean, clean and corrupted."""
    rng = np.random.default_rng(seed)
    corrupted = rng.normal(size=n_examples)
    clean = corrupted + gap + rng.normal(size=n_examples)
    along = np.linspace(0.1, 1.1, n_sizes)[:, None]
    values = corrupted + along * (clean - corrupted) + 0.3 * rng.normal(size=(n_sizes, n_examples))
    return values, clean, corrupted


# --- the definitions, one resample after another


def resamples(bootstrap, n_examples):
    """Lists of example numbers."""
    rng = np.random.default_rng(bootstrap.seed)
    return rng.integers(n_examples, size=(bootstrap.n_resamples, n_examples)).tolist()


def mean_of(values, rows):
    return sum(float(values[i]) for i in rows) / len(rows)


def f_of(values, clean, corrupted, rows):
    low, high = mean_of(corrupted, rows), mean_of(clean, rows)
    return (mean_of(values, rows) - low) / (high - low)


def trapezoids(points, heights):
    total = 0.0
    for i in range(1, len(points)):
        total += (points[i] - points[i - 1]) * (heights[i] + heights[i - 1]) / 2
    return total


def area_of(fractions, values, clean, corrupted, rows, axis, distance):
    curve = [(k, f_of(row, clean, corrupted, rows)) for k, row in zip(fractions, values)]  # noqa: B905
    if axis == "log":
        curve = [(math.log(k), f) for k, f in curve]
    curve.sort(key=lambda point: point[0])
    points = [k for k, _ in curve]
    area = trapezoids(points, [abs(1 - f) if distance else f for _, f in curve])
    return area / (points[-1] - points[0]) if axis == "log" else area


def interval_of(estimate, found, level):
    """Percentiles by linear interpolation between the sorted values."""
    ordered, tail = sorted(found), (1 - level) / 2

    def percentile(share):
        place = share * (len(ordered) - 1)
        below = math.floor(place)
        above = min(below + 1, len(ordered) - 1)
        return ordered[below] + (place - below) * (ordered[above] - ordered[below])

    centre = sum(found) / len(found)
    error = math.sqrt(sum((x - centre) ** 2 for x in found) / (len(found) - 1))
    return Interval(estimate, error, percentile(tail), percentile(1 - tail))


def assert_equal(found, expected):
    assert found is not None
    for name in ("estimate", "standard_error", "low", "high"):
        assert getattr(found, name) == pytest.approx(
            getattr(expected, name), rel=1e-9, abs=1e-12
        ), name


# --- against the loop


@pytest.mark.parametrize("block", [2**20, 7, 1])
def test_counts_are_those_of_the_drawn_examples_in_blocks_of_any_size(block, monkeypatch):
    monkeypatch.setattr(confidence, "_DRAWN_AT_ONCE", block)
    bootstrap = Bootstrap(n_resamples=53, seed=4)
    found = bootstrap.counts(6)
    assert found.shape == (53, 6)
    for row, drawn in zip(found, resamples(bootstrap, 6), strict=True):
        assert row.tolist() == [drawn.count(example) for example in range(6)]
    assert (bootstrap.counts(6) == found).all()
    assert (Bootstrap(n_resamples=53, seed=5).counts(6) != found).any()


@pytest.mark.parametrize("n_examples", [2, 7, 40])
@pytest.mark.parametrize(("level", "block"), [(0.95, 2**20), (0.5, 2**20), (0.95, 1000)])
def test_mean_and_faithfulness_are_those_of_the_loop(n_examples, level, block, monkeypatch):
    monkeypatch.setattr(confidence, "_DRAWN_AT_ONCE", block)
    (values,), clean, corrupted = runs(n_examples, n_sizes=1, seed=n_examples)
    bootstrap = Bootstrap(n_resamples=211, confidence=level, seed=3)
    drawn, everything = resamples(bootstrap, n_examples), range(n_examples)
    means = [mean_of(values, rows) for rows in drawn]
    assert_equal(
        bootstrap_mean(values, bootstrap),
        interval_of(mean_of(values, everything), means, level),
    )
    fs = [f_of(values, clean, corrupted, rows) for rows in drawn]
    assert_equal(
        bootstrap_faithfulness(values, clean, corrupted, bootstrap),
        interval_of(f_of(values, clean, corrupted, everything), fs, level),
    )


@pytest.mark.parametrize("axis", ["linear", "log"])
@pytest.mark.parametrize("distance", [False, True])
@pytest.mark.parametrize(
    "fractions",
    [FRACTIONS, [0.01, 0.02, 0.02, 0.3, 1.0], [0.5, 1.0, 0.001, 0.3, 0.002]],
    ids=["in order", "two of a size", "in disorder"],
)
def test_areas_are_those_of_the_loop(fractions, axis, distance):
    values, clean, corrupted = runs(23, seed=8)
    bootstrap = Bootstrap(n_resamples=157, confidence=0.9, seed=1)
    found = (bootstrap_cmd if distance else bootstrap_cpr)(
        fractions, values, clean, corrupted, axis, bootstrap
    )
    how = (fractions, values, clean, corrupted)
    areas = [area_of(*how, rows, axis, distance) for rows in resamples(bootstrap, 23)]
    expected = interval_of(area_of(*how, range(23), axis, distance), areas, 0.9)
    assert_equal(found, expected)
    fs = [faithfulness(*(float(x.mean()) for x in (row, clean, corrupted))) for row in values]
    area = (cmd if distance else cpr)(fractions, fs, axis)
    assert found.estimate == pytest.approx(area, rel=1e-12)


# --- closed forms


def test_the_standard_error_of_the_mean_tends_to_that_of_the_sample():
    """√((n − 1)/n) · s/√n: the bootstrap divides by n where the sample variance does by n − 1."""
    values = np.random.default_rng(2).gamma(2.0, size=12)
    expected = math.sqrt(11 / 12) * values.std(ddof=1) / math.sqrt(12)
    found = bootstrap_mean(values, Bootstrap(n_resamples=200_000))
    assert found.standard_error == pytest.approx(expected, rel=4 / math.sqrt(2 * 200_000))
    assert found.standard_error != pytest.approx(values.std(ddof=1) / math.sqrt(12), rel=0.02)


def test_of_two_examples_every_resample_is_known():
    """The mean of 0 and 1 is 0, ½, ½ or 1, one in four each."""
    found = bootstrap_mean(np.array([0.0, 1.0]), Bootstrap(n_resamples=100_000, confidence=0.6))
    assert found.standard_error == pytest.approx(math.sqrt(1 / 8), rel=0.01)
    assert (found.low, found.high) == (0.0, 1.0)
    narrow = bootstrap_mean(np.array([0.0, 1.0]), Bootstrap(n_resamples=100_000, confidence=0.4))
    assert (narrow.low, narrow.high) == (0.5, 0.5)


def test_it_agrees_with_the_bootstrap_of_scipy():
    (values,), clean, corrupted = runs(30, n_sizes=1, seed=12)

    def ratio(v, n, e, axis):
        return (v.mean(axis) - e.mean(axis)) / (n.mean(axis) - e.mean(axis))

    expected = stats.bootstrap(
        (values, clean, corrupted),
        ratio,
        paired=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(5),
    )
    found = bootstrap_faithfulness(values, clean, corrupted, Bootstrap(n_resamples=20_000))
    error = found.standard_error
    assert error == pytest.approx(expected.standard_error, rel=0.03)
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=0.06 * error)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=0.06 * error)


def test_intervals_hold_the_true_faithfulness_as_often_as_they_say():
    rng, hits = np.random.default_rng(1), 0
    for _ in range(400):
        corrupted = rng.normal(size=60)
        clean = corrupted + rng.exponential(2.0, size=60)
        values = corrupted + 0.7 * (clean - corrupted) + rng.normal(size=60)
        found = bootstrap_faithfulness(values, clean, corrupted, Bootstrap(300, 0.9))
        hits += found.low <= 0.7 <= found.high
    assert 0.85 <= hits / 400 <= 0.94


def test_examples_are_drawn_in_pairs():
    """Half way on every example is half way in every resample, however much examples differ."""
    rng = np.random.default_rng(0)
    corrupted = 5 * rng.normal(size=20)
    clean = corrupted + rng.exponential(4.0, size=20) + 1
    half = bootstrap_faithfulness((clean + corrupted) / 2, clean, corrupted)
    assert (half.low, half.high) == pytest.approx((0.5, 0.5), abs=1e-12)
    assert half.standard_error == pytest.approx(0.0, abs=1e-12)
    whole, nothing = (bootstrap_faithfulness(x, clean, corrupted) for x in (clean, corrupted))
    assert (whole.low, whole.high, nothing.low, nothing.high) == pytest.approx((1, 1, 0, 0))


@given(
    scale=st.floats(0.01, 100) | st.floats(-100, -0.01),
    shift=st.floats(-50, 50),
    seed=st.integers(0, 100),
)
def test_intervals_of_faithfulness_know_no_unit(scale, shift, seed):
    values, clean, corrupted = runs(15, seed=seed)
    bootstrap = Bootstrap(60, seed=seed)
    found = bootstrap_cpr(FRACTIONS, values, clean, corrupted, "log", bootstrap)
    other = (scale * x + shift for x in (values, clean, corrupted))
    moved = bootstrap_cpr(FRACTIONS, *other, "log", bootstrap)
    assert (moved.low, moved.high) == pytest.approx((found.low, found.high), rel=1e-6)


# --- where there is no number


def test_nothing_lies_between_runs_that_agree():
    values, clean, _ = runs(10)
    same = clean.copy()
    assert bootstrap_faithfulness(values[0], clean, same) is None
    for axis in ("linear", "log"):
        assert bootstrap_cpr(FRACTIONS, values, clean, same, axis) is None
        assert bootstrap_cmd(FRACTIONS, values, clean, same, axis) is None
    assert bootstrap_mean(values[0]) is not None


def test_a_gap_not_told_apart_from_zero_has_no_interval():
    (values, *_), clean, corrupted = runs(10, gap=0.0, seed=1)
    assert faithfulness(*(float(x.mean()) for x in (values, clean, corrupted))) is not None
    assert bootstrap_faithfulness(values, clean, corrupted) is None


def test_resamples_without_a_gap_lie_beyond_both_ends():
    """A gap of either 1 or −1.7, positive on average: in some resamples it vanishes or turns."""
    n = 30
    corrupted = np.zeros(n)
    clean = np.where(np.arange(n) < 6, -1.7, 1.0)
    values = clean * np.linspace(0.2, 1.0, n)
    bootstrap = Bootstrap(n_resamples=1000)
    gaps = [mean_of(clean, rows) for rows in resamples(bootstrap, n)]
    turned = np.array([gap <= 1e-9 for gap in gaps])
    assert 0 < turned.sum() < 0.025 * 999
    found = bootstrap_faithfulness(values, clean, corrupted, bootstrap)
    fs = np.array(
        [
            f_of(values, clean, corrupted, rows) if ok else 0.0
            for rows, ok in zip(resamples(bootstrap, n), ~turned, strict=True)
        ]
    )
    assert found.standard_error == pytest.approx(fs[~turned].std(ddof=1), rel=1e-9)
    for whatever in (-1e6, 0.0, 0.7, 1e6):
        low, high = np.quantile(np.where(turned, whatever, fs), [0.025, 0.975])
        assert found.low <= low + 1e-9
        assert high <= found.high + 1e-9
    low, high = (np.quantile(np.where(turned, x, fs), q) for x, q in ((-1e6, 0.025), (1e6, 0.975)))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9)


def test_one_example_says_nothing_of_the_spread():
    values, clean, corrupted = runs(1)
    assert bootstrap_mean(clean) is None
    assert bootstrap_faithfulness(values[0], clean, corrupted) is None
    assert bootstrap_cpr(FRACTIONS, values, clean, corrupted) is None


@pytest.mark.parametrize("axis", ["linear", "log"])
@pytest.mark.parametrize("fractions", [[0.3], [0.3, 0.3], []])
def test_an_axis_without_length_has_no_area(fractions, axis):
    values, clean, corrupted = runs(10, n_sizes=len(fractions))
    assert bootstrap_cpr(fractions, values, clean, corrupted, axis) is None
    assert bootstrap_cmd(fractions, values, clean, corrupted, axis) is None


def test_the_log_axis_has_no_place_for_the_empty_circuit():
    values, clean, corrupted = runs(10, n_sizes=3)
    assert bootstrap_cpr([0.0, 0.1, 1.0], values, clean, corrupted, "log") is None
    assert bootstrap_cmd([0.1, 0.0, 1.0], values, clean, corrupted, "log") is None
    assert bootstrap_cpr([0.0, 0.1, 1.0], values, clean, corrupted, "linear") is not None


def test_what_cannot_be_resampled_is_refused():
    values, clean, corrupted = runs(5)
    with pytest.raises(EvaluationError, match="no example"):
        bootstrap_mean(np.empty(0))
    with pytest.raises(EvaluationError, match="5 of the circuit, 4 clean"):
        bootstrap_faithfulness(values[0], clean[:4], corrupted)
    with pytest.raises(EvaluationError, match="4 for 5"):
        bootstrap_cpr(FRACTIONS[:4], values, clean, corrupted)
    values[2, 3] = np.nan
    with pytest.raises(EvaluationError, match=r"circuit is not, of example 3\b"):
        bootstrap_cpr(FRACTIONS, values, clean, corrupted)
    for wrong, message in (
        ({"n_resamples": 1}, "two or more"),
        ({"n_resamples": True}, "a whole number, not True"),
        ({"confidence": 1.0}, "between 0 and 1"),
        ({"confidence": math.nan}, "between 0 and 1"),
        ({"seed": -1}, "0 or more"),
    ):
        with pytest.raises(EvaluationError, match=message):
            Bootstrap(**wrong)


# --- cost


def test_a_leaderboard_row_costs_milliseconds():
    values, clean, corrupted = runs(100, n_sizes=10)
    fractions = np.geomspace(0.001, 1, 10)
    seconds = []
    for _ in range(5):
        start = time.thread_time()  # of work: waiting for a core is no cost
        bootstrap_cpr(fractions, values, clean, corrupted, "log", Bootstrap(1000))
        seconds.append(time.thread_time() - start)
    assert min(seconds) < 0.1


def test_memory_does_not_grow_with_resamples_times_examples():
    """Sizes × resamples × examples are 960 MB here, and resamples × examples 96 MB."""
    values, clean, corrupted = runs(12_000, n_sizes=10)
    tracemalloc.start()
    try:
        bootstrap_cmd(
            np.geomspace(0.001, 1, 10), values, clean, corrupted, "linear", Bootstrap(1000)
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 48e6
