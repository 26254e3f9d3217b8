r"""EAP-IG-inputs: integrated gradients along the input embeddings (Hanna, Pezzelle, Belinkov 2024,
arXiv:2403.17806; integrated gradients: Sundararajan et al. 2017, arXiv:1703.01365, eq. 1).

    score(u → v) = Σ_pos Δ_u · ∫₀¹ ∂L/∂x_v at e(α) dα,   e(α) = e' + α (e − e'),

with `e` and `e'` the clean and corrupted token embeddings and all else flowing freely. The integral
is a quadrature rule over m points; Δ is the same at each, so gradients are added up first and
multiplied once.

Cost: m forward-backwards, a clean and a corrupted forward (one of them fewer where the rule has a
point at that end). One right step (α = 1) is EAP; the trapezoid rule with 2 is clean-corrupted.
"""

from circuits.attribution.method import GradientPath, Options, attribution_method
from circuits.quadrature import quadrature


@attribution_method(
    "EAP-IG-inputs", takes_steps=True, defaults={"steps": 5, "quadrature": "midpoint"}
)
def eap_ig_inputs(options: Options) -> GradientPath:
    """The gradients at the points of the quadrature rule."""
    assert options.steps is not None
    assert options.quadrature is not None
    return quadrature(options.quadrature, options.steps)
