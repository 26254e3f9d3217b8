"""What the marks of a drawing mean: colours, widths, lines and boxes, and the legend that says so.

Colour tells the sign (blue helps the task, red works against it), width and depth of colour the
size of a score, the line which input an edge feeds, the fill what a node is. The legend is a table
in Graphviz' own markup and lists what occurs, no more.
"""

from __future__ import annotations

import html
import math
from collections.abc import Collection, Sequence
from itertools import zip_longest

INK, FAINT = "#222222", "#b5b5b5"
UNSCORED, UNSCORED_WIDTH = "#6f6f6f", 1.2
# the two arms of ColorBrewer's RdBu, from the weakest to the strongest edge
HELPS = ((146, 187, 217), (12, 68, 134))
HURTS = ((240, 160, 130), (160, 14, 36))
WIDTHS = (0.7, 5.0)
FILLS = {
    "input": "#e6e6e6",
    "logits": "#e6e6e6",
    "head": "#ffffff",
    "group": "#ffffff",
    "mlp": "#f2e9cf",
}
LINES = {"q": "dashed", "k": "dotted", "v": "solid", "mlp": "solid", "logits": "solid"}

_GOALS = {"q": "a query", "k": "a key", "v": "a value", "mlp": "an MLP", "logits": "the logits"}
_BOXES = {
    "head": "attention head",
    "group": "attention heads that share a key and a value",
    "mlp": "MLP",
    "input": "token embedding, logits",
}
_DASHES = {"dashed": [8, 4, 8, 4, 8, 4], "dotted": [2, 4] * 6, "solid": [40]}  # drawn, left out, …

Entry = tuple[str, str]  # a sample of the mark, and what it means


def width(score: float | None, largest: float) -> float:
    """The width of an edge, in points, where the largest |score| of the drawing is `largest`."""
    if score is None or math.isnan(score):
        return UNSCORED_WIDTH
    return WIDTHS[0] + (WIDTHS[1] - WIDTHS[0]) * _relative(score, largest)


def colour(score: float | None, largest: float) -> str:
    """The colour of an edge, as #rrggbb; grey without a score."""
    if score is None or math.isnan(score):
        return UNSCORED
    weak, strong = HELPS if score >= 0 else HURTS
    share = _relative(score, largest)
    mixed = (round(a + (b - a) * share) for a, b in zip(weak, strong, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def legend(
    scores: Sequence[float | None], edge_kinds: Collection[str], node_kinds: Collection[str]
) -> str:
    """The legend of edges with these scores and kinds, between nodes of these kinds."""
    columns = [_of_scores(scores), _of_lines(edge_kinds), _of_boxes(node_kinds)]
    rows = "".join(
        f"<TR>{''.join(_cells(*entry) for entry in row)}</TR>"
        for row in zip_longest(*filter(None, columns), fillvalue=("", ""))
    )
    return f'<<TABLE BORDER="0" CELLSPACING="0" CELLPADDING="3">{rows}</TABLE>>'


def _of_scores(scores: Sequence[float | None]) -> list[Entry]:
    """For either sign its largest score and a tenth of it; then the edges without a score."""
    known = [score for score in scores if score is not None and not math.isnan(score)]
    largest = max(map(abs, known), default=0.0)
    entries = []
    for sign, meaning in ((1, "helps the task"), (-1, "works against it")):
        extreme = max((score * sign for score in known), default=0.0)
        for share, text in ((1.0, f", {meaning}"), (0.1, "")):
            score = sign * share * extreme
            if extreme > 0:
                sample = _line("solid", width(score, largest), colour(score, largest))
                entries.append((sample, f"score {score:+.2g}{text}".replace("-", "−")))
    if len(known) < len(scores):
        entries.append((_line("solid", UNSCORED_WIDTH, UNSCORED), "edge without a score"))
    return entries


def _of_lines(edge_kinds: Collection[str]) -> list[Entry]:
    entries = []
    for style in _DASHES:
        goals = [_GOALS[kind] for kind in _GOALS if LINES[kind] == style and kind in edge_kinds]
        if goals:
            entries.append((_line(style, 2.0, INK), "into " + ", ".join(goals)))
    return entries


def _of_boxes(node_kinds: Collection[str]) -> list[Entry]:
    return [(_box(FILLS[kind]), text) for kind, text in _BOXES.items() if kind in node_kinds]


def _relative(score: float, largest: float) -> float:
    """|score| on a scale from 0 to 1; the root keeps weak edges visible beside strong ones."""
    return math.sqrt(abs(score) / largest) if largest > 0 else 0.0


def _cells(sample: str, text: str) -> str:
    label = f'<FONT POINT-SIZE="11" COLOR="{INK}">{html.escape(text)}</FONT>' if text else ""
    return f'<TD>{sample}</TD><TD ALIGN="LEFT">{label}</TD><TD WIDTH="10"></TD>'


def _line(style: str, points: float, rgb: str) -> str:
    """A piece of line, built of cells."""
    height = max(1, round(points))
    cells = "".join(
        f'<TD WIDTH="{length}" HEIGHT="{height}" FIXEDSIZE="TRUE" CELLPADDING="0"'
        + (f' BGCOLOR="{rgb}"' if i % 2 == 0 else "")
        + "></TD>"
        for i, length in enumerate(_DASHES[style])
    )
    table = '<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0">'
    return f"{table}<TR>{cells}</TR></TABLE>"


def _box(fill: str) -> str:
    return (
        f'<TABLE BORDER="1" COLOR="{INK}" STYLE="ROUNDED" BGCOLOR="{fill}" CELLBORDER="0" '
        f'CELLSPACING="0" CELLPADDING="0" FIXEDSIZE="TRUE" WIDTH="26" HEIGHT="14">'
        f"<TR><TD></TD></TR></TABLE>"
    )
