"""The turns of a grid that are not over: which are to come, which are open, which opens next.

Each place has the turns of its models, in the order of the grid; what needs several models comes
when all others are over. A turn opens only where a place would be idle without it, and another
model's only once no turn of the present one needs it. One that is put back is open no more, and
comes again in its order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from flows.config import Cell, ModelChoice
from flows.stages import Found
from flows.walk import CrossTask, Turn, Walk

MOST_OPEN = 16  # turns at a place
_AFTER_ALL = ""  # the place of turns that need all others


@dataclass(eq=False)
class Open:
    """A turn under way: its walk, and what came of the stages that it asked for last."""

    turn: Turn
    number: int
    place: str
    model: ModelChoice | None
    walk: Walk
    found: list[Found | None] = field(default_factory=list)
    waiting: set[str] = field(default_factory=set)  # keys
    over: bool = False


class Agenda:
    """The turns of a grid that are to come, by place, and those that are open."""

    def __init__(self, grid: Iterable[Turn], place_of: Callable[[ModelChoice], str]) -> None:
        self.open: list[Open] = []
        self._numbers: dict[Turn, int] = {}
        self._places: dict[Turn, str] = {}
        self._to_come: dict[str, list[Turn]] = {}
        for number, turn in enumerate(grid):
            model = _model_of(turn)
            self._numbers[turn] = number
            self._places[turn] = _AFTER_ALL if model is None else place_of(model)
            self._to_come.setdefault(self._places[turn], []).append(turn)

    @property
    def is_over(self) -> bool:
        """Whether every turn came to its end."""
        return not self.open and not any(self._to_come.values())

    @property
    def places(self) -> tuple[str, ...]:
        """Where turns of models are done."""
        return tuple(place for place in self._to_come if place != _AFTER_ALL)

    def open_at(self, place: str) -> list[Open]:
        """The turns that are open at a place."""
        return [one for one in self.open if one.place == place]

    def models_to_come(self, place: str) -> Iterator[ModelChoice]:
        """The models of the turns to come at a place, in their order."""
        for turn in self._to_come.get(place, ()):
            model = _model_of(turn)
            if model is not None:
                yield model

    def next_at(
        self, place: str, one_model: bool, is_stalled: Callable[[Open], bool]
    ) -> Turn | None:
        """The turn that a place with nothing to do should open, if any.

        `one_model` says whether turns of one model alone may be open, beside those that are
        stalled: they wait for nothing but other processes.
        """
        here = self.open_at(place)
        if len(here) >= MOST_OPEN:
            return None
        for turn in self._to_come[place]:
            model = _model_of(turn)
            alike = [one for one in here if one.model == model and isinstance(one.turn, Cell)]
            if isinstance(turn, CrossTask) and alike:  # it sets cells beside each other
                if all(map(is_stalled, alike)):
                    continue
                return None
            others = [one for one in here if one.model != model]
            if one_model and not all(map(is_stalled, others)):
                return None
            return turn
        return None

    def next_after_all(self) -> Turn | None:
        """The turn that needs all others, once these are over."""
        if self.open or any(self._to_come[place] for place in self.places):
            return None
        return next(iter(self._to_come.get(_AFTER_ALL, ())), None)

    def begin(self, turn: Turn, walk: Walk) -> Open:
        """Open a turn that was to come."""
        place = self._places[turn]
        self._to_come[place].remove(turn)
        opened = Open(turn, self._numbers[turn], place, _model_of(turn), walk)
        self.open.append(opened)
        return opened

    def close(self, one: Open) -> None:
        """End a turn."""
        one.over = True
        self.open.remove(one)

    def put_back(self, turn: Turn) -> None:
        """Have a turn come again, whether it is open, over, or to come."""
        for one in [one for one in self.open if one.turn == turn]:
            self.close(one)
        to_come = self._to_come[self._places[turn]]
        if turn not in to_come:
            to_come.append(turn)
            to_come.sort(key=self._numbers.__getitem__)


def _model_of(turn: Turn) -> ModelChoice | None:
    match turn:
        case Cell():
            return turn.model
        case CrossTask():
            return turn.cell.model
    return None
