"""Ensembles: the scores of several methods as one set, and the method that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flows.identity import ModelIdentity
from flows.methods import EnsembleChoice
from flows.stages.attribution import scores_table
from flows.stages.description import MethodStage
from flows.stages.stage import Found, Rows, Stage, digest, rows_of
from flows.workbench import Workbench


@dataclass(frozen=True)
class EnsembleMethodStage(Stage):
    """An ensemble as a method: how it combines which members."""

    name = "method"
    version = 2
    kinds = ("methods",)
    ensemble: EnsembleChoice
    members: tuple[MethodStage, ...]

    @classmethod
    def of(cls, ensemble: EnsembleChoice, metric: str, means: str | None) -> EnsembleMethodStage:
        """The stage of an ensemble on a task with this metric and these means."""
        members = tuple(MethodStage.of(member, metric, means) for member in ensemble.ensemble)
        label = ensemble.label_with(means if ensemble.takes_means else None)
        return cls(label, ensemble, members)

    @property
    def metric(self) -> str | None:
        """The metric that members follow; None where none follows one."""
        return next((one.metric for one in self.members if one.metric is not None), None)

    @property
    def parameters(self) -> dict[str, Any]:
        """The combination and the members."""
        members = [member.parameters for member in self.members]
        return {"combine": self.ensemble.combine, "members": members}

    def build(self, bench: Workbench) -> Rows:
        """One row."""
        interventions = self.ensemble.own_interventions
        about = {
            "method": self.key,
            "name": "ensemble",
            "label": self.scope,
            "level": self.ensemble.level,
            "intervention": next(iter(interventions)) if len(interventions) == 1 else None,
            "metric": self.metric,
            "combine": self.ensemble.combine,
        }
        return {"methods": rows_of("methods", [about])}


@dataclass(frozen=True)
class EnsembleStage(Stage):
    """The scores of an ensemble: those of its members, combined."""

    name = "ensemble"
    kinds = ("scores",)
    modules = ("circuits.ensemble", "scipy.stats")
    identity: ModelIdentity
    described: Found | None
    dataset: Found | None
    method: EnsembleMethodStage
    members: tuple[Found | None, ...]

    @property
    def parameters(self) -> dict[str, Any]:
        """What the scores are of; the members' digests say the rest."""
        return self.identity.parameters_of_graph | {"method": self.method.key}

    @property
    def upstream(self) -> Mapping[str, str | None]:
        """The members' scores by their places, and the examples that they are of."""
        members = {f"member {i:06}": digest(one, "scores") for i, one in enumerate(self.members)}
        return members | {
            "examples": digest(self.dataset, "examples"),
            "graph": digest(self.described, "graphs"),
        }

    @property
    def parts(self) -> tuple[str, ...]:
        """The members and their shards: their time is the ensemble's."""
        found = [member["scores"] for member in self.members if member is not None]
        shards = [key for one in found for key in (one.provenance.get("parts") or ())]  # type: ignore[attr-defined]
        return tuple(dict.fromkeys([*(one.key for one in found), *shards]))

    def build(self, bench: Workbench) -> Rows:
        """Combine the members; raises `circuits.AttributionError`."""
        from circuits.ensemble import combine

        assert self.described is not None
        assert self.dataset is not None
        choice = self.method.ensemble
        space = bench.units(self.described, choice.level)
        members = [
            bench.scores(space, found["scores"].key, method.label)
            for found, method in zip(self.members, choice.ensemble, strict=True)
            if found is not None
        ]
        about = {
            "scores": self.key,
            "model": self.identity.fingerprint,
            "dataset": bench.dataset(self.dataset["examples"].key).name,
            "method": self.method.key,
        }
        return {"scores": scores_table(space, combine(members, choice.combine), about)}
