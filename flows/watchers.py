"""Several watchers of one run: what is said in the terminal, written down, and shown by Prefect."""

from __future__ import annotations

from flows.estimates import Estimates
from flows.plan import Plan
from flows.progress import Watcher
from flows.stages import Stage
from flows.walk import Turn


class Watchers(Watcher):
    """Several watchers that are told the same, in their order; it keeps count itself, too."""

    def __init__(self, *watchers: Watcher) -> None:
        super().__init__()
        self.watchers = watchers

    def waiting(self, what: str) -> None:
        """Tell all."""
        for one in self.watchers:
            one.waiting(what)

    def timed(self, estimates: Estimates) -> None:
        """Tell all; each learns from the run by itself."""
        super().timed(estimates)
        for one in self.watchers:
            one.timed(estimates)

    def started(self, plan: Plan) -> None:
        """Tell all."""
        super().started(plan)
        for one in self.watchers:
            one.started(plan)

    def replanned(self, turn: Turn, plan: Plan) -> None:
        """Tell all."""
        super().replanned(turn, plan)
        for one in self.watchers:
            one.replanned(turn, plan)

    def turn_started(self, turn: Turn) -> None:
        """Tell all."""
        super().turn_started(turn)
        for one in self.watchers:
            one.turn_started(turn)

    def stage_started(self, turn: Turn, stage: Stage) -> None:
        """Tell all."""
        super().stage_started(turn, stage)
        for one in self.watchers:
            one.stage_started(turn, stage)

    def stage_reused(self, turn: Turn, stage: Stage) -> None:
        """Tell all."""
        super().stage_reused(turn, stage)
        for one in self.watchers:
            one.stage_reused(turn, stage)

    def stage_computed(self, turn: Turn, stage: Stage) -> None:
        """Tell all."""
        super().stage_computed(turn, stage)
        for one in self.watchers:
            one.stage_computed(turn, stage)

    def stage_failed(self, turn: Turn, stage: Stage) -> None:
        """Tell all."""
        super().stage_failed(turn, stage)
        for one in self.watchers:
            one.stage_failed(turn, stage)

    def stage_retried(self, turn: Turn, stage: Stage, sentence: str, seconds: float) -> None:
        """Tell all."""
        super().stage_retried(turn, stage, sentence, seconds)
        for one in self.watchers:
            one.stage_retried(turn, stage, sentence, seconds)

    def stage_elsewhere(self, turn: Turn, stage: Stage, holder: str) -> None:
        """Tell all."""
        super().stage_elsewhere(turn, stage, holder)
        for one in self.watchers:
            one.stage_elsewhere(turn, stage, holder)

    def stage_cut(self, turn: Turn, stage: Stage, most_examples: int) -> None:
        """Tell all."""
        super().stage_cut(turn, stage, most_examples)
        for one in self.watchers:
            one.stage_cut(turn, stage, most_examples)

    def turn_failed(self, turn: Turn, stage: str, sentence: str) -> None:
        """Tell all."""
        super().turn_failed(turn, stage, sentence)
        for one in self.watchers:
            one.turn_failed(turn, stage, sentence)

    def turn_ended(self, turn: Turn) -> None:
        """Tell all."""
        super().turn_ended(turn)
        for one in self.watchers:
            one.turn_ended(turn)

    def ended(self) -> None:
        """Tell all."""
        for one in self.watchers:
            one.ended()

    def close(self) -> None:
        """Tell all."""
        for one in self.watchers:
            one.close()
