"""The words a grid may use, asked of the rooms that own them.

Tasks, metrics and rules are those that `tasks/` has registered, methods, quadratures and extraction
rules those of `circuits/`: whatever is added there is known here. Asking imports those rooms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.config import MethodChoice, TaskChoice

if TYPE_CHECKING:  # their rooms import torch
    from circuits.attribution import Method
    from tasks import Metric


@dataclass(frozen=True)
class Vocabulary:
    """Every word that a grid's sections may use, and what goes with what."""

    tasks: tuple[str, ...]
    metrics: Mapping[str, Metric]
    rules: tuple[str, ...]
    splits: tuple[str, ...]
    methods: Mapping[str, Method]
    quadratures: tuple[str, ...]
    interventions: tuple[str, ...]
    extractions: tuple[str, ...]
    dtypes: tuple[str, ...]
    bundled_models: tuple[str, ...]
    default_metric: Callable[[str, str | None], str]

    @classmethod
    def of_the_rooms(cls) -> Vocabulary:
        """What the rooms offer now, plug-ins included."""
        import data.bundled
        from circuits.attribution import METHODS, quadrature_names
        from circuits.attribution.method import INTERVENTIONS
        from circuits.extraction import ALGORITHMS
        from circuits.model import DTYPES
        from tasks import SPLITS, default_metric, get_metric, metric_names, rule_names, task_names

        return cls(
            tasks=task_names(),
            metrics={name: get_metric(name) for name in metric_names()},
            rules=rule_names(),
            splits=SPLITS,
            methods={name: METHODS[name] for name in METHODS},
            quadratures=quadrature_names(),
            interventions=INTERVENTIONS,
            extractions=tuple(ALGORITHMS),
            dtypes=tuple(DTYPES),
            bundled_models=tuple(f"bundled/{name}" for name in data.bundled.names()),
            default_metric=default_metric,
        )

    def metric_of(self, task: TaskChoice) -> str | None:
        """The metric the task is given, else the one it comes with; None for an unknown task."""
        if task.metric is not None:
            return task.metric
        if task.path is None and task.name not in self.tasks:
            return None
        return self.default_metric(task.source, task.rule)

    def completed(self, method: MethodChoice) -> MethodChoice:
        """The method with its own defaults for the options that were left open."""
        if method.name not in self.methods:
            return method
        defaults = self.methods[method.name].defaults
        missing = {key: value for key, value in defaults.items() if getattr(method, key) is None}
        return method.model_copy(update=missing)

    def refused_options(self, method: MethodChoice) -> Iterator[tuple[str, str]]:
        """Options that the method does not take: (key, why)."""
        if method.name not in self.methods:
            return
        known = self.methods[method.name]
        for key in ("steps", "quadrature"):
            if getattr(method, key) is not None and not known.takes_steps:
                takers = [name for name, other in self.methods.items() if other.takes_steps]
                yield key, f"{method.name} takes no `{key}`; {', '.join(takers)} does"
        if method.quadrature == "trapezoid" and method.steps == 1:
            yield "steps", "the trapezoid rule needs at least 2 steps, its two ends"
        takes = known.interventions
        if method.intervention in self.interventions and method.intervention not in takes:
            reason = f"{method.name} does not take the intervention {method.intervention}"
            yield "intervention", f"{reason}; it takes {' or '.join(takes) or 'none'}"

    def refused_metric(self, method: MethodChoice, task: TaskChoice) -> str | None:
        """Why the method can't attribute by the task's metric; None if it can."""
        name = self.metric_of(task)
        if method.name not in self.methods or name is None or name not in self.metrics:
            return None
        known, metric = self.methods[method.name], self.metrics[name]
        if not metric.differentiable:
            able = [other for other, one in self.metrics.items() if one.differentiable]
            return (
                f"{name} has no gradient for a method to follow: "
                f"attribute by {', '.join(able)}, and list {name} in `judged_by`"
            )
        if metric.flat_at_clean and known.only_at_clean:
            return (
                f"{name} is flat at the clean input, where {method.name} takes its gradient: "
                f"use another metric, or a method that integrates"
            )
        return None
