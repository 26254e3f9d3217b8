"""Turns on their way: each is taken as far as finished stages lead, then wants what is missing.

A turn whose walk the store refuses begins again after a while. So does, at once, one that cannot
read an artifact which was there when it was planned: it has been damaged since, or is gone; walked
anew, the turn finds it missing, and it is made again (see `flows/losses.py`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable

from data.errors import ArtifactLostError, StoreUnavailableError
from flows.agenda import Agenda, Open
from flows.config import Cell, GridConfig
from flows.errors import Lost
from flows.jobs import Job, Jobs
from flows.losses import Losses
from flows.patience import wait_before
from flows.runner import Runner
from flows.stages import Found, Stage
from flows.supervisor import Supervisor
from flows.walk import Turn


class Walker:
    """Takes the turns of an agenda through their walks; what they miss are its jobs."""

    def __init__(
        self,
        config: GridConfig,
        to_do: Iterable[Turn],
        runner: Runner,
        supervisor: Supervisor,
        jobs: Jobs,
    ) -> None:
        self.config = config
        self.runner = runner
        self.supervisor = supervisor
        self.jobs = jobs
        self.agenda = Agenda(to_do, lambda model: runner.place_of(config.device_of(model)))
        self._refused: Counter[Turn] = Counter()  # how often the store refused a turn's walk
        self._not_before = 0.0  # when turns may be opened again
        self.losses = Losses(config.retries)
        self._asked_by: dict[str, dict[Turn, None]] = {}  # the turns that asked for a stage
        self._given_up: set[Turn] = set()

    @property
    def is_waiting(self) -> bool:
        """Whether no turn may be opened at this moment."""
        return time.monotonic() < self._not_before

    def is_stalled(self, one: Open) -> bool:
        """Whether a turn waits for nothing but other processes."""
        return all(self.jobs[key].told for key in one.waiting)

    def open_turns(self, is_idle: Callable[[str], bool]) -> None:
        """Open turns while a place would be idle."""
        if self.is_waiting:
            return
        one_model = self.runner.one_model_a_place
        for place in self.agenda.places:
            while is_idle(place):
                turn = self.agenda.next_at(place, one_model, self.is_stalled)
                if turn is None:
                    break
                self._begin(turn)
        last = self.agenda.next_after_all()
        if last is not None:
            self._begin(last)

    def deliver(self, job: Job, found: Found) -> None:
        """Hand what was found to the turns that wait for it."""
        self.jobs.forget(job)
        for one, i in job.wanted_by:
            if not one.over:
                one.found[i] = found
        for one in job.wanting:
            one.waiting.discard(job.key)
            if not one.waiting and not one.over:
                self._go_on(one, lambda one=one: one.walk.send(tuple(one.found)))  # type: ignore[misc]

    def give_up(self, one: Open, error: Exception) -> None:
        """End a turn that cannot be finished."""
        self.agenda.close(one)
        self._given_up.add(one.turn)
        self.supervisor.gave_up(one.turn, error)

    def make_again(self, lacking: list[Open], lost: Lost, error: Exception) -> None:
        """Have turns begin again, by which what they lack is found missing.

        A cell asks for all that it needs. Another turn may lack what it did not ask for: then a
        cell that did begins again, too. Where none of these could be finished, the turn is given up
        with the error.
        """
        asked = self._asked_by.get(lost.key, {})
        makers = [one for one in asked if isinstance(one, Cell) and one not in self._given_up]
        for one in lacking:
            asks_itself = isinstance(one.turn, Cell) or one.turn in asked
            if not asks_itself and not makers:
                self.give_up(one, error)
                continue
            if not asks_itself:
                self.agenda.put_back(makers[0])
            self.agenda.put_back(one.turn)

    # ------------------------------------------------------------------------------------------

    def _begin(self, turn: Turn) -> None:
        opened = self.agenda.begin(turn, self.supervisor.begin(turn))
        self._go_on(opened, lambda: next(opened.walk))

    def _go_on(self, one: Open, ask: Callable[[], tuple[Stage, ...]]) -> None:
        """Take a turn as far as finished stages lead."""
        try:
            self._take(one, ask())
            while not one.waiting:
                self._take(one, one.walk.send(tuple(one.found)))
        except StopIteration as end:
            self.agenda.close(one)
            self._given_up.discard(one.turn)
            self.supervisor.ended(one.turn, end.value)
        except StoreUnavailableError as error:
            if self._refused[one.turn] >= self.config.retries:
                raise
            self._open_later(one, error)
        except ArtifactLostError as error:
            lost = Lost(error.kind, error.key, error.reason)
            if self.losses.may_be_made_again(one.turn, lost):
                self.supervisor.refused(one.turn, lost.again, 0.0)
                self.make_again([one], lost, error)
            else:
                self.give_up(one, self.losses.last_word(one.turn, lost, error))
        except Exception as error:
            # The boundary of a turn: the run says which errors are a turn's own.
            self.give_up(one, error)

    def _take(self, one: Open, stages: tuple[Stage, ...]) -> None:
        """Look for stages that a turn asks for, and want those that are not finished."""
        one.found = []
        for i, stage in enumerate(stages):
            found = self.supervisor.find(one.turn, stage)
            one.found.append(found)
            if stage.key is not None:
                self._asked_by.setdefault(stage.key, {})[one.turn] = None
            if found is None:
                device = None if stage.runs is None else stage.runs.device
                self.jobs.want(one, i, stage, self.runner.place_of(device))

    def _open_later(self, one: Open, error: StoreUnavailableError) -> None:
        """Put a turn back whose walk the store refused."""
        seconds = wait_before(self._refused[one.turn])
        self._refused[one.turn] += 1
        self._not_before = time.monotonic() + seconds
        self.agenda.put_back(one.turn)
        self.supervisor.refused(one.turn, str(error), seconds)
