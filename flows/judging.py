"""How a grid judges what it finds: intervals, and the questions that cost runs of their own."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StrictBool, StrictInt

from flows.quantities import Positive, Section, Seed, Share, Size

Resamples = Annotated[StrictInt, Field(ge=2, le=1_000_000)]


class StabilityChoice(Section):
    """How often each unit is among the `size` best when the examples are drawn again."""

    resamples: Resamples = 100
    size: Size = 0.01


class Judging(Section):
    """What is asked of circuits and scores besides faithfulness.

    Examples are drawn again `resamples` times for standard errors and for intervals that hold the
    share `confidence` of the draws; `seed` is that of the draws. `cross_task` runs every task's
    circuits on every other task's examples, by that task's metric. `completeness` runs the model
    without each circuit, `minimality` each circuit without each of its units, if these are at most
    so many. `comparisons` sets scores beside scores, and circuits beside circuits of one rule and
    size, wherever graphs are equal.
    """

    resamples: Resamples = 1000
    confidence: Share = 0.95
    seed: Seed = 0
    cross_task: StrictBool = False
    completeness: StrictBool = False
    minimality: Positive | None = None
    stability: StabilityChoice | None = None
    comparisons: StrictBool = True
