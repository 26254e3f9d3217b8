"""A circuit as a picture: the input below, the logits above, a row for every block between them.

An edge's colour says which way it works (blue helps the task, red works against it), its width and
depth of colour how strongly; where it enters a head, at q, k or v, says which input it feeds, and
so does its line. Heads that share a key and a value stand in one box, with its inputs beside them.
Where nodes or neurons were chosen, a line under a node's name gives its score, or how many of its
neurons are in. A legend repeats all of it, so that the picture can stand alone in a paper.

`draw` takes a `Circuit`; `draw_edges` takes the edges as plain values, for whoever has them from a
table. Neither needs torch.
"""

from __future__ import annotations

import html
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pygraphviz

from circuits.circuit import Circuit
from circuits.errors import DrawingError
from circuits.legend import FAINT, FILLS, INK, LINES, UNSCORED, colour, legend, width
from circuits.rendering import publish, render
from circuits.scores import Scores

SUFFIXES = (".svg", ".png", ".dot")
FONT = "DejaVu Sans,Helvetica,Arial,sans-serif"
PIXELS_PER_INCH, LARGEST_INCHES = 200, 60  # of a PNG; a larger one is scaled down


@dataclass(frozen=True)
class DrawnEdge:
    """An edge to be drawn; `kind` is q, k, v, mlp or logits, `score` is None where there is none.

    `reader` may be a reader (`a3.h1<q>`, `a3.kv0<k>`) or the node that it belongs to (`a3.h1`).
    """

    writer: str
    reader: str
    kind: str
    score: float | None = None

    @property
    def node(self) -> str:
        """The node that reads, or the name of the key and value that several heads share."""
        return self.reader.split("<")[0]

    @property
    def strength(self) -> float:
        """|score|; 0 where there is none."""
        return 0.0 if self.score is None or math.isnan(self.score) else abs(self.score)


def draw(
    circuit: Circuit,
    path: str | Path,
    *,
    scores: Scores | None = None,
    title: str | None = None,
    max_edges: int = 300,
) -> Path:
    """Draw a circuit as SVG, PNG or DOT, by the suffix of `path`; returns the path.

    Edges are coloured by `scores`, or else by the scores that the circuit was extracted from, if
    they are of edges. Scores of nodes are written under the nodes' names, and so is how many of a
    node's neurons are in where neurons were chosen. Of more than `max_edges` edges only the
    strongest are drawn, and the picture says so. Raises `DrawingError` for another suffix, for a
    folder that is not there, and for scores of another graph.
    """
    scores = circuit.scores if scores is None else scores
    graph = circuit.graph
    if scores is not None and scores.graph != graph:
        raise DrawingError(
            f"the scores belong to another graph ({scores.graph}) than the circuit "
            f"({graph}): draw it with scores of the same model"
        )
    matrix = scores.matrix if scores is not None and scores.level == "edge" else None
    edges = [
        DrawnEdge(
            edge.writer,
            edge.reader,
            edge.kind,
            None if matrix is None else float(matrix[edge.writer_index, edge.reader_index]),
        )
        for edge in circuit.members
    ]
    return draw_edges(
        edges,
        path,
        title=title,
        max_edges=max_edges,
        heads_per_kv=graph.n_heads // graph.n_kv_heads,
        notes=_notes(circuit, scores),
    )


def draw_edges(
    edges: Iterable[DrawnEdge],
    path: str | Path,
    *,
    title: str | None = None,
    max_edges: int = 300,
    heads_per_kv: int = 1,
    notes: Mapping[str, str] | None = None,
) -> Path:
    """Draw edges given as plain values; as `draw` otherwise.

    `heads_per_kv` is how many heads share a key and a value. `notes` has a line of text for nodes
    (it may be empty); these nodes are drawn whether an edge that is drawn touches them or not.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DrawingError(
            f"a circuit cannot be drawn as {path.name!r}: "
            f"give the file one of the endings {', '.join(SUFFIXES)}"
        )
    if not path.parent.is_dir():
        raise DrawingError(f"the folder {str(path.parent)!r} for the drawing does not exist")
    if max_edges < 1:
        raise DrawingError(f"a drawing shows at least 1 edge, not {max_edges}")
    picture = layout(list(edges), title, max_edges, heads_per_kv, notes or {})
    if suffix == ".dot":
        publish(path, picture.to_string().encode())
        return path
    if suffix == ".png":
        picture.graph_attr.update(dpi=str(PIXELS_PER_INCH), size=str(LARGEST_INCHES))
    publish(path, render(picture, suffix[1:]))
    return path


def layout(
    edges: Sequence[DrawnEdge],
    title: str | None,
    max_edges: int,
    heads_per_kv: int,
    notes: Mapping[str, str],
) -> pygraphviz.AGraph:
    """The drawing as a Graphviz graph, not yet placed."""
    shown = strongest(edges, max_edges)
    few = len(shown) <= 80
    picture = pygraphviz.AGraph(directed=True, strict=False)
    picture.graph_attr.update(
        rankdir="BT",
        newrank="true",
        nodesep="0.25" if few else "0.05",
        ranksep="0.55" if few else "0.8",
        bgcolor="white",
        fontname=FONT,
        labelloc="t",
        label=_heading(title, edges, shown),
        outputorder="edgesfirst",
        pad="0.2",
    )
    picture.node_attr.update(fontname=FONT, fontsize="12", shape="plain", fontcolor=INK)
    picture.edge_attr.update(arrowsize="0.55", color=UNSCORED)

    nodes = {"input", "logits", *notes, *(e.writer for e in shown), *(e.node for e in shown)}
    boxes = _boxes(nodes, heads_per_kv)
    _add_rows(picture, boxes, shown, notes)
    _add_edges(picture, boxes, shown)
    if shown:
        names = [n for n in picture.nodes() if not n.startswith("row ")]
        rows = [n for n in picture.nodes() if n.startswith("row ")]
        picture.add_subgraph(
            [*rows, *names],
            name="cluster_all",
            peripheries="0",
            labelloc="t",
            margin="4",
            label=legend(
                [edge.score for edge in shown],
                {edge.kind for edge in shown},
                {node_kind(box) for box in boxes},
            ),
        )
    return picture


def strongest(edges: Sequence[DrawnEdge], count: int) -> list[DrawnEdge]:
    """The `count` edges of largest |score|, in the order given; ties go to the first."""
    order = sorted(range(len(edges)), key=lambda i: -edges[i].strength)
    return [edges[i] for i in sorted(order[:count])]


def node_kind(node: str) -> str:
    """`input`, `logits`, `head`, `mlp`, or `group` for the key and value that heads share.

    Raises `DrawingError` for any other name.
    """
    if node in ("input", "logits"):
        return node
    for kind, pattern in (("head", r"a\d+\.h\d+"), ("group", r"a\d+\.kv\d+"), ("mlp", r"m\d+")):
        if re.fullmatch(pattern, node):
            return kind
    raise DrawingError(f"there is no place in the drawing for a node named {node!r}")


def _notes(circuit: Circuit, scores: Scores | None) -> dict[str, str]:
    """What is written under the nodes of a circuit in which nodes or neurons were chosen."""
    if circuit.level == "edge" and circuit.neurons is None:
        return {}
    notes = dict.fromkeys(circuit.nodes, "")
    for index, node in enumerate(circuit.graph.writers):
        if node not in notes:
            continue
        if circuit.neurons is not None:
            own = circuit.neurons[index]
            notes[node] = f"{int(own.sum()):,} of {_count(len(own), 'neuron')}"
        elif scores is not None and scores.level == "node":
            score = float(scores.values[index])
            notes[node] = "no score" if math.isnan(score) else f"score {_signed(score)}"
    return notes


def _boxes(nodes: Iterable[str], heads_per_kv: int) -> dict[str, list[str]]:
    """The boxes to draw, from below, each with its nodes: one, or heads that share a key."""
    boxes: dict[str, list[str]] = {}
    for node in sorted(nodes, key=_place):
        kind, box = node_kind(node), node
        if kind == "group" and heads_per_kv == 1:
            raise DrawingError(
                f"several heads share {node}: give how many of them share a key and a value "
                f"as heads_per_kv"
            )
        if kind == "head" and heads_per_kv > 1:
            layer, head = _numbers(node)
            box = f"a{layer}.kv{head // heads_per_kv}"
        boxes.setdefault(box, []).extend([node] if kind != "group" else [])
    return dict(sorted(boxes.items(), key=lambda box: _place(box[0])))


def _numbers(node: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", node)]


def _row(node: str) -> tuple[float, str]:
    """How far up a node stands, and what its row is called."""
    kind = node_kind(node)
    if kind == "input":
        return -1.0, "input"
    if kind == "logits":
        return math.inf, "logits"
    layer = _numbers(node)[0]
    if kind == "mlp":
        return layer + 0.5, f"layer {layer} MLP"
    return float(layer), f"layer {layer} heads"


def _place(node: str) -> tuple[float, int]:
    return _row(node)[0], [*_numbers(node), 0, 0][1]


def _add_rows(
    picture: pygraphviz.AGraph,
    boxes: Mapping[str, list[str]],
    edges: Sequence[DrawnEdge],
    notes: Mapping[str, str],
) -> None:
    """Boxes in rows from the input up, each row with its name at its left."""
    used: dict[str, set[str]] = {}
    for edge in edges:
        used.setdefault(edge.node, set()).add(edge.kind)
    rows: dict[tuple[float, str], list[str]] = {}
    for box in boxes:
        rows.setdefault(_row(box), []).append(box)
    names = []
    for (_, text), members in rows.items():
        name = f"row {text}"
        names.append(name)
        picture.add_node(name, label=text, fontcolor="#8a8a8a", fontsize="11", group="rows")
        for box in members:
            picture.add_node(box, label=_box_label(box, boxes[box], used, notes))
        picture.add_subgraph([name, *members], rank="same")
    for below, above in pairwise(names):
        picture.add_edge(below, above, key="rows", style="invis", weight="1000")
    for (_, text), members in rows.items():  # keeps the names at the left, and near
        picture.add_edge(f"row {text}", members[0], key="rows", style="invis", weight="2")
    if not edges:
        picture.add_edge("input", "logits", key="nothing", style="invis")


def _box_label(
    box: str, nodes: Sequence[str], used: Mapping[str, set[str]], notes: Mapping[str, str]
) -> str:
    """A box with its nodes' names and notes; the inputs of heads along its lower edge."""
    kind = node_kind(box)
    table = f'<TABLE BORDER="1" CELLBORDER="0" CELLSPACING="0" COLOR="{INK}" STYLE="ROUNDED" '
    table += f'BGCOLOR="{FILLS[kind]}" '

    def name(node: str, attributes: str) -> str:
        note = notes.get(node, "")
        line = f'<BR/><FONT POINT-SIZE="9" COLOR="#555555">{html.escape(note)}</FONT>'
        return f"<TD {attributes}>{node}{line if note else ''}</TD>"

    def entrance(node: str, letter: str, port: str) -> str:
        ink = INK if letter in used.get(node, set()) else FAINT
        text = f'<FONT POINT-SIZE="10" COLOR="{ink}">{letter}</FONT>'
        return f'<TD PORT="{port}" WIDTH="{20 if kind == "group" else 0}">{text}</TD>'

    if kind == "head":
        above = name(box, 'PORT="out" COLSPAN="3" CELLPADDING="3"')
        below = "".join(entrance(box, letter, letter) for letter in "qkv")
    elif kind == "group":
        above = "".join(name(node, f'PORT="{_port(node)}" CELLPADDING="3"') for node in nodes)
        below = "".join(entrance(node, "q", f"{_port(node)}q") for node in nodes)
        shared = f'<FONT POINT-SIZE="9" COLOR="#555555">{box.split(".")[1]}</FONT>'
        above += f'<TD COLSPAN="2" CELLPADDING="3">{shared}</TD>'
        below += entrance(box, "k", "k") + entrance(box, "v", "v")
    else:
        return f'<{table}CELLPADDING="6"><TR>{name(box, _OUT)}</TR></TABLE>>'
    return f'<{table}CELLPADDING="2"><TR>{above}</TR><TR>{below}</TR></TABLE>>'


_OUT = 'PORT="out"'


def _port(head: str) -> str:
    """The port of one head in a box of several."""
    return head.split(".")[1]


def _add_edges(
    picture: pygraphviz.AGraph, boxes: Mapping[str, list[str]], edges: Sequence[DrawnEdge]
) -> None:
    """The weakest first, so that where lines cross the strong ones lie on top."""
    largest = max((edge.strength for edge in edges), default=0.0)
    box_of = {node: box for box, nodes in boxes.items() for node in nodes}
    for edge in sorted(edges, key=lambda e: e.strength):
        tail, head = box_of[edge.writer], box_of.get(edge.node, edge.node)
        entrance = "out" if node_kind(head) not in ("head", "group") else edge.kind
        if node_kind(edge.node) == "head" and node_kind(head) == "group":
            entrance = f"{_port(edge.node)}{edge.kind}"
        picture.add_edge(
            tail,
            head,
            key=f"{edge.writer} {edge.reader} {edge.kind}",
            tailport=f"{_port(edge.writer) if tail != edge.writer else 'out'}:n",
            headport=f"{entrance}:s",
            color=colour(edge.score, largest),
            penwidth=f"{width(edge.score, largest):.2f}",
            style=LINES[edge.kind],
            tooltip=_tooltip(edge),
        )


def _tooltip(edge: DrawnEdge) -> str:
    name = f"{edge.writer}->{edge.reader}"
    return name if edge.score is None else f"{name}: {edge.score:.4g}"


def _heading(title: str | None, edges: Sequence[DrawnEdge], shown: Sequence[DrawnEdge]) -> str:
    """Title, and what is shown of how much."""
    nodes = {e.writer for e in edges} | {e.node for e in edges if node_kind(e.node) != "group"}
    if not edges:
        text = "The circuit is empty: no edge carries anything from the input to the logits."
    elif len(shown) == len(edges):
        text = f"{_count(len(edges), 'edge')}, {_count(len(nodes), 'node')}"
    else:
        which = "strongest" if any(edge.strength for edge in edges) else "first"
        text = f"the {which} {len(shown):,} of {_count(len(edges), 'edge')} are shown"
    rows = [
        f'<TR><TD><FONT POINT-SIZE="17"><B>{html.escape(line)}</B></FONT></TD></TR>'
        for line in textwrap.wrap(title or "", 60, break_on_hyphens=False)
    ]
    rows.append(f'<TR><TD><FONT POINT-SIZE="12" COLOR="#555555">{text}</FONT></TD></TR>')
    rows.append('<TR><TD HEIGHT="8"></TD></TR>')
    return f'<<TABLE BORDER="0" CELLSPACING="0" CELLPADDING="2">{"".join(rows)}</TABLE>>'


def _signed(score: float) -> str:
    return f"{score:+.2g}".replace("-", "−")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
