"""Which turn of a grid opens next at a place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flows.agenda import MOST_OPEN, Agenda, Open
from flows.reading import parse_grid
from flows.walk import Comparisons, Turn, Walk, turns

GRID = """
models: [{models}]
tasks: [ioi, sva]
methods: [{methods}]
judging: {{cross_task: true}}
"""


def agenda_of(models: str = "one, two", methods: str = "EAP") -> tuple[Agenda, list[Turn]]:
    config = parse_grid(GRID.format(models=models, methods=methods), "grid.yaml", Path())
    return Agenda(turns(config), lambda model: "here"), list(turns(config))


def no_walk() -> Walk:
    yield ()
    return None


def opened(agenda: Agenda, one_model: bool = True, stalled: bool = False) -> list[Open]:
    """Open turns as long as there are any to open, and return those."""

    def one_by_one() -> Iterator[Open]:
        while (turn := agenda.next_at("here", one_model, lambda _: stalled)) is not None:
            yield agenda.begin(turn, no_walk())

    return list(one_by_one())


def test_turns_open_in_their_order_each_when_what_it_needs_is_over():
    agenda, (one_ioi, one_sva, *crossed_one, two_ioi, two_sva, _, _, comparisons) = agenda_of()
    assert [one.turn for one in opened(agenda)] == [one_ioi, one_sva]
    agenda.close(agenda.open[0])
    assert opened(agenda) == []  # a cell of theirs is open
    agenda.close(agenda.open[0])
    crosses = opened(agenda)
    assert [one.turn for one in crosses] == crossed_one
    assert agenda.next_after_all() is None
    for one in crosses:
        assert opened(agenda) == []  # another model's
        agenda.close(one)
    for one in opened(agenda):
        assert one.turn in (two_ioi, two_sva)
        agenda.close(one)
    for one in opened(agenda):
        assert agenda.next_after_all() is None
        agenda.close(one)
    assert not agenda.is_over
    assert agenda.next_after_all() == comparisons
    assert isinstance(comparisons, Comparisons)
    last = agenda.begin(comparisons, no_walk())
    assert not agenda.is_over
    agenda.close(last)
    assert agenda.is_over


def test_where_turns_wait_for_other_processes_or_models_may_mix_the_next_model_opens():
    agenda, (one_ioi, one_sva, _, _, two_ioi, two_sva, *_) = agenda_of()
    cells = [one_ioi, one_sva, two_ioi, two_sva]
    assert [one.turn for one in opened(agenda, stalled=True)] == cells
    agenda, _ = agenda_of(models="one")
    assert len(opened(agenda, one_model=False)) == 2  # crosses still wait for the cells


def test_a_turn_that_is_put_back_comes_again_in_its_order():
    agenda, (one_ioi, one_sva, *crossed, _, _, _, _, _) = agenda_of()
    first, second = opened(agenda)
    agenda.close(first)
    agenda.close(second)
    crosses = opened(agenda)
    agenda.put_back(crosses[1].turn)
    agenda.put_back(one_sva)
    agenda.put_back(one_ioi)  # over
    agenda.put_back(one_ioi)  # and to come already
    assert crosses[1].over
    assert not crosses[0].over
    again = opened(agenda)
    assert [one.turn for one in again] == [one_ioi, one_sva]
    for one in again:
        agenda.close(one)
    assert [one.turn for one in opened(agenda)] == [crossed[1]]


def test_not_too_many_turns_are_open_at_a_place():
    methods = ", ".join(f"{{name: random, seed: {seed}}}" for seed in range(MOST_OPEN))
    agenda, _ = agenda_of(methods=methods)
    assert len(opened(agenda)) == MOST_OPEN
