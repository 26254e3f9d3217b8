"""What a published circuit file says, apart from the format it is written in.

The files are those of EAP-IG (Hanna et al. 2024, arXiv:2403.17806) and of the circuit track of the
mechanistic interpretability benchmark (Mueller et al. 2025, arXiv:2504.13151). They describe the
ungrouped graph: the number of layers and heads, whether blocks are parallel, and the width of the
stream; which edges, nodes and neurons are in; and scores of one or several levels.

A fresh graph of those tools has a score of 0.0 at every edge, and an edge that nobody scored keeps
it. So edge scores that are all 0.0 are no scores where the file has others or a membership. What
the tools cannot say (the level that was chosen, standard errors, numbers of examples, edges without
a score) is kept beside, under keys that they do not read: files written here come back exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped

from circuits.circuit import Circuit, edges_between
from circuits.errors import InterchangeError
from circuits.graph import Graph
from circuits.interchange.cfg import is_count
from circuits.scores import LEVELS, Scores

EXTENSION = "circuit_grid"  # the key for what the published formats cannot say


@dataclass(frozen=True, eq=False)
class Table:
    """Scores of one level as a file has them: NaN where a unit has none; unknown errors are NaN."""

    values: Float[np.ndarray, "writers ..."]
    standard_error: Float[np.ndarray, "writers ..."] | None = None


@dataclass(frozen=True)
class Extension:
    """What a file written here says besides; `level` is None where it holds no circuit.

    `scores` has the method and the number of examples of each level that was scored, `neurons` says
    whether the circuit names neurons.
    """

    level: str | None
    neurons: bool
    scores: Mapping[str, tuple[str, int]]

    def to_plain(self) -> dict[str, Any]:
        """As plain dictionaries."""
        return {
            "version": 1,
            "level": self.level,
            "neurons": self.neurons,
            "scores": {
                level: {"method": method, "n_examples": n}
                for level, (method, n) in self.scores.items()
            },
        }

    @classmethod
    def from_plain(cls, plain: Any) -> Extension:
        """From plain dictionaries; raises `InterchangeError` where they are not as written here."""
        plain = _mapping(plain)
        scores = {key: _mapping(value) for key, value in _mapping(plain.get("scores")).items()}
        level, neurons = plain.get("level"), plain.get("neurons")
        read: dict[Any, Any] = {
            key: (about.get("method"), about.get("n_examples")) for key, about in scores.items()
        }
        plausible = (
            (level is None or (isinstance(level, str) and level in LEVELS))
            and isinstance(neurons, bool)
            and "level" in plain
            and all(
                isinstance(key, str) and key in LEVELS and isinstance(method, str) and is_count(n)
                for key, (method, n) in read.items()
            )
        )
        if not plausible or not (read or level):
            raise InterchangeError(_BAD_EXTENSION)
        return cls(level, neurons, read)


def _mapping(plain: Any) -> Mapping[Any, Any]:
    if not isinstance(plain, Mapping):
        raise InterchangeError(_BAD_EXTENSION)
    return plain


_BAD_EXTENSION = (
    f"{EXTENSION!r} is not as it was written: take the key out to read the file as one of the "
    f"published tools, or write the file again"
)


@dataclass(frozen=True, eq=False)
class Content:
    """A graph, who is in, and the scores of each level; `extension` is None in a foreign file."""

    graph: Graph
    d_model: int | None
    edges: Bool[np.ndarray, "writers readers"]
    nodes: Bool[np.ndarray, " writers"]
    neurons: Bool[np.ndarray, "writers d_model"] | None
    tables: Mapping[str, Table]
    extension: Extension | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Imported:
    """What a circuit file holds: a circuit, scores of edges, nodes or neurons, or both.

    `scores` are those of edges. The circuit has those of its own level as its scores, or None where
    the file has none of that level; those of other levels stand here alone. Where a foreign file
    gives no number of examples it is 0, and every standard error is NaN. `notes` has a sentence for
    everything in the file that was left out.
    """

    graph: Graph
    d_model: int | None = None
    circuit: Circuit | None = None
    scores: Scores | None = None
    node_scores: Scores | None = None
    neuron_scores: Scores | None = None
    notes: tuple[str, ...] = field(default=(), repr=False)

    @property
    def all_scores(self) -> tuple[Scores, ...]:
        """The scores of every level that has some."""
        every = (self.scores, self.node_scores, self.neuron_scores)
        return tuple(scores for scores in every if scores is not None)

    @property
    def level(self) -> str:
        """The level of the circuit, or else of the scores: the coarsest that has some."""
        return self.circuit.level if self.circuit is not None else self.all_scores[0].level

    @property
    def level_scores(self) -> Scores | None:
        """The scores at the file's level; None where it has none."""
        return next((s for s in self.all_scores if s.level == self.level), None)


def content_of(
    circuit: Circuit | None, scores: Scores | Sequence[Scores] | None, d_model: int | None
) -> Content:
    """What a file of this circuit and these scores will say.

    Without `scores` it takes those that the circuit was extracted from. Raises `InterchangeError`
    where there is nothing to write, for different graphs or widths, two scores of one level, and
    infinite scores.
    """
    given = (scores,) if isinstance(scores, Scores) else tuple(scores or ())
    if not given and circuit is not None and circuit.scores is not None:
        given = (circuit.scores,)
    if circuit is None and not given:
        raise InterchangeError("there is nothing to write: give a circuit, scores, or both")
    graph = given[0].graph if circuit is None else circuit.graph
    if any(one.graph != graph for one in given):
        raise InterchangeError("a file holds one graph: give a circuit and scores of one model")
    if len({one.level for one in given}) < len(given):
        raise InterchangeError("a file holds one table of scores a level: give one for each level")
    for one in given:
        _refuse_infinite(one)
    return Content(
        graph,
        _width(circuit, given, d_model),
        edges=np.zeros_like(graph.edge_mask) if circuit is None else circuit.mask,
        nodes=_nodes_of(graph, circuit),
        neurons=None if circuit is None else circuit.neurons,
        tables={one.level: Table(one.values, one.standard_error) for one in given},
        extension=Extension(
            None if circuit is None else circuit.level,
            circuit is not None and circuit.neurons is not None,
            {one.level: (one.method, one.n_examples) for one in given},
        ),
    )


def imported(content: Content) -> Imported:
    """The circuit and the scores that a file speaks of.

    Raises `InterchangeError` where the memberships disagree: an edge leaves, or a neuron belongs
    to, a node that is not in the graph.
    """
    _check_agreement(content)
    graph, extension = content.graph, content.extension
    tables = dict(content.tables)
    members = bool(content.edges.any() or content.nodes.any())
    if extension is None:
        tables = _without_placeholders(graph, tables, members)
        has_circuit, level = members or not tables, _level(content, tables)
    else:
        tables = {
            level: tables.get(level) or _unscored(content, level) for level in extension.scores
        }
        has_circuit, level = extension.level is not None, extension.level or "edge"
    scores = {name: _scores(content, name, table) for name, table in tables.items()}
    circuit = None
    if has_circuit:
        named = extension is None or extension.neurons
        neurons = content.neurons if named else None
        circuit = Circuit(graph, content.edges, scores.get(level), neurons, level)
    edge, node, neuron = (scores.get(name) for name in LEVELS)
    return Imported(graph, content.d_model, circuit, edge, node, neuron, content.notes)


def check_scores(
    graph: Graph, level: str, values: Float[np.ndarray, "writers ..."], nan: bool
) -> None:
    """Raise `InterchangeError` at the first unit whose score is infinite, or NaN unless allowed."""
    units = graph.edge_mask if level == "edge" else np.ones(values.shape, bool)
    bad = np.argwhere(units & (np.isinf(values) if nan else ~np.isfinite(values)))
    if len(bad):
        raise InterchangeError(
            f"the score of {unit_name(graph, level, bad[0])} is {values[tuple(bad[0])]}, and a "
            f"score is a finite number: {_advice(level)}"
        )


def unit_name(graph: Graph, level: str, place: Sequence[int] | np.ndarray) -> str:
    """The name of the unit at a place in a table."""
    writer = graph.writers[place[0]]
    if level == "edge":
        return f"{writer}->{graph.readers[place[1]]}"
    return writer if level == "node" else f"{writer}[{place[1]}]"


def members_of(
    graph: Graph, marked: Bool[np.ndarray, "writers readers"]
) -> tuple[Bool[np.ndarray, "writers readers"], tuple[str, ...]]:
    """The marked edges, and a note where pairs that no edge joins were marked as well.

    Published selections of nodes and neurons mark whole rows. Such pairs carry nothing.
    """
    impossible = int((marked & ~graph.edge_mask).sum())
    if not impossible:
        return marked, ()
    return marked & graph.edge_mask, (
        f"{impossible} pairs of writer and reader that no edge joins were marked as members and "
        f"are left out",
    )


def _advice(level: str) -> str:
    return (
        "write 0.0 where an edge was not scored, or leave it out of a JSON file"
        if level == "edge"
        else "NaN stands for a unit that was not scored"
    )


def _refuse_infinite(scores: Scores) -> None:
    check_scores(scores.graph, scores.level, scores.values, nan=True)
    errors = scores.standard_error
    if np.isinf(errors).any():
        place = np.argwhere(np.isinf(errors))[0]
        raise InterchangeError(
            f"the standard error of {unit_name(scores.graph, scores.level, place)} is infinite: "
            f"write NaN where it is unknown"
        )


def _width(circuit: Circuit | None, scores: Sequence[Scores], d_model: int | None) -> int | None:
    """The width of the stream, which neurons and their scores give away."""
    widths = {one.values.shape[1] for one in scores if one.level == "neuron"}
    if circuit is not None and circuit.neurons is not None:
        widths.add(circuit.neurons.shape[1])
    if d_model is not None:
        widths.add(d_model)
    if len(widths) > 1:
        raise InterchangeError(
            f"the width of the stream is said to be {' and '.join(map(str, sorted(widths)))}: "
            f"give a circuit, scores and a d_model of one model"
        )
    return next(iter(widths), None)


def _nodes_of(graph: Graph, circuit: Circuit | None) -> Bool[np.ndarray, " writers"]:
    """The nodes that edges of a circuit touch or that have one of its neurons."""
    if circuit is None:
        return np.zeros(graph.n_writers, bool)
    nodes = circuit.node_mask[:-1]
    return nodes if circuit.neurons is None else nodes | circuit.neurons.any(axis=1)


def _check_agreement(content: Content) -> None:
    graph = content.graph
    for what, level, inside in (
        ("edge", "edge", content.edges),
        ("neuron", "neuron", content.neurons),
    ):
        if inside is None:
            continue
        stray = np.argwhere(inside & ~content.nodes[:, None])
        if len(stray):
            raise InterchangeError(
                f"the {what} {unit_name(graph, level, stray[0])} is in the graph, and the node "
                f"{graph.writers[stray[0][0]]} that writes it is not: mark both, or neither"
            )


def _without_placeholders(
    graph: Graph, tables: Mapping[str, Table], members: bool
) -> dict[str, Table]:
    """The tables that somebody filled: nodes and neurons start as NaN, edges as 0.0."""
    filled = {name: table for name, table in tables.items() if not np.isnan(table.values).all()}
    if "edge" in filled and (members or len(filled) > 1):
        values = filled["edge"].values[graph.edge_mask]
        if not np.abs(np.nan_to_num(values)).any():
            del filled["edge"]
    return filled


def _unscored(content: Content, level: str) -> Table:
    """The table of a level none of whose units has a score, which some formats leave out."""
    graph = content.graph
    if level == "neuron" and content.d_model is None:
        raise InterchangeError(_BAD_EXTENSION)
    shape = {
        "edge": graph.edge_mask.shape,
        "node": (graph.n_writers,),
        "neuron": (graph.n_writers, content.d_model or 0),
    }[level]
    return Table(np.full(shape, np.nan))


def _level(content: Content, tables: Mapping[str, Table]) -> str:
    """What was chosen in a foreign file: neurons, nodes with all edges between them, or edges."""
    if content.neurons is not None:
        return "neuron"
    whole = np.array_equal(content.edges, edges_between(content.graph, content.nodes))
    return "node" if whole and "node" in tables and "edge" not in tables else "edge"


def _scores(content: Content, level: str, table: Table) -> Scores:
    graph = content.graph
    units: Shaped[np.ndarray, "writers ..."]
    units = graph.edge_mask if level == "edge" else np.ones(table.values.shape, bool)
    errors = table.standard_error
    if errors is not None and (np.isinf(errors) | (errors < 0)).any():
        place = np.argwhere(np.isinf(errors) | (errors < 0))[0]
        raise InterchangeError(
            f"the standard error of {unit_name(graph, level, place)} is {errors[tuple(place)]}, "
            f"and must be 0 or larger: leave it out where it is unknown"
        )
    method, n_examples = content.extension.scores[level] if content.extension else ("", 0)
    return Scores(
        graph,
        np.where(units, table.values, 0.0),
        np.where(units, np.nan if errors is None else errors, 0.0),
        n_examples,
        method,
        level,
    )
