"""What an attribution method is: a name, what it accepts, and where it takes its gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from circuits.errors import AttributionError
from circuits.quadrature import RULES
from circuits.registry import Registry
from tasks import Metric

GradientPath = tuple[
    tuple[float, float], ...
]  # (α, weight): where gradients are taken, how they count


INTERVENTIONS = ("patching",)


@dataclass(frozen=True)
class Options:
    """How a method is to be run; `steps` and `quadrature` are None where it takes none."""

    metric: Metric
    steps: int | None = None
    quadrature: str | None = None


@dataclass(frozen=True)
class Method:
    """An attribution method and what it accepts.

    `path(options)` gives the points between the corrupted (α = 0) and the clean input (α = 1) at
    which gradients are taken, with their weights.
    """

    name: str
    path: Callable[[Options], GradientPath]
    takes_steps: bool = False
    only_at_clean: bool = False
    version: int = 1  # raised whenever the method's scores change
    levels: tuple[str, ...] = ("edge",)
    interventions: tuple[str, ...] = ("patching",)
    defaults: dict[str, Any] = field(default_factory=dict, hash=False)

    def check(
        self,
        metric: Metric,
        steps: int | None = None,
        quadrature: str | None = None,
        level: str = "edge",
        intervention: str = "patching",
    ) -> Options:
        """The options as this method takes them; raises `AttributionError` for what it refuses."""
        if level not in self.levels:
            raise AttributionError(
                f"{self.name} scores {' and '.join(self.levels)}s, not {level!r}"
            )
        if intervention not in self.interventions:
            raise AttributionError(
                f"{self.name} takes the intervention {' or '.join(self.interventions)}, "
                f"not {intervention!r}"
            )
        if not metric.differentiable:
            raise AttributionError(
                f"{self.name} follows gradients, and the metric {metric.name!r} has none: "
                f"use a differentiable one, such as logit-diff"
            )
        if metric.flat_at_clean and self.only_at_clean:
            raise AttributionError(
                f"{self.name} takes the gradient at the clean input alone, where that of "
                f"{metric.name!r} is zero: use EAP-IG-inputs, or another metric"
            )
        if not self.takes_steps:
            if steps is not None or quadrature is not None:
                given = "steps" if steps is not None else "quadrature"
                raise AttributionError(
                    f"{self.name} does not integrate along a path, so it takes no {given}: "
                    f"leave it out, or use EAP-IG-inputs"
                )
            return Options(metric)
        options = Options(
            metric,
            self.defaults["steps"] if steps is None else steps,
            self.defaults["quadrature"] if quadrature is None else quadrature,
        )
        self.path(options)  # refuses an unknown rule and an impossible number of steps
        return options


METHODS: Registry[Method] = Registry("attribution method", AttributionError)


def attribution_method(
    name: str, **accepts: Any
) -> Callable[[Callable[[Options], GradientPath]], Callable[[Options], GradientPath]]:
    """Enter a function from options to a path of gradient points as the method `name`."""

    def enter(path: Callable[[Options], GradientPath]) -> Callable[[Options], GradientPath]:
        METHODS.register(name)(Method(name, path, **accepts))
        return path

    return enter


def quadrature_names() -> tuple[str, ...]:
    """The names of the quadrature rules."""
    return RULES.names()
