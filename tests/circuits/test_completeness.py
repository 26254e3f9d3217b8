"""Completeness against circuits put together by name, run by the engine and by the definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from circuits import (
    Circuit,
    EvaluationError,
    Graph,
    baselines,
    evaluate,
    evaluate_many,
    mean_activations,
)
from circuits.completeness import complement, completeness
from tests import oracle as o
from tests.checkpoints import random_dataset

MIXED = random_dataset(3, seed=2)
LEVEL_LENGTH = random_dataset(3, lengths=(6,), seed=2)  # what mean-positional takes
ELSEWHERE = random_dataset(4, lengths=(3, 8), seed=21)
LEVELS = ("edge", "node", "neuron")
NODES = ("input", "a0.h0", "m0", "a1.h0")


def data_for(intervention):
    return LEVEL_LENGTH if intervention == "mean-positional" else MIXED


def some_circuit(graph: Graph, level: str, d_model: int = 24) -> Circuit:
    rng = np.random.default_rng(3)
    if level == "edge":
        return Circuit.from_edges(graph, [e.name for e in graph.edges if rng.random() < 0.4])
    if level == "node":
        return Circuit.from_nodes(graph, NODES)
    neurons = rng.random((graph.n_writers, d_model)) < 0.5
    neurons[graph.writers.index("a0.h0")] = False
    neurons[graph.writers.index("m0")] = True
    return Circuit.from_neurons(graph, neurons)


def units_by_name(circuit: Circuit) -> set:
    """Names of edges or nodes, or (node, dimension), by going through all of them."""
    if circuit.level == "edge":
        return set(circuit.edges)
    if circuit.level == "node":
        return {e.writer for e in circuit.members}
    return {
        (node, i)
        for node, row in zip(circuit.graph.writers, circuit.neurons, strict=True)
        for i, kept in enumerate(row)
        if kept
    }


def of_units(like: Circuit, names: set) -> Circuit:
    """The circuit of these units of the same level, put together by name."""
    graph = like.graph
    if like.level == "edge":
        return Circuit.from_edges(graph, names)
    if like.level == "node":
        return Circuit.from_nodes(graph, names)
    neurons = np.zeros_like(like.neurons)
    for node, i in names:
        neurons[graph.writers.index(node), i] = True
    owners = {node for node, _ in names}
    return Circuit.from_neurons(graph, neurons) if owners else nothing(like)


def nothing(like: Circuit) -> Circuit:
    """The empty circuit, of the same level."""
    neurons = None if like.neurons is None else np.zeros_like(like.neurons)
    return Circuit(like.graph, np.zeros_like(like.mask), None, neurons, like.level)


def all_units(like: Circuit) -> set:
    if like.level == "edge":
        return {edge.name for edge in like.graph.edges}
    if like.level == "node":
        return set(like.graph.writers)
    return {(node, i) for node in like.graph.writers for i in range(like.neurons.shape[1])}


def of_input(unit: object) -> bool:
    return unit == "input" or (isinstance(unit, tuple) and unit[0] == "input")


def rest_of(circuit: Circuit) -> Circuit:
    """All units that are not in the circuit, and those of `input`."""
    everything = all_units(circuit)
    kept = everything - units_by_name(circuit) | {u for u in everything if of_input(u)}
    return of_units(circuit, kept)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "graph",
    [Graph(2, 3), Graph(3, 1), Graph(2, 4, n_kv_heads=2), Graph(2, 3, parallel=True)],
    ids=["plain", "one head", "grouped", "parallel"],
)
def test_the_complement_holds_every_other_unit(graph, level):
    circuit = some_circuit(graph, level)
    found = complement(circuit)
    assert found == rest_of(circuit)
    assert found.level == level
    if level == "edge":
        assert not (found.mask & circuit.mask).any()
        assert (found.mask | circuit.mask == graph.edge_mask).all()
        assert complement(found) == circuit


@pytest.mark.parametrize("level", LEVELS)
def test_the_complement_of_nothing_is_the_model_and_that_of_the_model_what_input_says(level):
    graph = Graph(2, 2)
    like = some_circuit(graph, level)
    model = of_units(like, all_units(like))
    assert complement(nothing(like)) == model
    alone = {u for u in all_units(like) if of_input(u)}
    assert complement(model) == (nothing(like) if level == "edge" else of_units(like, alone))


@pytest.mark.parametrize("intervention", o.INTERVENTIONS)
@pytest.mark.parametrize("level", LEVELS)
def test_the_model_without_the_circuit_is_as_in_the_definition(
    level, intervention, model_of, oracle_of
):
    model, oracle, data = model_of("gpt2"), oracle_of("gpt2"), data_for(intervention)
    circuit = some_circuit(model.graph, level)
    rest = rest_of(circuit)
    found = completeness(model, circuit, data, intervention=intervention)
    how = {"neurons": rest.neurons, "intervention": intervention}
    expected = o.evaluate(oracle, rest.mask, data, "logit-diff", **how)
    assert found.without.values == pytest.approx(expected, rel=1e-9, abs=1e-10)
    ends = baselines(model, data, intervention=intervention)
    low, high = ends.corrupted.mean(), ends.clean.mean()
    f = (expected.mean() - low) / (high - low)
    assert found.without.faithfulness == pytest.approx(f, rel=1e-8, abs=1e-9)
    assert (found.mean, found.worst, len(found.values)) == (None, None, 0)
    assert abs(found.without.mean - low) > 1e-4  # a random circuit is not complete


@pytest.mark.parametrize("intervention", o.INTERVENTIONS)
@pytest.mark.parametrize("level", LEVELS)
def test_subsets_are_taken_from_the_circuit_and_from_the_model(level, intervention, model_of):
    model, data = model_of("gpt2"), data_for(intervention)
    circuit = some_circuit(model.graph, level)
    found = completeness(model, circuit, data, "kl", intervention=intervention, subsets=4, seed=9)
    units = sorted(units_by_name(circuit), key=list(in_order(circuit)).index)
    units = [u for u in units if level == "edge" or not of_input(u)]
    assert len(found.units) == len(units)
    assert found.subsets.shape == (4, len(units))
    expected = []
    for row, of_circuit, of_model in zip(
        found.subsets, found.circuit_values, found.model_values, strict=True
    ):
        removed = {unit for unit, chosen in zip(units, row, strict=True) if chosen}
        left = of_units(circuit, units_by_name(circuit) - removed)
        model_left = of_units(circuit, all_units(circuit) - removed)
        a, b = evaluate_many(model, [left, model_left], data, "kl", intervention=intervention)
        assert of_circuit == pytest.approx(a.values, rel=1e-9, abs=1e-12)
        assert of_model == pytest.approx(b.values, rel=1e-9, abs=1e-12)
        expected.append(abs(a.values.mean() - b.values.mean()))
    assert found.values == pytest.approx(expected, rel=1e-8)
    assert 0 < found.subsets.mean() < 1
    assert found.mean == pytest.approx(np.mean(expected), rel=1e-8)
    assert found.worst == pytest.approx(max(expected), rel=1e-8)


def in_order(circuit: Circuit):
    """Every unit of the level, in order."""
    graph = circuit.graph
    if circuit.level == "edge":
        return (edge.name for edge in graph.edges)
    if circuit.level == "node":
        return graph.writers
    return ((node, i) for node in graph.writers for i in range(circuit.neurons.shape[1]))


def test_all_of_the_circuit_and_none_of_it_are_its_two_extremes(model_of):
    """Of one edge: K is that edge, and the circuit is gone; or nothing, and all is there."""
    model = model_of("gpt2")
    circuit = Circuit.from_edges(model.graph, ["input->logits"])
    found = completeness(model, circuit, MIXED, subsets=12)
    ends = baselines(model, MIXED)
    taken = abs(ends.corrupted.mean() - found.without.mean)
    kept = abs(evaluate(model, circuit, MIXED).mean - ends.clean.mean())
    assert {bool(row[0]) for row in found.subsets} == {True, False}
    for row, value in zip(found.subsets, found.values, strict=True):
        assert value == pytest.approx(taken if row[0] else kept, rel=1e-9)


def test_the_whole_model_is_complete(model_of):
    model = model_of("gpt2")
    circuit = Circuit(model.graph, model.graph.edge_mask)
    found = completeness(model, circuit, MIXED, subsets=5)
    assert found.without.values == pytest.approx(baselines(model, MIXED).corrupted, rel=1e-12)
    assert found.without.faithfulness == pytest.approx(0.0, abs=1e-12)
    assert found.worst == pytest.approx(0.0, abs=1e-12)


def test_input_stays_where_nodes_are_taken_away(model_of):
    """Were it taken away, the rest would be the corrupted run, whatever the circuit."""
    model = model_of("gpt2")
    found = completeness(model, Circuit.from_nodes(model.graph, NODES), MIXED)
    strict = evaluate(
        model, Circuit.from_nodes(model.graph, set(model.graph.writers) - set(NODES)), MIXED
    )
    assert strict.values == pytest.approx(strict.baselines.corrupted, rel=1e-12)
    assert np.abs(found.without.values - strict.values).max() > 1e-3


def test_subsets_repeat_by_seed_and_have_half_of_the_units(model_of):
    model = model_of("gpt2")
    circuit = Circuit(model.graph, model.graph.edge_mask)
    first, again, other = (
        completeness(model, circuit, MIXED[:1], subsets=6, seed=s).subsets for s in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()
    n = first.size
    assert first.mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(n))


def test_means_of_another_dataset_are_taken_once_or_given(model_of):
    model = model_of("gpt2")
    circuit = some_circuit(model.graph, "node")
    rest = rest_of(circuit)
    expected = evaluate(model, rest, MIXED, intervention="mean", intervention_dataset=ELSEWHERE)
    named = completeness(
        model, circuit, MIXED, intervention="mean", intervention_dataset=ELSEWHERE, subsets=2
    )
    given = completeness(
        model,
        circuit,
        MIXED,
        intervention="mean",
        means=mean_activations(model, ELSEWHERE),
        subsets=2,
    )
    for found in (named, given):
        assert found.without.values == pytest.approx(expected.values, rel=1e-12)
    assert named.values == pytest.approx(given.values, rel=1e-12)
    own = completeness(model, circuit, MIXED, intervention="mean")
    assert np.abs(own.without.values - expected.values).max() > 1e-5


def test_faithfulness_without_the_circuit_is_undefined_where_nothing_was_corrupted(model_of):
    model = model_of("gpt2")
    same = replace(
        MIXED, examples=tuple(replace(e, corrupted_tokens=e.clean_tokens) for e in MIXED)
    )
    found = completeness(model, some_circuit(model.graph, "edge"), same, subsets=2)
    assert found.without.faithfulness is None
    assert found.worst == pytest.approx(0.0, abs=1e-10)


def test_what_has_no_complement_is_refused(model_of):
    model = model_of("gpt2")
    edges = some_circuit(model.graph, "edge")
    mixed = Circuit(model.graph, edges.mask, neurons=np.ones((model.graph.n_writers, 24), bool))
    with pytest.raises(EvaluationError, match="edges that carry some neurons only"):
        complement(mixed)
    with pytest.raises(EvaluationError, match="not -1 and 0"):
        completeness(model, edges, MIXED, subsets=-1)
    with pytest.raises(EvaluationError, match="3 layers"):
        completeness(model, some_circuit(Graph(3, 3), "edge"), MIXED)
    with pytest.raises(EvaluationError, match="'median'"):
        completeness(model, edges, MIXED, intervention="median")
    with pytest.raises(EvaluationError, match="not both"):
        completeness(
            model,
            edges,
            MIXED,
            intervention="mean",
            means=mean_activations(model, MIXED),
            intervention_dataset=MIXED,
        )
