r"""EAP: edge attribution patching (Syed, Rager, Conmy 2023, arXiv:2310.10348).

    score(u → v) = Σ_pos Δ_u · ∂L/∂x_v  at the clean input,

the first-order estimate of what corrupting the edge does to the loss. `Δ_u` is the change of writer
u's contribution from the clean to the corrupted run.

Cost: one clean forward-backward and one corrupted forward. It is EAP-IG-inputs with one right step
(α = 1). It misses what is flat at the clean input, such as a saturated attention pattern.
"""

from circuits.attribution.method import GradientPath, Options, attribution_method


@attribution_method("EAP", only_at_clean=True)
def eap(options: Options) -> GradientPath:
    """The gradient at the clean input alone."""
    return ((1.0, 1.0),)
