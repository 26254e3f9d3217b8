"""The words a grid may use, asked of the rooms that own them.

Tasks, metrics and rules are those that `tasks/` has registered, methods, quadratures and extraction
rules those of `circuits/`: whatever is added there is known here. Asking imports those rooms.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flows.config import (
    PATCHING,
    EnsembleChoice,
    ExtractionChoice,
    MethodChoice,
    Source,
    TaskChoice,
)

if TYPE_CHECKING:  # their rooms import torch
    from circuits.attribution import Method
    from tasks import Metric


Refusal = tuple[tuple[str | int, ...], str]  # where in an entry, and why


@dataclass(frozen=True)
class Vocabulary:
    """Every word that a grid's sections may use, and what goes with what."""

    tasks: tuple[str, ...]
    metrics: Mapping[str, Metric]
    rules: tuple[str, ...]
    splits: tuple[str, ...]
    methods: Mapping[str, Method]
    levels: tuple[str, ...]
    quadratures: tuple[str, ...]
    most_steps: int
    scopes: tuple[str, ...]
    interventions: tuple[str, ...]
    means: tuple[str, ...]
    extractions: tuple[str, ...]
    combinations: tuple[str, ...]
    dtypes: tuple[str, ...]
    kv: tuple[str, ...]
    bundled_models: tuple[str, ...]
    default_metric: Callable[[str, str | None], str]

    @classmethod
    def of_the_rooms(cls) -> Vocabulary:
        """What the rooms offer now, plug-ins included."""
        import data.bundled
        from circuits.architecture import KV
        from circuits.attribution import METHODS, quadrature_names
        from circuits.attribution.method import SCOPES
        from circuits.ensemble import COMBINATIONS
        from circuits.extraction import ALGORITHMS
        from circuits.intervention import INTERVENTIONS, MEANS
        from circuits.model import DTYPES
        from circuits.quadrature import MOST_STEPS
        from circuits.scores import LEVELS
        from tasks import SPLITS, default_metric, get_metric, metric_names, rule_names, task_names

        return cls(
            tasks=task_names(),
            metrics={name: get_metric(name) for name in metric_names()},
            rules=rule_names(),
            splits=SPLITS,
            methods={name: METHODS[name] for name in METHODS},
            levels=LEVELS,
            quadratures=quadrature_names(),
            most_steps=MOST_STEPS,
            scopes=SCOPES,
            interventions=INTERVENTIONS,
            means=MEANS,
            extractions=tuple(ALGORITHMS),
            combinations=tuple(COMBINATIONS),
            dtypes=tuple(DTYPES),
            kv=KV,
            bundled_models=tuple(data.bundled.models()),
            default_metric=default_metric,
        )

    def metric_of(self, task: TaskChoice) -> str | None:
        """The metric the task is given, else the one it comes with; None for an unknown task."""
        if task.metric is not None:
            return task.metric
        if task.path is None and task.name not in self.tasks:
            return None
        return self.default_metric(task.source, task.rule)

    def completed(self, source: Source) -> Source:
        """The source with its methods' own defaults for the options that were left open."""
        if isinstance(source, EnsembleChoice):
            members = tuple(self._completed(member) for member in source.ensemble)
            return source.model_copy(update={"ensemble": members})
        return self._completed(source) if isinstance(source, MethodChoice) else source

    def _completed(self, method: MethodChoice) -> MethodChoice:
        if method.name not in self.methods:
            return method
        known = self.methods[method.name]
        defaults: dict[str, Any] = dict(known.defaults)
        if known.interventions:
            defaults.setdefault("intervention", PATCHING)
        if known.takes_seed:
            defaults.setdefault("seed", 0)
        missing = {key: value for key, value in defaults.items() if getattr(method, key) is None}
        for key in ("edges", "nodes"):
            if (names := getattr(method, key)) is not None:
                missing[key] = tuple(sorted(names))  # in whatever order they are listed
        if method.of is not None:
            ranked = method.of.model_copy(update={"level": _level_of_ranking(method)})
            missing["of"] = self._completed(ranked)
        return method.model_copy(update=missing)

    def refused_members(self, source: EnsembleChoice) -> Iterator[Refusal]:
        """What the members of an ensemble cannot be, beside what methods cannot be."""
        members = [self._completed(member) for member in source.ensemble]
        if len(members) == 1:
            yield (
                ("ensemble",),
                f"an ensemble combines two or more methods: {members[0].label} is one",
            )
        for j, member in enumerate(members):
            place = ("ensemble", j)
            if member.level in self.levels and member.level != source.level:
                levels = (
                    f"{members[0].label} has {source.level} scores, {member.label} {member.level}"
                )
                yield (*place, "level"), f"members of an ensemble score one level: {levels} scores"
            if member.judged_under:
                reason = "members are only scored; `judged_under` belongs to the ensemble itself"
                yield (*place, "judged_under"), reason
            if member.model_copy(update={"judged_under": ()}) in members[:j]:
                yield place, f"`{member.label}` is listed twice"

    def refused_options(self, method: MethodChoice) -> Iterator[Refusal]:
        """Options that the method does not take."""
        if method.name not in self.methods:
            return
        known = self.methods[method.name]
        if method.level in self.levels and method.level not in known.levels:
            scored = "and ".join(f"{level} " for level in known.levels)
            yield ("level",), f"{method.name} has no {method.level} scores, only {scored}scores"
        for key, takes in _TAKES.items():
            if getattr(method, key) is not None and not getattr(known, takes):
                takers = [name for name, other in self.methods.items() if getattr(other, takes)]
                verb = "does" if len(takers) == 1 else "do"
                yield (key,), f"{method.name} takes no `{key}`; {', '.join(takers)} {verb}"
        if method.steps is not None and method.steps > self.most_steps:
            reason = f"integrated gradients take at most {self.most_steps} steps"
            yield ("steps",), f"{reason}, not {method.steps}"
        if method.quadrature == "trapezoid" and method.steps == 1:
            yield ("steps",), "the trapezoid rule needs at least 2 steps, its two ends"
        yield from self._refused_interventions(method)
        if known.takes_units:
            yield from _refused_units(method)
        if method.of is not None:
            for place, reason in self._refused_ranking(method.of, method):
                yield ("of", *place), reason

    def _refused_interventions(self, method: MethodChoice) -> Iterator[Refusal]:
        takes = self.methods[method.name].interventions
        if method.intervention is None or method.intervention not in self.interventions:
            return
        if not takes:
            reason = f"{method.name} takes no `intervention`"
            instead = f"run its circuits under one with `judged_under: [{method.intervention}]`"
            yield ("intervention",), f"{reason}; {instead}"
        elif method.intervention not in takes:
            reason = f"{method.name} does not take the intervention {method.intervention}"
            able = [
                n for n, one in self.methods.items() if method.intervention in one.interventions
            ]
            others = f"; {_either(able)} would" if able else ""
            yield ("intervention",), f"{reason}, only {_either(takes)}{others}"

    def _refused_ranking(self, of: MethodChoice, method: MethodChoice) -> Iterator[Refusal]:
        """What the method that ranks the units for another cannot be."""
        level = _level_of_ranking(method)
        if "level" in of.model_fields_set and of.level != level:
            yield (
                ("level",),
                f"`of` ranks {level}s for {method.name} ({method.level}): leave its level out",
            )
        if of.judged_under:
            yield ("judged_under",), "`of` only ranks; `judged_under` belongs to the method itself"
        if of.named_units is not None or of.top is not None or of.of is not None:
            yield ((), "`of` ranks all units, so it takes no `edges`, `nodes`, `top` or `of`")
        else:
            yield from self.refused_options(of.model_copy(update={"level": level}))

    def refused_extraction(self, rule: ExtractionChoice, source: Source) -> str | None:
        """Why the rule can't extract circuits from the method's scores; None if it can."""
        if (
            rule.name != "greedy"
            or source.level == "edge"
            or rule.level not in (None, source.level)
        ):
            return None
        return (
            f"greedy grows circuits edge by edge, and {source.label} has {source.level} scores: "
            f"write {{name: greedy, level: edge}}, or use top-n or threshold"
        )

    def refused_metric(self, source: Source, task: TaskChoice) -> str | None:
        """Why a method of the source can't attribute by the task's metric; None if all can."""
        reasons = (self._refused_metric(method, task) for method in source.methods)
        return next((reason for reason in reasons if reason is not None), None)

    def _refused_metric(self, method: MethodChoice, task: TaskChoice) -> str | None:
        if method.of is not None and (reason := self._refused_metric(method.of, task)) is not None:
            return reason
        name = self.metric_of(task)
        if method.name not in self.methods or name is None or name not in self.metrics:
            return None
        known, metric = self.methods[method.name], self.metrics[name]
        if not known.takes_metric:
            return None
        if not metric.differentiable and known.needs_gradient:
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


_NUMBER = r"(0|[1-9]\d{0,8})"
_WRITER = re.compile(rf"input|a{_NUMBER}\.h{_NUMBER}|m{_NUMBER}")
_READER = rf"a{_NUMBER}\.(h{_NUMBER}<[qkv]>|kv{_NUMBER}<[kv]>)|m{_NUMBER}|logits"
_EDGE = re.compile(rf"({_WRITER.pattern})->({_READER})")

# options that only some methods take, and what says whether one does
_TAKES = {
    "steps": "takes_steps",
    "quadrature": "takes_steps",
    "scope": "takes_scope",
    "seed": "takes_seed",
    "edges": "takes_units",
    "nodes": "takes_units",
    "top": "takes_units",
    "of": "takes_units",
}


def _refused_units(method: MethodChoice) -> Iterator[Refusal]:
    """Restrictions that say nothing, or two things at once."""
    kind, other = ("edges", "nodes") if method.level == "edge" else ("nodes", "edges")
    if getattr(method, other) is not None:
        yield (other,), f"{method.name} at {method.level} level is restricted by `{kind}`"
    for j, name in enumerate(method.edges or ()):
        if not _EDGE.fullmatch(name):
            shape = "edges are written as in a0.h1->m2, input->a0.h1<q> and m0->logits"
            yield ("edges", j), f"`{name[:60]}` is no edge: {shape}"
    for j, name in enumerate(method.nodes or ()):
        if not _WRITER.fullmatch(name):
            shape = "nodes are written input, a0.h1 and m2"
            yield ("nodes", j), f"`{name[:60]}` is no node that has scores: {shape}"
    if (method.top is None) != (method.of is None):
        there, missing = ("top", "of") if method.of is None else ("of", "top")
        yield (there,), f"`{there}` needs `{missing}`, as in {{top: 500, of: EAP}}"
    if method.named_units is not None and (method.top is not None or method.of is not None):
        yield (kind,), f"{method.name} is restricted by `{kind}` or by `top` and `of`, not by both"
    if method.level == "neuron" and method.named_units is None and method.of is None:
        yield ("level",), f"{method.name} scores the neurons of chosen nodes: add `nodes: [m0]`"


def _level_of_ranking(method: MethodChoice) -> str:
    """The level of the scores that choose units for a method: neurons are chosen by node."""
    return "edge" if method.level == "edge" else "node"


def _either(words: Iterable[str]) -> str:
    """`edge, node or neuron`."""
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last
