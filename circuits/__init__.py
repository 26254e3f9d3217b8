"""Circuits in language models: models, graphs, attribution, extraction, evaluation, drawing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circuits.attribution import attribute, attribute_partial, method_names
    from circuits.circuit import Circuit
    from circuits.errors import (
        AttributionError,
        CircuitError,
        DrawingError,
        EvaluationError,
        ExtractionError,
        ModelError,
        ModelFamilyError,
    )
    from circuits.evaluation import (
        Baselines,
        Evaluation,
        baselines,
        evaluate,
        evaluate_many,
    )
    from circuits.faithfulness import cmd, cpr
    from circuits.graph import Edge, Graph
    from circuits.model import Model, fingerprint, load_model
    from circuits.scores import PartialScores, Scores

_HOME = {
    "load_model": "model",
    "fingerprint": "model",
    "Model": "model",
    "Graph": "graph",
    "Edge": "graph",
    "attribute": "attribution",
    "attribute_partial": "attribution",
    "method_names": "attribution",
    "Scores": "scores",
    "PartialScores": "scores",
    "Circuit": "circuit",
    "evaluate": "evaluation",
    "evaluate_many": "evaluation",
    "baselines": "evaluation",
    "Baselines": "evaluation",
    "Evaluation": "evaluation",
    "cpr": "faithfulness",
    "cmd": "faithfulness",
    "CircuitError": "errors",
    "ModelError": "errors",
    "ModelFamilyError": "errors",
    "AttributionError": "errors",
    "ExtractionError": "errors",
    "EvaluationError": "errors",
    "DrawingError": "errors",
}

__all__ = [*_HOME]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    """Import a name's module when the name is first asked for: drawing a circuit needs no torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'circuits' has no attribute {name!r}")
    return getattr(importlib.import_module(f"circuits.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
