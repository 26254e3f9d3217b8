"""What is measured at the answer position: one number an example from a row of logits.

Answers may be several tokens a side: logits are averaged over them, probabilities are summed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.registry import Registry
from tasks.task import Example, TaskError

if TYPE_CHECKING:  # torch takes a second to import, and the names of metrics do not need it
    import torch
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


@dataclass(frozen=True)
class Answers:
    """The answer ids of a batch on a device; the masks tell real ones from padding."""

    correct: Int[Tensor, "batch n_correct"]
    correct_mask: Bool[Tensor, "batch n_correct"]
    incorrect: Int[Tensor, "batch n_incorrect"]
    incorrect_mask: Bool[Tensor, "batch n_incorrect"]

    @classmethod
    def of(cls, examples: Sequence[Example], device: str | torch.device = "cpu") -> Answers:
        """Collect the answers of examples, in their order."""
        import torch

        def pad(rows: list[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
            width = max((len(row) for row in rows), default=0)
            ids = torch.tensor([row + (0,) * (width - len(row)) for row in rows], dtype=torch.long)
            lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
            mask = torch.arange(width)[None, :] < lengths[:, None]
            return ids.to(device), mask.to(device)

        return cls(
            *pad([example.correct for example in examples]),
            *pad([example.incorrect for example in examples]),
        )

    def repeat(self, copies: int) -> Answers:
        """The same answers several times over, one whole set after another."""
        return Answers(
            self.correct.repeat(copies, 1),
            self.correct_mask.repeat(copies, 1),
            self.incorrect.repeat(copies, 1),
            self.incorrect_mask.repeat(copies, 1),
        )


MetricFunction = Callable[["Tensor", Answers, "Tensor | None"], "Tensor"]


@dataclass(frozen=True)
class Metric:
    """A named measure and what a method must know of it before using it.

    ``needs_reference``: it compares with the logits of the model's clean run. ``flat_at_clean``:
    its gradient is zero at the clean input, so a gradient taken there alone says nothing.
    """

    name: str
    function: MetricFunction
    higher_is_better: bool = True
    differentiable: bool = True
    needs_reference: bool = False
    flat_at_clean: bool = False

    def __call__(
        self,
        logits: Float[Tensor, "batch vocab"],
        answers: Answers,
        reference: Float[Tensor, "batch vocab"] | None = None,
    ) -> Float[Tensor, "batch"]:
        """One value an example from the logits at its answer position.

        Computed in float32 at least: half precision is upcast, float64 stays. Raises TaskError
        where a reference is needed and absent, the batches differ in size, or the function gives
        anything but one floating-point number an example.
        """
        if logits.ndim != 2 or logits.shape[0] != answers.correct.shape[0]:
            raise TaskError(
                f"{self.name} takes logits [batch, vocabulary] at the answer position of "
                f"{answers.correct.shape[0]} examples, not a tensor of shape {tuple(logits.shape)}"
            )
        if not self.needs_reference:
            return self._checked(self.function(_at_least_float32(logits), answers, None), logits)
        if reference is None:
            raise TaskError(
                f"{self.name} compares with the model's clean run: pass its logits as reference"
            )
        if reference.shape != logits.shape:
            raise TaskError(
                f"{self.name} takes a reference of the shape of the logits, "
                f"{tuple(logits.shape)}, not {tuple(reference.shape)}"
            )
        values = self.function(
            _at_least_float32(logits), answers, _at_least_float32(reference.detach())
        )
        return self._checked(values, logits)

    def loss(
        self,
        logits: Float[Tensor, "batch vocab"],
        answers: Answers,
        reference: Float[Tensor, "batch vocab"] | None = None,
    ) -> Float[Tensor, "batch"]:
        """The metric with the sign that makes lower better: L = −metric where higher is better."""
        value = self(logits, answers, reference)
        return -value if self.higher_is_better else value

    def _checked(self, values: object, logits: Tensor) -> Tensor:
        """What the function gave, if it is what a metric gives; TaskError otherwise."""
        import torch

        wanted = f"a tensor of one floating-point number an example, [{logits.shape[0]}]"
        if not isinstance(values, torch.Tensor):
            given = "None" if values is None else f"a {type(values).__name__}"
            raise TaskError(f"the metric {self.name} must return {wanted}, not {given}")
        if values.shape != logits.shape[:1]:
            given = f"one of shape {list(values.shape)}"
            raise TaskError(f"the metric {self.name} must return {wanted}, not {given}")
        if not values.is_floating_point():
            given = f"one of {str(values.dtype).removeprefix('torch.')}: call .float() on it"
            raise TaskError(f"the metric {self.name} must return {wanted}, not {given}")
        return values


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype.itemsize < 4 else logits


def as_metric(metric: str | Metric | Callable[..., Tensor]) -> Metric:
    """A metric by name, as it is, or made of a function; TaskError for anything else.

    The function takes (logits, answers), or (logits, answers, logits of the clean run), and gives
    one differentiable value an example, higher being better. Arguments with a default are its own.
    """
    if isinstance(metric, str):
        return get_metric(metric)
    if isinstance(metric, Metric):
        return metric
    if not callable(metric):
        raise TaskError(
            f"a metric is a name, a Metric or a function of (logits, answers), not {metric!r}"
        )
    name = getattr(metric, "__name__", type(metric).__name__)
    n_given = _n_arguments(metric, name)

    def function(logits: Tensor, answers: Answers, reference: Tensor | None) -> Tensor:
        given = (logits, answers) if n_given == 2 else (logits, answers, reference)
        return metric(*given)

    return Metric(name, function, needs_reference=n_given == 3)


def _n_arguments(metric: Callable[..., Tensor], name: str) -> int:
    """How many arguments a function must be given; TaskError where a metric cannot be called so."""
    try:
        parameters = inspect.signature(metric).parameters.values()
    except ValueError:
        raise TaskError(
            f"the metric {name} does not say what it takes: wrap it in a function of "
            f"(logits, answers)"
        ) from None
    asked = [one for one in parameters if one.default is one.empty]
    by_place = [
        one for one in asked if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)
    ]
    by_name = [one.name for one in asked if one.kind is one.KEYWORD_ONLY]
    if by_name or len(by_place) not in (2, 3):
        given = by_name or [one.name for one in by_place]
        raise TaskError(
            f"the metric {name} must take (logits, answers) or (logits, answers, clean logits), "
            f"not ({', '.join(given)})"
        )
    return len(by_place)


METRICS: Registry[Metric] = Registry("metric")


def metric(
    name: str,
    *,
    higher_is_better: bool = True,
    differentiable: bool = True,
    needs_reference: bool = False,
    flat_at_clean: bool = False,
) -> Callable[[MetricFunction], MetricFunction]:
    """Register ``function(logits, answers, reference)``, one value an example, as a metric.

    Raises TaskError if the name is taken by another function.
    """

    def register(function: MetricFunction) -> MetricFunction:
        entry = Metric(
            name, function, higher_is_better, differentiable, needs_reference, flat_at_clean
        )
        METRICS.add(name, entry, function)
        return function

    return register


def get_metric(name: str) -> Metric:
    """Return a metric by name; TaskError with the nearest name if there is none."""
    return METRICS.get(name)


def metric_names() -> tuple[str, ...]:
    """Return the names of all metrics, those of plug-ins included, in alphabetical order."""
    return METRICS.names()


def _mean_at(values: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    return _sum_at(values, ids, mask) / mask.sum(-1)


def _sum_at(values: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    return values.gather(-1, ids).masked_fill(~mask, 0.0).sum(-1)


@metric("logit-diff")
def logit_diff(logits: Tensor, answers: Answers, reference: Tensor | None) -> Tensor:
    """Mean logit of the correct answers minus mean logit of the incorrect ones."""
    correct = _mean_at(logits, answers.correct, answers.correct_mask)
    return correct - _mean_at(logits, answers.incorrect, answers.incorrect_mask)


@metric("prob-diff")
def prob_diff(logits: Tensor, answers: Answers, reference: Tensor | None) -> Tensor:
    """Probability of the correct answers together minus that of the incorrect ones, in [−1, 1]."""
    probabilities = logits.softmax(-1)
    correct = _sum_at(probabilities, answers.correct, answers.correct_mask)
    return correct - _sum_at(probabilities, answers.incorrect, answers.incorrect_mask)


@metric("kl", higher_is_better=False, needs_reference=True, flat_at_clean=True)
def kl(logits: Tensor, answers: Answers, reference: Tensor | None) -> Tensor:
    """KL(reference ‖ run) in nats, summed over the vocabulary; 0 where the runs agree."""
    assert reference is not None  # Metric.__call__ has seen to it
    log_run, log_reference = logits.log_softmax(-1), reference.log_softmax(-1)
    probabilities = log_reference.exp()
    # a token that the reference rules out adds nothing, whatever the run says of it
    log_ratio = (log_reference - log_run).masked_fill(probabilities == 0, 0.0)
    return (probabilities * log_ratio).sum(-1)


@metric("accuracy", differentiable=False)
def accuracy(logits: Tensor, answers: Answers, reference: Tensor | None) -> Tensor:
    """1 where the correct answers together are more probable than the incorrect ones, else 0.

    That is prob-diff > 0, compared in logits so that tiny probabilities do not tie at zero.
    """
    impossible = float("-inf")
    correct = logits.gather(-1, answers.correct).masked_fill(~answers.correct_mask, impossible)
    incorrect = logits.gather(-1, answers.incorrect)
    incorrect = incorrect.masked_fill(~answers.incorrect_mask, impossible)
    return (correct.logsumexp(-1) > incorrect.logsumexp(-1)).to(logits.dtype)
