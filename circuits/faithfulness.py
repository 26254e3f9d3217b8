"""From metric values to one number a circuit, and to one number a method.

Faithfulness places a circuit between the empty circuit (0) and the whole model (1):
`f(C) = (m(C) − m(∅)) / (m(N) − m(∅))` (Wang et al. 2022, arXiv:2211.00593; normalised as in
Hanna et al. 2024, arXiv:2403.17806). Over circuits of several sizes k, as fractions of the edges
(of the nodes or neurons, where those were chosen), `CPR = ∫ f dk` rewards performance and
`CMD = ∫ |1 − f| dk` measures the distance from the model (Mueller et al. 2025, arXiv:2504.13151).

Where `m(N) = m(∅)` nothing lies between them: f, CPR and CMD are undefined, and None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from circuits.errors import EvaluationError

Axis = Literal["linear", "log"]
_RESOLUTION = 1e-6  # a gap between m(N) and m(∅) below this share of their size is rounding


def faithfulness(mean: float, clean: float, corrupted: float) -> float | None:
    """Where the mean metric lies between the corrupted (0) and the clean run (1).

    It may lie outside [0, 1]. None where the runs do not differ beyond rounding, or a mean is not
    finite: it is undefined.
    """
    runs = np.array([clean, corrupted], dtype=float)
    if not (math.isfinite(mean) and differ(runs[:1], runs[1:]).item()):
        return None
    return (mean - corrupted) / (clean - corrupted)


def differ(
    clean: Float[np.ndarray, "*runs"], corrupted: Float[np.ndarray, "*runs"]
) -> Bool[np.ndarray, "*runs"]:
    """Whether the metric of the clean and of the corrupted run differ beyond rounding.

    False where one of them is not finite.
    """
    with np.errstate(invalid="ignore"):  # inf − inf
        gap = np.abs(clean - corrupted)
    size = np.maximum(np.abs(clean), np.abs(corrupted))
    return np.asarray(gap > _RESOLUTION * size)


def cpr(
    fractions: Sequence[float], values: Sequence[float | None], axis: Axis = "linear"
) -> float | None:
    """The area under faithfulness over the fractions of units achieved; higher is better.

    Trapezoids between the sizes given, on the fractions or, for `axis="log"`, on their logarithms
    and divided by the length of that axis. None where faithfulness is undefined at a size (None or
    NaN), and on the log axis where a circuit is empty: it has no place there, and without it a
    method whose small circuits are all empty would be judged by its large ones alone. Raises
    `EvaluationError` for an unknown axis, fractions outside [0, 1], and fewer than two different
    sizes.
    """
    return _area(fractions, _numbers(values), axis)


def cmd(
    fractions: Sequence[float], values: Sequence[float | None], axis: Axis = "linear"
) -> float | None:
    """The area between faithfulness and 1 over the fractions of units achieved; lower is better.

    Computed, undefined and refused as `cpr`.
    """
    return _area(fractions, np.abs(1 - _numbers(values)), axis)


def places(
    fractions: Sequence[float] | Float[np.ndarray, " sizes"], axis: Axis = "linear"
) -> Float[np.ndarray, " sizes"]:
    """Where circuits of these fractions stand on an axis; NaN for the empty one on the log axis.

    Raises `EvaluationError` for an unknown axis and a fraction outside [0, 1].
    """
    if axis not in ("linear", "log"):
        raise EvaluationError(f"there is no axis {axis!r}: choose linear or log")
    points = np.asarray(fractions, dtype=float)
    outside = points[~((points >= 0) & (points <= 1))]
    if len(outside):
        raise EvaluationError(
            f"a circuit has a fraction of the units from 0 to 1, and none of {outside[0]:g}"
        )
    if axis == "linear":
        return points
    return np.log(points, out=np.full(points.shape, np.nan), where=points > 0)


def areas(
    fractions: Sequence[float], heights: Float[np.ndarray, "*curves sizes"], axis: Axis = "linear"
) -> Float[np.ndarray, "*curves"]:
    """The areas under curves over one axis, as `cpr` takes them; NaN where they are undefined.

    Circuits of one size stand in the order given. Raises as `cpr`.
    """
    points = places(fractions, axis)
    if len(points) != heights.shape[-1] or len(points) < 2:
        raise EvaluationError(
            f"an area needs two or more sizes with a value each, not {len(points)} sizes and "
            f"{heights.shape[-1]} values"
        )
    if np.isnan(points).any():
        return np.full(heights.shape[:-1], np.nan)
    order = np.argsort(points, kind="stable")
    points, heights = points[order], heights[..., order]
    length = points[-1] - points[0]
    if length == 0:
        raise EvaluationError("all circuits have one size: there is no axis to integrate over")
    found = np.trapezoid(heights, points, axis=-1)
    return np.asarray(found / length if axis == "log" else found)


def _area(fractions: Sequence[float], heights: np.ndarray, axis: Axis) -> float | None:
    area = areas(fractions, heights, axis).item()
    return area if np.isfinite(area) else None


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    """The values in float64, NaN for None."""
    return np.array([np.nan if value is None else value for value in values], dtype=float)
