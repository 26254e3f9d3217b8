"""Minimality against circuits put together by name, and against exact attribution."""

from __future__ import annotations

import numpy as np
import pytest

from circuits import Circuit, EvaluationError, Graph, attribute, evaluate, mean_activations
from circuits import removal as removal_module
from circuits.minimality import minimality
from tests import oracle as o
from tests.checkpoints import random_dataset
from tests.circuits.test_completeness import (
    ELSEWHERE,
    LEVELS,
    MIXED,
    NODES,
    data_for,
    in_order,
    of_units,
    some_circuit,
    units_by_name,
)


def small_circuit(graph: Graph, level: str) -> Circuit:
    """Few enough units to evaluate one after another; some of its edges are dead ends."""
    circuit = some_circuit(graph, level)
    if level == "edge":
        return Circuit.from_edges(graph, circuit.edges[::4])
    if level == "neuron":
        neurons = circuit.neurons.copy()
        neurons[:, 2:] = False
        neurons[graph.writers.index("m1"), :2] = (False, True)  # its last one
        return Circuit.from_neurons(graph, neurons)
    return circuit


def name_of(unit: object) -> str:
    return unit if isinstance(unit, str) else f"{unit[0]}[{unit[1]}]"


@pytest.mark.parametrize("intervention", o.INTERVENTIONS)
@pytest.mark.parametrize("level", LEVELS)
def test_marginals_are_differences_of_circuits_evaluated_one_by_one(
    level, intervention, model_of, oracle_of
):
    model, oracle, data = model_of("gpt2"), oracle_of("gpt2"), data_for(intervention)
    circuit = small_circuit(model.graph, level)
    found = minimality(model, circuit, data, intervention=intervention)
    members, order = units_by_name(circuit), list(in_order(circuit))
    units = [unit for unit in order if unit in members]
    assert found.units == tuple(map(name_of, units))
    assert found.unit_ids.tolist() == [order.index(unit) for unit in units]

    def values(kept: set) -> np.ndarray:
        one = of_units(circuit, kept)
        how = {"neurons": one.neurons, "intervention": intervention}
        return o.evaluate(oracle, one.mask, data, "logit-diff", **how)

    whole = values(members)
    assert found.circuit.values == pytest.approx(whole, rel=1e-9, abs=1e-10)
    expected = np.stack([whole - values(members - {unit}) for unit in units])
    assert found.marginals == pytest.approx(expected, rel=1e-7, abs=1e-9)
    assert found.values == pytest.approx(expected.mean(1), rel=1e-7, abs=1e-9)
    error = expected.std(1, ddof=1) / np.sqrt(3)
    assert found.standard_error == pytest.approx(error, rel=1e-6, abs=1e-9)
    assert np.abs(expected).max() > 1e-2


@pytest.mark.parametrize(("family", "kv"), [("llama", "grouped"), ("gemma2", "ungrouped")])
def test_marginals_hold_in_grouped_graphs_and_behind_post_norms(family, kv, model_of):
    model = model_of(family, kv)
    graph, data = model.graph, random_dataset(2, seed=5)
    for circuit in (
        Circuit.from_nodes(graph, NODES),
        Circuit.from_edges(graph, [edge.name for edge in graph.edges[::15]]),
    ):
        found = minimality(model, circuit, data)
        whole, members = evaluate(model, circuit, data).values, units_by_name(circuit)
        for name, marginals in zip(found.units, found.marginals, strict=True):
            less = evaluate(model, of_units(circuit, members - {name}), data).values
            assert marginals == pytest.approx(whole - less, rel=1e-8, abs=1e-10), name


@pytest.mark.parametrize("intervention", o.INTERVENTIONS)
@pytest.mark.parametrize("level", LEVELS)
def test_marginals_of_the_whole_model_are_the_exact_scores(level, intervention, engine):
    """L(unit ablated) − L(clean), with L = −metric."""
    model, data = engine(n_heads=1, d_model=6)[0], data_for(intervention)
    graph, options = model.graph, {}
    neurons = None
    if level == "neuron":
        neurons, options = np.ones((graph.n_writers, 6), dtype=bool), {"nodes": graph.writers}
    circuit = Circuit(graph, graph.edge_mask, None, neurons, level)
    found = minimality(model, circuit, data, intervention=intervention)
    how = {"level": level, "intervention": intervention} | options
    expected = attribute(model, data, "exact", **how)
    frame = expected.to_pandas()
    assert found.values == pytest.approx(frame["score"].to_numpy(), rel=1e-7, abs=1e-9)
    error = frame["standard_error"].to_numpy()
    assert found.standard_error == pytest.approx(error, rel=1e-6, abs=1e-8)
    table = found.to_pandas()
    assert list(table.columns) == ["unit_id", "unit", "marginal", "standard_error"]
    assert list(table["unit"]) == list(frame[level])
    assert list(table["unit_id"]) == list(range(expected.n_units))
    assert (table["marginal"].to_numpy() == found.values).all()


def test_all_circuits_share_one_evaluation_unless_memory_is_short(model_of, monkeypatch):
    model = model_of("gpt2")
    circuit = small_circuit(model.graph, "edge")
    real, calls = removal_module.evaluate_many, []

    def counted(model, circuits, *args, **options):
        calls.append(len(circuits))
        return real(model, circuits, *args, **options)

    monkeypatch.setattr(removal_module, "evaluate_many", counted)
    found = minimality(model, circuit, MIXED, intervention="mean")
    assert calls == [circuit.n_edges + 1]
    calls.clear()
    held = circuit.mask.nbytes + 8 * len(MIXED)
    short = minimality(model, circuit, MIXED, intervention="mean", memory_budget=8 * 5 * held)
    assert max(calls) == 5
    assert sum(calls) == circuit.n_edges + 1
    assert short.marginals == pytest.approx(found.marginals, rel=1e-9, abs=1e-12)
    calls.clear()
    least = minimality(model, Circuit.from_nodes(model.graph, NODES), MIXED, memory_budget=1)
    assert calls == [1] * (len(least.units) + 1)


def test_the_only_unit_is_worth_the_whole_circuit(model_of):
    model = model_of("gpt2")
    circuit = Circuit.from_edges(model.graph, ["input->logits"])
    found = minimality(model, circuit, MIXED, "prob-diff")
    expected = found.circuit.values - found.circuit.baselines.corrupted
    assert found.marginals[0] == pytest.approx(expected, rel=1e-12)
    assert found.circuit.metric == "prob-diff"


def test_a_dead_end_is_worth_nothing(model_of):
    model = model_of("gpt2")
    circuit = Circuit.from_edges(model.graph, ["input->logits", "input->m0", "m0->a1.h0<q>"])
    found = minimality(model, circuit, MIXED)
    assert found.units == ("input->m0", "input->logits", "m0->a1.h0<q>")
    assert found.values[[0, 2]] == pytest.approx([0.0, 0.0], abs=1e-12)
    assert abs(found.values[1]) > 1e-3


def test_edges_that_carry_some_neurons_lose_themselves_alone(model_of, oracle_of):
    model, oracle = model_of("gpt2"), oracle_of("gpt2")
    neurons = np.random.default_rng(0).random((model.graph.n_writers, 24)) < 0.6
    names = ["input->logits", "input->m0", "m0->logits"]
    edges = Circuit.from_edges(model.graph, names)
    found = minimality(model, Circuit(model.graph, edges.mask, neurons=neurons), MIXED)
    for name, marginals in zip(found.units, found.marginals, strict=True):
        less = Circuit.from_edges(model.graph, set(names) - {name})
        a, b = (
            o.evaluate(oracle, c.mask, MIXED, "logit-diff", neurons=neurons) for c in (edges, less)
        )
        assert marginals == pytest.approx(a - b, rel=1e-8, abs=1e-10)


def test_the_empty_circuit_has_no_marginals_and_one_example_no_errors(model_of):
    model = model_of("gpt2")
    none = minimality(model, Circuit.from_edges(model.graph, []), MIXED)
    assert (none.units, none.marginals.shape, none.values.shape) == ((), (0, 3), (0,))
    assert len(none.to_pandas()) == 0
    one = minimality(model, Circuit.from_nodes(model.graph, NODES), MIXED[:1])
    assert np.isnan(one.standard_error).all()
    assert np.isfinite(one.values).all()


def test_means_of_another_dataset_are_used(model_of):
    model = model_of("gpt2")
    circuit = Circuit.from_nodes(model.graph, NODES)
    named = minimality(
        model, circuit, MIXED, intervention="mean", intervention_dataset=ELSEWHERE
    ).values
    given = minimality(
        model, circuit, MIXED, intervention="mean", means=mean_activations(model, ELSEWHERE)
    ).values
    own = minimality(model, circuit, MIXED, intervention="mean").values
    assert named == pytest.approx(given, rel=1e-12)
    assert np.abs(named - own).max() > 1e-5


def test_what_cannot_be_evaluated_is_refused(model_of):
    model = model_of("gpt2")
    with pytest.raises(EvaluationError, match="3 layers"):
        minimality(model, Circuit.from_nodes(Graph(3, 3), NODES), MIXED)
    with pytest.raises(EvaluationError, match="takes no mean"):
        minimality(
            model,
            Circuit.from_nodes(model.graph, NODES),
            MIXED,
            intervention="zero",
            intervention_dataset=ELSEWHERE,
        )


def test_nodes_take_their_own_edges_with_them_and_bring_none(model_of, oracle_of):
    """Of a circuit at node level that has not all edges between its nodes."""
    model, oracle = model_of("gpt2"), oracle_of("gpt2")
    full = Circuit.from_nodes(model.graph, [*NODES, "a1.h1", "m1"])
    gone = {"a1.h0->m1", "input->m0", *(e for e in full.edges if e.startswith("a1.h1->"))}
    edges = set(full.edges) - gone
    mask = Circuit.from_edges(model.graph, edges).mask
    found = minimality(model, Circuit(model.graph, mask, level="node"), MIXED, intervention="zero")
    assert found.units == ("input", "a0.h0", "m0", "a1.h0", "m1")  # a1.h1 writes nothing
    for node, marginals in zip(found.units, found.marginals, strict=True):
        left = [
            edge
            for edge in edges
            if node not in (edge.split("->")[0], edge.split("->")[1].split("<")[0])
        ]
        less = Circuit.from_edges(model.graph, left).mask
        a, b = (
            o.evaluate(oracle, m, MIXED, "logit-diff", intervention="zero") for m in (mask, less)
        )
        assert marginals == pytest.approx(a - b, rel=1e-8, abs=1e-10), node
