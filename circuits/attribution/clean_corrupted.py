r"""Clean-corrupted: the mean of the gradients at both ends of the path (Hanna et al. 2024,
arXiv:2403.17806; the trapezoid rule on its two ends).

    score(u → v) = Σ_pos Δ_u · ½ (∂L/∂x_v at the clean input + ∂L/∂x_v at the corrupted input)

Cost: one clean and one corrupted forward-backward. It is EAP-IG-inputs by the trapezoid rule with 2
steps, and the mean of EAP with its mirror image at the corrupted input.
"""

from torch import Tensor

from circuits.attribution.eap_ig_inputs import along_inputs
from circuits.attribution.method import PATCHING, attribution_method
from circuits.attribution.run import Run


@attribution_method("clean-corrupted", interventions=PATCHING)
def clean_corrupted(run: Run) -> Tensor:
    """The gradients at the clean and at the corrupted input, with equal weight."""
    return along_inputs(run, ((0.0, 0.5), (1.0, 0.5)))
