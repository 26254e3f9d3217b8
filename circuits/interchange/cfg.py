"""The shape of a model as published circuit files have it, and how messages speak of it.

`cfg` has `n_layers`, `n_heads`, `parallel_attn_mlp` and `d_model`, named as TransformerLens names
them, and whatever else a tool put there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from circuits.errors import InterchangeError
from circuits.graph import Graph

MOST_LAYERS = MOST_HEADS = 256  # of a model, and of one of its layers; known models have up to 128
LARGEST_TABLE = 10**8  # pairs of writer and reader, or neurons; 80 million in a 70-billion model
ORDINARY_TABLE = 10**7  # as much as a file may describe without naming it; a 13-billion model


def graph_from_cfg(
    cfg: Any, graph: Graph | None, d_model: int | None, may_group: bool = False
) -> tuple[Graph, int | None]:
    """The graph and the width that a file's `cfg` describes, checked against those expected.

    Keys beside those that shape the graph are not read; n_kv_heads does where heads `may_group`.
    Raises `InterchangeError` for a missing or impossible number, and for another graph or width
    than asked for.
    """
    if not isinstance(cfg, Mapping):
        raise InterchangeError(
            f"cfg is {kind_of(cfg)}: it must have n_layers, n_heads, parallel_attn_mlp and d_model"
        )
    n_layers, n_heads = (_positive(cfg, key) for key in ("n_layers", "n_heads"))
    parallel = cfg.get("parallel_attn_mlp")
    if not isinstance(parallel, bool):
        state = f"is {shown(parallel)}" if "parallel_attn_mlp" in cfg else "is missing"
        raise InterchangeError(
            f"cfg.parallel_attn_mlp {state}: write true where attention and MLP read the same "
            f"stream, else false"
        )
    width = _positive(cfg, "d_model") if "d_model" in cfg else None
    groups = _positive(cfg, "n_kv_heads") if may_group and "n_kv_heads" in cfg else n_heads
    if n_heads % groups:
        raise InterchangeError(
            f"cfg has {n_heads} heads, which cannot share {groups} keys and values: correct it"
        )
    found = Graph(n_layers, n_heads, parallel, groups)
    too_many = n_layers > MOST_LAYERS or n_heads > MOST_HEADS
    if too_many or _table(found, width) > LARGEST_TABLE:
        raise InterchangeError(
            f"cfg describes {n_layers} layers of {n_heads} heads of width {width}, more than any "
            f"known model has (at most {MOST_LAYERS} layers, {MOST_HEADS} heads and "
            f"{LARGEST_TABLE} edges or neurons are read): correct n_layers, n_heads and d_model"
        )
    if graph is not None and found != graph:
        advice = (
            "load the model with kv='ungrouped', as published circuits are"
            if graph.grouped and not found.grouped
            else "give a file of the same model"
        )
        raise InterchangeError(f"cfg describes {_say(found)}, and not {_say(graph)}: {advice}")
    if None not in (width, d_model) and width != d_model:
        raise InterchangeError(
            f"cfg.d_model is {width}, and the model's width is {d_model}: "
            f"give a file of the same model"
        )
    return found, d_model if width is None else width


def refuse_hollow(graph: Graph, d_model: int | None, n_bytes: int) -> None:
    """Raise `InterchangeError` for a file that describes far more than it names.

    What it describes takes memory, whatever it names: as much as a file may ask for on its own
    grows with its bytes.
    """
    if _table(graph, d_model) > max(ORDINARY_TABLE, n_bytes):
        raise InterchangeError(
            f"cfg describes {_say(graph)}, and the file of {n_bytes} bytes names hardly any of its "
            f"edges: give the graph of the model (graph=model.graph) if that is what it is of"
        )


def cfg_of(graph: Graph, d_model: int | None) -> dict[str, int | bool]:
    """The `cfg` of a published file. Raises `InterchangeError` where the formats cannot say it."""
    if graph.grouped:
        raise InterchangeError(
            f"this format has a key and a value for every head, and here {graph.n_heads} heads "
            f"share {graph.n_kv_heads}: load the model with kv='ungrouped', or write GraphML"
        )
    if d_model is None:
        raise InterchangeError(
            "this format names the width of the residual stream: say d_model, "
            "which is model.architecture.d_model"
        )
    return {
        "n_layers": graph.n_layers,
        "n_heads": graph.n_heads,
        "parallel_attn_mlp": graph.parallel,
        "d_model": d_model,
    }


def shown(value: Any) -> str:
    """A value from a file, as short as a message needs it."""
    text = repr(value) if isinstance(value, str | int | float | bool | None) else kind_of(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def kind_of(value: Any) -> str:
    """What a value from a file is, in words."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    if value is None:
        return "empty"
    return names.get(type(value), f"of type {type(value).__name__}")


def is_count(value: Any) -> bool:
    """Whether a value is a whole number, 0 or larger."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def naming(graph: Graph) -> str:
    """How the names in a graph look."""
    return (
        f"in a model of {graph.n_layers} layers of {graph.n_heads} heads nodes are input, "
        f"a0.h0 to a{graph.n_layers - 1}.h{graph.n_heads - 1}, m0 to m{graph.n_layers - 1} and "
        f"logits, and edges look like input->a0.h0<q>"
    )


def _table(graph: Graph, width: int | None) -> int:
    """The entries of the largest table."""
    return graph.n_writers * max(graph.n_readers, width or 0)


def _say(graph: Graph) -> str:
    blocks = "parallel blocks" if graph.parallel else "blocks in sequence"
    groups = f" sharing {graph.n_kv_heads} keys and values" if graph.grouped else ""
    return f"{graph.n_layers} layers of {graph.n_heads} heads{groups} in {blocks}"


def _positive(cfg: Mapping[str, Any], key: str) -> int:
    value: Any = cfg.get(key)
    if not is_count(value) or not 1 <= value <= LARGEST_TABLE:
        state = f"is {shown(value)}" if key in cfg else "is missing"
        raise InterchangeError(f"cfg.{key} {state}: it must be a whole number above 0")
    return int(value)
