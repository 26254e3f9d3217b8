"""A circuit as a picture: the input below, the logits above, a row for every block between them.

An edge's colour says which way it works (blue helps the task, red works against it), its width and
depth of colour how strongly; where it enters a head, at q, k or v, says which input it feeds, and
so does its line. A legend repeats all of it, so that the picture can stand alone in a paper.

`draw` takes a `Circuit`; `draw_edges` takes the edges as plain values, for whoever has them from a
table. Neither needs torch.
"""

from __future__ import annotations

import html
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pygraphviz

from circuits.circuit import Circuit
from circuits.errors import DrawingError
from circuits.legend import FAINT, FILLS, INK, LINES, UNSCORED, colour, legend, width
from circuits.scores import Scores

SUFFIXES = (".svg", ".png", ".dot")
FONT = "DejaVu Sans,Helvetica,Arial,sans-serif"
FONTS = Path(__file__).parent / "fonts"
PIXELS_PER_INCH, LARGEST_INCHES = 200, 60  # of a PNG; a larger one is scaled down


@dataclass(frozen=True)
class DrawnEdge:
    """An edge to be drawn; `kind` is q, k, v, mlp or logits, `score` is None where there is none.

    `reader` may be a reader (`a3.h1<q>`) or the node that it belongs to (`a3.h1`).
    """

    writer: str
    reader: str
    kind: str
    score: float | None = None

    @property
    def node(self) -> str:
        """The node that reads."""
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

    Edges are coloured by `scores`, or else by the scores that the circuit was extracted from. Of
    more than `max_edges` edges only the strongest are drawn, and the picture says so. Raises
    `DrawingError` for another suffix, for a folder that is not there, and for scores of another
    graph.
    """
    scores = circuit.scores if scores is None else scores
    if scores is not None and scores.graph != circuit.graph:
        raise DrawingError(
            f"the scores belong to another graph ({scores.graph}) than the circuit "
            f"({circuit.graph}): draw it with scores of the same model"
        )
    edges = [
        DrawnEdge(
            edge.writer,
            edge.reader,
            edge.kind,
            None if scores is None else float(scores.matrix[edge.writer_index, edge.reader_index]),
        )
        for edge in circuit.members
    ]
    return draw_edges(edges, path, title=title, max_edges=max_edges)


def draw_edges(
    edges: Iterable[DrawnEdge],
    path: str | Path,
    *,
    title: str | None = None,
    max_edges: int = 300,
) -> Path:
    """Draw edges given as plain values; as `draw` otherwise."""
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
    picture = layout(list(edges), title, max_edges)
    if suffix == ".dot":
        _publish(path, picture.to_string().encode())
        return path
    if suffix == ".png":
        picture.graph_attr.update(dpi=str(PIXELS_PER_INCH), size=str(LARGEST_INCHES))
    _publish(path, _render(picture, suffix[1:]))
    return path


def layout(edges: Sequence[DrawnEdge], title: str | None, max_edges: int) -> pygraphviz.AGraph:
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

    nodes = {"input", "logits", *(e.writer for e in shown), *(e.node for e in shown)}
    _add_rows(picture, nodes, shown)
    _add_edges(picture, shown)
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
                {node_kind(node) for node in nodes},
            ),
        )
    return picture


def strongest(edges: Sequence[DrawnEdge], count: int) -> list[DrawnEdge]:
    """The `count` edges of largest |score|, in the order given; ties go to the first."""
    order = sorted(range(len(edges)), key=lambda i: -edges[i].strength)
    return [edges[i] for i in sorted(order[:count])]


def node_kind(node: str) -> str:
    """`input`, `logits`, `head` or `mlp`; raises `DrawingError` for any other name."""
    if node in ("input", "logits"):
        return node
    if re.fullmatch(r"a\d+\.h\d+", node):
        return "head"
    if re.fullmatch(r"m\d+", node):
        return "mlp"
    raise DrawingError(f"there is no place in the drawing for a node named {node!r}")


def _row(node: str) -> tuple[float, str]:
    """How far up a node stands, and what its row is called."""
    kind = node_kind(node)
    if kind == "input":
        return -1.0, "input"
    if kind == "logits":
        return math.inf, "logits"
    layer = int(re.findall(r"\d+", node)[0])
    if kind == "head":
        return float(layer), f"layer {layer} heads"
    return layer + 0.5, f"layer {layer} MLP"


def _place(node: str) -> tuple[float, int]:
    numbers = re.findall(r"\d+", node)
    return _row(node)[0], int(numbers[1]) if len(numbers) > 1 else 0


def _add_rows(picture: pygraphviz.AGraph, nodes: Iterable[str], edges: Sequence[DrawnEdge]) -> None:
    """Nodes in rows from the input up, each row with its name at its left."""
    used: dict[str, set[str]] = {}
    for edge in edges:
        used.setdefault(edge.node, set()).add(edge.kind)
    rows: dict[tuple[float, str], list[str]] = {}
    for node in sorted(nodes, key=_place):
        rows.setdefault(_row(node), []).append(node)
    names = []
    for (_, text), members in rows.items():
        name = f"row {text}"
        names.append(name)
        picture.add_node(name, label=text, fontcolor="#8a8a8a", fontsize="11", group="rows")
        for node in members:
            picture.add_node(node, label=_node_label(node, used.get(node, set())))
        picture.add_subgraph([name, *members], rank="same")
    for below, above in pairwise(names):
        picture.add_edge(below, above, key="rows", style="invis", weight="1000")
    for (_, text), members in rows.items():  # keeps the names at the left, and near
        picture.add_edge(f"row {text}", members[0], key="rows", style="invis", weight="2")
    if not edges:
        picture.add_edge("input", "logits", key="nothing", style="invis")


def _node_label(node: str, used: set[str]) -> str:
    """A box with the node's name; a head's inputs q, k, v along its lower edge."""
    kind = node_kind(node)
    table = f'<TABLE BORDER="1" CELLBORDER="0" CELLSPACING="0" COLOR="{INK}" STYLE="ROUNDED" '
    table += f'BGCOLOR="{FILLS[kind]}" '
    if kind != "head":
        return f'<{table}CELLPADDING="6"><TR><TD PORT="out">{node}</TD></TR></TABLE>>'
    inputs = "".join(
        f'<TD PORT="{letter}"><FONT POINT-SIZE="10" COLOR="{INK if letter in used else FAINT}">'
        f"{letter}</FONT></TD>"
        for letter in "qkv"
    )
    name = f'<TR><TD PORT="out" COLSPAN="3" CELLPADDING="3">{node}</TD></TR>'
    return f'<{table}CELLPADDING="2">{name}<TR>{inputs}</TR></TABLE>>'


def _add_edges(picture: pygraphviz.AGraph, edges: Sequence[DrawnEdge]) -> None:
    """The weakest first, so that where lines cross the strong ones lie on top."""
    largest = max((edge.strength for edge in edges), default=0.0)
    for edge in sorted(edges, key=lambda e: e.strength):
        head = node_kind(edge.node) == "head"
        picture.add_edge(
            edge.writer,
            edge.node,
            key=edge.kind,
            tailport="out:n",
            headport=f"{edge.kind}:s" if head else "out:s",
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
    nodes = {e.writer for e in edges} | {e.node for e in edges}
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


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _render(picture: pygraphviz.AGraph, form: str) -> bytes:
    """The picture as `svg` or `png`.

    Graphviz runs in a process of its own, with the fonts that come with the drawing: its libraries
    are told of fonts by the environment alone, write warnings about the machine's straight to the
    terminal, and leave files beside the fonts they read.
    """
    text = picture.to_string()
    with tempfile.TemporaryDirectory(prefix="circuit-grid-") as folder:
        environment = dict(os.environ)
        if _COVERED.fullmatch(text):  # otherwise only the machine can have the letters
            environment["FONTCONFIG_FILE"] = str(_lay_out_fonts(Path(folder)))
        done = subprocess.run(
            [sys.executable, "-c", _GRAPHVIZ, form],
            input=text.encode(),
            env=environment,
            capture_output=True,
        )
    if done.returncode != 0 or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise DrawingError(f"Graphviz could not draw the circuit as {form}: {said[-1]}")
    return done.stdout


_GRAPHVIZ = """
import sys, pygraphviz
picture = pygraphviz.AGraph(string=sys.stdin.buffer.read().decode())
sys.stdout.buffer.write(picture.draw(format=sys.argv[1], prog="dot"))
"""

# the characters of the fonts in `circuits/fonts`
_COVERED = re.compile(
    r"[\s\x20-\x7e\xa0-\u017f\u0386-\u03ce\u0400-\u045f\u2010-\u2026\u2190-\u2193\u2200-\u2265]*"
)


def _lay_out_fonts(folder: Path) -> Path:
    """Copy the fonts into a folder of their own; returns the settings that know only them."""
    fonts = shutil.copytree(FONTS, folder / "fonts")
    settings = folder / "fonts.conf"
    settings.write_text(
        f"<fontconfig><dir>{html.escape(str(fonts))}</dir>"
        f"<cachedir>{html.escape(str(folder))}</cachedir></fontconfig>"
    )
    return settings


def _publish(path: Path, content: bytes) -> None:
    try:
        _write(path, content)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DrawingError(f"the drawing cannot be written to {path}: {reason}") from None


def _write(path: Path, content: bytes) -> None:
    """Write under a temporary name and rename, so that no half picture is ever seen."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
