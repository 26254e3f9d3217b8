"""The index space: counts, order, names, and which edges exist."""

from __future__ import annotations

import re

import numpy as np
import pytest

from circuits import Circuit, CircuitError, Graph
from tests import oracle

SIZES = [(1, 1), (1, 3), (2, 3), (4, 4), (3, 2)]


def test_gpt2_small_has_the_published_counts():
    graph = Graph(12, 12)
    assert (graph.n_writers, graph.n_nodes, graph.n_readers) == (157, 158, 445)
    assert graph.n_edges == len(graph.edges) == 32_491


@pytest.mark.parametrize("size", SIZES)
def test_names_and_edges_are_those_written_down_in_the_oracle(size):
    graph = Graph(*size)
    assert list(graph.writers) == oracle.writer_names(*size)
    assert list(graph.readers) == oracle.reader_names(*size)
    assert [edge.name for edge in graph.edges] == oracle.edge_names(*size)
    assert graph.n_edges == int(graph.edge_mask.sum())
    for edge in graph.edges:
        assert graph.writers[edge.writer_index] == edge.writer
        assert graph.readers[edge.reader_index] == edge.reader
        (node,) = np.array(graph.nodes)[graph.reads[edge.reader_index]]
        assert edge.reader.split("<")[0] == node
        letter = edge.reader.split("<")[1][0] if "<" in edge.reader else None
        assert edge.kind == (letter or ("logits" if node == "logits" else "mlp"))


@pytest.mark.parametrize("size", SIZES)
def test_in_a_parallel_block_the_mlp_does_not_read_the_heads_of_its_layer(size):
    n_layers, n_heads = size
    names = {edge.name for edge in Graph(*size, parallel=True).edges}
    lost = {f"a{l}.h{h}->m{l}" for l in range(n_layers) for h in range(n_heads)}
    assert names == set(oracle.edge_names(*size)) - lost


GROUPED = [(1, 4, 2), (2, 4, 1), (3, 6, 2)]


@pytest.mark.parametrize(("n_layers", "n_heads", "n_kv_heads"), GROUPED)
def test_heads_of_a_group_share_one_key_and_one_value(n_layers, n_heads, n_kv_heads):
    graph = Graph(n_layers, n_heads, n_kv_heads=n_kv_heads)
    assert graph.grouped
    assert list(graph.writers) == oracle.writer_names(n_layers, n_heads)
    assert list(graph.readers) == oracle.reader_names(n_layers, n_heads, n_kv_heads)
    assert [edge.name for edge in graph.edges] == oracle.edge_names(n_layers, n_heads, n_kv_heads)
    assert graph.n_readers == n_layers * (n_heads + 2 * n_kv_heads + 1) + 1
    for reader, feeds in zip(graph.readers, graph.reads, strict=True):
        fed = [node for node, is_fed in zip(graph.nodes, feeds, strict=True) if is_fed]
        layer, _, number = reader.split("<")[0].partition(".kv")
        size = n_heads // n_kv_heads
        group = [f"{layer}.h{head}" for head in range(n_heads) if number == str(head // size)]
        assert fed == (group or [reader.split("<")[0]])


@pytest.mark.parametrize("graph", [Graph(2, 3), Graph(2, 6, n_kv_heads=3), Graph(2, 4, True, 1)])
def test_the_inputs_of_a_kind_are_the_readers_of_that_kind(graph):
    for layer in range(graph.n_layers):
        columns = []
        for kind in "qkv":
            names = graph.readers[graph.inputs(layer, kind)]
            assert all(re.fullmatch(rf"a{layer}\.(h|kv)\d+<{kind}>", name) for name in names)
            assert len(names) == (graph.n_heads if kind == "q" else graph.n_kv_heads)
            columns += range(graph.n_readers)[graph.inputs(layer, kind)]
        assert columns == list(range(graph.n_readers)[graph.head_inputs(layer)])
        assert graph.readers[graph.mlp_input(layer)] == f"m{layer}"
        for head in range(graph.n_heads):
            for kind in "kv":
                reader = graph.inputs(layer, kind).start + graph.kv_head_of(head)
                assert graph.reads[reader, graph.heads(layer).start + head]


def test_a_graph_with_a_key_for_every_head_is_no_other_graph():
    assert Graph(2, 4) == Graph(2, 4, False, 4)
    assert Graph(2, 4).n_kv_heads == 4
    assert not Graph(2, 4, n_kv_heads=4).grouped
    assert hash(Graph(2, 4)) == hash(Graph(2, 4, False, 4))
    known = "1a3ed5a3516c340d7bb712e30de5da8f9a69ce2e170d6b237cf07d1d3131339a"
    assert Graph(2, 4).digest == Graph(2, 4, n_kv_heads=4).digest == known


def test_a_graph_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="at least one layer"):
        Graph(0, 4)
    with pytest.raises(ValueError, match="key-value head"):
        Graph(2, 4, n_kv_heads=0)
    with pytest.raises(ValueError, match="6 heads cannot share 4"):
        Graph(2, 6, n_kv_heads=4)


def test_digests_differ_where_index_spaces_do():
    graphs = [
        *(Graph(2, 3), Graph(3, 2), Graph(2, 3, parallel=True), Graph(2, 4)),
        *(Graph(2, 4, n_kv_heads=2), Graph(2, 4, n_kv_heads=1), Graph(2, 4, True, 2)),
    ]
    assert len({graph.digest for graph in graphs}) == 7
    assert Graph(2, 3).digest == Graph(2, 3).digest


def test_only_real_edges_may_be_members():
    graph = Graph(2, 2)
    mask = np.zeros_like(graph.edge_mask)
    mask[graph.writers.index("m1"), 0] = True
    with pytest.raises(CircuitError, match=r"m1->a0\.h0<q>"):
        Circuit(graph, mask)
    with pytest.raises(CircuitError, match=r"\(7, 15\).*\(2, 2\)"):
        Circuit(graph, np.zeros((2, 2), dtype=bool))
    with pytest.raises(CircuitError, match="m0->m0"):
        Circuit.from_edges(graph, ["input->m0", "m0->m0"])


def test_circuits_are_equal_where_they_keep_the_same_edges():
    graph = Graph(2, 2)
    names = ["input->a1.h0<v>", "a1.h0->logits"]
    circuit = Circuit.from_edges(graph, names)
    assert circuit == Circuit.from_edges(graph, reversed(names))
    assert hash(circuit) == hash(Circuit.from_edges(graph, reversed(names)))
    assert circuit != Circuit.from_edges(graph, names[:1])
    assert (circuit.n_edges, circuit.n_nodes) == (2, 3)
    assert circuit.nodes == ("input", "a1.h0", "logits")
    assert circuit.edges == tuple(names)


def test_a_circuit_of_nodes_has_every_edge_between_them():
    graph = Graph(2, 2)
    circuit = Circuit.from_nodes(graph, ["input", "a0.h1", "m1"])
    into_head = [f"input->a0.h1<{kind}>" for kind in "qkv"]
    others = ["input->m1", "input->logits", "a0.h1->m1", "a0.h1->logits", "m1->logits"]
    assert set(circuit.edges) == {*into_head, *others}
    assert circuit.nodes == ("input", "a0.h1", "m1", "logits")
    assert (circuit.n_units, circuit.fraction) == (3, 3 / graph.n_writers)
    assert circuit.prune() == circuit
    assert circuit == Circuit.from_nodes(graph, ["logits", "m1", "a0.h1", "input"])
    assert circuit != Circuit(graph, circuit.mask)  # a fraction of nodes is none of edges
    with pytest.raises(CircuitError, match=r"no node 'a0\.h2'"):
        Circuit.from_nodes(graph, ["a0.h2"])


def test_an_edge_into_a_shared_key_is_in_where_one_head_of_the_group_is():
    graph = Graph(2, 4, n_kv_heads=2)
    circuit = Circuit.from_nodes(graph, ["input", "a1.h2"])
    into_head = ["input->a1.h2<q>", "input->a1.kv1<k>", "input->a1.kv1<v>"]
    assert set(circuit.edges) == {*into_head, "input->logits", "a1.h2->logits"}
    assert circuit.nodes == ("input", "a1.h2", "logits")
    assert circuit.prune() == circuit


def test_a_circuit_of_neurons_counts_them_and_the_nodes_that_have_one():
    graph = Graph(1, 2)
    neurons = np.zeros((graph.n_writers, 8), dtype=bool)
    neurons[0], neurons[2, 3:5] = True, True
    circuit = Circuit.from_neurons(graph, neurons)
    assert circuit.nodes == ("input", "a0.h1", "logits")
    assert circuit.n_neurons == circuit.n_units == 10
    assert circuit.fraction == 10 / 32
    assert Circuit.from_nodes(graph, ["input", "a0.h1"]).n_neurons is None
    other = neurons.copy()
    other[2, 5] = True
    assert circuit == Circuit.from_neurons(graph, neurons.copy())
    assert hash(circuit) == hash(Circuit.from_neurons(graph, neurons.copy()))
    assert circuit != Circuit.from_neurons(graph, other)
    assert "10 of 32 neurons" in repr(circuit)
    neurons[:] = False  # a circuit keeps what it was made of
    assert circuit.n_neurons == 10


def test_circuits_that_cannot_be_are_refused():
    graph = Graph(1, 2)
    mask = np.zeros_like(graph.edge_mask)
    with pytest.raises(CircuitError, match=r"'layer'.*edge, node, neuron"):
        Circuit(graph, mask, level="layer")
    with pytest.raises(CircuitError, match="say which"):
        Circuit(graph, mask, level="neuron")
