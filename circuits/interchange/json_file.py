"""Circuit files in JSON, as EAP-IG and the benchmark's circuit track read and write them.

    {"cfg": {"n_layers": 1, "n_heads": 1, "parallel_attn_mlp": false, "d_model": 2},
     "nodes": {"input": {"in_graph": true, "score": 0.5, "neurons": [true, false],
                         "neurons_scores": [0.1, 0.4]}, ...},
     "edges": {"input->a0.h0<q>": {"score": 0.25, "in_graph": true}, ...}}

A node may be its `in_graph` alone, as older files have it. Nodes and edges that are not named are
out and have no score, like edges without a `score` and nodes whose `score` is NaN. Every number is
written with as many digits as bring it back bit for bit.

Files written here name every edge with a score, which those tools demand: an edge without one has
0.0 and `"scored": false` beside it. At neuron level a `.pt` file is the better choice: EAP-IG gives
all heads of a layer the neurons of its last one when it reads JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Float

from circuits.errors import InterchangeError
from circuits.graph import Graph
from circuits.interchange.cfg import cfg_of, graph_from_cfg, kind_of, naming, refuse_hollow, shown
from circuits.interchange.content import (
    EXTENSION,
    Content,
    Extension,
    Table,
    check_scores,
)

KEYS = ("cfg", "nodes", "edges")
T = TypeVar("T")


def read(data: bytes, graph: Graph | None, d_model: int | None) -> Content:
    """What a file of these bytes says.

    Raises `InterchangeError` for anything that is not JSON, lacks a key, names what the graph does
    not have or, without a `graph`, next to nothing of a large one, or has another kind of value
    than belongs at a place.
    """
    document = _object(_parse(data), "the file")
    for key in KEYS:
        if key not in document:
            raise InterchangeError(
                f"the key {key!r} is missing: a circuit file has {', '.join(KEYS)}"
            )
    if "neurons" in document:
        raise InterchangeError(
            "'neurons' stands beside 'nodes', as no current tool reads it: "
            "put each list under its node"
        )
    expected = graph
    graph, d_model = graph_from_cfg(document["cfg"], expected, d_model)
    if expected is None:
        refuse_hollow(graph, d_model, len(data))
    extension = None
    if EXTENSION in document:
        extension = Extension.from_plain(document[EXTENSION])
    nodes, neurons, tables = _read_nodes(_object(document["nodes"], "nodes"), graph, d_model)
    edges, edge_table = _read_edges(_object(document["edges"], "edges"), graph)
    if edge_table is not None:
        tables["edge"] = edge_table
    return Content(graph, d_model, edges, nodes, neurons, tables, extension)


def write(content: Content) -> bytes:
    """The bytes of the file. Raises `InterchangeError` for a graph or width that it cannot say."""
    document: dict[str, Any] = {"cfg": cfg_of(content.graph, content.d_model)}
    document["nodes"] = _written_nodes(content)
    document["edges"] = _written_edges(content)
    if content.extension is not None:
        document[EXTENSION] = content.extension.to_plain()
    return json.dumps(document).encode()


def _parse(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_without_duplicates)
    except UnicodeDecodeError as error:
        raise InterchangeError(
            f"byte {error.start} is not UTF-8: write the file as UTF-8 text"
        ) from None
    except json.JSONDecodeError as error:
        raise InterchangeError(
            f"line {error.lineno}, column {error.colno} is not JSON ({error.msg}): the file is "
            f"damaged or cut short, get it again"
        ) from None
    except RecursionError:
        raise InterchangeError(
            "objects lie too deep in one another: a circuit file has four levels"
        ) from None
    except InterchangeError:
        raise
    except ValueError:  # a number of thousands of digits
        raise InterchangeError("a number has too many digits: scores are 64-bit numbers") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    plain = dict(pairs)
    if len(plain) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise InterchangeError(
                    f"the key {shown(key)} stands twice in one object: take one of them out"
                )
            seen.add(key)
    return plain


def _read_nodes(
    plain: Mapping[str, Any], graph: Graph, d_model: int | None
) -> tuple[
    Bool[np.ndarray, " writers"], Bool[np.ndarray, "writers d_model"] | None, dict[str, Table]
]:
    index = {name: i for i, name in enumerate(graph.writers)}
    inside = np.zeros(graph.n_writers, bool)
    rows: dict[str, dict[int, Any]] = {
        key: {} for key in ("score", "standard_error", "neurons", "neurons_scores", STANDARD_ERRORS)
    }
    for name, entry in plain.items():
        place = f"nodes[{shown(name)}]"
        if name not in index and name != "logits":
            raise InterchangeError(f"{place} is no node: {naming(graph)}")
        if isinstance(entry, bool):
            entry = {"in_graph": entry}
        is_in = _in_graph(_object(entry, place), place)
        if name == "logits":
            continue  # always in, and never scored
        inside[index[name]] = is_in
        for key, read_as in (("score", _number), ("standard_error", _number)):
            if entry.get(key) is not None:
                rows[key][index[name]] = read_as(entry[key], f"{place}.{key}")
        for key, one in (
            ("neurons", _bit),
            ("neurons_scores", _number),
            (STANDARD_ERRORS, _number),
        ):
            if entry.get(key) is not None:
                rows[key][index[name]] = _list(entry[key], d_model, f"{place}.{key}", one)
    shapes: dict[str, tuple[int, ...]] = {
        "node": (graph.n_writers,),
        "neuron": (graph.n_writers, d_model or 0),
    }
    tables = {}
    for level, scores, errors in (
        ("node", "score", "standard_error"),
        ("neuron", "neurons_scores", STANDARD_ERRORS),
    ):
        if rows[scores] or rows[errors]:
            values = _filled(rows[scores], shapes[level])
            check_scores(graph, level, values, nan=True)
            tables[level] = Table(values, _filled(rows[errors], shapes[level]))
    neurons = None
    if rows["neurons"]:
        neurons = np.zeros(shapes["neuron"], bool)
        neurons[list(rows["neurons"])] = list(rows["neurons"].values())
    return inside, neurons, tables


STANDARD_ERRORS = "neurons_standard_errors"


def _read_edges(
    plain: Mapping[str, Any], graph: Graph
) -> tuple[Bool[np.ndarray, "writers readers"], Table | None]:
    writers = {name: i for i, name in enumerate(graph.writers)}
    readers = {name: i for i, name in enumerate(graph.readers)}
    edge_mask = graph.edge_mask.tolist()
    members, scores, known = [], [], []  # places, with what stands there
    for name, entry in plain.items():
        writer, _, reader = name.partition("->")
        u, v = writers.get(writer, -1), readers.get(reader, -1)
        if min(u, v) < 0 or not edge_mask[u][v]:
            raise InterchangeError(f"edges[{shown(name)}] is no edge: {naming(graph)}")
        place = f'edges["{name}"]'
        entry = _object(entry, place)
        if _in_graph(entry, place):
            members.append((u, v))
        if entry.get("standard_error") is not None:
            known.append((u, v, _number(entry["standard_error"], f"{place}.standard_error")))
        if entry.get("score") is None or entry.get("scored") is False:
            continue
        score = _number(entry["score"], f"{place}.score")
        if not math.isfinite(score):
            raise InterchangeError(
                f"{place}.score is {score}, and a score is a finite number: "
                f"take the key out where an edge was not scored"
            )
        scores.append((u, v, score))
    inside = np.zeros_like(graph.edge_mask)
    if members:
        inside[tuple(np.array(members).T)] = True
    if not scores and not known:
        return inside, None
    values, errors = (np.full(inside.shape, np.nan) for _ in range(2))
    for array, found in ((values, scores), (errors, known)):
        for u, v, number in found:
            array[u, v] = number
    return inside, Table(values, errors)


def _written_nodes(content: Content) -> dict[str, dict[str, Any]]:
    node_table, neuron_table = content.tables.get("node"), content.tables.get("neuron")
    neurons = content.neurons
    if neurons is None and neuron_table is not None:  # the published readers want both
        neurons = np.zeros(neuron_table.values.shape, bool)
    entries = {}
    for i, name in enumerate(content.graph.writers):
        entry: dict[str, Any] = {"in_graph": bool(content.nodes[i])}
        if node_table is not None and not np.isnan(node_table.values[i]):
            entry["score"] = float(node_table.values[i])
        node_errors = None if node_table is None else node_table.standard_error
        if node_errors is not None and not np.isnan(node_errors[i]):
            entry["standard_error"] = float(node_errors[i])
        if neurons is not None:
            entry["neurons"] = neurons[i].tolist()
        if neuron_table is not None:
            if not np.isnan(neuron_table.values[i]).all():
                entry["neurons_scores"] = _plain(neuron_table.values[i])
            errors = neuron_table.standard_error
            if errors is not None and not np.isnan(errors[i]).all():
                entry[STANDARD_ERRORS] = _plain(errors[i])
        entries[name] = entry
    return {**entries, "logits": {"in_graph": True}}


def _written_edges(content: Content) -> dict[str, dict[str, Any]]:
    graph, table = content.graph, content.tables.get("edge")
    places, inside = np.argwhere(graph.edge_mask).tolist(), content.edges[graph.edge_mask].tolist()
    unknown = [math.nan] * len(places)
    columns = (None, None) if table is None else (table.values, table.standard_error)
    scores, errors = (
        unknown if column is None else _plain(column[graph.edge_mask]) for column in columns
    )
    entries = {}
    for (u, v), is_in, score, error in zip(places, inside, scores, errors, strict=True):
        scored = score == score  # and no NaN
        entry = {"score": score if scored else 0.0, "in_graph": is_in}
        if table is not None and not scored:
            entry["scored"] = False
        if error == error:
            entry["standard_error"] = error
        entries[f"{graph.writers[u]}->{graph.readers[v]}"] = entry
    return entries


def _plain(row: Float[np.ndarray, " units"]) -> list[float]:
    return np.asarray(row, float).tolist()


def _filled(rows: Mapping[int, Any], shape: tuple[int, ...]) -> Float[np.ndarray, "writers ..."]:
    """A table with these rows, and NaN elsewhere."""
    table = np.full(shape, np.nan)
    if rows:
        table[list(rows)] = np.array(list(rows.values()), dtype=float)
    return table


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InterchangeError(f"{place} is {kind_of(value)}, and must be an object of named parts")
    return value


def _in_graph(entry: Mapping[str, Any], place: str) -> bool:
    if "in_graph" not in entry:
        raise InterchangeError(f"{place}.in_graph is missing: write true or false")
    if not isinstance(entry["in_graph"], bool):
        raise InterchangeError(
            f"{place}.in_graph is {shown(entry['in_graph'])}: write true or false"
        )
    return entry["in_graph"]


def _number(value: Any, place: str) -> float:
    """A number as a 64-bit one; NaN is left to whoever may have it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InterchangeError(f"{place} is {shown(value)}, and must be a number")
    try:
        return float(value)
    except OverflowError:
        raise InterchangeError(f"{place} is too large for a 64-bit number: correct it") from None


def _bit(value: Any, place: str) -> bool:
    if value not in (0, 1):
        raise InterchangeError(f"{place} is {shown(value)}: write true or false")
    return bool(value)


def _list(values: Any, d_model: int | None, place: str, one: Callable[[Any, str], T]) -> list[T]:
    """A list of one value for each dimension of the stream."""
    if d_model is None:
        raise InterchangeError(f"{place} needs cfg.d_model, which is missing: add it")
    if not isinstance(values, list) or len(values) != d_model:
        found = f"a list of {len(values)}" if isinstance(values, list) else kind_of(values)
        raise InterchangeError(
            f"{place} is {found}, and must be a list of {d_model}, one for each dimension"
        )
    return [one(value, f"{place}[{i}]") for i, value in enumerate(values)]
