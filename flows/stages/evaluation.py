"""How well circuits do: the whole and the empty circuit as a measure, then every other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from data import stage_key
from flows.identity import ModelIdentity, identify_metric
from flows.stages.stage import Found, Rows, Stage, digest, rows_of
from flows.workbench import Workbench

if TYPE_CHECKING:
    from circuits.intervention import MeanActivations


CIRCUIT, COMPLEMENT = "circuit", "complement"  # what is run: a circuit, or all but it


@dataclass(frozen=True)
class BaselinesStage(Stage):
    """The whole model by one metric, and its empty circuit under one intervention."""

    name = "baselines"
    version = 2
    kinds = ("baselines",)
    model: ModelIdentity
    dataset: Found | None
    metric: str
    intervention: str
    means: Found | None
    takes_means: bool

    @property
    def parameters(self) -> dict[str, Any]:
        """The weights, the metric and the intervention."""
        return self.model.parameters | {
            "metric": identify_metric(self.metric),
            "intervention": self.intervention,
        }

    @property
    def upstream(self) -> Mapping[str, str | None]:
        """The examples, and the means that replace what is not in a circuit."""
        upstream = {"examples": digest(self.dataset, "examples")}
        if self.takes_means:
            upstream["means"] = digest(self.means, "mean_activations")
        return upstream

    @property
    def label(self) -> str:
        """The metric and the intervention, for people."""
        return f"baselines by {self.metric} under {self.intervention}"

    @property
    def runs(self) -> ModelIdentity:
        """The model."""
        return self.model

    def mean_activations(self, bench: Workbench) -> MeanActivations | None:
        """The means that replace what is not in a circuit, if means do."""
        if self.means is None:
            return None
        return bench.mean_activations(self.means["mean_activations"].key)

    def build(self, bench: Workbench) -> Rows:
        """Run the model whole and with nothing intact; raises `circuits.EvaluationError`."""
        from circuits.evaluation import baselines, standard_error

        assert self.dataset is not None
        dataset = bench.dataset(self.dataset["examples"].key)
        found = baselines(
            bench.model(self.model),
            dataset,
            self.metric,
            intervention=self.intervention,
            means=self.mean_activations(bench),
            memory_budget=bench.memory_budget,
        )
        about = {
            "baseline": self.key,
            "model": self.model.fingerprint,
            "dataset": dataset.name,
            "intervention": self.intervention,
            "means": None if self.means is None else self.means["mean_activations"].key,
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
    """The circuits of one extraction, run on a dataset and judged by one metric.

    What is not in a circuit is replaced as in the baselines. Of `part` complement, the model is run
    without each circuit instead.
    """

    name = "evaluation"
    version = 3
    kinds = ("evaluations",)
    model: ModelIdentity
    described: Found | None
    circuits: Found | None
    dataset: Found | None
    baselines: Found | None
    whole: BaselinesStage
    level: str
    rule: str
    part: str = CIRCUIT

    @property
    def parameters(self) -> dict[str, Any]:
        """The weights, the graph, the metric and the intervention, and what is run of a circuit."""
        return self.whole.parameters | self.model.parameters_of_graph | {"part": self.part}

    @property
    def upstream(self) -> Mapping[str, str | None]:
        """The circuits with their members, the examples, and what faithfulness lies between."""
        means = {"means": digest(self.whole.means, "mean_activations")}
        return (means if self.whole.takes_means else {}) | {
            "circuits": digest(self.circuits, "circuits"),
            "members": digest(self.circuits, "members"),
            "neurons": digest(self.circuits, "member_neurons"),
            "examples": digest(self.dataset, "examples"),
            "baselines": digest(self.baselines, "baselines"),
        }

    @property
    def label(self) -> str:
        """The rule, the metric and the intervention, for people."""
        what = self.rule if self.part == CIRCUIT else f"what {self.rule} leaves out"
        return f"evaluation of {what} by {self.whole.metric} under {self.whole.intervention}"

    @property
    def runs(self) -> ModelIdentity:
        """The model."""
        return self.model

    def build(self, bench: Workbench) -> Rows:
        """Run every circuit beside one run of the empty one; raises `circuits.EvaluationError`."""
        from circuits.completeness import complement
        from circuits.evaluation import evaluate_many
        from circuits.faithfulness import faithfulness

        assert self.described is not None
        assert self.circuits is not None
        assert self.dataset is not None
        assert self.baselines is not None
        space = bench.units(self.described, self.level)
        circuits = bench.circuits(space, self.circuits["circuits"].key)
        if self.part == COMPLEMENT:
            circuits = {key: complement(circuit) for key, circuit in circuits.items()}
        dataset = bench.dataset(self.dataset["examples"].key)
        baseline = self.baselines["baselines"].key
        rows = bench.store.read("baselines", baseline).to_pylist()
        whole = {row["run"]: row["mean"] for row in rows}
        found = evaluate_many(
            bench.model(self.model),
            list(circuits.values()),
            dataset,
            self.whole.metric,
            intervention=self.whole.intervention,
            means=self.whole.mean_activations(bench),
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
                    "part": self.part,
                    "model": self.model.fingerprint,
                    "dataset": dataset.name,
                    "intervention": self.whole.intervention,
                    "metric": self.whole.metric,
                    "mean": one.mean,
                    "standard_error": one.standard_error,
                    "faithfulness": faithfulness(one.mean, whole["clean"], whole["corrupted"]),
                    "n_examples": len(dataset),
                    "baseline": baseline,
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
