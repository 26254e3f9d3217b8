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
    from circuits.comparison import CircuitComparison as CircuitComparison
    from circuits.comparison import ScoreComparison as ScoreComparison
    from circuits.comparison import compare_circuits as compare_circuits
    from circuits.comparison import compare_profiles as compare_profiles
    from circuits.comparison import compare_scores as compare_scores
    from circuits.comparison import match_scores as match_scores
    from circuits.comparison import profile as profile
    from circuits.completeness import Completeness as Completeness
    from circuits.completeness import complement as complement
    from circuits.confidence import Bootstrap as Bootstrap
    from circuits.confidence import Interval as Interval
    from circuits.confidence import bootstrap_cmd as bootstrap_cmd
    from circuits.confidence import bootstrap_cpr as bootstrap_cpr
    from circuits.confidence import bootstrap_faithfulness as bootstrap_faithfulness
    from circuits.confidence import bootstrap_mean as bootstrap_mean
    from circuits.ensemble import combine as combine
    from circuits.errors import AttributionError as AttributionError
    from circuits.errors import CircuitError as CircuitError
    from circuits.errors import DrawingError as DrawingError
    from circuits.errors import EvaluationError as EvaluationError
    from circuits.errors import ExtractionError as ExtractionError
    from circuits.errors import InterchangeError as InterchangeError
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
    from circuits.interchange import Imported as Imported
    from circuits.interchange import Submission as Submission
    from circuits.interchange import load_circuit_file as load_circuit_file
    from circuits.interchange import load_submission as load_submission
    from circuits.interchange import save_circuit_file as save_circuit_file
    from circuits.interchange import save_submission as save_submission
    from circuits.interchange import to_networkx as to_networkx
    from circuits.interchange import to_pandas as to_pandas
    from circuits.intervention import MeanActivations as MeanActivations
    from circuits.intervention import mean_activations as mean_activations
    from circuits.minimality import Minimality as Minimality
    from circuits.model import Model as Model
    from circuits.model import load_model as load_model
    from circuits.recovery import Recovery as Recovery
    from circuits.recovery import is_truth as is_truth
    from circuits.recovery import true_circuit as true_circuit
    from circuits.recovery import truth_names as truth_names
    from circuits.scores import PartialScores as PartialScores
    from circuits.scores import Scores as Scores
    from circuits.stability import ResampledScores as ResampledScores
    from circuits.stability import Stability as Stability
    from circuits.stability import resample as resample

_PUBLIC = {
    "model": (
        "load_model",
        "Model",
    ),
    "graph": (
        "Graph",
        "Edge",
    ),
    "attribution": (
        "attribute",
        "attribute_partial",
        "method_names",
    ),
    "intervention": (
        "mean_activations",
        "MeanActivations",
    ),
    "scores": (
        "Scores",
        "PartialScores",
    ),
    "circuit": ("Circuit",),
    "evaluation": (
        "evaluate",
        "evaluate_many",
        "Evaluation",
        "baselines",
        "Baselines",
    ),
    "faithfulness": (
        "cpr",
        "cmd",
    ),
    "comparison": (
        "compare_circuits",
        "compare_scores",
        "profile",
        "compare_profiles",
        "match_scores",
        "CircuitComparison",
        "ScoreComparison",
    ),
    "ensemble": ("combine",),
    "stability": (
        "resample",
        "ResampledScores",
        "Stability",
    ),
    "confidence": (
        "Bootstrap",
        "Interval",
        "bootstrap_mean",
        "bootstrap_faithfulness",
        "bootstrap_cpr",
        "bootstrap_cmd",
    ),
    "completeness": (
        "complement",
        "Completeness",
    ),
    "minimality": ("Minimality",),
    "recovery": (
        "true_circuit",
        "truth_names",
        "is_truth",
        "Recovery",
    ),
    "interchange": (
        "load_circuit_file",
        "save_circuit_file",
        "load_submission",
        "save_submission",
        "Imported",
        "Submission",
        "to_networkx",
        "to_pandas",
    ),
    "errors": (
        "CircuitError",
        "ModelError",
        "ModelFamilyError",
        "AttributionError",
        "ExtractionError",
        "EvaluationError",
        "DrawingError",
        "InterchangeError",
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
