"""The index space: counts, order, names, and which edges exist."""

from __future__ import annotations

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
        node = graph.nodes[graph.reader_nodes[edge.reader_index]]
        assert edge.reader.split("<")[0] == node
        letter = edge.reader.split("<")[1][0] if "<" in edge.reader else None
        assert edge.kind == (letter or ("logits" if node == "logits" else "mlp"))


@pytest.mark.parametrize("size", SIZES)
def test_in_a_parallel_block_the_mlp_does_not_read_the_heads_of_its_layer(size):
    n_layers, n_heads = size
    names = {edge.name for edge in Graph(*size, parallel=True).edges}
    lost = {f"a{l}.h{h}->m{l}" for l in range(n_layers) for h in range(n_heads)}
    assert names == set(oracle.edge_names(*size)) - lost


def test_digests_differ_where_index_spaces_do():
    graphs = [Graph(2, 3), Graph(3, 2), Graph(2, 3, parallel=True), Graph(2, 4)]
    assert len({graph.digest for graph in graphs}) == 4
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
