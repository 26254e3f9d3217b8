"""Where along a path from corrupted (α = 0) to clean (α = 1) gradients are taken, with weights.

A rule turns a number of steps m into m points in [0, 1] and weights that sum to 1. `left` is what
published edge scores used; `gauss-legendre` integrates polynomials of degree 2m − 1 exactly, and so
is by far the closest once the points resolve the integrand. Where a model's answers saturate, the
gradient is all in a narrow stretch of the path, and few points do better evenly spaced: `midpoint`
is the default (`python -m benchmarks.quadrature` measures all rules).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from jaxtyping import Float

from circuits.errors import AttributionError
from circuits.registry import Registry

Rule = Callable[[int], tuple[Float[np.ndarray, " steps"], Float[np.ndarray, " steps"]]]

MOST_STEPS = 1000  # more points change nothing, and finding them takes longer than the runs
RULES: Registry[Rule] = Registry("quadrature rule", AttributionError)


@RULES.register("left")
def _left(m: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(m) / m, np.full(m, 1 / m)


@RULES.register("right")
def _right(m: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(1, m + 1) / m, np.full(m, 1 / m)


@RULES.register("midpoint")
def _midpoint(m: int) -> tuple[np.ndarray, np.ndarray]:
    return (np.arange(m) + 0.5) / m, np.full(m, 1 / m)


@RULES.register("trapezoid")
def _trapezoid(m: int) -> tuple[np.ndarray, np.ndarray]:
    if m < 2:
        raise AttributionError("the trapezoid rule needs at least 2 steps, its two ends")
    weights = np.full(m, 1 / (m - 1))
    weights[[0, -1]] /= 2
    return np.linspace(0, 1, m), weights


@RULES.register("gauss-legendre")
def _gauss_legendre(m: int) -> tuple[np.ndarray, np.ndarray]:
    points, weights = np.polynomial.legendre.leggauss(m)
    return (points + 1) / 2, weights / 2


@cache
def quadrature(rule: str, steps: int) -> tuple[tuple[float, float], ...]:
    """The (α, weight) pairs of a rule; raises `AttributionError` for an unknown rule or size."""
    if steps < 1:
        raise AttributionError(f"integrated gradients need at least 1 step, not {steps}")
    if steps > MOST_STEPS:
        raise AttributionError(f"integrated gradients take at most {MOST_STEPS} steps, not {steps}")
    points, weights = RULES[rule](steps)
    return tuple((float(a), float(w)) for a, w in zip(points, weights, strict=True))
