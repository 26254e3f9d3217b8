"""What is left where some units of a circuit are taken away: of the circuit, or of the model.

With K some of the units of a circuit C, `C ∖ K` is what is left of the circuit and `M ∖ K` what is
left of the whole model M. An edge goes alone; a node goes with all its edges, those into it and
those out of it; a neuron goes with its node once it is the node's last. Nothing is pruned.

Units are named by their place in the order of their level: edges in edge order, nodes in the order
of `graph.writers`, neurons by writer, then by dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np
from jaxtyping import Int
from torch import Tensor

from circuits.batching import DEFAULT_MEMORY_BUDGET, at_a_time
from circuits.circuit import Circuit, edges_between
from circuits.errors import EvaluationError
from circuits.evaluation import Evaluation, evaluate_many
from circuits.intervention import MEANS, MeanActivations, mean_activations
from circuits.model import Model
from tasks import Dataset, Metric

_SHARE_FOR_CIRCUITS = 8  # circuits that wait to be evaluated take one part in so many of the budget

Units = Int[np.ndarray, " units"]


def units_of(circuit: Circuit) -> Units:
    """The places of the circuit's units, in order."""
    return np.flatnonzero(circuit.unit_mask)


def names_of(circuit: Circuit) -> tuple[str, ...]:
    """The names of the circuit's units, in order, such as `a0.h1->m0`, `a0.h1` or `a0.h1[7]`."""
    if circuit.level == "edge":
        return circuit.edges
    writers = circuit.graph.writers
    if circuit.level == "node":
        return tuple(writers[unit] for unit in units_of(circuit))
    assert circuit.neurons is not None
    return tuple(f"{writers[u]}[{i}]" for u, i in np.argwhere(circuit.neurons))


def without(circuit: Circuit, units: Units) -> Circuit:
    """`C ∖ K`: the circuit without these units of its level."""
    graph, mask, neurons = circuit.graph, circuit.mask.copy(), circuit.neurons
    if circuit.level == "edge":
        writers, readers = np.nonzero(graph.edge_mask)
        mask[writers[units], readers[units]] = False
        return Circuit(graph, mask, neurons=neurons)
    if circuit.level == "node":
        kept = np.asarray(mask.any(axis=1))
        kept[units] = False
    else:
        assert neurons is not None
        neurons = neurons.copy()
        neurons.reshape(-1)[units] = False
        kept = np.asarray(neurons.any(axis=1))
    return Circuit(graph, mask & edges_between(graph, kept), None, neurons, circuit.level)


def whole(circuit: Circuit) -> Circuit:
    """M: the whole model as a circuit of the same level.

    Raises `EvaluationError` for edges or nodes that carry neurons: what they leave out is no set of
    edges or nodes.
    """
    graph, neurons = circuit.graph, circuit.neurons
    if circuit.level != "neuron" and neurons is not None:
        raise EvaluationError(
            f"what is left of the model without {circuit.level}s that carry some neurons only is "
            f"no circuit: choose edges, nodes or neurons"
        )
    everything = None if neurons is None else np.ones_like(neurons)
    return Circuit(graph, graph.edge_mask, None, everything, circuit.level)


def evaluate_each(
    model: Model,
    circuits: Iterable[Circuit],
    dataset: Dataset,
    metric: str | Metric | Callable[..., Tensor],
    *,
    intervention: str = "patching",
    intervention_dataset: Dataset | None = None,
    means: MeanActivations | None = None,
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
) -> Iterator[Evaluation]:
    """Evaluate circuits as they come, as many at once as the budget holds; as `evaluate_many`.

    Those evaluated at once share their clean and ablated runs; means are taken once.
    """
    if intervention in MEANS and means is None:
        source = dataset if intervention_dataset is None else intervention_dataset
        means = mean_activations(model, source, intervention, memory_budget=memory_budget)
        intervention_dataset = None
    waiting = iter(circuits)
    for first in waiting:
        size = first.mask.nbytes + 8 * len(dataset)
        size += 0 if first.neurons is None else first.neurons.nbytes
        at_once = at_a_time(memory_budget // (_SHARE_FOR_CIRCUITS * size))
        yield from evaluate_many(
            model,
            [first, *islice(waiting, at_once - 1)],
            dataset,
            metric,
            intervention=intervention,
            intervention_dataset=intervention_dataset,
            means=means,
            memory_budget=memory_budget,
        )
