"""What is held at a time stays within the memory budget: tensors counted as they come and go."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from circuits import Circuit, attribute, evaluate_many, mean_activations
from tests.checkpoints import random_dataset

SHAPE = {"n_layers": 3, "n_heads": 4, "d_model": 64}
BUDGET = 2 << 20  # bytes


class Held(TorchDispatchMode):
    """The bytes of all storages that came to be while it lasts, now and at most."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for value in tree_leaves(found):
            if isinstance(value, torch.Tensor):
                self.count(value.untyped_storage())
        return found

    def count(self, storage):
        if storage in self.known:
            return
        self.known.add(storage)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.gone, size)

    def gone(self, size):
        self.now -= size


def test_the_count_is_that_of_what_is_alive():
    with Held() as held:
        kept = [torch.zeros(1000) for _ in range(3)]
        del kept[0]
        torch.ones(500).add_(1)
        view = kept[0][:10]
    assert held.peak == 12_000
    assert held.now == 8_000
    del kept
    assert held.now == 4_000  # what the view is of
    del view
    assert held.now == 0


@pytest.mark.parametrize(
    ("method", "level", "options"),
    [
        ("EAP", "edge", {}),
        ("EAP", "neuron", {}),
        ("EAP-IG-inputs", "edge", {"steps": 5}),
        ("EAP-IG-inputs", "node", {"steps": 5}),
        ("EAP-IG-activations", "edge", {"steps": 1}),
        ("EAP-IG-activations", "edge", {"steps": 5}),
        ("EAP-IG-activations", "edge", {"steps": 20, "scope": "all"}),
        ("EAP-IG-activations", "node", {"steps": 5, "scope": "all"}),
        ("information-flow-routes", "edge", {}),
        ("exact", "edge", {}),
        ("exact", "node", {}),
        ("exact", "neuron", {"nodes": ["a0.h1", "m2"]}),
    ],
)
def test_attribution_stays_within_its_memory_budget(method, level, options, engine):
    """And uses it: a plan that fears too much makes batches too small."""
    model, _ = engine("float32", **SHAPE)
    dataset = random_dataset(4, lengths=(20, 22, 24), shared_prefix=1, seed=3)
    with Held() as held:
        attribute(model, dataset, method, level=level, memory_budget=BUDGET, **options)
    assert 0.1 * BUDGET <= held.peak <= BUDGET


def test_evaluation_and_means_stay_within_their_memory_budget(engine):
    model, _ = engine("float32", **SHAPE)
    dataset = random_dataset(4, lengths=(20, 22, 24), shared_prefix=1, seed=3)
    edges = model.graph.edge_mask
    random = np.random.default_rng(0)
    circuits = [Circuit(model.graph, edges & (random.random(edges.shape) < d)) for d in (0.1, 0.9)]
    for intervention in ("patching", "mean"):
        with Held() as held:
            evaluate_many(
                model, circuits * 4, dataset, intervention=intervention, memory_budget=BUDGET
            )
        assert 0.1 * BUDGET <= held.peak <= BUDGET
    with Held() as held:
        mean_activations(model, dataset, memory_budget=BUDGET)
    assert 0.1 * BUDGET <= held.peak <= BUDGET
