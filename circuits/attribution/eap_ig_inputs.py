r"""EAP-IG-inputs: integrated gradients along the input embeddings (Hanna, Pezzelle, Belinkov 2024,
arXiv:2403.17806; integrated gradients: Sundararajan et al. 2017, arXiv:1703.01365, eq. 1).

    score(u → v) = Σ_pos Δ_u · ∫₀¹ ∂L/∂x_v at e(α) dα,   e(α) = e' + α (e − e'),

with `e` and `e'` the clean and corrupted token embeddings and all else flowing freely. The integral
is a quadrature rule over m points; Δ is the same at each, so gradients are added up first and
multiplied once.

Cost: m forward-backwards, a clean and a corrupted forward (one of them fewer where the rule has a
point at that end). One right step (α = 1) is EAP; the trapezoid rule with 2 is clean-corrupted.
"""

import torch
from torch import Tensor

from circuits.attribution.method import PATCHING, attribution_method
from circuits.attribution.run import Run


@attribution_method(
    "EAP-IG-inputs",
    interventions=PATCHING,
    takes_steps=True,
    defaults={"steps": 5, "quadrature": "midpoint"},
)
def eap_ig_inputs(run: Run) -> Tensor:
    """The gradients at the points of the quadrature rule."""
    return along_inputs(run, run.options.path)


def along_inputs(run: Run, path: tuple[tuple[float, float], ...]) -> Tensor:
    """The scores by the gradients at points (α, weight) between corrupted (0) and clean (1)."""
    gradients = run.collect()
    weights: dict[float, float] = {}
    for alpha, weight in path:
        weights[alpha] = weights.get(alpha, 0.0) + weight
    # the clean input first: some metrics compare with its logits
    for alpha in sorted(weights, reverse=True):
        step = f"step {list(weights).index(alpha) + 1} of {len(weights)} (α = {alpha:.4g})"
        place = f"{step} on the way from the corrupted to the clean input"
        if alpha == 1.0:
            run.follow_clean(gradients, weights[alpha], place)
        elif alpha == 0.0:
            run.follow_corrupted(gradients, weights[alpha], place)
        else:
            _ = run.clean_logits
            between = torch.lerp(run.ablated.embedding, run.clean.embedding, alpha)
            run.follow(between, gradients, weights[alpha], place)
    return run.scores(gradients)
