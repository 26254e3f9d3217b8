"""Circuits in language models: the vocabulary of the field, in reading order.

Names are imported when they are first asked for: a graph, a circuit or a drawing needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from circuits.attribution import attribute as attribute
    from circuits.attribution import attribute_partial as attribute_partial
    from circuits.attribution import method_names as method_names
    from circuits.circuit import Circuit as Circuit
    from circuits.errors import AttributionError as AttributionError
    from circuits.errors import CircuitError as CircuitError
    from circuits.errors import DrawingError as DrawingError
    from circuits.errors import EvaluationError as EvaluationError
    from circuits.errors import ExtractionError as ExtractionError
    from circuits.errors import ModelError as ModelError
    from circuits.errors import ModelFamilyError as ModelFamilyError
    from circuits.evaluation import Baselines as Baselines
    from circuits.evaluation import Evaluation as Evaluation
    from circuits.evaluation import baselines as baselines
    from circuits.evaluation import evaluate as evaluate
    from circuits.evaluation import evaluate_many as evaluate_many
    from circuits.faithfulness import cmd as cmd
    from circuits.faithfulness import cpr as cpr
    from circuits.graph import Edge as Edge
    from circuits.graph import Graph as Graph
    from circuits.intervention import MeanActivations as MeanActivations
    from circuits.intervention import mean_activations as mean_activations
    from circuits.model import Model as Model
    from circuits.model import load_model as load_model
    from circuits.scores import PartialScores as PartialScores
    from circuits.scores import Scores as Scores

_PUBLIC = {
    "model": ("load_model", "Model"),
    "graph": ("Graph", "Edge"),
    "attribution": ("attribute", "attribute_partial", "method_names"),
    "intervention": ("mean_activations", "MeanActivations"),
    "scores": ("Scores", "PartialScores"),
    "circuit": ("Circuit",),
    "evaluation": ("evaluate", "evaluate_many", "Evaluation", "baselines", "Baselines"),
    "faithfulness": ("cpr", "cmd"),
    "errors": (
        "CircuitError",
        "ModelError",
        "ModelFamilyError",
        "AttributionError",
        "ExtractionError",
        "EvaluationError",
        "DrawingError",
    ),
}
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'circuits' has no attribute {name!r}")
    return getattr(importlib.import_module(f"circuits.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
