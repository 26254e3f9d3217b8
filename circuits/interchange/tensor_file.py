"""Circuit files of tensors (`.pt`), as EAP-IG and the benchmark's circuit track have them.

A dictionary with `cfg` (as in JSON), `src_nodes` and `dst_nodes` (the writers' and the readers'
names), `edges_scores` and `edges_in_graph` `[writers, readers]`, `nodes_in_graph` `[writers]`, and
where there are any `nodes_scores` `[writers]`, `neurons_in_graph` and `neurons_scores`
`[writers, d_model]`. Rows and columns are found by their names, whatever their order. Scores may be
of any floating type; they are kept bit for bit. Entries where there is no edge are not read.

Older files are read as well: `edges` for `edges_scores`, and `src_nodes` that maps each name to
whether it is in the graph. Files written here have tensors of standard errors beside, and
`edges_scored`, which is false where an edge has a 0.0 for want of a score.

A `.pt` file is a pickle in a zip archive, and a pickle can name any function to be called. What a
file names is looked at before anything is loaded; nothing but tensors is ever rebuilt, and torch's
own `weights_only` loader checks it again.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from circuits.errors import InterchangeError
from circuits.graph import Graph
from circuits.interchange.cfg import cfg_of, graph_from_cfg, kind_of, naming, shown
from circuits.interchange.content import (
    EXTENSION,
    Content,
    Extension,
    Table,
    check_scores,
    members_of,
)

KEYS = ("cfg", "src_nodes", "dst_nodes", "edges_in_graph")
_SCORES = {"edge": "edges_scores", "node": "nodes_scores", "neuron": "neurons_scores"}
_ERRORS = {level: key.replace("scores", "standard_errors") for level, key in _SCORES.items()}
_REBUILDING = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch device",
    "torch Size",
}
# whatever a damaged file makes the two readers of archives and pickles raise
_DAMAGE = (
    *(ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError, OverflowError),
    *(RuntimeError, EOFError, OSError, MemoryError, struct.error, zlib.error),
    *(pickle.UnpicklingError, zipfile.BadZipFile),
)


def read(data: bytes, graph: Graph | None, d_model: int | None) -> Content:
    """What a file of these bytes says.

    Raises `InterchangeError` for anything that is not a dictionary of plain values and tensors
    saved by torch, lacks a key, has another shape than its names, or scores that are not finite.
    """
    document = _load(data)
    for key in KEYS:
        if key not in document:
            raise InterchangeError(
                f"the key {key!r} is missing: a circuit file has {', '.join(KEYS)} and "
                f"nodes_in_graph"
            )
    graph, d_model = graph_from_cfg(document["cfg"], graph, d_model)
    rows = _order(document["src_nodes"], graph.writers, "src_nodes", graph)
    columns = _order(document["dst_nodes"], graph.readers, "dst_nodes", graph)
    shapes = {
        "edge": (graph.n_writers, graph.n_readers),
        "node": (graph.n_writers,),
        "neuron": (graph.n_writers, d_model or 0),
    }

    def floats(key: str, level: str) -> Float[np.ndarray, "writers ..."]:
        array = _floats(document[key], key, shapes[level])[rows]
        return array[:, columns] if level == "edge" else array

    def bits(key: str, level: str) -> Bool[np.ndarray, "writers ..."]:
        array = _bits(document[key], key, shapes[level])[rows]
        return array[:, columns] if level == "edge" else array

    tables = {}
    for level, key in _SCORES.items():
        key = "edges" if level == "edge" and key not in document else key
        if document.get(key) is None:
            continue
        values = floats(key, level)
        check_scores(graph, level, values, nan=level != "edge")
        if level == "edge" and "edges_scored" in document:
            values = np.where(bits("edges_scored", level), values, np.nan)
        known = document.get(_ERRORS[level]) is not None
        tables[level] = Table(values, floats(_ERRORS[level], level) if known else None)
    edges, notes = members_of(graph, bits("edges_in_graph", "edge"))
    if "nodes_in_graph" in document:
        nodes = bits("nodes_in_graph", "node")
    else:
        nodes = _named_nodes(document["src_nodes"])[rows]
    neurons = None
    if document.get("neurons_in_graph") is not None:
        neurons = bits("neurons_in_graph", "neuron")
    extension = None
    if EXTENSION in document:
        extension = Extension.from_plain(document[EXTENSION])
    return Content(graph, d_model, edges, nodes, neurons, tables, extension, notes)


def write(content: Content) -> bytes:
    """The bytes of the file. Raises `InterchangeError` for a graph or width that it cannot say."""
    graph, edge_table = content.graph, content.tables.get("edge")
    document: dict[str, Any] = {
        "cfg": cfg_of(content.graph, content.d_model),
        "src_nodes": list(graph.writers),
        "dst_nodes": list(graph.readers),
    }
    scored = np.zeros_like(graph.edge_mask)
    if edge_table is not None:
        scored = ~np.isnan(edge_table.values)
        document["edges_scores"] = _tensor(np.where(scored, edge_table.values, 0.0))
    else:
        document["edges_scores"] = torch.zeros(graph.edge_mask.shape)
    if edge_table is not None and not scored.all():
        document["edges_scored"] = _tensor(scored)
    document["edges_in_graph"] = _tensor(content.edges)
    document["nodes_in_graph"] = _tensor(content.nodes)
    neurons, neuron_table = content.neurons, content.tables.get("neuron")
    if neurons is None and neuron_table is not None:  # the published readers want both
        neurons = np.zeros(neuron_table.values.shape, bool)
    if neurons is not None:
        document["neurons_in_graph"] = _tensor(neurons)
    for level, table in content.tables.items():
        if level != "edge":
            document[_SCORES[level]] = _tensor(table.values)
        if table.standard_error is not None:
            document[_ERRORS[level]] = _tensor(table.standard_error)
    if content.extension is not None:
        document[EXTENSION] = content.extension.to_plain()
    buffer = io.BytesIO()
    torch.save(document, buffer)
    return buffer.getvalue()


def _load(data: bytes) -> Mapping[str, Any]:
    """The dictionary in an archive, after a look at what its pickle names."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            packed = [entry for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
            pickles = [entry for entry in entries if entry.filename.lower().endswith(".pkl")]
            programs = [] if packed else [archive.read(entry) for entry in pickles]
            broken = None if packed else archive.testzip()  # torch does not check the sums
    except _DAMAGE:
        raise InterchangeError(
            "this is no archive that torch.save (1.6 or later) wrote, or it is damaged or cut "
            "short: get it again, or save it again with torch.save"
        ) from None
    if packed:
        raise InterchangeError(
            f"the part {shown(packed[0].filename)} is compressed, which torch.save never does and "
            f"which hides its size: save the file again with torch.save"
        )
    if broken is not None:
        raise InterchangeError(
            f"the part {shown(broken)} does not match its checksum: the file is damaged, "
            f"get it again"
        )
    for program in programs:
        _refuse_code(program)
    try:
        document = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InterchangeError(
            f"torch cannot load it as plain tensors ({reason[0][:120]}): get it again, or save it "
            f"again with torch.save"
        ) from None
    if not isinstance(document, Mapping):
        raise InterchangeError(
            f"the file holds {kind_of(document)}, and must hold a dictionary with "
            f"{', '.join(KEYS)} and nodes_in_graph"
        )
    return document


def _refuse_code(program: bytes) -> None:
    """Raise `InterchangeError` where a pickle names anything but what tensors are rebuilt from."""
    try:
        for operation, argument, _ in pickletools.genops(program):
            if operation.name in ("GLOBAL", "INST") and not _is_tensor_part(str(argument)):
                name = str(argument).replace(" ", ".")
                raise InterchangeError(
                    f"the file contains code (it names {shown(name)}), which is never run: ask for "
                    f"a file of plain values and tensors, or for JSON"
                )
            if operation.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
                raise InterchangeError(
                    "the file contains names that are put together while it loads, which hides "
                    "code: ask for a file that torch.save wrote with its own settings, or for JSON"
                )
    except InterchangeError:
        raise
    except _DAMAGE:
        raise InterchangeError(
            "the pickle in the archive is damaged or cut short: get it again"
        ) from None


def _is_tensor_part(name: str) -> bool:
    module, _, attribute = name.partition(" ")
    if module == "torch" and attribute.endswith("Storage"):
        return True
    return name in _REBUILDING or (
        module == "torch" and isinstance(getattr(torch, attribute, None), torch.dtype)
    )


def _order(names: Any, expected: Sequence[str], key: str, graph: Graph) -> list[int]:
    """Where each expected name stands in a file."""
    listed = list(names) if isinstance(names, list | tuple | Mapping) else None
    if listed is None or not all(isinstance(name, str) for name in listed):
        raise InterchangeError(f"{key} is {kind_of(names)}, and must be a list of names")
    place = {name: i for i, name in enumerate(listed)}
    unknown = sorted(place.keys() - set(expected))
    if unknown:
        raise InterchangeError(f"{key} has {shown(unknown[0])}, which is unknown: {naming(graph)}")
    missing = [name for name in expected if name not in place]
    if missing:
        raise InterchangeError(f"{key} lacks {missing[0]}: name all {len(expected)}")
    if len(place) < len(listed):
        twice = next(name for i, name in enumerate(listed) if place[name] != i)
        raise InterchangeError(f"{key} has {twice} twice: name each once")
    return [place[name] for name in expected]


def _named_nodes(named: Any) -> Bool[np.ndarray, " writers"]:
    """Which nodes are in, where older files say it beside the nodes' names."""
    if not isinstance(named, Mapping):
        raise InterchangeError("the key 'nodes_in_graph' is missing: say which nodes are in")
    wrong = [name for name, inside in named.items() if not _is_bit(inside)]
    if wrong:
        raise InterchangeError(f"src_nodes[{shown(wrong[0])}] must be true or false")
    return np.array([bool(inside) for inside in named.values()])


def _is_bit(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.numel() == 1 and value.dtype == torch.bool
    return isinstance(value, bool)


def _floats(value: Any, key: str, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    tensor = _shaped(value, key, shape)
    if not tensor.is_floating_point():
        raise InterchangeError(
            f"{key} is a tensor of {_dtype(tensor)}, and must be of floating-point numbers"
        )
    return tensor.to(torch.float64).numpy()


def _bits(value: Any, key: str, shape: tuple[int, ...]) -> Bool[np.ndarray, "..."]:
    tensor = _shaped(value, key, shape)
    if not ((tensor == 0) | (tensor == 1)).all():
        raise InterchangeError(
            f"{key} is a tensor of {_dtype(tensor)} with other values than 0 and 1: "
            f"write true or false"
        )
    return tensor.to(torch.bool).numpy()


def _shaped(value: Any, key: str, shape: tuple[int, ...]) -> torch.Tensor:
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        raise InterchangeError(f"{key} is {kind_of(value)}, and must be a dense tensor")
    if shape[-1] == 0:
        raise InterchangeError(f"{key} needs cfg.d_model, which is missing: add it")
    if tuple(value.shape) != shape:
        raise InterchangeError(
            f"{key} has the shape {tuple(value.shape)}, and the names and cfg make it {shape}: "
            f"save the tensors of one model"
        )
    return value.detach()


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(array))
