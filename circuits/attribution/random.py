"""Random scores: the baseline that every method must beat.

One standard normal number a unit, from a seeded generator, the same for every example: in edge
order, in the order of the writers, or neuron by neuron. No model is run.
"""

import numpy as np
import torch
from torch import Tensor

from circuits.attribution.method import attribution_method
from circuits.attribution.run import Run


@attribution_method(
    "random",
    interventions=(),
    takes_metric=False,
    needs_gradient=False,
    takes_seed=True,
    runs_model=False,
    defaults={"seed": 0},
)
def random(run: Run) -> Tensor:
    """The same numbers for every example."""
    generator = np.random.Generator(np.random.PCG64(run.options.seed))
    graph, d_model = run.model.graph, run.model.architecture.d_model
    if run.options.level == "edge":
        values = np.zeros(graph.edge_mask.shape)
        values[graph.edge_mask] = generator.standard_normal(graph.n_edges)
    else:
        shape = (graph.n_writers, d_model) if run.options.level == "neuron" else graph.n_writers
        values = generator.standard_normal(shape)
    return torch.from_numpy(values)[None].repeat(run.batch.size, *[1] * values.ndim)
