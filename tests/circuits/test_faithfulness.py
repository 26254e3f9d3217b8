"""Faithfulness and the two areas, against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from circuits import EvaluationError, cmd, cpr
from circuits.confidence import bootstrap_cmd, bootstrap_cpr
from circuits.faithfulness import areas, faithfulness


def bootstrapped(measure):
    """A measure of the bootstrap, asked as the plain one is."""

    def measured(fractions, values, axis):
        return measure(fractions, np.outer(values, [0.8, 1.2]), np.ones(2), np.zeros(2), axis)

    return measured


any_measure = pytest.mark.parametrize(
    "measure",
    [cpr, cmd, bootstrapped(bootstrap_cpr), bootstrapped(bootstrap_cmd)],
    ids=["cpr", "cmd", "bootstrap_cpr", "bootstrap_cmd"],
)


def test_faithfulness_is_the_place_between_corrupted_and_clean():
    assert faithfulness(3.0, clean=5.0, corrupted=1.0) == 0.5
    assert faithfulness(7.0, clean=5.0, corrupted=1.0) == 1.5
    assert faithfulness(0.0, clean=5.0, corrupted=1.0) == -0.25
    assert faithfulness(0.25, clean=0.0, corrupted=1.0) == 0.75  # KL: lower is better


def test_faithfulness_is_undefined_where_clean_and_corrupted_agree():
    assert faithfulness(1.0, clean=2.0, corrupted=2.0) is None
    assert faithfulness(0.0, clean=0.0, corrupted=0.0) is None


def test_areas_are_trapezoids_over_the_fractions():
    fractions, values = [0.0, 0.5, 1.0], [0.0, 1.2, 1.0]
    assert cpr(fractions, values) == pytest.approx(0.5 * 0.6 + 0.5 * 1.1)
    assert cmd(fractions, values) == pytest.approx(0.5 * (1.0 + 0.2) / 2 + 0.5 * (0.2 + 0.0) / 2)


def test_areas_do_not_depend_on_the_order_of_the_sizes():
    fractions, values = [0.1, 1.0, 0.4], [0.3, 1.0, 0.9]
    assert cpr(fractions, values) == pytest.approx(cpr([0.1, 0.4, 1.0], [0.3, 0.9, 1.0]))


def test_on_a_log_axis_every_factor_counts_alike():
    fractions = [0.001, 0.01, 0.1, 1.0]
    assert cpr(fractions, [1.0, 1.0, 1.0, 1.0], axis="log") == pytest.approx(1.0)
    assert cpr(fractions, [0.0, 0.0, 1.0, 1.0], axis="log") == pytest.approx(0.5)
    assert cmd(fractions, [0.0, 0.0, 1.0, 1.0], axis="log") == pytest.approx(0.5)
    two = cpr([0.01, 1.0], [0.2, 0.6], axis="log")
    assert two == pytest.approx(0.4)
    assert math.isfinite(two)


def test_areas_that_do_not_exist_are_refused():
    with pytest.raises(EvaluationError, match="1 sizes"):
        cpr([0.5], [1.0])
    with pytest.raises(EvaluationError, match="2 sizes and 3 values"):
        cmd([0.1, 0.5], [1.0, 1.0, 1.0])


@any_measure
@pytest.mark.parametrize("axis", ["linear", "log"])
@pytest.mark.parametrize("wrong", [-0.1, 1.5, math.nan, math.inf, -math.inf])
def test_fractions_lie_between_nothing_and_all(measure, axis, wrong):
    for fractions in ([wrong, 0.2, 1.0], [0.2, 1.0, wrong]):
        with pytest.raises(EvaluationError, match=f"from 0 to 1, and none of {wrong:g}"):
            measure(fractions, [0.1, 0.5, 1.0], axis)


@pytest.mark.parametrize("measure", [cpr, cmd])
def test_the_log_axis_has_no_place_for_the_empty_circuit(measure):
    """As in `bootstrap_cpr` and in the leaderboard: what is left must not stand for the whole."""
    assert measure([0.1, 0.0, 1.0, 0.3], [0.9, 0.0, 1.0, 1.0], "log") is None
    assert measure([0.1, 0.0, 1.0, 0.3], [0.9, 0.0, 1.0, 1.0], "linear") is not None
    assert measure([0.1, 1.0, 0.3], [0.9, 1.0, 1.0], "log") is not None


def test_where_faithfulness_is_undefined_so_are_the_areas():
    assert cpr([0.1, 0.5, 1.0], [None, None, None]) is None
    assert cmd([0.1, 0.5, 1.0], [0.2, None, 1.0], axis="log") is None
    assert cpr([0.1, 1.0], [0.2, math.nan]) is None


def test_what_is_not_finite_has_no_place_between():
    assert faithfulness(math.nan, clean=2.0, corrupted=1.0) is None
    assert faithfulness(1.0, clean=math.nan, corrupted=1.0) is None
    assert faithfulness(1.0, clean=math.inf, corrupted=1.0) is None
    assert faithfulness(1.0, clean=math.inf, corrupted=math.inf) is None


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_a_gap_of_rounding_is_no_gap_and_a_larger_one_is(size):
    assert faithfulness(size, clean=size, corrupted=size * (1 + 1e-7)) is None
    assert faithfulness(size, clean=size, corrupted=size * (1 + 1e-5)) == 1.0


@pytest.mark.parametrize("axis", ["linear", "log"])
def test_one_size_is_no_axis(axis):
    with pytest.raises(EvaluationError, match="one size"):
        cpr([0.5, 0.5], [1.0, 0.0], axis=axis)


@pytest.mark.parametrize("axis", ["linear", "log"])
def test_many_curves_have_the_areas_of_each(axis):
    rng = np.random.default_rng(0)
    fractions, heights = [0.5, 0.01, 1.0, 0.2], rng.normal(size=(3, 2, 4))
    found = areas(fractions, heights, axis)
    assert found.shape == (3, 2)
    for place in np.ndindex(3, 2):
        assert found[place] == pytest.approx(cpr(fractions, heights[place].tolist(), axis))
