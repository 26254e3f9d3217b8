"""Circuit files that are wrong, on purpose or not: each gets one sentence, and that is all.

Every attack is carried out.
"""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import tempfile
import tracemalloc
import zipfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits import Circuit, Graph, Scores
from circuits.errors import InterchangeError
from circuits.interchange import cfg as cfg_module
from circuits.interchange import load_circuit_file, save_circuit_file
from circuits.interchange.cfg import cfg_of, graph_from_cfg
from tests.circuits.test_interchange import (
    PUBLISHED_GRAPHML,
    PUBLISHED_JSON,
    SMALL,
    published_tensors,
)

SUFFIXES = (".json", ".pt", ".graphml")


def refused(path: Path) -> str:
    """The sentence with which a file is refused: it names the file, and is one line."""
    with pytest.raises(InterchangeError) as caught:
        load_circuit_file(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < len(str(path)) + 400
    assert caught.value.__suppress_context__  # no traceback of a parser behind it
    return message.removeprefix(f"{path}: ")


def whole_file(suffix: str, folder: Path) -> Path:
    """A good file with a circuit, neurons, scores of all levels and standard errors."""
    rng = np.random.default_rng(1)
    shapes = {"edge": SMALL.edge_mask.shape, "node": (4,), "neuron": (4, 3)}
    scores = []
    for level, shape in shapes.items():
        values = rng.normal(size=shape) * (SMALL.edge_mask if level == "edge" else 1)
        scores.append(Scores(SMALL, values, np.abs(values), 5, "EAP", level))
    circuit = Circuit.from_neurons(SMALL, rng.random((4, 3)) < 0.7, scores[2])
    return save_circuit_file(folder / f"good{suffix}", circuit, scores)


def changed(document: dict, path: tuple, value: object) -> dict:
    """A copy with a value put at a path; without a value where it is `...`."""
    document = copy.deepcopy(document)
    place = document
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return document


EDGE = ("edges", "a0.h0->m0")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("cfg",), ..., "the key 'cfg' is missing"),
        (("nodes",), ..., "the key 'nodes' is missing"),
        (("edges",), ..., "the key 'edges' is missing"),
        (("edges",), [1], "edges is a list, and must be an object"),
        (("cfg",), "gpt2", "cfg is a text: it must have n_layers"),
        (("cfg", "n_layers"), ..., "cfg.n_layers is missing"),
        (("cfg", "n_layers"), 0, "cfg.n_layers is 0: it must be a whole number above 0"),
        (("cfg", "n_heads"), "2", "cfg.n_heads is '2': it must be a whole number"),
        (("cfg", "n_heads"), True, "cfg.n_heads is True"),
        (("cfg", "n_heads"), 2.0, "cfg.n_heads is 2.0"),
        (("cfg", "n_layers"), 10**6, "more than any known model has"),
        (("cfg", "d_model"), 10**8, "more than any known model has"),
        (("cfg", "parallel_attn_mlp"), 1, "cfg.parallel_attn_mlp is 1"),
        (("cfg", "parallel_attn_mlp"), ..., "cfg.parallel_attn_mlp is missing"),
        (
            ("nodes", "a0.h2"),
            {"in_graph": True},
            "nodes['a0.h2'] is no node: in a model of 1 layer",
        ),
        (("nodes", "m0"), {}, "nodes['m0'].in_graph is missing"),
        (("nodes", "m0"), None, "nodes['m0'] is empty"),
        (("nodes", "m0", "score"), float("inf"), "the score of m0 is inf"),
        (("nodes", "m0", "score"), "0.5", "nodes['m0'].score is '0.5', and must be a number"),
        (("nodes", "m0", "neurons"), [True, False], "is a list of 2, and must be a list of 3"),
        (("nodes", "m0", "neurons"), [True, False, 2], "nodes['m0'].neurons[2] is 2"),
        (("nodes", "m0", "neurons"), "110", "nodes['m0'].neurons is a text"),
        (("nodes", "m0", "neurons_scores"), [1, "x", 2], "neurons_scores[1] is 'x'"),
        (("nodes", "a0.h1", "neurons"), [False, True, False], "neuron a0.h1[1] is in the graph"),
        (("nodes", "a0.h0", "in_graph"), False, "the node a0.h0 that writes it is not"),
        (("edges", "m0->a0.h0<q>"), {"in_graph": True}, "edges['m0->a0.h0<q>'] is no edge"),
        (("edges", "a0.h0->a0.h9<q>"), {"in_graph": True}, "is no edge: in a model of 1 layer"),
        (("edges", "input->a0.h0"), {"in_graph": True}, "edges['input->a0.h0'] is no edge"),
        (("edges", "x" * 10**6), {"in_graph": True}, "is no edge"),
        ((*EDGE, "score"), float("nan"), 'edges["a0.h0->m0"].score is nan'),
        ((*EDGE, "score"), float("-inf"), 'edges["a0.h0->m0"].score is -inf'),
        ((*EDGE, "score"), "1.5", "score is '1.5', and must be a number"),
        ((*EDGE, "score"), True, "score is True, and must be a number"),
        ((*EDGE, "score"), [1], "score is a list, and must be a number"),
        ((*EDGE, "score"), 10**400, "score is too large for a 64-bit number"),
        ((*EDGE, "standard_error"), -1, "the standard error of a0.h0->m0 is -1.0"),
        ((*EDGE, "in_graph"), "yes", "in_graph is 'yes': write true or false"),
        ((*EDGE, "in_graph"), 1, "in_graph is 1: write true or false"),
        ((*EDGE, "in_graph"), ..., "in_graph is missing"),
        (EDGE, 0.5, 'edges["a0.h0->m0"] is of type float, and must be an object'),
        (("neurons",), {"m0": [True]}, "'neurons' stands beside 'nodes'"),
        (("circuit_grid",), {"level": "edge"}, "'circuit_grid' is not as it was written"),
        (
            ("circuit_grid",),
            {"level": "head", "neurons": False, "scores": {}},
            "'circuit_grid' is not as it was written",
        ),
        (
            ("circuit_grid",),
            {"level": "neuron", "neurons": True, "scores": {}},
            "a circuit at neuron level needs neurons",
        ),
    ],
)
def test_json_that_is_wrong_somewhere(tmp_path, path, value, words):
    document = changed(json.loads(PUBLISHED_JSON), path, value)
    (tmp_path / "wrong.json").write_text(json.dumps(document))
    assert words in refused(tmp_path / "wrong.json")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (b"[1, 2]", "the file is a list, and must be an object"),
        (b"null", "the file is empty, and must be an object"),
        (b'{"cfg": 1, "cfg": 2}', "the key 'cfg' stands twice in one object"),
        (b"[" * 10**5, "objects lie too deep in one another"),
        (b'{"a":' * 10**5, "objects lie too deep in one another"),
        (b'{"cfg": ' + b"9" * 10**4 + b"}", "a number has too many digits"),
        (b'{"cfg": "\xff\xfe"}', "byte 9 is not UTF-8"),
        ("{}".encode("utf-16"), "byte 0 is not UTF-8"),
        (b'{"cfg": {"n_layers": 1', "line 1, column 23 is not JSON"),
        (b"{'cfg': 1}", "line 1, column 2 is not JSON"),
        (b'{"cfg": 0x10}', "is not JSON"),
    ],
)
def test_text_that_is_no_circuit(tmp_path, data, words):
    (tmp_path / "wrong.json").write_bytes(data)
    assert words in refused(tmp_path / "wrong.json")


BAD_SCORE = torch.full(SMALL.edge_mask.shape, torch.nan)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cfg": None}, "the key 'cfg' is missing"),
        ({"edges_in_graph": None}, "the key 'edges_in_graph' is missing"),
        ({"src_nodes": None}, "the key 'src_nodes' is missing"),
        ({"nodes_in_graph": None}, "the key 'nodes_in_graph' is missing"),
        ({"cfg": {"n_layers": 1}}, "cfg.n_heads is missing"),
        ({"src_nodes": ["input", "a0.h0", "a0.h1", "m7"]}, "src_nodes has 'm7', which is unknown"),
        ({"src_nodes": ["input", "a0.h0", "m0"]}, "src_nodes lacks a0.h1"),
        ({"src_nodes": ["input", "a0.h0", "a0.h1", "m0", "m0"]}, "src_nodes has m0 twice"),
        ({"src_nodes": [1, 2, 3, 4]}, "src_nodes is a list, and must be a list of names"),
        ({"src_nodes": "input"}, "src_nodes is a text, and must be a list of names"),
        ({"dst_nodes": []}, "dst_nodes lacks a0.h0<q>"),
        ({"edges_scores": torch.zeros(3, 8)}, "edges_scores has the shape (3, 8)"),
        ({"edges_scores": torch.zeros(4, 8).T}, "edges_scores has the shape (8, 4)"),
        ({"edges_scores": torch.zeros(1).expand(4, 10**12)}, "has the shape (4, 1000000000000)"),
        ({"edges_scores": [[0.0]]}, "edges_scores is a list, and must be a dense tensor"),
        ({"edges_scores": torch.zeros(4, 8, dtype=torch.int64)}, "is a tensor of int64"),
        ({"edges_scores": torch.zeros(4, 8, dtype=torch.complex64)}, "is a tensor of complex64"),
        ({"edges_scores": BAD_SCORE}, "the score of input->a0.h0<q> is nan"),
        ({"edges_scores": torch.full((4, 8), torch.inf)}, "the score of input->a0.h0<q> is inf"),
        ({"edges_in_graph": torch.full((4, 8), 2)}, "with other values than 0 and 1"),
        ({"nodes_in_graph": torch.zeros(4, dtype=torch.bool)}, "the node input that writes it"),
        ({"nodes_scores": torch.full((4,), torch.inf)}, "the score of input is inf"),
        ({"neurons_in_graph": torch.ones(4, 2)}, "neurons_in_graph has the shape (4, 2)"),
        ({"neurons_scores": torch.ones(4)}, "neurons_scores has the shape (4,)"),
        ({"circuit_grid": [1]}, "'circuit_grid' is not as it was written"),
    ],
)
def test_tensors_that_are_wrong_somewhere(tmp_path, changes, words):
    torch.save(published_tensors(**changes), tmp_path / "wrong.pt")
    assert words in refused(tmp_path / "wrong.pt")


def test_neurons_need_a_width(tmp_path):
    document = published_tensors(neurons_in_graph=torch.ones(4, 3))
    del document["cfg"]["d_model"]
    torch.save(document, tmp_path / "wrong.pt")
    assert "neurons_in_graph needs cfg.d_model, which is missing" in refused(tmp_path / "wrong.pt")
    plain = json.loads(PUBLISHED_JSON)
    del plain["cfg"]["d_model"]
    plain["nodes"]["m0"]["neurons"] = [True]
    (tmp_path / "wrong.json").write_text(json.dumps(plain))
    assert "needs cfg.d_model, which is missing" in refused(tmp_path / "wrong.json")


@pytest.mark.parametrize("document", [torch.zeros(2), [1, 2], "text", None])
def test_tensors_that_are_no_circuit(tmp_path, document):
    torch.save(document, tmp_path / "wrong.pt")
    assert "must hold a dictionary" in refused(tmp_path / "wrong.pt")


class Intruder:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def archive_with(program: bytes, name: str = "archive/data.pkl") -> bytes:
    """A zip archive as torch.save makes it, with another pickle in it."""
    buffer = io.BytesIO()
    torch.save(published_tensors(), buffer)
    out = io.BytesIO()
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            data = program if entry.filename.endswith("data.pkl") else old.read(entry)
            new.writestr(name if entry.filename.endswith("data.pkl") else entry.filename, data)
    return out.getvalue()


def attacks(target: Path) -> dict[str, bytes]:
    """Files that would make `target` for whoever unpickles them."""
    intruder, document = Intruder(target), published_tensors()
    hidden = copy.copy(document)
    hidden["cfg"] = document["cfg"] | {"init": intruder}
    files = {}
    for name, payload in (("alone", intruder), ("in cfg", hidden)):
        buffer = io.BytesIO()
        torch.save(payload, buffer)
        files[name] = buffer.getvalue()
        buffer = io.BytesIO()
        torch.save(payload, buffer, _use_new_zipfile_serialization=False)
        files[f"{name}, old archive"] = buffer.getvalue()
        buffer = io.BytesIO()
        torch.save(payload, buffer, pickle_protocol=4)
        files[f"{name}, protocol 4"] = buffer.getvalue()
    for protocol in range(5):
        files[f"pickle {protocol}"] = pickle.dumps({"cfg": intruder}, protocol)
        files[f"archive {protocol}"] = archive_with(pickle.dumps({"cfg": intruder}, protocol))
    files["capitals"] = archive_with(pickle.dumps(intruder, 2), "archive/DATA.PKL")
    files["INST"] = archive_with(f"(S'{target}'\nios\nmkdir\n.".encode())
    return files


def test_a_pickle_with_code_in_it_is_refused_and_never_run(tmp_path):
    target = tmp_path / "made by the pickle"
    files = attacks(target)
    pickle.loads(files["pickle 2"])  # the attack works
    target.rmdir()
    for name, data in files.items():
        path = tmp_path / "attack.pt"
        path.write_bytes(data)
        message = refused(path)
        assert not target.exists(), name
        if "pickle" not in name and "old" not in name:
            assert "contains code" in message or "hides code" in message, (name, message)
    path.write_bytes(files["in cfg"])
    assert "it names 'posix.mkdir'), which is never run" in refused(path)


def test_a_bit_that_flips_in_a_tensor_is_noticed(tmp_path):
    values = np.where(SMALL.edge_mask, 1.2345, 0.0)
    path = save_circuit_file(
        tmp_path / "flip.pt", None, Scores(SMALL, values, np.zeros_like(values), 1), d_model=2
    )
    data = bytearray(path.read_bytes())
    data[data.find(np.float64(1.2345).tobytes())] ^= 1
    path.write_bytes(data)
    assert "does not match its checksum: the file is damaged" in refused(path)


def test_a_pickle_that_asks_for_memory_is_refused_before_it_gets_it(tmp_path):
    program = b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R."
    (tmp_path / "bomb.pt").write_bytes(archive_with(program))
    assert "contains code (it names '__builtin__.bytearray')" in refused(tmp_path / "bomb.pt")


def test_an_archive_that_swells_is_refused_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**26))
    assert (tmp_path / "bomb.pt").stat().st_size < 2**18
    assert "is compressed, which torch.save never does" in refused(tmp_path / "bomb.pt")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_of_gigabytes_is_refused_unread(tmp_path, suffix):
    path = tmp_path / f"huge{suffix}"
    with path.open("wb") as file:
        file.truncate(2**32)
    with measured() as cost:
        assert "the file has 4294967296 bytes, and at most" in refused(path)
    assert cost["bytes"] < 1e7


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_no_file(tmp_path, suffix):
    (tmp_path / f"folder{suffix}").mkdir()
    assert refused(tmp_path / f"folder{suffix}") == "this is a folder: name a circuit file"
    os.mkfifo(tmp_path / f"pipe{suffix}")
    assert "no ordinary file" in refused(tmp_path / f"pipe{suffix}")
    assert "cannot be read: No such file" in refused(tmp_path / f"missing{suffix}")
    (tmp_path / f"empty{suffix}").touch()
    assert "the file is empty" in refused(tmp_path / f"empty{suffix}")
    with pytest.raises(InterchangeError, match=r"cannot be read: .*null"):
        load_circuit_file(f"\0{suffix}")


@pytest.mark.parametrize("name", ["circuit.pkl", "circuit", "circuit.json.gz", ".json"])
def test_files_with_another_ending(tmp_path, name):
    (tmp_path / name).write_text(PUBLISHED_JSON)
    assert "is none of a circuit file: use .json, .pt, .graphml" in refused(tmp_path / name)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"d0">1<', '"d0">one<', "the graph: n_layers is 'one', and must be a whole number"),
        ('"d0">1<', '"d0">-1<', "cfg.n_layers is -1"),
        ('<data key="d1">2</data>', "", "cfg.n_heads is missing"),
        ('"d4">-0.5<', '"d4">nan<', "score is nan, and must be a number"),
        ('"d4">-0.5<', '"d4">-inf<', "score is infinite, and must be a finite number"),
        ('"d4">-0.5<', '"d4">half<', "score is 'half', and must be a number"),
        ('"score" attr.type="double"', '"score" attr.type="string"', "declared as a double"),
        ('<node id="m0"/>', '<node id="m1"/>', "node 'm1' is unknown: in a model of 1 layers"),
        ('<node id="m0"/>', "", None),
        ('<node id="a0.h1"/>', "", "the node a0.h1 that writes it is not"),
        ('target="logits"', 'target="m0"', "edge 'a0.h1->m0' is none"),
        ("&lt;k&gt;", "&lt;z&gt;", "edge 'input->a0.h1<z>' is none"),
        ("</graphml>", "", "this is not XML"),
        ("graphml.graphdrawing.org", "example.org", "without a graphml element"),
        ('<edge source="a0.h1" target="logits"/>', '<edge source="input" target="m0"/>', "twice"),
        ("<graphml ", "<!DOCTYPE x><graphml ", "declares XML entities"),
    ],
)
def test_graphml_that_is_wrong_somewhere(tmp_path, old, new, words):
    assert old in PUBLISHED_GRAPHML
    (tmp_path / "wrong.graphml").write_text(PUBLISHED_GRAPHML.replace(old, new))
    if words is None:  # a node that only reads need not stand there
        assert load_circuit_file(tmp_path / "wrong.graphml").circuit.n_edges == 3
    else:
        assert words in refused(tmp_path / "wrong.graphml")


def test_entities_are_not_expanded(tmp_path):
    laughs = "".join(
        f'<!ENTITY l{i} "{"&l" + str(i - 1) + ";" if i else "ha"}{"&l0;" * 9 * bool(i)}">'
        for i in range(9)
    )
    text = f"<?xml version='1.0'?><!DOCTYPE x [{laughs}]><graphml>&l8;</graphml>"
    (tmp_path / "laughs.graphml").write_text(text)
    assert "declares XML entities, which are never read" in refused(tmp_path / "laughs.graphml")
    (tmp_path / "wide.graphml").write_bytes(text.encode("utf-16"))
    assert "is not UTF-8" in refused(tmp_path / "wide.graphml")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_that_are_cut_short(tmp_path, suffix):
    data = whole_file(suffix, tmp_path).read_bytes()
    path = tmp_path / f"cut{suffix}"
    for end in {1, 2, 10, *np.linspace(20, len(data) - 1, 40).astype(int).tolist()}:
        path.write_bytes(data[:end])
        assert "cut short" in refused(path), end


@cache
def good_bytes(suffix: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return whole_file(suffix, Path(folder)).read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_damaged_file_is_refused_in_a_sentence_or_still_means_something(suffix, seed):
    rng, content = np.random.default_rng(seed), bytearray(good_bytes(suffix))
    for place in rng.integers(0, len(content), size=rng.integers(1, 5)):
        content[place] = rng.integers(0, 256)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"damaged{suffix}"
        path.write_bytes(content)
        try:
            found = load_circuit_file(path)
        except InterchangeError:
            return
    assert found.circuit is not None or found.all_scores
    for scores in found.all_scores:
        assert not np.isinf(scores.values).any()


@pytest.mark.parametrize(
    "shape",
    [
        {"n_layers": 10**7, "n_heads": 10**7},
        {"n_heads": 5700},
        {"n_layers": 257},
        {"n_heads": 257},
        {"d_model": 10**8},
    ],
)
def test_graphs_too_large_to_be_true_cost_nothing(tmp_path, shape):
    document = json.loads(PUBLISHED_JSON)
    document["cfg"] |= shape
    (tmp_path / "huge.json").write_text(json.dumps(document))
    with measured() as cost:
        said = refused(tmp_path / "huge.json")
    assert "than any known model has (at most 256 layers, 256 heads and 100000000 edges" in said
    assert cost["bytes"] < 1e6


def test_graphs_as_large_as_any_model_has_are_true():
    for graph in (Graph(256, 1), Graph(1, 256), Graph(80, 64)):  # the last is Llama 3 70B
        assert graph_from_cfg(cfg_of(graph, 8192), None, None) == (graph, 8192)


@contextmanager
def measured():
    """How much memory something takes at most."""
    cost: dict[str, float] = {}
    tracemalloc.start()
    try:
        yield cost
    finally:
        cost["bytes"] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


def sparse_file(path: Path, graph: Graph, d_model: int) -> Path:
    """A file that names one edge, as converters write them."""
    cfg = {"n_layers": graph.n_layers, "n_heads": graph.n_heads, "parallel_attn_mlp": False}
    edges = {"input->logits": {"score": 0.5, "in_graph": True}}
    nodes = {"input": {"in_graph": True}, "logits": {"in_graph": True}}
    path.write_text(json.dumps({"cfg": cfg | {"d_model": d_model}, "nodes": nodes, "edges": edges}))
    return path


def test_a_small_file_of_a_large_graph_is_read_for_those_who_know_the_graph(tmp_path, monkeypatch):
    for graph, d_model in ((Graph(80, 64), 8), (Graph(60, 10), 20_000)):
        path = sparse_file(tmp_path / "sparse.json", graph, d_model)
        with measured() as cost:
            assert "names hardly any of its edges: give the graph of the model" in refused(path)
        assert cost["bytes"] < 1e6
    ordinary = Graph(12, 25)  # 313 writers, 913 readers
    path = sparse_file(tmp_path / "ordinary.json", ordinary, 64)
    assert load_circuit_file(path).circuit.edges == ("input->logits",)
    monkeypatch.setattr(cfg_module, "ORDINARY_TABLE", 10**5)
    assert "give the graph of the model" in refused(path)
    assert load_circuit_file(path, ordinary).circuit.edges == ("input->logits",)
    written = Graph(4, 4)  # what is written here names every edge, and says so in bytes
    monkeypatch.setattr(cfg_module, "ORDINARY_TABLE", 10)
    path = save_circuit_file(tmp_path / "full.json", Circuit.from_edges(written, []), d_model=64)
    assert load_circuit_file(path).graph == written


BAD_EXTENSIONS = [
    *(None, [], "level", 3, True, {}),
    {"level": "edge", "neurons": False},
    {"neurons": False, "scores": {"edge": {"method": "EAP", "n_examples": 3}}},
    *({"level": "edge", "neurons": False, "scores": one} for one in (None, [], "edge", 3)),
    *(
        {"level": "edge", "neurons": False, "scores": {"edge": one}}
        for one in (None, [], ["EAP", 3], "EAP", 3, {}, {"method": "EAP"})
    ),
    {"level": ["edge"], "neurons": False, "scores": {}},
    {"level": "edge", "neurons": 1, "scores": {}},
]


@pytest.mark.parametrize("suffix", [".json", ".pt"])
@pytest.mark.parametrize("extension", BAD_EXTENSIONS, ids=str)
def test_what_stands_under_our_own_key_is_looked_at(tmp_path, suffix, extension):
    path = tmp_path / f"file{suffix}"
    if suffix == ".json":
        path.write_text(json.dumps(json.loads(PUBLISHED_JSON) | {"circuit_grid": extension}))
    else:
        torch.save(published_tensors() | {"circuit_grid": extension}, path)
    assert refused(path).startswith("'circuit_grid' is not as it was written: take the key out")


@pytest.mark.parametrize("inner", [(), ("scores",), ("scores", "edge"), ("level",), ("neurons",)])
def test_a_tensor_under_our_own_key_is_no_mapping(tmp_path, inner):
    good = {"level": "edge", "neurons": False, "scores": {"edge": {"method": "", "n_examples": 1}}}
    document = published_tensors(circuit_grid=good)
    torch.save(document, tmp_path / "file.pt")
    assert load_circuit_file(tmp_path / "file.pt").circuit is not None
    torch.save(changed(document, ("circuit_grid", *inner), torch.ones(2)), tmp_path / "file.pt")
    assert "'circuit_grid' is not as it was written" in refused(tmp_path / "file.pt")
