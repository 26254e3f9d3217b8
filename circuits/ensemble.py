"""Scores combined across methods, seeds or steps: an ensemble is scores like any other.

Only units that all members score are scored, and only the order or the proportions of a member's
scores count, never their scale:

- `rank-mean`: the mean over members of `rank / n`, the ranks by |score| ascending up to n, tied
  units sharing the mean of their ranks: 1 for the unit that all members put first. A score below a
  millionth of the member's largest is rounding and counts as 0, and the rank of 0 is 0;
- `score-mean`: the mean of the members' signed scores, each member's divided by its sum of |score|;
- `minimum`, `maximum`: the least or greatest of |score|, divided in the same way.

Where |score| is combined, the sign is that of the sum of the divided scores (positive where they
cancel out), so that extraction by signed score has a meaning too. A unit that all members score 0
scores 0. Mondorf et al. 2025 (arXiv:2510.06811) combine scores by mean, minimum and maximum as they
are; here each member is scaled first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from circuits.comparable import check_alike, resolved, shares
from circuits.errors import AttributionError
from circuits.scores import Scores

Members = Float[np.ndarray, "members units"]
Combined = Float[np.ndarray, " units"]


def combine(scores: Sequence[Scores], how: str = "rank-mean") -> Scores:
    """One set of scores out of several of one graph and level; `how` is one of `COMBINATIONS`.

    NaN where a member has no score. The standard error is unknown (NaN); `n_examples` is the
    least of the members'. Raises `AttributionError` for an unknown combination, no members,
    members of different graphs, levels or widths of neurons, and where no unit is scored by all, a
    member scores all of these 0, or one of them infinite.
    """
    if how not in COMBINATIONS:
        raise AttributionError(
            f"there is no combination {how!r}: choose from {', '.join(COMBINATIONS)}"
        )
    if not scores:
        raise AttributionError("an ensemble needs members: name at least one method")
    first = scores[0]
    for one in scores[1:]:
        check_alike("scores", first, one, AttributionError, "combine", "combine those of one model")
    stacked = np.stack([one.unit_values for one in scores])
    common = ~np.isnan(stacked).any(axis=0)
    _check_members(scores, stacked[:, common])
    combined = np.full(first.n_units, np.nan)
    combined[common] = COMBINATIONS[how](shares(stacked[:, common]))
    mask = first.graph.edge_mask if first.level == "edge" else np.ones_like(first.values, bool)
    values, unknown = np.zeros(first.values.shape), np.zeros(first.values.shape)
    values[mask], unknown[mask] = combined, np.nan
    return Scores(
        first.graph,
        values,
        unknown,
        min(one.n_examples for one in scores),
        f"{how} of {', '.join(one.method or 'unnamed' for one in scores)}",
        first.level,
    )


def rank_mean(members: Members) -> Combined:
    """The mean rank by |score|, as a share of the units, with the common sign."""
    from scipy.stats import rankdata

    sizes = np.abs(resolved(members))
    ranks = np.where(sizes == 0, 0.0, rankdata(sizes, axis=1))
    return _sign(members) * ranks.mean(axis=0) / members.shape[1]


def score_mean(members: Members) -> Combined:
    """The mean of the signed scores."""
    return np.asarray(members.mean(axis=0))


def minimum(members: Members) -> Combined:
    """The least |score|, with the common sign."""
    return _sign(members) * np.abs(members).min(axis=0)


def maximum(members: Members) -> Combined:
    """The greatest |score|, with the common sign."""
    return _sign(members) * np.abs(members).max(axis=0)


COMBINATIONS: dict[str, Callable[[Members], Combined]] = {
    "rank-mean": rank_mean,
    "score-mean": score_mean,
    "minimum": minimum,
    "maximum": maximum,
}


def _sign(members: Members) -> Combined:
    return np.where(members.sum(axis=0) < 0, -1.0, 1.0)


def _check_members(scores: Sequence[Scores], values: Members) -> None:
    """Raise `AttributionError` unless there are units, and every member ranks some of them."""
    level = scores[0].level
    if not values.size:
        raise AttributionError(
            f"no {level} is scored by all members of the ensemble: combine methods that score "
            f"the same {level}s"
        )
    for index, size in enumerate(np.abs(values).max(axis=1)):
        if size == 0 or np.isinf(size):
            what = "scores infinite" if size else f"scores every {level} 0, so it ranks nothing"
            raise AttributionError(
                f"member {index + 1} of the ensemble ({scores[index].method or 'unnamed'}) {what}: "
                f"leave it out"
            )
