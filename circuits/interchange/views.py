"""A circuit as a networkx graph, as GraphML, and as a table.

The graph has a node for every component that the circuit holds and an edge for every edge in it:
several lead to a head, one for each of its inputs. Nodes have `kind` (input, head, mlp, logits; kv
where heads share a key and a value) and `layer` (−1 for `input`, the number of layers for
`logits`); edges have the name of their `reader` and its `kind` (q, k, v, mlp, logits). Scores
stand beside, where there are any. The graph as a whole knows the shape of the model, so that a
GraphML file can be read back.

GraphML holds a circuit alone: the scores of what is not in it are left out.
"""

from __future__ import annotations

import importlib
import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from circuits.circuit import Circuit
from circuits.errors import InterchangeError
from circuits.graph import Graph
from circuits.interchange.cfg import graph_from_cfg, naming, shown
from circuits.interchange.content import (
    EXTENSION,
    Content,
    Extension,
    Table,
    check_scores,
    content_of,
)
from circuits.scores import LEVELS, PartialScores, Scores

if TYPE_CHECKING:
    import networkx  # type: ignore[import-untyped]
    import pandas as pd

Attributes = dict[str, str | int | float | bool]

NAMESPACE = "{http://graphml.graphdrawing.org/xmlns}"
_TYPES = {str: "string", bool: "boolean", int: "int", float: "double"}
_LISTS = {"scores": "neurons_scores", "errors": "neurons_standard_errors"}


def to_networkx(
    circuit: Circuit, scores: Scores | Sequence[Scores] | None = None
) -> networkx.MultiDiGraph:
    """The circuit as a directed graph with parallel edges, each under its own name as its key.

    `scores` are those of any levels (None: those that the circuit was extracted from). Raises
    `InterchangeError` where networkx is not installed.
    """
    try:
        networkx = importlib.import_module("networkx")
    except ImportError:
        raise InterchangeError(
            "networkx is not installed, and this view is made of it: pip install networkx"
        ) from None
    content = content_of(circuit, scores, None)
    graph = networkx.MultiDiGraph(**_graph_attributes(content))
    for name, attributes in _nodes(content):
        graph.add_node(name, **attributes)
    for source, target, name, attributes in _edges(content):
        graph.add_edge(source, target, key=name, **attributes)
    return graph


def to_pandas(circuit: Circuit, scores: Scores | None = None) -> pd.DataFrame:
    """One row a member of the circuit's level, as `Scores.to_pandas` names and orders them.

    Edges have edge, writer, reader and kind; nodes have node, kind and layer; neurons have neuron,
    node and dimension. Where the circuit was extracted from scores of its level, or `scores` are
    given, score and standard_error follow.
    """
    given = scores if scores is not None else circuit.scores
    if given is not None and given.graph != circuit.graph:
        raise InterchangeError("the scores belong to another graph: give those of one model")
    if given is not None and given.level != circuit.level:
        if scores is not None:
            raise InterchangeError(
                f"the circuit was chosen by {circuit.level}s, and these are scores of "
                f"{given.level}s: give scores of {circuit.level}s"
            )
        given = None
    if given is None:
        width = None if circuit.neurons is None else circuit.neurons.shape[1]
        nothing = PartialScores.zero(circuit.graph, circuit.level, width).total
        bare = Scores(circuit.graph, nothing, nothing, 0, level=circuit.level).to_pandas()
        table = bare.drop(columns=["score", "standard_error"])
    else:
        table = given.to_pandas()
    return table[circuit.unit_mask].reset_index(drop=True)


def write(content: Content) -> bytes:
    """The circuit as GraphML. Raises `InterchangeError` where there is none."""
    if content.extension is None or content.extension.level is None:
        raise InterchangeError(
            "GraphML holds a circuit, and these are scores alone: extract a circuit, or write JSON"
        )
    root = ET.Element("graphml", xmlns=NAMESPACE[1:-1])
    keys: dict[tuple[str, str], str] = {}
    graph = ET.Element("graph", id="circuit", edgedefault="directed")
    extension = json.dumps(content.extension.to_plain())
    _add_data(graph, {**_graph_attributes(content), EXTENSION: extension}, "graph", keys, root)
    for name, attributes in _nodes(content):
        _add_data(ET.SubElement(graph, "node", id=name), attributes, "node", keys, root)
    for source, target, name, attributes in _edges(content):
        edge = ET.SubElement(graph, "edge", id=name, source=source, target=target)
        _add_data(edge, attributes, "edge", keys, root)
    root.append(graph)
    ET.indent(root)
    return ET.tostring(root, encoding="utf-8", xml_declaration=True)


def read(data: bytes, graph: Graph | None, d_model: int | None) -> Content:
    """What a GraphML file with the attributes written here says.

    Raises `InterchangeError` for what is not XML, declares entities, lacks an attribute or names
    what the graph does not have.
    """
    drawn, keys = _parse(data)
    about = _attributes(drawn, keys, "the graph")
    graph, d_model = graph_from_cfg(about, graph, d_model, may_group=True)
    extension = None
    if EXTENSION in about:
        try:
            plain = json.loads(str(about[EXTENSION]))
        except (ValueError, RecursionError):
            plain = None
        extension = Extension.from_plain(plain)
    elif about.get("level") in LEVELS:  # written from the networkx view
        extension = Extension(about["level"], about["level"] == "neuron", {})
    writers = {name: i for i, name in enumerate(graph.writers)}
    readers = {name: i for i, name in enumerate(graph.readers)}
    boxes = {*graph.nodes, *(name.split("<")[0] for name in graph.readers)}
    nodes = np.zeros(graph.n_writers, bool)
    rows = _Rows(graph, d_model)
    for element in drawn.iter(f"{NAMESPACE}node"):
        name = element.get("id", "")
        if name not in boxes:
            raise InterchangeError(f"node {shown(name)} is unknown: {naming(graph)}")
        if name in writers:
            nodes[writers[name]] = True
            rows.add_node(writers[name], _attributes(element, keys, f"node {name}"), name)
    edges = np.zeros_like(graph.edge_mask)
    for element in drawn.iter(f"{NAMESPACE}edge"):
        source = element.get("source", "")
        attributes = _attributes(element, keys, f"edge {shown(element.get('id', ''))}")
        reader = str(attributes.get("reader", element.get("target", "")))
        u, v = writers.get(source, -1), readers.get(reader, -1)
        if min(u, v) < 0 or not graph.edge_mask[u, v]:
            raise InterchangeError(f"edge {shown(f'{source}->{reader}')} is none: {naming(graph)}")
        if edges[u, v]:
            raise InterchangeError(f"edge {source}->{reader} stands twice: take one of them out")
        edges[u, v] = True
        rows.add_edge(u, v, attributes)
    for level, table in rows.tables.items():
        check_scores(graph, level, table.values, nan=True)
    neurons = rows.neurons
    if neurons is None and extension is not None and extension.neurons:
        neurons = np.zeros((graph.n_writers, d_model or 0), bool)  # a circuit without any node
    if extension is not None and EXTENSION not in about:
        extension = replace(extension, scores=dict.fromkeys(rows.tables, ("", 0)))
    return Content(graph, d_model, edges, nodes, neurons, rows.tables, extension)


class _Rows:
    """The tables that the attributes of nodes and edges fill, one after another."""

    def __init__(self, graph: Graph, d_model: int | None) -> None:
        self.graph, self.d_model = graph, d_model
        self.tables: dict[str, Table] = {}
        self.neurons: np.ndarray | None = None

    def add_node(self, row: int, attributes: Mapping[str, Any], name: str) -> None:
        """Take in a node's score and its neurons."""
        self._add("node", row, attributes)
        bits = attributes.get("neurons")
        if bits is not None:
            self._check(len(str(bits)), f"node {name}: neurons")
            if set(str(bits)) - {"0", "1"}:
                raise InterchangeError(f"node {name}: neurons must be a row of 0 and 1")
            if self.neurons is None:
                self.neurons = np.zeros((self.graph.n_writers, self.d_model or 0), bool)
            self.neurons[row] = [bit == "1" for bit in str(bits)]
        for part, key in _LISTS.items():
            if key in attributes:
                words = str(attributes[key]).split()
                self._check(len(words), f"node {name}: {key}")
                values = [_number(word, f"node {name}: {key}") for word in words]
                table = self._table("neuron", (self.graph.n_writers, self.d_model or 0))
                assert table.standard_error is not None
                (table.values if part == "scores" else table.standard_error)[row] = values

    def add_edge(self, row: int, column: int, attributes: Mapping[str, Any]) -> None:
        """Take in an edge's score."""
        self._add("edge", (row, column), attributes)

    def _add(self, level: str, place: Any, attributes: Mapping[str, Any]) -> None:
        shape = self.graph.edge_mask.shape if level == "edge" else (self.graph.n_writers,)
        for key in ("score", "standard_error"):
            if key in attributes:
                table = self._table(level, shape)
                assert table.standard_error is not None
                array = table.values if key == "score" else table.standard_error
                array[place] = attributes[key]

    def _table(self, level: str, shape: tuple[int, ...]) -> Table:
        if level not in self.tables:
            self.tables[level] = Table(np.full(shape, np.nan), np.full(shape, np.nan))
        return self.tables[level]

    def _check(self, found: int, place: str) -> None:
        if found != self.d_model:
            raise InterchangeError(
                f"{place} has {found} entries, and d_model is {self.d_model}: give one for each "
                f"dimension"
            )


def _parse(data: bytes) -> tuple[ET.Element, dict[str, tuple[str, str]]]:
    """The graph element, and the name and type of every key."""
    try:
        text = data.decode("utf-8-sig")
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise InterchangeError("the file declares XML entities, which are never read: remove "
                                   "the declaration")  # fmt: skip
        root = ET.fromstring(text)
    except UnicodeDecodeError as error:
        raise InterchangeError(
            f"byte {error.start} is not UTF-8: write the file as UTF-8 text"
        ) from None
    except (ET.ParseError, LookupError) as error:
        raise InterchangeError(
            f"this is not XML ({error}): the file is damaged or cut short, get it again"
        ) from None
    drawn = root.find(f"{NAMESPACE}graph")
    if root.tag != f"{NAMESPACE}graphml" or drawn is None:
        raise InterchangeError("this is XML without a graphml element and a graph in it: give a "
                               "file that was written as GraphML")  # fmt: skip
    keys = {
        key.get("id", ""): (key.get("attr.name", ""), key.get("attr.type", "string"))
        for key in root.iter(f"{NAMESPACE}key")
    }
    return drawn, keys


def _attributes(
    element: ET.Element, keys: Mapping[str, tuple[str, str]], place: str
) -> dict[str, Any]:
    """The values that stand directly under an element, by name."""
    values: dict[str, Any] = {}
    for data in element.findall(f"{NAMESPACE}data"):
        name, kind = keys.get(data.get("key", ""), ("", "string"))
        text = data.text or ""
        if name in values:
            raise InterchangeError(f"{place}: {shown(name)} stands twice: take one of them out")
        if kind in ("double", "float"):
            values[name] = _number(text, f"{place}: {name}")
        elif kind in ("int", "long"):
            values[name] = _whole(text, f"{place}: {name}")
        elif kind == "boolean":
            values[name] = {"true": True, "false": False}.get(text.strip().lower())
        else:
            values[name] = text
    for key in ("score", "standard_error"):
        value = values.get(key, 0.0)
        if isinstance(value, str | bool | None) or math.isnan(value):
            raise InterchangeError(
                f"{place}: {key} is {shown(value)}, and must be a number declared as a double: "
                f"take it out where there is none"
            )
    return values


def _number(text: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise InterchangeError(f"{place} is {shown(text)}, and must be a number") from None
    if math.isinf(value):
        raise InterchangeError(f"{place} is infinite, and must be a finite number")
    return value


def _whole(text: str, place: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InterchangeError(f"{place} is {shown(text)}, and must be a whole number") from None


def _graph_attributes(content: Content) -> Attributes:
    graph, extension = content.graph, content.extension
    attributes: Attributes = {
        "n_layers": graph.n_layers,
        "n_heads": graph.n_heads,
        "n_kv_heads": graph.n_kv_heads,
        "parallel_attn_mlp": graph.parallel,
    }
    if content.d_model is not None:
        attributes["d_model"] = content.d_model
    if extension is not None and extension.level is not None:
        attributes["level"] = extension.level
    return attributes


def _nodes(content: Content) -> Iterator[tuple[str, Attributes]]:
    """Every node that the circuit holds, and the ends of its edges, with their attributes."""
    graph = content.graph
    ends = {graph.readers[v].split("<")[0] for v in np.flatnonzero(content.edges.any(axis=0))}
    node_table, neuron_table = content.tables.get("node"), content.tables.get("neuron")
    for i, name in enumerate(graph.writers):
        if not content.nodes[i] and name not in ends:
            continue
        attributes = _place(graph, name)
        if node_table is not None:
            _add_score(attributes, node_table, i)
        if content.neurons is not None:
            attributes["neurons"] = "".join("1" if bit else "0" for bit in content.neurons[i])
        if neuron_table is not None:
            attributes[_LISTS["scores"]] = _words(neuron_table.values[i])
            if neuron_table.standard_error is not None:
                attributes[_LISTS["errors"]] = _words(neuron_table.standard_error[i])
        yield name, attributes
    for name in sorted(ends.difference(graph.writers)):
        yield name, _place(graph, name)


def _edges(content: Content) -> Iterator[tuple[str, str, str, Attributes]]:
    """Every edge of the circuit: its ends, its name and its attributes."""
    graph, table = content.graph, content.tables.get("edge")
    for u, v in np.argwhere(content.edges):
        writer, reader = graph.writers[u], graph.readers[v]
        attributes: Attributes = {"reader": reader, "kind": graph.reader_kinds[v]}
        if table is not None:
            _add_score(attributes, table, (u, v))
        yield writer, reader.split("<")[0], f"{writer}->{reader}", attributes


def _place(graph: Graph, name: str) -> Attributes:
    if name in ("input", "logits"):
        return {"kind": name, "layer": -1 if name == "input" else graph.n_layers}
    if name.startswith("m"):
        return {"kind": "mlp", "layer": int(name[1:])}
    layer, _, own = name[1:].partition(".")
    return {"kind": "kv" if own.startswith("kv") else "head", "layer": int(layer)}


def _add_score(attributes: Attributes, table: Table, place: Any) -> None:
    if not np.isnan(table.values[place]):
        attributes["score"] = float(table.values[place])
    if table.standard_error is not None and not np.isnan(table.standard_error[place]):
        attributes["standard_error"] = float(table.standard_error[place])


def _words(row: np.ndarray) -> str:
    return " ".join(repr(float(value)) for value in row)


def _add_data(
    element: ET.Element,
    attributes: Attributes,
    domain: str,
    keys: dict[tuple[str, str], str],
    root: ET.Element,
) -> None:
    """Write attributes under an element; each is declared when it first comes up."""
    for name, value in attributes.items():
        if (domain, name) not in keys:
            keys[domain, name] = f"{domain}_{name}"
            kind = _TYPES[type(value)]
            ET.SubElement(
                root, "key",
                {"id": f"{domain}_{name}", "for": domain, "attr.name": name, "attr.type": kind},
            )  # fmt: skip
        text = str(value).lower() if isinstance(value, bool) else str(value)
        ET.SubElement(element, "data", key=keys[domain, name]).text = text
