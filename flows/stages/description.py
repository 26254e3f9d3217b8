"""What a grid is about: its models with their graphs, its datasets, its methods."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuits.graph import Graph
from data import stage_key
from flows.config import MethodChoice, TaskChoice
from flows.identity import ModelIdentity, identify_metric, identify_rule
from flows.stages.stage import LEVEL, Rows, Stage, rows_of
from flows.workbench import Workbench


@dataclass(frozen=True)
class ModelStage(Stage):
    """What a model is, and the graph of its writers and readers."""

    name = "model"
    kinds = ("models", "graphs")
    model: ModelIdentity

    @property
    def parameters(self) -> dict[str, Any]:
        """The weights alone: a model keeps the name it was first seen by."""
        return {"model": self.model.fingerprint}

    @property
    def runs(self) -> ModelIdentity:
        """The model."""
        return self.model

    def build(self, bench: Workbench) -> Rows:
        """Load the model and describe it."""
        model = bench.model(self.model)
        a, graph = model.architecture, model.graph
        about = {
            "model": model.fingerprint,
            "name": self.model.label,
            "family": a.family,
            "n_layers": a.n_layers,
            "n_heads": a.n_heads,
            "d_model": a.d_model,
            "d_head": a.d_head,
            "n_parameters": model.n_parameters,
            "dtype": None,
        }
        sizes = ("n_layers", "n_heads", "parallel", "n_writers", "n_readers", "n_nodes", "n_edges")
        described = {name: getattr(graph, name) for name in sizes} | {"graph": graph.digest}
        return {
            "models": rows_of("models", [about]),
            "graphs": rows_of("graphs", [described]),
            "edges": rows_of("edges", _edge_rows(graph)),
            "nodes": rows_of("nodes", _node_rows(graph)),
        }


@dataclass(frozen=True)
class DatasetStage(Stage):
    """Examples of a task or a file, aligned for a model's tokenizer."""

    name = "dataset"
    kinds = ("datasets",)
    task: TaskChoice
    content: str  # digest of what the examples are made from
    split: str
    size: int | None
    tokenizer_of: ModelIdentity

    @property
    def parameters(self) -> dict[str, Any]:
        """What examples are drawn from, and how."""
        return {
            "task": self.task.label,
            "content": self.content,
            "rule": identify_rule(self.task.rule),
            "split": self.split,
            "size": self.size,
            "seed": self.task.seed,
            "tokenizer": self.tokenizer_of.tokenizer,
            "prepend_bos": self.task.prepend_bos,
        }

    @property
    def label(self) -> str:
        """The split, for people."""
        return f"dataset ({self.split})"

    def build(self, bench: Workbench) -> Rows:
        """Draw and align the examples; raises `tasks.TaskError`."""
        from circuits.model import load_tokenizer
        from tasks import load_dataset

        tokenizer = load_tokenizer(self.tokenizer_of.name, self.tokenizer_of.revision)
        source = Path(self.task.path) if self.task.path is not None else self.task.source
        drawn = load_dataset(
            source,
            tokenizer,
            self.split,
            self.size,
            self.task.seed,
            self.task.rule,
            self.task.prepend_bos,
        )
        content = {"task": self.task.label, "split": self.split}
        # The id names the content: the same examples from another file are the same dataset.
        dataset = stage_key("examples", 1, content, {"examples": drawn.digest})
        about = {
            "dataset": dataset,
            "task": self.task.label,
            "source": self.task.label,
            "split": self.split,
            "seed": drawn.seed,
            "asked": self.size,
            "n_examples": len(drawn),
            "dropped_json": json.dumps(dict(drawn.dropped), sort_keys=True),
            "tokenizer": self.tokenizer_of.tokenizer,
        }
        columns = ("clean", "corrupted", "clean_tokens", "corrupted_tokens", "correct", "incorrect")
        examples = [
            {"dataset": dataset, "example_id": i}
            | {name: getattr(example, name) for name in columns}
            for i, example in enumerate(drawn)
        ]
        return {
            "datasets": rows_of("datasets", [about]),
            "examples": rows_of("examples", examples),
        }


@dataclass(frozen=True)
class MethodStage(Stage):
    """An attribution method with its options and the metric it follows."""

    name = "method"
    kinds = ("methods",)
    method: MethodChoice
    metric: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The options, and the version of the method itself."""
        from circuits.attribution import METHODS

        return {
            "name": self.method.name,
            "method_version": METHODS[self.method.name].version,
            "level": LEVEL,
            "intervention": self.method.intervention,
            "steps": self.method.steps,
            "quadrature": self.method.quadrature,
            "metric": identify_metric(self.metric),
        }

    def build(self, bench: Workbench) -> Rows:
        """One row."""
        names = ("name", "level", "intervention", "steps", "quadrature", "metric")
        about = {name: self.parameters[name] for name in names}
        about |= {"method": self.key, "metric": self.metric}
        return {"methods": rows_of("methods", [about])}


def _edge_rows(graph: Graph) -> list[dict[str, Any]]:
    layers = _layers(graph)
    rows = []
    for i, edge in enumerate(graph.edges):
        writer = layers[edge.writer]
        reader = layers[graph.nodes[int(graph.reader_nodes[edge.reader_index])]]
        rows.append(
            {
                "graph": graph.digest,
                "edge_id": i,
                "edge": edge.name,
                "writer_id": edge.writer_index,
                "reader_id": edge.reader_index,
                "writer": edge.writer,
                "reader": edge.reader,
                "kind": edge.kind,
                "writer_layer": writer[1],
                "writer_head": writer[2],
                "reader_layer": reader[1],
                "reader_head": reader[2],
            }
        )
    return rows


def _node_rows(graph: Graph) -> list[dict[str, Any]]:
    return [
        {"graph": graph.digest, "node_id": i, "node": node}
        | dict(zip(("kind", "layer", "head"), _layers(graph)[node], strict=True))
        for i, node in enumerate(graph.nodes)
    ]


def _layers(graph: Graph) -> dict[str, tuple[str, int, int | None]]:
    """Kind, layer and head of every node."""
    found: dict[str, tuple[str, int, int | None]] = {"input": ("input", -1, None)}
    for layer in range(graph.n_layers):
        for head in range(graph.n_heads):
            found[graph.writers[graph.heads(layer)][head]] = ("head", layer, head)
        found[graph.writers[graph.mlp(layer)]] = ("mlp", layer, None)
    found["logits"] = ("logits", graph.n_layers, None)
    return found
