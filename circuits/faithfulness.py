"""From metric values to one number a circuit, and to one number a method.

Faithfulness places a circuit between the empty circuit (0) and the whole model (1):
`f(C) = (m(C) − m(∅)) / (m(N) − m(∅))` (Wang et al. 2022, arXiv:2211.00593; normalised as in
Hanna et al. 2024, arXiv:2403.17806). Over circuits of several sizes k, as fractions of the edges
(of the nodes or neurons, where those were chosen), `CPR = ∫ f dk` rewards performance and
`CMD = ∫ |1 − f| dk` measures the distance from the model (Mueller et al. 2025, arXiv:2504.13151).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from circuits.errors import EvaluationError

Axis = Literal["linear", "log"]
_RESOLUTION = 1e-6  # a gap between m(N) and m(∅) below this share of their size is rounding


def faithfulness(mean: float, clean: float, corrupted: float) -> float | None:
    """Where the mean metric lies between the corrupted (0) and the clean run (1).

    It may lie outside [0, 1]. None where the runs do not differ beyond rounding: it is undefined.
    """
    gap = clean - corrupted
    if abs(gap) <= _RESOLUTION * max(abs(clean), abs(corrupted)):
        return None
    return (mean - corrupted) / gap


def cpr(fractions: Sequence[float], values: Sequence[float], axis: Axis = "linear") -> float:
    """The area under faithfulness over the fractions of units achieved; higher is better.

    Trapezoids between the sizes given, on the fractions or, for `axis="log"`, on their logarithms
    and divided by the length of that axis. Raises `EvaluationError` for fewer than two sizes.
    """
    return _area(fractions, np.asarray(values, dtype=float), axis)


def cmd(fractions: Sequence[float], values: Sequence[float], axis: Axis = "linear") -> float:
    """The area between faithfulness and 1 over the fractions of units achieved; lower is better.

    Computed and refused as `cpr`.
    """
    return _area(fractions, np.abs(1 - np.asarray(values, dtype=float)), axis)


def _area(fractions: Sequence[float], heights: np.ndarray, axis: Axis) -> float:
    points = np.asarray(fractions, dtype=float)
    if len(points) != len(heights) or len(points) < 2:
        raise EvaluationError(
            f"an area needs two or more sizes with a value each, not {len(points)} sizes and "
            f"{len(heights)} values"
        )
    order = np.argsort(points, kind="stable")
    points, heights = points[order], heights[order]
    if axis == "log":
        if points[0] <= 0:
            raise EvaluationError("the empty circuit has no place on a logarithmic axis")
        points = np.log(points)
        if points[-1] == points[0]:
            raise EvaluationError("all circuits have one size: there is no axis to integrate over")
        return float(np.trapezoid(heights, points) / (points[-1] - points[0]))
    return float(np.trapezoid(heights, points))
