"""What scores or circuits need before they are set side by side or combined.

Their units must be the same ones; their scales must not count; and where only an order does, the
noise of rounding must not pass for one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from circuits.errors import CircuitError

if TYPE_CHECKING:
    from circuits.circuit import Circuit
    from circuits.graph import Graph
    from circuits.scores import Scores

RESOLUTION = 1e-6  # a score of at most this share of the largest |score| is rounding


def resolved(values: Float[np.ndarray, "*sets units"]) -> Float[np.ndarray, "*sets units"]:
    """The scores with 0 for what is rounding beside the largest of its set; NaN stays NaN."""
    sizes = np.abs(values)
    largest = np.fmax.reduce(sizes, axis=-1, keepdims=True, initial=0.0)
    return np.where(sizes <= RESOLUTION * largest, 0.0, values)


def shares(values: Float[np.ndarray, "*sets units"]) -> Float[np.ndarray, "*sets units"]:
    """The values over their set's sum of |value|, whatever its scale; NaN where all are 0."""
    largest = np.abs(values).max(axis=-1, keepdims=True, initial=0.0)
    scaled = values / np.where(largest == 0, np.nan, largest)
    return scaled / np.abs(scaled).sum(axis=-1, keepdims=True)


def check_alike(
    what: str,
    a: Scores | Circuit,
    b: Scores | Circuit,
    error: type[CircuitError],
    verb: str,
    otherwise: str,
) -> None:
    """Raise `error` unless both have the same units: one graph, one level, neurons of one width.

    `verb` says what was to be done with them, `otherwise` what to do with different graphs.
    """
    if a.graph != b.graph:
        raise error(
            f"these {what} belong to different graphs ({_described(a.graph)}; "
            f"{_described(b.graph)}), whose units do not correspond: {otherwise}"
        )
    if a.level != b.level:
        raise error(f"these {what} are of {a.level}s and of {b.level}s: {verb} {what} of one level")
    if _width(a) != _width(b):
        raise error(
            f"these {what} are of neurons of widths {_width(a)} and {_width(b)}: {verb} {what} of "
            f"nodes or edges instead"
        )


def _width(one: Any) -> int | None:
    """How many neurons a writer has, where units are neurons."""
    if one.level != "neuron":
        return None
    width: int = (one.neurons if hasattr(one, "neurons") else one.values).shape[1]
    return width


def _described(graph: Graph) -> str:
    parts = [f"{graph.n_layers} layers of {graph.n_heads} heads"]
    if graph.grouped:
        parts.append(f"{graph.n_kv_heads} keys and values a layer")
    if graph.parallel:
        parts.append("parallel blocks")
    return ", ".join(parts)
