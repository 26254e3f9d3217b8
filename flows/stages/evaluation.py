"""How well circuits do: the whole model as a measure, then every circuit on the same inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data import stage_key
from flows.identity import ModelIdentity, identify_metric
from flows.stages.stage import Found, Rows, Stage, digest, rows_of
from flows.workbench import Workbench


@dataclass(frozen=True)
class BaselinesStage(Stage):
    """The whole model by one metric, on the clean and on the corrupted inputs."""

    name = "baselines"
    kinds = ("baselines",)
    model: ModelIdentity
    dataset: Found | None
    metric: str
    intervention: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The weights, the metric and what corrupts."""
        return {
            "model": self.model.fingerprint,
            "dtype": self.model.dtype,
            "metric": identify_metric(self.metric),
            "intervention": self.intervention,
        }

    @property
    def upstream(self) -> Mapping[str, str | None]:
        """The examples."""
        return {"examples": digest(self.dataset, "examples")}

    @property
    def runs(self) -> ModelIdentity:
        """The model."""
        return self.model

    def build(self, bench: Workbench) -> Rows:
        """Run the model on both inputs; raises `circuits.EvaluationError`."""
        from circuits.evaluation import baselines, standard_error

        assert self.dataset is not None
        dataset = bench.dataset(self.dataset["examples"].key)
        found = baselines(
            bench.model(self.model), dataset, self.metric, memory_budget=bench.memory_budget
        )
        about = {
            "baseline": self.key,
            "model": self.model.fingerprint,
            "dataset": dataset.name,
            "intervention": self.intervention,
            "metric": self.metric,
            "n_examples": len(dataset),
        }
        runs = {"clean": found.clean, "corrupted": found.corrupted}
        means = [
            about | {"run": run, "mean": float(v.mean()), "standard_error": standard_error(v)}
            for run, v in runs.items()
        ]
        values = [
            {"baseline": self.key, "run": run, "example_id": i, "value": value}
            for run, of_run in runs.items()
            for i, value in enumerate(of_run.tolist())
        ]
        return {
            "baselines": rows_of("baselines", means),
            "baseline_values": rows_of("baseline_values", values),
        }


@dataclass(frozen=True)
class EvaluationStage(Stage):
    """The circuits of one extraction, run on a dataset and judged by one metric."""

    name = "evaluation"
    kinds = ("evaluations",)
    model: ModelIdentity
    described: Found | None
    circuits: Found | None
    dataset: Found | None
    baselines: Found | None
    metric: str
    rule: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The weights and the metric."""
        return {
            "model": self.model.fingerprint,
            "dtype": self.model.dtype,
            "metric": identify_metric(self.metric),
        }

    @property
    def upstream(self) -> Mapping[str, str | None]:
        """The circuits with their members, the examples, and what faithfulness lies between."""
        return {
            "circuits": digest(self.circuits, "circuits"),
            "members": digest(self.circuits, "members"),
            "examples": digest(self.dataset, "examples"),
            "baselines": digest(self.baselines, "baselines"),
        }

    @property
    def label(self) -> str:
        """The rule and the metric, for people."""
        return f"evaluation of {self.rule} by {self.metric}"

    @property
    def runs(self) -> ModelIdentity:
        """The model."""
        return self.model

    def build(self, bench: Workbench) -> Rows:
        """Run every circuit on one corrupted run; raises `circuits.EvaluationError`."""
        from circuits.evaluation import evaluate_many
        from circuits.faithfulness import faithfulness

        assert self.described is not None
        assert self.circuits is not None
        assert self.dataset is not None
        assert self.baselines is not None
        graph = bench.graph(self.described["graphs"].key)
        circuits = bench.circuits(graph, self.circuits["circuits"].key)
        dataset = bench.dataset(self.dataset["examples"].key)
        baseline = self.baselines["baselines"].key
        rows = bench.store.read("baselines", baseline).to_pylist()
        whole = {row["run"]: row["mean"] for row in rows}
        found = evaluate_many(
            bench.model(self.model),
            list(circuits.values()),
            dataset,
            self.metric,
            memory_budget=bench.memory_budget,
        )
        evaluations, values = [], []
        for circuit, one in zip(circuits, found, strict=True):
            of = self.parameters | {"circuit": circuit, "dataset": dataset.name}
            evaluation = stage_key("evaluation of a circuit", 1, of, {"baseline": baseline})
            evaluations.append(
                {
                    "evaluation": evaluation,
                    "circuit": circuit,
                    "model": self.model.fingerprint,
                    "dataset": dataset.name,
                    "metric": self.metric,
                    "mean": one.mean,
                    "standard_error": one.standard_error,
                    "faithfulness": faithfulness(one.mean, whole["clean"], whole["corrupted"]),
                    "n_examples": len(dataset),
                    "baseline": self.baselines["baselines"].key,
                }
            )
            values += [
                {"evaluation": evaluation, "example_id": i, "value": value}
                for i, value in enumerate(one.values.tolist())
            ]
        return {
            "evaluations": rows_of("evaluations", evaluations),
            "example_values": rows_of("example_values", values),
        }
