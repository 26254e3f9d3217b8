"""Circuit files: what is written comes back bit for bit, what others wrote as they meant it.

The places of names in the published tensors are computed here a second time, from their formulas.
"""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits import Circuit, CircuitError, Graph, Scores
from circuits.errors import InterchangeError
from circuits.interchange import (
    LARGEST_BYTES,
    load_circuit_file,
    save_circuit_file,
    to_graphml,
    to_networkx,
    to_pandas,
)
from circuits.interchange.cfg import LARGEST_TABLE
from circuits.scores import LEVELS

SMALL = Graph(1, 2)


def shape_of(graph: Graph, level: str, d_model: int) -> tuple[int, ...]:
    return {
        "edge": graph.edge_mask.shape,
        "node": (graph.n_writers,),
        "neuron": (graph.n_writers, d_model),
    }[level]


def units_of(graph: Graph, level: str, d_model: int):
    return graph.edge_mask if level == "edge" else np.ones(shape_of(graph, level, d_model), bool)


@st.composite
def any_scores(draw, graph: Graph, level: str, d_model: int) -> Scores:
    """Scores of every size down to the smallest number, of both signs and zeros, some missing."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    units = units_of(graph, level, d_model)
    values = rng.normal(size=units.shape) * 10.0 ** rng.integers(-300, 300, size=units.shape)
    values = np.where(rng.random(units.shape) < 0.2, rng.choice([0.0, -0.0, 5e-324]), values)
    if draw(st.booleans()):
        values = np.clip(values, -3e38, 3e38).astype(np.float32)
    values[rng.random(units.shape) < draw(st.sampled_from([0.0, 0.3, 1.0]))] = np.nan
    errors = np.abs(rng.normal(size=units.shape))
    errors[rng.random(units.shape) < draw(st.sampled_from([0.0, 0.5, 1.0]))] = np.nan
    method = draw(st.text(st.characters(codec="utf-8"), max_size=8))
    return Scores(
        graph,
        np.where(units, values, 0),
        np.where(units, errors, 0.0),
        draw(st.integers(0, 500)),
        method,
        level,
    )


@st.composite
def any_circuit(draw, graph: Graph, d_model: int, scores: tuple[Scores, ...]) -> Circuit:
    """Circuits of every level, pruned or not, empty and full ones among them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    level = draw(st.sampled_from(LEVELS))
    density = draw(st.sampled_from([0.0, 0.3, 1.0]))
    own = next((one for one in scores if one.level == level), None)
    neurons = rng.random((graph.n_writers, d_model)) < density
    if level == "neuron" and draw(st.booleans()):
        return Circuit.from_neurons(graph, neurons, own)
    if level == "node" and draw(st.booleans()):
        chosen = [name for name in graph.writers if rng.random() < density]
        return Circuit(graph, Circuit.from_nodes(graph, chosen).mask, own, level="node")
    mask = graph.edge_mask & (rng.random(graph.edge_mask.shape) < density)
    with_neurons = level == "neuron" or draw(st.booleans())
    return Circuit(graph, mask, own, neurons if with_neurons else None, level)


@st.composite
def any_content(draw, grouped: bool = False):
    """A graph, its width, a circuit and scores of some levels: at least one of the two."""
    heads = [(1, 1), (2, 2), (3, 3)] + ([(2, 1), (4, 2)] if grouped else [])
    n_heads, n_kv_heads = draw(st.sampled_from(heads))
    graph = Graph(draw(st.integers(1, 3)), n_heads, draw(st.booleans()), n_kv_heads)
    # a width that is the number of readers must not be taken for them
    d_model = draw(st.sampled_from([1, 3, graph.n_readers]))
    levels = draw(st.sets(st.sampled_from(LEVELS)))
    scores = tuple(draw(any_scores(graph, level, d_model)) for level in sorted(levels))
    circuit = None
    if not scores or draw(st.booleans()):
        circuit = draw(any_circuit(graph, d_model, scores))
    return graph, d_model, circuit, scores


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays hold the same 64-bit numbers, the sign of zero included."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape or not np.array_equal(np.isnan(a), np.isnan(b)):
        return False
    return np.array_equal(a[~np.isnan(a)].view(np.int64), b[~np.isnan(b)].view(np.int64))


def saved_and_loaded(suffix: str, *content, **options):
    with tempfile.TemporaryDirectory() as folder:
        path = save_circuit_file(Path(folder) / f"file{suffix}", *content, **options)
        assert [entry.name for entry in Path(folder).iterdir()] == [path.name]
        return load_circuit_file(path)


@pytest.mark.parametrize("suffix", [".json", ".pt"])
@settings(max_examples=30, deadline=None)
@given(content=any_content())
def test_what_is_saved_is_loaded_bit_for_bit(suffix, content):
    graph, d_model, circuit, scores = content
    back = saved_and_loaded(suffix, circuit, scores, d_model=d_model)
    assert (back.graph, back.d_model, back.circuit) == (graph, d_model, circuit)
    assert [one.level for one in back.all_scores] == [
        level for level in LEVELS if level in {one.level for one in scores}
    ]
    for one in scores:
        (found,) = (other for other in back.all_scores if other.level == one.level)
        assert same_bits(found.values, one.values)
        assert same_bits(found.standard_error, one.standard_error)
        assert (found.n_examples, found.method) == (one.n_examples, one.method)
    if circuit is not None:
        assert back.level == circuit.level
        of_its_level = {one.level: one for one in back.all_scores}.get(circuit.level)
        assert back.circuit.scores is of_its_level


@settings(max_examples=30, deadline=None)
@given(content=any_content(grouped=True))
def test_graphml_holds_a_circuit_exactly_and_the_scores_of_its_members(content):
    graph, d_model, circuit, scores = content
    if circuit is None:
        with pytest.raises(InterchangeError, match="scores alone"):
            saved_and_loaded(".graphml", None, scores, d_model=d_model)
        return
    back = saved_and_loaded(".graphml", circuit, scores, d_model=d_model)
    assert (back.graph, back.d_model, back.circuit) == (graph, d_model, circuit)
    for one, found in ((s, f) for s in scores for f in back.all_scores if f.level == s.level):
        members = circuit.mask if one.level == "edge" else circuit.node_mask[:-1]
        if circuit.neurons is not None and one.level != "edge":
            members = members | circuit.neurons.any(axis=1)
        assert same_bits(found.values[members], one.values[members])
        assert same_bits(found.standard_error[members], one.standard_error[members])
        elsewhere = units_of(graph, one.level, d_model) & ~(
            members if one.level != "neuron" else members[:, None]
        )
        assert np.isnan(found.values[elsewhere]).all()


def published_row(name: str, n_heads: int) -> int:
    """The row of a writer in the published tensors."""
    if name == "input":
        return 0
    layer, _, head = name[1:].partition(".h")
    return 1 + int(layer) * (n_heads + 1) + (int(head) if head else n_heads)


def published_column(name: str, n_heads: int) -> int:
    """The column of a reader in the published tensors."""
    if name == "logits":
        return -1
    layer, _, head = name[1:].partition(".h")
    first = int(layer) * (3 * n_heads + 1)
    if not head:
        return first + 3 * n_heads
    return first + "qkv".index(head[-2]) * n_heads + int(head.split("<")[0])


@pytest.mark.parametrize("parallel", [False, True])
def test_files_are_laid_out_as_the_published_readers_expect(tmp_path, parallel):
    graph, rng = Graph(3, 2, parallel), np.random.default_rng(0)
    values = np.where(graph.edge_mask, rng.normal(size=graph.edge_mask.shape), 0.0)
    scores = Scores(graph, values, np.zeros_like(values), 4, "EAP")
    circuit = scores.top_n(20)
    tensors = torch.load(
        save_circuit_file(tmp_path / "a.pt", circuit, d_model=8), weights_only=True
    )
    plain = json.loads(
        save_circuit_file(tmp_path / "a.json", circuit, d_model=8).read_text(),
        parse_constant=pytest.fail,
    )
    cfg = {"n_layers": 3, "n_heads": 2, "parallel_attn_mlp": parallel, "d_model": 8}
    assert plain["cfg"] == tensors["cfg"] == cfg
    assert tensors["edges_scores"].shape == (1 + 3 * 3, 3 * 7 + 1)
    assert len(plain["edges"]) == graph.n_edges
    for name, entry in plain["edges"].items():
        writer, reader = name.split("->")
        place = published_row(writer, 2), published_column(reader, 2)
        assert (tensors["src_nodes"][place[0]], tensors["dst_nodes"][place[1]]) == (writer, reader)
        assert tensors["edges_scores"][place].item() == entry["score"]
        assert tensors["edges_in_graph"][place].item() is entry["in_graph"]
        assert entry["in_graph"] is (name in circuit.edges)
    for name, entry in plain["nodes"].items():
        assert entry["in_graph"] is (name in circuit.nodes or name == "logits")
        if name != "logits":
            assert tensors["nodes_in_graph"][published_row(name, 2)].item() is entry["in_graph"]


def test_tools_that_want_a_score_for_every_edge_find_one(tmp_path):
    circuit = Circuit.from_edges(SMALL, ["input->m0", "m0->logits"])
    save_circuit_file(tmp_path / "a.json", circuit, d_model=3)
    save_circuit_file(tmp_path / "a.pt", circuit, d_model=3)
    entries = json.loads((tmp_path / "a.json").read_text())["edges"].values()
    assert {entry["score"] for entry in entries} == {0.0}
    assert not torch.load(tmp_path / "a.pt", weights_only=True)["edges_scores"].any()
    assert load_circuit_file(tmp_path / "a.json").all_scores == ()
    assert load_circuit_file(tmp_path / "a.pt").all_scores == ()


PUBLISHED_JSON = """
{"cfg": {"n_layers": 1, "n_heads": 2, "parallel_attn_mlp": false, "d_model": 3, "act_fn": "gelu"},
 "nodes": {"input": {"in_graph": true, "score": 0.5}, "a0.h0": {"in_graph": true, "score": NaN},
           "a0.h1": {"in_graph": false, "score": -1}, "m0": {"in_graph": true, "score": 0.125},
           "logits": {"in_graph": true}},
 "edges": {"input->a0.h0<q>": {"score": 0.1, "in_graph": false},
           "input->a0.h0<v>": {"score": -2.5e-3, "in_graph": true},
           "a0.h0->m0": {"score": 7, "in_graph": true},
           "m0->logits": {"in_graph": true}}}
"""


def test_a_published_json_file_is_read_as_it_is_meant(tmp_path):
    path = tmp_path / "ioi.JSON"
    path.write_text(PUBLISHED_JSON)
    found = load_circuit_file(path, SMALL, 3)
    assert found.circuit == Circuit.from_edges(
        SMALL, ["input->a0.h0<v>", "a0.h0->m0", "m0->logits"]
    )
    by_name = found.scores.to_pandas().set_index("edge")["score"].dropna().to_dict()
    assert by_name == {"input->a0.h0<q>": 0.1, "input->a0.h0<v>": -0.0025, "a0.h0->m0": 7.0}
    assert np.array_equal(found.node_scores.values, [0.5, np.nan, -1, 0.125], equal_nan=True)
    assert found.circuit.scores is found.scores is found.level_scores
    assert found.neuron_scores is None
    assert found.scores.n_examples == 0
    assert np.isnan(found.scores.standard_error[SMALL.edge_mask]).all()


def test_nodes_of_older_json_files_are_true_or_false(tmp_path):
    document = json.loads(PUBLISHED_JSON)
    document["nodes"] = {name: value["in_graph"] for name, value in document["nodes"].items()}
    document["edges"]["m0->logits"]["score"] = None
    (tmp_path / "old.json").write_text("\ufeff" + json.dumps(document))
    (tmp_path / "new.json").write_text(PUBLISHED_JSON)
    old, new = (load_circuit_file(tmp_path / f"{name}.json") for name in ("old", "new"))
    assert old.circuit == new.circuit
    assert same_bits(old.scores.values, new.scores.values)
    assert old.node_scores is None


def test_a_json_file_of_neurons(tmp_path):
    document = json.loads(PUBLISHED_JSON)
    bits = {"input": [True, 0, 1], "a0.h0": [True] * 3, "m0": [False, False, True]}
    for name, row in bits.items():
        document["nodes"][name]["neurons"] = row
    document["nodes"]["input"]["neurons_scores"] = [0.25, math.nan, -3]
    for entry in document["edges"].values():
        entry["score"] = 0.0
    (tmp_path / "neurons.json").write_text(json.dumps(document))
    found = load_circuit_file(tmp_path / "neurons.json")
    expected = np.array([[1, 0, 1], [1, 1, 1], [0, 0, 0], [0, 0, 1]], bool)
    assert (found.level, found.scores) == ("neuron", None)
    assert np.array_equal(found.circuit.neurons, expected)
    nothing = [math.nan] * 3
    assert np.array_equal(
        found.neuron_scores.values,
        [[0.25, math.nan, -3], nothing, nothing, nothing],
        equal_nan=True,
    )


def published_tensors(graph: Graph = SMALL, **changes) -> dict:
    """A file as EAP-IG saves it: float32, with a circuit of everything."""
    rng = np.random.default_rng(3)
    document = {
        "cfg": {
            "n_layers": graph.n_layers,
            "n_heads": graph.n_heads,
            "parallel_attn_mlp": graph.parallel,
            "d_model": 3,
        },
        "src_nodes": list(graph.writers),
        "dst_nodes": list(graph.readers),
        "edges_scores": torch.tensor(rng.normal(size=graph.edge_mask.shape), dtype=torch.float32),
        "edges_in_graph": torch.tensor(graph.edge_mask),
        "nodes_in_graph": torch.ones(graph.n_writers, dtype=torch.bool),
    }
    return {key: value for key, value in (document | changes).items() if value is not None}


def loaded(tmp_path: Path, document: object, name: str = "file.pt"):
    torch.save(document, tmp_path / name)
    return load_circuit_file(tmp_path / name)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_published_tensors_are_read_bit_for_bit_in_any_floating_type(tmp_path, dtype):
    document = published_tensors()
    document["edges_scores"] = document["edges_scores"].to(dtype)
    document["cfg"]["dtype"] = dtype
    found = loaded(tmp_path, document)
    expected = np.where(SMALL.edge_mask, document["edges_scores"].double().numpy(), 0.0)
    assert same_bits(found.scores.values, expected)
    assert found.circuit == Circuit(SMALL, SMALL.edge_mask)
    torch.save(document, tmp_path / "a.pt")
    again = save_circuit_file(tmp_path / "b.pt", found.circuit, found.scores, d_model=3)
    assert same_bits(load_circuit_file(again).scores.values, expected)


def test_rows_and_columns_are_found_by_name(tmp_path):
    rng, document = np.random.default_rng(0), published_tensors()
    document["neurons_in_graph"] = torch.tensor(rng.random((4, 3)) < 0.7)
    document["neurons_scores"] = torch.tensor(rng.normal(size=(4, 3)))
    rows, columns = rng.permutation(4), rng.permutation(SMALL.n_readers)
    moved = dict(document)
    moved["src_nodes"] = [document["src_nodes"][i] for i in rows]
    moved["dst_nodes"] = [document["dst_nodes"][i] for i in columns]
    for key in ("edges_scores", "edges_in_graph"):
        moved[key] = document[key][rows][:, columns]
    for key in ("nodes_in_graph", "neurons_in_graph", "neurons_scores"):
        moved[key] = document[key][rows]
    straight, back = (
        loaded(tmp_path, document, "a.pt"),
        loaded(tmp_path, moved, "b.pt"),
    )
    assert back.circuit == straight.circuit
    assert back.level == "neuron"
    assert same_bits(back.scores.values, straight.scores.values)
    assert same_bits(back.neuron_scores.values, document["neurons_scores"].numpy())


def test_older_tensor_files_have_other_keys(tmp_path):
    new = published_tensors()
    old = {key: new[key] for key in ("cfg", "dst_nodes", "edges_in_graph")}
    old["edges"] = new["edges_scores"]
    old["src_nodes"] = dict.fromkeys(new["src_nodes"], True)
    a, b = loaded(tmp_path, new, "new.pt"), loaded(tmp_path, old, "old.pt")
    assert a.circuit == b.circuit
    assert same_bits(a.scores.values, b.scores.values)


def test_files_of_membership_may_have_no_scores(tmp_path):
    found = loaded(tmp_path, published_tensors(edges_scores=None))
    assert found.all_scores == ()
    assert found.circuit == Circuit(SMALL, SMALL.edge_mask)


def test_zeros_of_a_fresh_graph_are_no_scores_of_edges(tmp_path):
    zeros, node_scores = torch.zeros(SMALL.edge_mask.shape), torch.tensor([0.5, -1.0, 2.0, 0.25])
    nodes = torch.tensor([True, False, True, True])
    # as published selections of nodes leave it: whole rows, real edges or not
    marked = nodes[:, None] & torch.ones(SMALL.edge_mask.shape, dtype=torch.bool)
    marked[:, [i for i, name in enumerate(SMALL.readers) if name.startswith("a0.h0")]] = False
    found = loaded(
        tmp_path,
        published_tensors(
            edges_scores=zeros,
            nodes_scores=node_scores,
            nodes_in_graph=nodes,
            edges_in_graph=marked,
        ),
    )
    assert found.scores is None
    assert found.circuit == Circuit.from_nodes(SMALL, ["input", "a0.h1", "m0"])
    assert found.level == "node"
    assert np.array_equal(found.level_scores.values, [0.5, -1, 2, 0.25])
    (note,) = found.notes
    assert note.startswith(f"{int((marked.numpy() & ~SMALL.edge_mask).sum())} pairs ")
    importances = loaded(
        tmp_path,
        published_tensors(
            edges_scores=zeros,
            nodes_scores=node_scores,
            nodes_in_graph=torch.zeros(4, dtype=torch.bool),
            edges_in_graph=torch.zeros(SMALL.edge_mask.shape, dtype=torch.bool),
        ),
    )
    assert (importances.circuit, importances.scores) == (None, None)
    assert importances.level == "node"


PUBLISHED_GRAPHML = """<?xml version="1.0"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
  <key id="d0" for="graph" attr.name="n_layers" attr.type="int"/>
  <key id="d1" for="graph" attr.name="n_heads" attr.type="long"/>
  <key id="d2" for="graph" attr.name="parallel_attn_mlp" attr.type="boolean"/>
  <key id="d3" for="edge" attr.name="reader" attr.type="string"/>
  <key id="d4" for="edge" attr.name="score" attr.type="double"/>
  <graph edgedefault="directed">
    <data key="d0">1</data><data key="d1">2</data><data key="d2">true</data>
    <node id="input"/><node id="a0.h1"/><node id="m0"/><node id="logits"/>
    <edge source="input" target="a0.h1"><data key="d3">a0.h1&lt;k&gt;</data></edge>
    <edge source="input" target="m0"><data key="d4">-0.5</data></edge>
    <edge source="a0.h1" target="logits"/>
  </graph>
</graphml>
"""


def test_a_graphml_file_by_hand(tmp_path):
    (tmp_path / "hand.graphml").write_text(PUBLISHED_GRAPHML)
    found = load_circuit_file(tmp_path / "hand.graphml")
    graph = Graph(1, 2, parallel=True)
    assert found.circuit == Circuit.from_edges(
        graph, ["input->a0.h1<k>", "input->m0", "a0.h1->logits"]
    )
    scored = found.scores.to_pandas().set_index("edge")["score"].dropna().to_dict()
    assert scored == {"input->m0": -0.5}


@settings(max_examples=20, deadline=None)
@given(content=any_content(grouped=True))
def test_networkx_sees_the_same_in_the_view_and_in_the_file(content):
    graph, d_model, circuit, scores = content
    if circuit is None:
        return
    view = to_networkx(circuit, scores)
    assert {key for _, _, key in view.edges(keys=True)} == set(circuit.edges)
    for writer, target, key, data in view.edges(keys=True, data=True):
        assert key == f"{writer}->{data['reader']}"
        assert target == data["reader"].split("<")[0]
    if not graph.grouped:
        touched = {name for name in circuit.nodes if circuit.neurons is None}
        assert touched <= set(view.nodes)
    with tempfile.TemporaryDirectory() as folder:
        path = to_graphml(circuit, Path(folder) / "a.graphml", scores, d_model=d_model)
        read = networkx.read_graphml(path, force_multigraph=True)
        assert dict(read.nodes(data=True)) == dict(view.nodes(data=True))
        edges = {key: (*ends, data) for *ends, key, data in view.edges(keys=True, data=True)}
        assert edges == {key: (*e, data) for *e, key, data in read.edges(keys=True, data=True)}
        if circuit.level == "edge" and circuit.neurons is None:  # and networkx writes what we read
            networkx.write_graphml(view, Path(folder) / "b.graphml")
            assert load_circuit_file(Path(folder) / "b.graphml").circuit == circuit


@settings(max_examples=20, deadline=None)
@given(content=any_content(grouped=True))
def test_the_table_has_a_row_for_every_member(content):
    _, _, circuit, _ = content
    if circuit is None:
        return
    table = to_pandas(circuit)
    names = {"edge": "edge", "node": "node", "neuron": "neuron"}[circuit.level]
    assert len(table) == circuit.n_units
    if circuit.level == "edge":
        assert tuple(table[names]) == circuit.edges
    elif circuit.level == "neuron":
        expected = [
            f"{circuit.graph.writers[u]}[{i}]" for u, i in np.argwhere(circuit.neurons).tolist()
        ]
        assert list(table[names]) == expected
    else:
        assert set(table[names]) == {edge.writer for edge in circuit.members}
    assert ("score" in table) == (circuit.scores is not None)
    if circuit.scores is not None:
        everything = circuit.scores.to_pandas().set_index(names)["score"]
        assert same_bits(everything[table[names]].to_numpy(), table["score"].to_numpy())


def test_to_pandas_refuses_scores_of_another_level_or_graph():
    circuit = Circuit.from_nodes(SMALL, ["input", "m0"])
    matrix = np.zeros(SMALL.edge_mask.shape)
    with pytest.raises(InterchangeError, match="chosen by nodes, and these are scores of edges"):
        to_pandas(circuit, Scores(SMALL, matrix, matrix, 1))
    row = np.zeros(Graph(1, 1).n_writers)
    with pytest.raises(InterchangeError, match="another graph"):
        to_pandas(circuit, Scores(Graph(1, 1), row, row, 1, level="node"))


def test_formats_that_cannot_say_it_refuse_it(tmp_path):
    grouped = Circuit.from_edges(Graph(1, 2, n_kv_heads=1), ["input->a0.kv0<k>", "input->logits"])
    plain = Circuit.from_edges(SMALL, ["input->logits"])
    matrix = np.where(SMALL.edge_mask, 1.0, 0.0)
    scores = Scores(SMALL, matrix, matrix, 2)
    infinite = np.where(SMALL.edge_mask, -np.inf, 0.0)
    other = Graph(2, 2)
    ungrouped = "here 2 heads share 1: load the model with kv='ungrouped', or write GraphML"
    for arguments, options, words in [
        (("a.json", grouped), {"d_model": 2}, ungrouped),
        (("a.pt", grouped), {"d_model": 2}, ungrouped),
        (("a.json", plain), {}, "say d_model"),
        (("a.pt", plain), {}, "say d_model"),
        (("a.graphml", None, scores), {}, "scores alone"),
        (("a.json",), {"d_model": 2}, "nothing to write"),
        (("a.csv", plain), {}, "the ending '.csv' is none of a circuit file"),
        (("a.json", plain, [scores, scores]), {"d_model": 2}, "one table of scores a level"),
        (("a.json", None, Scores(SMALL, infinite, matrix, 2)), {"d_model": 2}, "is -inf"),
        (("a.json", None, Scores(SMALL, matrix, infinite, 2)), {"d_model": 2}, "infinite"),
        (("a.json", Circuit(other, other.edge_mask), scores), {"d_model": 2}, "one graph"),
        (
            ("a.json", Circuit.from_neurons(SMALL, np.ones((4, 3), bool))),
            {"d_model": 2},
            "said to be 2 and 3",
        ),
        (("missing/a.json", plain), {"d_model": 2}, "cannot be written: No such file"),
    ]:
        name, *content = arguments
        with pytest.raises(InterchangeError) as caught:
            save_circuit_file(tmp_path / name, *content, **options)
        assert words in str(caught.value)
        assert name in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("suffix", "advice"),
    [(".json", r"write \.pt"), (".pt", "write a file for each level"), (".graphml", r"write \.pt")],
)
def test_what_would_be_too_large_to_load_is_not_saved(tmp_path, monkeypatch, suffix, advice):
    circuit, path = Circuit(SMALL, SMALL.edge_mask), tmp_path / f"circuit{suffix}"
    size = save_circuit_file(path, circuit, d_model=2).stat().st_size
    before = path.read_bytes()
    monkeypatch.setitem(LARGEST_BYTES, suffix, size)
    save_circuit_file(path, circuit, d_model=2)
    assert load_circuit_file(path).circuit == circuit
    monkeypatch.setitem(LARGEST_BYTES, suffix, size - 1)
    words = (
        rf"would have {size} bytes, and at most {size - 1} of a {suffix} file are read: {advice}"
    )
    with pytest.raises(InterchangeError, match=words):
        save_circuit_file(path, circuit, d_model=2)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [before]


def test_tensors_of_the_largest_graphs_are_not_too_large(tmp_path):
    """Per pair of writer and reader, with all that can be said: less than the limit allows."""
    graph = Graph(20, 16)
    shapes = {level: shape_of(graph, level, graph.n_readers) for level in LEVELS}
    holes = {level: np.where(np.arange(shape[-1]) % 2, np.nan, 1.0) * np.ones(shape)
             for level, shape in shapes.items() if level != "node"}  # fmt: skip
    holes["edge"] = np.where(graph.edge_mask, holes["edge"], 0.0)
    scores = [Scores(graph, values, np.abs(values), 2, "EAP", level)
              for level, values in holes.items()]  # fmt: skip
    circuit = Circuit(graph, graph.edge_mask, neurons=np.ones(shapes["neuron"], bool))
    path = save_circuit_file(tmp_path / "large.pt", circuit, scores)
    n_pairs = graph.n_writers * graph.n_readers
    assert LARGEST_BYTES[".pt"] * n_pairs > path.stat().st_size * LARGEST_TABLE
    llama = Graph(80, 64)  # 70 billion parameters
    assert 18 * llama.n_writers * llama.n_readers < LARGEST_BYTES[".pt"]


@pytest.mark.parametrize("suffix", [".json", ".pt", ".graphml"])
@pytest.mark.parametrize("of", LEVELS)
@pytest.mark.parametrize("level", LEVELS)
def test_scores_of_another_level_than_the_circuits_stand_beside_it(tmp_path, suffix, of, level):
    graph, rng = Graph(2, 2), np.random.default_rng(0)
    values = np.where(units_of(graph, of, 3), rng.normal(size=shape_of(graph, of, 3)), 0.0)
    scores = Scores(graph, values, np.abs(values), 4, "EAP", of)
    everything = np.ones((graph.n_writers, 3), bool) if level == "neuron" else None
    circuit = Circuit(graph, graph.edge_mask, scores, everything, level)
    back = load_circuit_file(save_circuit_file(tmp_path / f"a{suffix}", circuit, d_model=3))
    assert back.circuit == circuit
    (found,) = back.all_scores
    assert found.level == of
    assert same_bits(found.values, values)
    assert same_bits(found.standard_error, scores.standard_error)
    assert back.circuit.scores is (found if of == level else None)
    assert (back.level, back.level_scores) == (level, back.circuit.scores)


@pytest.mark.parametrize("suffix", [".json", ".pt", ".graphml"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"circuit{suffix}"
    path.write_bytes(b"the old file")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    circuit = Circuit.from_edges(SMALL, ["input->logits"])
    with pytest.raises(InterchangeError, match="cannot be written: No space left on device"):
        save_circuit_file(path, circuit, d_model=2)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"the old file"]
    monkeypatch.undo()
    save_circuit_file(path, circuit, d_model=2)
    assert load_circuit_file(path).circuit == circuit
    assert len(list(tmp_path.iterdir())) == 1
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_file_of_another_model_is_refused(tmp_path):
    (tmp_path / "a.json").write_text(PUBLISHED_JSON)
    for graph, d_model, words in [
        (Graph(1, 2, parallel=True), 3, "heads in blocks in sequence, and not .* parallel blocks"),
        (Graph(2, 2), None, "cfg describes 1 layers of 2 heads .*give a file of the same model"),
        (Graph(1, 2, n_kv_heads=1), 3, "load the model with kv='ungrouped'"),
        (SMALL, 4, "cfg.d_model is 3, and the model's width is 4"),
    ]:
        with pytest.raises(InterchangeError, match=words):
            load_circuit_file(tmp_path / "a.json", graph, d_model)


def test_interchange_errors_are_errors_of_the_science():
    assert issubclass(InterchangeError, CircuitError)
