"""Circuits against circuits, scores against scores, and models of different size side by side.

Two circuits of one graph are compared as sets of units: how many they share, out of how many, and
how many sets of these sizes would share by chance. Two sets of scores are compared as numbers
(weighted IoU) and as rankings (Kendall's τ, rank-biased overlap), over the units scored in both.
Checkpoints of one model have one graph, so they are compared in the same way. Graphs of different
size have no units in common: there `profile` says at which relative depth, and in which kind of
component, the scores lie.

What is undefined (0/0, or a correlation with a constant) is None, or NaN in a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from circuits.circuit import Circuit
from circuits.comparable import check_alike, shares
from circuits.errors import EvaluationError
from circuits.graph import HEAD_INPUTS, Graph
from circuits.scores import Scores

if TYPE_CHECKING:
    import pandas as pd

PERSISTENCE = 0.99  # of the reader of a ranking: the first 1/(1 − p) = 100 units weigh most
_OTHER_GRAPHS = "compare the profiles of scores instead (circuits.comparison.profile)"


@dataclass(frozen=True)
class CircuitComparison:
    """What two circuits share, counted in units of their level.

    `expected` and `p_value` are those of two sets of these sizes drawn blindly from all units of
    the graph: the shared number is hypergeometric, and the p-value is P(shared ≥ n_shared), 0
    where it is below 1e-308. Circuits are no blind draws (pruned ones all pass through the logits),
    so a small p-value says that they share more than sizes explain, not why.
    """

    n_a: int
    n_b: int
    n_shared: int
    jaccard_edges: float | None  # over the edges; None where both circuits are empty
    jaccard_nodes: float | None  # over the nodes that the edges touch, the logits among them
    precision: float | None  # the share of a's units that are in b; None where a is empty
    recall: float | None  # the share of b's units that are in a; None where b is empty
    expected: float
    p_value: float

    @property
    def jaccard(self) -> float | None:
        """The units shared over the units in either; None where both circuits are empty."""
        return _ratio(self.n_shared, self.n_a + self.n_b - self.n_shared)


@dataclass(frozen=True)
class ScoreComparison:
    """How alike two sets of scores are, over the `n_common` units scored in both."""

    n_common: int
    kendall_tau: float | None  # from −1 to 1
    rank_biased_overlap: float | None  # from 0 to 1
    weighted_iou: float | None  # from 0 to 1


def compare_circuits(a: Circuit, b: Circuit) -> CircuitComparison:
    """The overlap of two circuits of one graph, beside what chance gives for these sizes.

    Raises `EvaluationError` for circuits of different graphs, levels, or widths of neurons.
    """
    from scipy.stats import hypergeom

    check_alike("circuits", a, b, EvaluationError, "compare", _OTHER_GRAPHS)
    in_a, in_b = a.unit_mask, b.unit_mask
    n_a, n_b, n_shared = int(in_a.sum()), int(in_b.sum()), int((in_a & in_b).sum())
    return CircuitComparison(
        n_a=n_a,
        n_b=n_b,
        n_shared=n_shared,
        jaccard_edges=_jaccard(a.mask, b.mask),
        jaccard_nodes=_jaccard(a.node_mask, b.node_mask),
        precision=_ratio(n_shared, n_a),
        recall=_ratio(n_shared, n_b),
        expected=n_a * n_b / len(in_a),
        p_value=float(hypergeom.sf(n_shared - 1, len(in_a), n_a, n_b)),
    )


def compare_scores(a: Scores, b: Scores, *, p: float = PERSISTENCE) -> ScoreComparison:
    """How alike two sets of scores of one graph are; `p` is that of `rank_biased_overlap`.

    Raises `EvaluationError` for scores of different graphs, levels or widths of neurons, for
    infinite scores, and unless 0 < p < 1.
    """
    return ScoreComparison(
        n_common=len(_in_both(a, b)[0]),
        kendall_tau=kendall_tau(a, b),
        rank_biased_overlap=rank_biased_overlap(a, b, p),
        weighted_iou=weighted_iou(a, b),
    )


def weighted_iou(a: Scores, b: Scores) -> float | None:
    """`Σ min(|a|, |b|) / Σ max(|a|, |b|)`, each side scaled to a sum of 1: signs do not count.

    It is 1 where the two are proportional and 0 where no unit scores on both sides; None where one
    side scores nothing. Raises as `compare_scores`.
    """
    sides = [np.abs(shares(values)) for values in _in_both(a, b)]
    if any(np.isnan(one).any() or not len(one) for one in sides):
        return None
    return float(np.minimum(*sides).sum() / np.maximum(*sides).sum())


def kendall_tau(a: Scores, b: Scores, absolute: bool = False) -> float | None:
    """Kendall's τ-b of the signed scores, or of |score|: the pairs of units in the same order.

    Pairs in the same order less those in opposite order, over the geometric mean of the pairs that
    are not tied in `a` and of those that are not tied in `b` (Kendall 1945). None where one side is
    tied throughout. Raises as `compare_scores`.
    """
    from scipy.stats import kendalltau

    left, right = (np.abs(values) if absolute else values for values in _in_both(a, b))
    if len(left) < 2:
        return None
    tau = float(kendalltau(left, right).statistic)
    return None if np.isnan(tau) else tau


def rank_biased_overlap(a: Scores, b: Scores, p: float = PERSISTENCE) -> float | None:
    """The agreement of the two rankings by |score|, the first ranks weighing most.

    `RBO = Σ_d w_d A_d` over the depths d = 1, …, n with the weights of Webber, Moffat and Zobel
    2010 (A similarity measure for indefinite rankings), `(1 − p) p^(d−1)`, over their sum 1 − p^n:
    both rankings are of the same units and end, so nothing is extrapolated beyond their last rank.
    A larger p (0 < p < 1) looks deeper. `A_d = 2 |S ∩ T| / (|S| + |T|)` with S and T the units of
    either side that fewer than d others outdo: tied units all stand at the first of their places,
    as there. Units that score 0 are in no ranking, and the longer of both has n ranks.

    It is 1 for equal rankings and 0 where no unit is in both. None where all of one side have one
    |score|, which ranks nothing. Raises as `compare_scores`.
    """
    if not 0 < p < 1:
        raise EvaluationError(f"the persistence p lies between 0 and 1, not {p}")
    from scipy.stats import rankdata

    sizes = [np.abs(values) for values in _in_both(a, b)]
    if any(len(np.unique(side)) < 2 for side in sizes):
        return None
    first, second = (rankdata(-side, "min").astype(int) for side in sizes)
    n = max(int(np.count_nonzero(side)) for side in sizes)

    def within(ranks: Int[np.ndarray, " units"]) -> Int[np.ndarray, " depths"]:
        """How many units stand at every depth or above."""
        return np.cumsum(np.bincount(ranks, minlength=n + 1)[1 : n + 1])

    in_first, in_second = (side > 0 for side in sizes)
    met = np.maximum(first, second)[in_first & in_second]
    agreement = 2 * within(met) / (within(first[in_first]) + within(second[in_second]))
    weights = p ** np.arange(n, dtype=float)
    return float((weights * agreement).sum() / weights.sum())


def match_scores(a: Scores, b: Scores) -> pd.DataFrame:
    """Two sets of scores unit by unit: one row a unit of the graph, in unit order.

    The columns that name a unit are those of `Scores.to_pandas`; then score_a, score_b, rank_a and
    rank_b. Ranks are by |score| among the units scored in both, from 1, ties by unit order, and
    missing for other units. Raises as `compare_scores`.
    """
    import pandas as pd

    values = _in_both(a, b)
    common = ~np.isnan(a.unit_values) & ~np.isnan(b.unit_values)
    table = a.to_pandas().drop(columns=["score", "standard_error"])
    table["score_a"], table["score_b"] = a.unit_values, b.unit_values
    for name, side in zip(("rank_a", "rank_b"), values, strict=True):
        ranks = pd.Series(pd.NA, index=table.index, dtype="Int64")
        ranks[common] = _ranks(side)
        table[name] = ranks
    return table


# -- profiles -------------------------------------------------------------------------------------


def profile(scores: Scores, bins: int = 10) -> pd.DataFrame:
    """Where the scores lie: shares of the total |score| by relative depth and kind of component.

    Every edge counts half at the component that writes it (side `written`: input, head, mlp) and
    half at the one that reads it (side `read`: q, k, v, mlp, logits). Nodes and neurons have the
    written side alone. Layer l of L covers the depths from l/L to (l + 1)/L, and its share is
    spread over the `bins` that it covers, so that models with different numbers of layers can be
    laid side by side; `input` and `logits` lie apart, at no depth (NaN).

    One row a side, kind and bin, zeros too, with the columns side, kind, from_depth, to_depth and
    share. Shares sum to 1; they are NaN where nothing is scored or every score is 0. Units without
    a score are left out. Raises `EvaluationError` for infinite scores and fewer than one bin.
    """
    import pandas as pd

    if bins < 1:
        raise EvaluationError(f"a profile needs at least one bin of depth, not {bins}")
    scored = scores.unit_values[~np.isnan(scores.unit_values)]
    _check_finite(scored)
    largest = np.abs(scored).max(initial=0.0)
    sizes = np.nan_to_num(np.abs(scores.values)) / (largest or np.nan)
    sides = [("written", sizes.reshape(scores.graph.n_writers, -1).sum(1))]
    if scores.level == "edge":
        sides.append(("read", sizes.sum(0)))
    total = sum(weights.sum() for _, weights in sides)
    edges = np.arange(bins + 1) / bins
    rows: list[tuple[str, str, float, float, float]] = []
    for side, weights in sides:
        parts = weights / total
        for kind, places in _places(scores.graph, side).items():
            if kind in ("input", "logits"):
                rows.append((side, kind, np.nan, np.nan, float(parts[places].sum())))
                continue
            by_bin = _cover(len(places), edges) @ parts[places].sum(1)
            rows += [
                (side, kind, float(low), float(high), float(share))
                for low, high, share in zip(edges[:-1], edges[1:], by_bin, strict=True)
            ]
    return pd.DataFrame(rows, columns=[*_PLACE, "share"])


def compare_profiles(a: pd.DataFrame, b: pd.DataFrame) -> float | None:
    """The overlap of two profiles, `Σ min(a, b)`: 1 less their total variation distance.

    Both are scaled to a sum of 1 first, so parts of profiles (one side, one kind) can be compared
    too. None where a profile is undefined. Raises `EvaluationError` where the rows do not match.
    """
    if not a[_PLACE].reset_index(drop=True).equals(b[_PLACE].reset_index(drop=True)):
        raise EvaluationError(
            "these profiles have different rows: compare profiles of one level (edges have two "
            "sides, nodes and neurons one) with one number of bins"
        )
    overlap = float(
        np.minimum(*(shares(one["share"].to_numpy(dtype=float)) for one in (a, b))).sum()
    )
    return None if np.isnan(overlap) or not len(a) else overlap


_PLACE = ["side", "kind", "from_depth", "to_depth"]


def _places(graph: Graph, side: str) -> dict[str, Int[np.ndarray, "layers places"]]:
    """The writers or the readers of each kind, layer by layer; one row for those at no depth."""
    layers = range(graph.n_layers)
    if side == "written":
        heads = [np.arange(graph.n_writers)[graph.heads(layer)] for layer in layers]
        return {
            "input": np.array([[0]]),
            "head": np.stack(heads),
            "mlp": np.array([[graph.mlp(layer)] for layer in layers]),
        }
    readers = np.arange(graph.n_readers)
    return {
        **{
            kind: np.stack([readers[graph.inputs(layer, kind)] for layer in layers])
            for kind in HEAD_INPUTS
        },
        "mlp": np.array([[graph.mlp_input(layer)] for layer in layers]),
        "logits": readers[-1:, None],
    }


def _cover(n_layers: int, edges: Float[np.ndarray, " edges"]) -> Float[np.ndarray, "bins layers"]:
    """Which part of each layer's stretch of depth lies in each bin; columns sum to 1."""
    bounds = np.arange(n_layers + 1) / n_layers
    low = np.maximum(edges[:-1, None], bounds[None, :-1])
    high = np.minimum(edges[1:, None], bounds[None, 1:])
    return np.maximum(high - low, 0.0) * n_layers


# -- sets and rankings ----------------------------------------------------------------------------


def _in_both(
    a: Scores, b: Scores
) -> tuple[Float[np.ndarray, " common"], Float[np.ndarray, " common"]]:
    """The scores of the units scored on both sides, in unit order."""
    check_alike("scores", a, b, EvaluationError, "compare", _OTHER_GRAPHS)
    common = ~np.isnan(a.unit_values) & ~np.isnan(b.unit_values)
    found = a.unit_values[common], b.unit_values[common]
    for values in found:
        _check_finite(values)
    return found


def _ranks(values: Float[np.ndarray, " units"]) -> Int[np.ndarray, " units"]:
    """The place of each unit by |score|, from 1; ties by unit order."""
    ranks = np.empty(len(values), dtype=np.int64)
    ranks[np.argsort(-np.abs(values), kind="stable")] = np.arange(1, len(values) + 1)
    return ranks


def _jaccard(a: Bool[np.ndarray, "..."], b: Bool[np.ndarray, "..."]) -> float | None:
    return _ratio(int((a & b).sum()), int((a | b).sum()))


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _check_finite(values: Float[np.ndarray, " units"]) -> None:
    if np.isinf(values).any():
        raise EvaluationError("these scores hold infinite values, which cannot be compared")
