"""Files of scores and circuits that others have published, as artifacts like any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from circuits.scores import Scores
from data import stage_key
from flows.errors import GridError
from flows.identity import ModelIdentity, digest_of_file
from flows.methods import FileChoice
from flows.stages.attribution import scores_table
from flows.stages.extraction import circuit_tables
from flows.stages.stage import Found, Rows, Stage, digest, rows_of
from flows.workbench import Workbench


@dataclass(frozen=True)
class FileMethodStage(Stage):
    """A file as a method: what its scores were made by is its own affair."""

    name = "method"
    version = 2
    kinds = ("methods",)
    file: FileChoice
    content: str  # digest of the file

    @property
    def parameters(self) -> dict[str, Any]:
        """The file's content, the level that is meant, and what people call it."""
        return {"content": self.content, "level": self.file.level, "label": self.file.label}

    def build(self, bench: Workbench) -> Rows:
        """One row."""
        about = {
            "method": self.key,
            "name": "file",
            "label": self.file.label,
            "level": self.file.level,
        }
        return {"methods": rows_of("methods", [about])}


@dataclass(frozen=True)
class FileStage(Stage):
    """The scores of a file, and its circuit where it has one.

    A file without scores of the level gives every unit a score of null, so that its circuit belongs
    to a model and a method as others do.
    """

    name = "file"
    kinds = ("scores", "circuits")
    identity: ModelIdentity
    described: Found | None
    method: FileMethodStage

    @property
    def parameters(self) -> dict[str, Any]:
        """The model whose graph it must have, the file's content and the level."""
        return self.identity.parameters_of_graph | {"method": self.method.key}

    @property
    def upstream(self) -> Mapping[str, str | None]:
        """The graph."""
        return {"graph": digest(self.described, "graphs")}

    def build(self, bench: Workbench) -> Rows:
        """Read the file; raises `circuits.InterchangeError`, and GridError for another model's."""
        from circuits.interchange import load_circuit_file

        assert self.key is not None
        assert self.described is not None
        file, level = Path(self.method.file.path), self.method.file.level
        if digest_of_file(str(file)) != self.method.content:
            raise GridError(f"{file} changed while the grid was running: run it again")
        space = bench.units(self.described, level)
        imported = load_circuit_file(file, space.graph, space.d_model)
        scores = next((one for one in imported.all_scores if one.level == level), None)
        circuit = imported.circuit
        if circuit is not None and circuit.level != level:
            circuit = None
        if scores is None and circuit is None:
            raise GridError(
                f"{file} says nothing about {level}s: its level is {imported.level}, "
                f"so write {{path: {file.name}, level: {imported.level}}}"
            )
        about = {
            "scores": self.key,
            "model": self.identity.fingerprint,
            "dataset": None,
            "method": self.method.key,
        }
        if scores is None:
            unknown = np.full(space.shape, np.nan)
            scores = Scores(space.graph, unknown, unknown, 0, level=level)
        rows = scores_table(space, scores, about)
        tables = circuit_tables(space, self.key, [])
        if circuit is not None:
            named = stage_key("imported circuit", 1, self.parameters, {"file": self.method.content})
            row = {
                "circuit": named,
                "scores": self.key,
                "algorithm": "imported",
                "rule": "imported",
            }
            tables = circuit_tables(space, self.key, [(row, circuit)])
        return {"scores": rows, **tables}
