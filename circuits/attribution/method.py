"""What an attribution method is: a name, what it accepts, and how it scores a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from circuits.errors import AttributionError
from circuits.intervention import INTERVENTIONS
from circuits.quadrature import RULES, quadrature
from circuits.registry import Registry
from circuits.scores import LEVELS
from tasks import Metric, as_metric

if TYPE_CHECKING:
    import numpy as np

    from circuits.attribution.run import Run

SCOPES = ("component", "all")
PATCHING = ("patching",)


@dataclass(frozen=True, eq=False)
class Options:
    """How a method is to be run; None for what it does not take."""

    level: str
    intervention: str | None
    metric: Metric | None
    steps: int | None = None
    quadrature: str | None = None
    scope: str | None = None
    seed: int | None = None
    units: np.ndarray | None = None  # Bool, shaped as the level's scores: what is asked for
    progress: Callable[[int, int], None] | None = None  # told of units done and units in all

    @property
    def path(self) -> tuple[tuple[float, float], ...]:
        """The (α, weight) pairs of the quadrature rule."""
        assert self.steps is not None
        assert self.quadrature is not None
        return quadrature(self.quadrature, self.steps)


Score = Callable[["Run"], Tensor]


@dataclass(frozen=True)
class Method:
    """An attribution method and what it accepts.

    `score(run)` gives each example's scores of one batch: [batch, writers, readers] at edge level,
    [batch, writers] at node and [batch, writers, d_model] at neuron level.
    """

    name: str
    score: Score
    levels: tuple[str, ...] = LEVELS
    interventions: tuple[str, ...] = INTERVENTIONS  # none: it takes no intervention
    takes_metric: bool = True
    needs_gradient: bool = True
    only_at_clean: bool = False
    takes_steps: bool = False
    takes_scope: bool = False
    takes_seed: bool = False
    takes_units: bool = False
    reads_all_positions: bool = False  # so that the shared prefix cannot be left out
    runs_model: bool = True
    version: int = 2  # raised whenever the method's scores change
    defaults: dict[str, Any] = field(default_factory=dict, hash=False)

    def check(
        self,
        metric: str | Metric | Callable[..., Tensor] | None = None,
        *,
        level: str = "edge",
        intervention: str | None = None,
        steps: int | None = None,
        quadrature: str | None = None,
        scope: str | None = None,
        seed: int | None = None,
    ) -> Options:
        """The options as this method takes them; raises `AttributionError` for what it refuses.

        A method that follows a metric follows `logit-diff` unless another is given.
        """
        if level not in self.levels:
            raise AttributionError(
                f"{self.name} scores {' and '.join(self.levels)}s, not {level!r}"
            )
        asked: dict[str, Any] = {
            "steps": steps,
            "quadrature": quadrature,
            "scope": scope,
            "seed": seed,
        }
        takes = {
            "steps": self.takes_steps,
            "quadrature": self.takes_steps,
            "scope": self.takes_scope,
            "seed": self.takes_seed,
        }
        for option, value in asked.items():
            if value is not None and not takes[option]:
                takers = [m.name for m in map(METHODS.__getitem__, METHODS) if m.takes(option)]
                raise AttributionError(
                    f"{self.name} takes no {option}: leave it out, or use {' or '.join(takers)}"
                )
            if value is None and takes[option]:
                asked[option] = self.defaults[option]
        if asked["scope"] is not None and asked["scope"] not in SCOPES:
            raise AttributionError(f"there is no scope {scope!r}: choose {' or '.join(SCOPES)}")
        for name, least in (("steps", 1), ("seed", 0)):
            number = asked[name]
            if number is not None and (type(number) is not int or number < least):
                raise AttributionError(f"{name} is a whole number from {least}, not {number!r}")
        if metric is None and self.takes_metric:
            metric = "logit-diff"
        followed = None if metric is None else as_metric(metric)
        options = Options(level, self._intervention(intervention), followed, **asked)
        # `path` refuses an unknown rule and an impossible number of steps
        at_clean = self.only_at_clean or (
            self.takes_steps and all(alpha == 1.0 for alpha, _ in options.path)
        )
        self._check_metric(options.metric, at_clean)
        return options

    def takes(self, option: str) -> bool:
        """Whether the method takes an option: steps, quadrature, scope, seed or units."""
        return bool(getattr(self, "takes_steps" if option == "quadrature" else f"takes_{option}"))

    def _intervention(self, asked: str | None) -> str | None:
        if asked is None:
            return self.interventions[0] if self.interventions else None
        if asked not in self.interventions:
            takes = " or ".join(self.interventions)
            raise AttributionError(
                f"{self.name} takes the intervention {takes}, not {asked!r}"
                if takes
                else f"{self.name} takes no intervention, so {asked!r} means nothing to it: "
                f"leave it out"
            )
        return asked

    def _check_metric(self, metric: Metric | None, at_clean: bool) -> None:
        if not self.takes_metric and metric is not None:
            raise AttributionError(
                f"{self.name} follows no metric, so {metric.name!r} means nothing to it: leave it "
                f"out"
            )
        if not self.needs_gradient or metric is None:
            return
        if not metric.differentiable:
            raise AttributionError(
                f"{self.name} follows gradients, and the metric {metric.name!r} has none: "
                f"use a differentiable one, such as logit-diff"
            )
        if metric.flat_at_clean and at_clean:
            instead = "EAP-IG-inputs" if self.only_at_clean else "more steps"
            raise AttributionError(
                f"{self.name} takes the gradient at the clean input alone, where that of "
                f"{metric.name!r} is zero: use {instead}, or another metric"
            )


METHODS: Registry[Method] = Registry("attribution method", AttributionError)


def attribution_method(name: str, **accepts: Any) -> Callable[[Score], Score]:
    """Enter a function from a run to each example's scores as the method `name`."""

    def enter(score: Score) -> Score:
        METHODS.register(name)(Method(name, score, **accepts))
        return score

    return enter


def quadrature_names() -> tuple[str, ...]:
    """The names of the quadrature rules."""
    return RULES.names()
