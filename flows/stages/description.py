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
from flows.stages.stage import Rows, Stage, rows_of
from flows.workbench import Workbench


@dataclass(frozen=True)
class ModelStage(Stage):
    """What a model is, and the graph of its writers and readers."""

    name = "model"
    version = 2
    kinds = ("models", "graphs")
    model: ModelIdentity

    @property
    def parameters(self) -> dict[str, Any]:
        """The weights and the kind of graph: a model keeps the name it was first seen by."""
        return {"model": self.model.fingerprint, "kv": self.model.kv}

    @property
    def runs(self) -> ModelIdentity:
        """The model."""
        return self.model

    def build(self, bench: Workbench) -> Rows:
        """Load the model and describe it."""
        from circuits.architecture import architecture_of

        model = bench.model(self.model)
        graph = model.graph
        # the model as published, whichever of its graphs was asked for
        own = architecture_of(model.bridge.original_model.config, self.model.name, "grouped")
        of_model = (
            *("family", "n_layers", "n_heads", "n_kv_heads", "d_model", "d_head", "d_mlp"),
            *("d_vocab", "n_positions", "parallel"),
        )
        about = {name: getattr(own, name) for name in of_model} | {
            "model": model.fingerprint,
            "name": self.model.short_name,
            "n_parameters": model.n_parameters,
            "dtype": None,
        }
        of_graph = (
            *("n_layers", "n_heads", "n_kv_heads", "parallel"),
            *("n_writers", "n_readers", "n_nodes", "n_edges"),
        )
        described = {name: getattr(graph, name) for name in of_graph} | {"graph": graph.digest}
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
    modules = ("circuits.model", "transformers.models.auto.tokenization_auto")
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

        of = self.tokenizer_of
        tokenizer = load_tokenizer(of.name, of.revision, of.trust_remote_code)
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
    """An attribution method with its options and the metric it follows, None if it follows none.

    `means` says what its means are over, where the task does.
    """

    name = "method"
    version = 2
    kinds = ("methods",)
    method: MethodChoice
    metric: str | None
    means: str | None = None
    ranking: MethodStage | None = None  # what ranks the units for a restricted method

    @classmethod
    def of(cls, method: MethodChoice, metric: str, means: str | None) -> MethodStage:
        """The stage of a method on a task with this metric and these means."""
        from circuits.attribution import METHODS

        ranking = None if method.of is None else cls.of(method.of, metric, means)
        follows = metric if METHODS[method.name].takes_metric else None
        averages = means if method.takes_means else None
        return cls(method.label_with(averages), method, follows, averages, ranking)

    @property
    def per_unit(self) -> dict[str, Any]:
        """What a unit's score depends on, whichever other units are scored."""
        from circuits.attribution import METHODS

        options = ("level", "intervention", "steps", "quadrature", "scope", "seed")
        return {option: getattr(self.method, option) for option in options} | {
            "name": self.method.name,
            "method_version": METHODS[self.method.name].version,
            "metric": None if self.metric is None else identify_metric(self.metric),
        }

    @property
    def parameters(self) -> dict[str, Any]:
        """The options with the version of the method itself, and the units it is restricted to."""
        names, ranking = self.method.named_units, self.ranking
        means = {} if self.means is None else {"means": self.means}
        restricted = {
            "units": None if names is None else list(names),
            "top": self.method.top,
            "of": None if ranking is None else ranking.parameters,
        }
        return self.per_unit | restricted | means

    def build(self, bench: Workbench) -> Rows:
        """One row."""
        options = ("name", "level", "intervention", "steps", "quadrature", "scope", "seed")
        about = {option: getattr(self.method, option) for option in options}
        about |= {
            "method": self.key,
            "label": self.scope,
            "metric": self.metric,
            "restriction": self.method.restriction,
        }
        return {"methods": rows_of("methods", [about])}


def _edge_rows(graph: Graph) -> list[dict[str, Any]]:
    layers = _layers(graph)
    rows = []
    for i, edge in enumerate(graph.edges):
        fed = [graph.nodes[i] for i in graph.reads[edge.reader_index].nonzero()[0]]
        writer, reader = layers[edge.writer], layers[fed[0]]
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
                "reader_head": reader[2] if len(fed) == 1 else None,
                "reader_nodes": fed,
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
