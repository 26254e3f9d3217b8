"""Pictures: what is in them, what they say of themselves, and what is refused."""

from __future__ import annotations

import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pygraphviz
import pytest

from circuits import Circuit, CircuitError, DrawingError, Graph, Scores
from circuits.drawing import DrawnEdge, draw, draw_edges
from circuits.legend import HELPS, HURTS, LINES
from circuits.rendering import FONTS

SVG = "{http://www.w3.org/2000/svg}"


def random_scores(graph: Graph, seed: int = 0) -> Scores:
    values = np.random.default_rng(seed).normal(size=graph.edge_mask.shape) * graph.edge_mask
    return Scores(graph, values, np.zeros_like(values), 4, "EAP")


@pytest.fixture
def circuit():
    return random_scores(Graph(2, 3)).top_n(40)


def texts(path) -> list[str]:
    return [e.text or "" for e in ElementTree.parse(path).iter(f"{SVG}text")]


def read_edges(path) -> set[tuple[str, str, str]]:
    """The visible edges: writer, node, kind."""
    picture = pygraphviz.AGraph(str(path))
    kinds = {"q:s": "q", "k:s": "k", "v:s": "v"}
    return {
        (e[0], e[1], kinds.get(e.attr["headport"], "logits" if e[1] == "logits" else "mlp"))
        for e in picture.edges()
        if e.attr["style"] != "invis"
    }


def test_an_svg_holds_every_node_and_edge_the_title_and_the_legend(circuit, tmp_path):
    path = draw(circuit, tmp_path / "circuit.svg", title="IOI & <greater-than>")
    tree = ElementTree.parse(path)
    groups = [group.get("class") for group in tree.iter(f"{SVG}g")]
    assert groups.count("edge") == circuit.n_edges
    written = texts(path)
    assert written.count("IOI & <greater-than>") == 1
    assert f"{circuit.n_edges} edges, {circuit.n_nodes} nodes" in written
    for node in circuit.nodes:
        assert node in written
    for entry in ("into a query", "into a key", "attention head", "MLP"):
        assert any(entry in text for text in written), entry
    assert any("helps the task" in text for text in written)
    assert any("works against it" in text for text in written)


def test_the_logits_are_at_the_top_the_input_at_the_bottom_and_layers_in_between(circuit, tmp_path):
    path = draw(circuit, tmp_path / "circuit.svg", title="The title")
    height = {}
    for element in ElementTree.parse(path).iter(f"{SVG}text"):
        height.setdefault(element.text, float(element.get("y")))
    order = ["The title", "logits", "m1", "a1.h0", "m0", "a0.h0", "input", "into a query"]
    heights = [height[name] for name in order if name in height]
    assert len(heights) >= 6
    assert heights == sorted(heights)  # y grows downwards
    same_layer = [y for name, y in height.items() if re.fullmatch(r"a1\.h\d", name or "")]
    assert max(same_layer) - min(same_layer) < 1


def test_every_edge_is_drawn_once_at_its_own_input_with_its_own_line(circuit, tmp_path):
    picture = pygraphviz.AGraph(str(draw(circuit, tmp_path / "circuit.dot")))
    drawn = [edge for edge in picture.edges() if edge.attr["style"] != "invis"]
    found = {(e[0], e[1], e.attr["headport"], e.attr["style"]) for e in drawn}
    expected = {
        (
            edge.writer,
            edge.reader.split("<")[0],
            f"{edge.kind}:s" if edge.kind in "qkv" else "out:s",
            LINES[edge.kind],
        )
        for edge in circuit.members
    }
    assert found == expected
    assert len(drawn) == circuit.n_edges
    assert len({LINES[kind] for kind in "qkv"}) == 3


def channels(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def test_colour_tells_the_sign_and_width_and_depth_the_size(tmp_path):
    values = {"a0.h0": 1.0, "a0.h1": 0.25, "m0": -1.0, "a0.h2": -0.01}
    edges = [DrawnEdge(writer, "logits", "logits", score) for writer, score in values.items()]
    picture = pygraphviz.AGraph(str(draw_edges(edges, tmp_path / "c.dot")))
    attributes = {
        e[0]: e.attr for e in picture.edges() if e.attr["style"] != "invis" and e[1] == "logits"
    }
    colour = {writer: channels(a["color"]) for writer, a in attributes.items()}
    assert colour["a0.h0"] == HELPS[1]
    assert colour["m0"] == HURTS[1]
    for writer, score in values.items():
        red, _, blue = colour[writer]
        assert (blue > red) == (score > 0)
    width = {writer: float(a["penwidth"]) for writer, a in attributes.items()}
    assert width["a0.h0"] == width["m0"] > width["a0.h1"] > width["a0.h2"] > 0
    assert sum(colour["a0.h2"]) > sum(colour["m0"])  # weaker is paler


def test_a_png_is_a_png(circuit, tmp_path):
    content = draw(circuit, tmp_path / "circuit.PNG", title="x" * 200).read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 10_000


@pytest.mark.parametrize("suffix", [".svg", ".png", ".dot"])
def test_the_same_circuit_gives_the_same_bytes(circuit, tmp_path, suffix):
    first, second = (draw(circuit, tmp_path / f"{i}{suffix}", title="t") for i in range(2))
    assert first.read_bytes() == second.read_bytes()


def test_of_a_large_circuit_the_strongest_edges_are_drawn_and_it_says_so(tmp_path):
    graph = Graph(4, 4)
    scores = random_scores(graph)
    whole = Circuit(graph, graph.edge_mask, scores)
    path = draw(whole, tmp_path / "c.svg", max_edges=50)
    assert f"the strongest 50 of {graph.n_edges} edges are shown" in texts(path)
    drawn = read_edges(draw(whole, tmp_path / "c.dot", max_edges=50))
    ranked = sorted(graph.edges, key=lambda e: -abs(scores.matrix[e.writer_index, e.reader_index]))
    assert drawn == {(e.writer, e.reader.split("<")[0], e.kind) for e in ranked[:50]}


def test_a_circuit_without_scores_is_drawn_without_signs(tmp_path):
    circuit = Circuit.from_edges(Graph(2, 2), ["input->a1.h0<v>", "a1.h0->logits"])
    path = draw(circuit, tmp_path / "c.svg")
    written = " ".join(texts(path))
    assert "edge without a score" in written
    assert "helps the task" not in written


def test_given_scores_take_the_place_of_the_circuits_own(tmp_path):
    graph = Graph(2, 2)
    circuit = Circuit.from_edges(graph, ["input->logits"])
    scores = random_scores(graph)
    own = abs(scores.matrix[0, -1])
    path = draw(circuit, tmp_path / "c.svg", scores=scores)
    assert any(f"{own:.2g}" in text for text in texts(path))


@pytest.mark.parametrize("suffix", [".svg", ".png", ".dot"])
def test_an_empty_circuit_draws_input_and_logits_and_says_that_it_is_empty(tmp_path, suffix):
    graph = Graph(2, 3)
    path = draw(Circuit(graph, np.zeros_like(graph.edge_mask)), tmp_path / f"empty{suffix}")
    assert path.stat().st_size > 0
    if suffix == ".svg":
        written = texts(path)
        assert "input" in written
        assert "logits" in written
        assert any("empty" in text for text in written)


def test_an_ending_that_cannot_be_drawn_is_refused_with_those_that_can(circuit, tmp_path):
    for name in ("circuit.jpg", "circuit"):
        with pytest.raises(CircuitError, match=r"\.svg, \.png, \.dot"):
            draw(circuit, tmp_path / name)
    with pytest.raises(DrawingError, match="nowhere"):
        draw(circuit, tmp_path / "nowhere" / "circuit.svg")
    assert list(tmp_path.iterdir()) == []


def test_scores_of_another_graph_are_refused(circuit, tmp_path):
    with pytest.raises(DrawingError, match="another graph"):
        draw(circuit, tmp_path / "c.svg", scores=random_scores(Graph(3, 3)))


def test_a_drawing_that_fails_leaves_the_one_before(circuit, tmp_path):
    path = draw(circuit, tmp_path / "c.svg")
    before = path.read_bytes()
    with pytest.raises(DrawingError, match="'neuron 7'"):
        draw_edges([DrawnEdge("neuron 7", "logits", "logits", 1.0)], path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.svg"]


def test_circuits_draw_themselves(circuit, tmp_path):
    assert circuit.draw(tmp_path / "c.svg").is_file()
    assert circuit.draw(str(tmp_path / "t.svg"), title="A title").is_file()
    assert "A title" in texts(tmp_path / "t.svg")


def test_drawing_needs_no_torch():
    code = "import sys, circuits.drawing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_drawing_does_not_depend_on_the_fonts_of_the_machine(circuit, tmp_path, monkeypatch):
    expected = draw(circuit, tmp_path / "first.png", title="Größer ≥ 1").read_bytes()
    monkeypatch.setenv("FONTCONFIG_FILE", str(tmp_path / "none.conf"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert draw(circuit, tmp_path / "second.png", title="Größer ≥ 1").read_bytes() == expected


def test_letters_that_the_fonts_lack_are_left_to_the_machine(circuit, tmp_path):
    assert "回路" in texts(draw(circuit, tmp_path / "c.svg", title="回路"))
    assert draw(circuit, tmp_path / "c.png", title="回路").stat().st_size > 10_000


def test_drawing_leaves_nothing_beside_the_picture(circuit, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fonts = sorted(path.name for path in FONTS.iterdir())
    draw(circuit, "c.png")
    assert [path.name for path in tmp_path.iterdir()] == ["c.png"]
    assert sorted(path.name for path in FONTS.iterdir()) == fonts


def test_drawing_says_nothing_on_the_terminal(circuit, tmp_path, capfd):
    draw(circuit, tmp_path / "c.png", title="t")
    assert capfd.readouterr() == ("", "")


def test_a_place_that_cannot_be_written_is_a_sentence(circuit, tmp_path):
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(DrawingError, match="cannot be written"):
        draw(circuit, tmp_path / "folder.svg")


def words_of(picture: pygraphviz.AGraph, box: str) -> str:
    """What is written in a box, without markup."""
    return " ".join(re.sub(r"<[^>]*>", " ", picture.get_node(box).attr["label"]).split()).strip(
        "<>"
    )


def visible(picture: pygraphviz.AGraph) -> list[pygraphviz.Edge]:
    return [edge for edge in picture.edges() if edge.attr["style"] != "invis"]


def test_heads_that_share_a_key_stand_in_one_box_and_every_edge_ends_where_it_should(tmp_path):
    graph = Graph(2, 4, n_kv_heads=2)
    circuit = random_scores(graph).top_n(60)
    picture = pygraphviz.AGraph(str(draw(circuit, tmp_path / "c.dot")))

    def box(node: str) -> str:
        return re.sub(r"h(\d)", lambda head: f"kv{graph.kv_head_of(int(head[1]))}", node)

    def head(node: str) -> str:
        return node.split(".")[1] if ".h" in node else "out"

    expected = []
    for edge in circuit.members:
        node = edge.reader.split("<")[0]
        port = {"q": f"{head(node)}q", "k": "k", "v": "v"}.get(edge.kind, "out")
        expected.append((box(edge.writer), f"{head(edge.writer)}:n", box(node), f"{port}:s"))
    found = [(e[0], e.attr["tailport"], e[1], e.attr["headport"]) for e in visible(picture)]
    assert sorted(found) == sorted(expected)
    for node in circuit.nodes:
        if ".h" in node:
            assert node in words_of(picture, box(node)).split()
    assert words_of(picture, "a1.kv0").count("k") == 2  # kv0, and one key for the group
    path = draw(circuit, tmp_path / "c.svg")
    assert f"{circuit.n_edges} edges, {circuit.n_nodes} nodes" in texts(path)
    assert any("share a key and a value" in text for text in texts(path))
    assert "attention head" not in texts(path)
    groups = [group.get("class") for group in ElementTree.parse(path).iter(f"{SVG}g")]
    assert groups.count("edge") == circuit.n_edges


def test_two_heads_of_one_box_may_each_have_an_edge_to_the_same_place(tmp_path):
    edges = [
        DrawnEdge(f"a0.h{head}", reader, kind, 1.0)
        for head in range(4)
        for reader, kind in (("a1.h2<q>", "q"), ("a1.kv1<k>", "k"), ("logits", "logits"))
    ]
    picture = pygraphviz.AGraph(str(draw_edges(edges, tmp_path / "c.dot", heads_per_kv=2)))
    ends = [(e.attr["tailport"], e[1], e.attr["headport"]) for e in visible(picture)]
    expected = [
        (f"h{head}:n", box, port)
        for head in range(4)
        for box, port in (("a1.kv1", "h2q:s"), ("a1.kv1", "k:s"), ("logits", "out:s"))
    ]
    assert sorted(ends) == sorted(expected)


def test_a_shared_key_is_refused_where_it_is_not_said_how_many_share_it(tmp_path):
    with pytest.raises(DrawingError, match=r"share a0\.kv1: .*heads_per_kv"):
        draw_edges([DrawnEdge("input", "a0.kv1<k>", "k")], tmp_path / "c.dot")


def test_the_edges_into_a_head_named_without_its_input_are_all_drawn(tmp_path):
    edges = [DrawnEdge("input", "a0.h1", kind) for kind in "qkv"]
    picture = pygraphviz.AGraph(str(draw_edges(edges, tmp_path / "c.dot")))
    assert sorted(edge.attr["headport"] for edge in visible(picture)) == ["k:s", "q:s", "v:s"]


@pytest.mark.parametrize("n_kv_heads", [3, 1])
def test_nodes_that_were_chosen_stand_with_their_scores(tmp_path, n_kv_heads):
    graph = Graph(2, 3, n_kv_heads=n_kv_heads)
    values = np.linspace(-1.0, 1.0, graph.n_writers)
    values[:2] = 2.5, np.nan
    scores = Scores(graph, values, np.zeros_like(values), 4, "EAP", "node")
    circuit = scores.top_n(4)
    written = texts(draw(circuit, tmp_path / "c.svg"))
    assert f"{circuit.n_edges} edges, {circuit.n_nodes} nodes" in written
    assert "edge without a score" in written
    assert written.count("score +2.5") == 1  # the input
    assert written.count("no score") == 1  # a0.h0
    assert written.count("score −0.71") == 0  # a0.h1: not in
    assert written.count("score +1") == 1  # m1


def test_every_node_that_was_chosen_is_drawn_even_where_its_edges_are_not(tmp_path):
    graph = Graph(3, 3)
    circuit = Circuit.from_nodes(graph, ["input", "a0.h1", "m1", "a2.h0"])
    picture = pygraphviz.AGraph(str(draw(circuit, tmp_path / "c.dot", max_edges=1)))
    assert len(visible(picture)) == 1
    assert set(circuit.nodes) <= set(picture.nodes())
    written = texts(draw(circuit, tmp_path / "c.svg", max_edges=1))
    assert f"the first 1 of {circuit.n_edges} edges are shown" in written


def test_where_neurons_were_chosen_every_node_says_how_many_of_them_are_in(tmp_path):
    graph = Graph(2, 2)
    neurons = np.zeros((graph.n_writers, 16), dtype=bool)
    counts = {"input": 16, "a0.h1": 3, "m1": 1}
    for node, count in counts.items():
        neurons[graph.writers.index(node), :count] = True
    circuit = Circuit.from_neurons(graph, neurons)
    picture = pygraphviz.AGraph(str(draw(circuit, tmp_path / "c.dot")))
    for node, count in counts.items():
        assert f"{node} {count} of 16 neurons" in words_of(picture, node)
    assert "neurons" not in words_of(picture, "logits")
    assert "a0.h0" not in picture.nodes()
    edges = random_scores(graph)
    written = texts(draw(circuit, tmp_path / "c.svg", scores=edges))  # edges may have scores too
    assert "3 of 16 neurons" in written
    assert "edge without a score" not in written
