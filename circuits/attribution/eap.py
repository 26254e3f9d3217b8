r"""EAP: edge attribution patching (Syed, Rager, Conmy 2023, arXiv:2310.10348).

    score(u → v) = Σ_pos Δ_u · ∂L/∂x_v  at the clean input,

the first-order estimate of what corrupting the edge does to the loss. `Δ_u` is the change of writer
u's contribution: to what it is on the corrupted input, to zero, or to its mean. Nodes and neurons:
the gradient at the writer's own output.

Cost: one clean forward-backward, and under patching one corrupted forward. It misses what is flat
at the clean input, such as a saturated attention pattern.
"""

from torch import Tensor

from circuits.attribution.method import attribution_method
from circuits.attribution.run import Run


@attribution_method("EAP", only_at_clean=True)
def eap(run: Run) -> Tensor:
    """The gradient at the clean input alone."""
    gradients = run.collect()
    run.follow_clean(gradients, 1.0)
    return run.scores(gradients)
