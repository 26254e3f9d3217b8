"""Quadrature rules: points, weights, and how fast they reach an integral."""

from __future__ import annotations

import math

import pytest

from circuits import AttributionError
from circuits.quadrature import RULES, quadrature
from tests import oracle


@pytest.mark.parametrize("rule", ["left", "right", "midpoint", "trapezoid", "gauss-legendre"])
@pytest.mark.parametrize("steps", [2, 3, 5, 17])
def test_points_and_weights_equal_their_definition(rule, steps):
    for found, expected in zip(
        quadrature(rule, steps), oracle.quadrature(rule, steps), strict=True
    ):
        assert found == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("rule", RULES.names())
@pytest.mark.parametrize("steps", [2, 3, 8])
def test_weights_sum_to_one_and_points_lie_on_the_path(rule, steps):
    points, weights = zip(*quadrature(rule, steps), strict=True)
    assert sum(weights) == pytest.approx(1, abs=1e-14)
    assert all(0 <= p <= 1 for p in points)
    assert list(points) == sorted(set(points))


@pytest.mark.parametrize(
    ("rule", "order"), [("left", 1), ("right", 1), ("midpoint", 2), ("trapezoid", 2)]
)
def test_errors_shrink_at_the_order_of_the_rule(rule, order):
    def error(steps):
        return abs(sum(w * math.exp(a) for a, w in quadrature(rule, steps)) - (math.e - 1))

    assert error(40) / error(80) == pytest.approx(2**order, rel=0.1)


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_gauss_legendre_is_exact_for_polynomials_of_degree_2m_minus_1(steps):
    degree = 2 * steps - 1
    integral = sum(w * a**degree for a, w in quadrature("gauss-legendre", steps))
    assert integral == pytest.approx(1 / (degree + 1), rel=1e-13)


def test_the_ends_of_the_path_are_met_exactly():
    assert quadrature("left", 7)[0][0] == 0.0
    assert quadrature("right", 7)[-1][0] == 1.0
    assert [quadrature("trapezoid", 7)[i][0] for i in (0, -1)] == [0.0, 1.0]


def test_an_unknown_rule_is_answered_with_the_nearest():
    with pytest.raises(AttributionError, match="'trapezoid'"):
        quadrature("trapezium", 3)
