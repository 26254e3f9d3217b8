"""Faithfulness and the two areas, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from circuits import EvaluationError, cmd, cpr
from circuits.faithfulness import faithfulness


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
    with pytest.raises(EvaluationError, match="logarithmic"):
        cpr([0.0, 1.0], [0.0, 1.0], axis="log")
