"""What is kept count of in a run of which several turns are under way at once, and how it looks."""

from __future__ import annotations

import inspect
import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from flows.config import GridConfig
from flows.estimates import Estimates, Timing, Work, weight
from flows.identity import Identities
from flows.plan import Plan, make_plan
from flows.progress import Watcher
from flows.stages import ShardStage, Stage
from flows.terminal import LineWatcher, LiveWatcher
from flows.walk import Turn
from flows.watchers import Watchers
from flows.workbench import Workbench

Grid = Callable[..., GridConfig]


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which stands still unless it is put forward."""
    now = [1000.0]
    clock = SimpleNamespace(monotonic=lambda: now[0])
    for module in ("progress", "terminal"):
        monkeypatch.setattr(f"flows.{module}.time", clock)
    return now


@pytest.fixture
def plan(grid: Grid, tmp_path: Path) -> Plan:
    """The plan of two cells of one task, with nothing done; they share its data and its model."""
    config = grid(methods="[EAP, clean-corrupted]", judging="{comparisons: false}")
    return make_plan(config, Workbench(str(tmp_path), config.memory_budget), Identities())


def shards(plan: Plan, turn: Turn) -> list[Stage]:
    return [stage for stage in plan.missing[turn] if isinstance(stage, ShardStage)]


def go_through(watcher: Watcher, turn: Turn, stage: Stage) -> None:
    watcher.stage_started(turn, stage)
    watcher.stage_computed(turn, stage)


def test_a_stage_that_two_turns_want_is_counted_once(plan: Plan):
    watcher = Watcher()
    watcher.started(plan)
    places = {
        stage.key or stage.place: stage for all_of in plan.missing.values() for stage in all_of
    }
    assert watcher.total == pytest.approx(sum(map(weight, places.values())))
    assert watcher.total < sum(weight(one) for all_of in plan.missing.values() for one in all_of)


def test_stages_of_one_key_are_one_piece_of_work(plan: Plan):
    one, other = plan.missing
    stage = next(stage for stage in plan.missing[one] if stage.key is not None)
    twin = replace(stage, scope="by another name")
    watcher = Watcher()
    watcher.started(Plan((stage, twin), {one: (stage,), other: (twin,)}, frozenset(), {}))
    assert watcher.total == pytest.approx(weight(stage))


def test_turns_that_are_under_way_at_once_have_counts_of_their_own(plan: Plan):
    one, other = plan.missing
    watcher = Watcher()
    watcher.started(plan)
    watcher.turn_started(one)
    watcher.turn_started(other)
    assert [watcher.of(turn).number for turn in (one, other)] == [1, 2]
    first, second, third = shards(plan, one)
    watcher.stage_started(one, first)
    watcher.stage_started(other, shards(plan, other)[0])
    go_through(watcher, one, second)
    watcher.stage_computed(one, first)
    watcher.stage_reused(other, shards(plan, other)[1])
    assert watcher.of(one).counted == "2 computed"
    assert watcher.of(other).counted == "1 reused"
    assert watcher.of(one).n_stages == len(plan.missing[one])
    assert list(watcher.of(other).running) == [shards(plan, other)[0].place]
    watcher.stage_elsewhere(one, third, "host:17")
    assert [who for _, who in watcher.of(one).elsewhere.values()] == ["host:17"]
    watcher.stage_reused(one, third)
    assert not watcher.of(one).is_busy


def test_a_stage_of_several_turns_is_computed_once_and_shared_by_the_others(plan: Plan):
    one, other = plan.missing
    watcher = Watcher()
    watcher.started(plan)
    watcher.turn_started(one)
    watcher.turn_started(other)
    (first, second, third), fourth = shards(plan, one), shards(plan, other)[0]
    go_through(watcher, one, first)
    watcher.stage_started(one, second)
    watcher.stage_reused(other, first)
    watcher.stage_reused(other, second)  # it was found in the store before this run was told
    watcher.stage_computed(one, second)
    watcher.stage_reused(one, second)  # asked for twice by one turn
    watcher.stage_reused(other, third)
    watcher.stage_reused(one, third)
    watcher.stage_failed(other, fourth)
    watcher.stage_failed(one, fourth)
    assert watcher.of(one).counted == "2 computed, 1 reused, 1 failed"
    assert watcher.of(other).counted == "2 shared, 1 reused, 1 failed"
    counts = {how: watcher.count(how) for how in ("computed", "reused", "failed")}
    assert counts == {"computed": 2, "reused": 1, "failed": 1}


def test_the_seconds_of_a_turn_are_those_of_its_own_stages(plan: Plan, now: list[float]):
    one, other = plan.missing
    watcher = Watcher()
    watcher.started(plan)
    watcher.turn_started(one)
    watcher.turn_started(other)
    for seconds, turn in ((2.0, one), (10.0, other), (3.0, one)):
        first = next(stage for stage in plan.missing[turn] if stage.place in watcher.of(turn).left)
        watcher.stage_started(turn, first)
        now[0] += seconds
        watcher.stage_computed(turn, first)
    now[0] += 100.0
    assert watcher.of(one).counted.endswith("2 computed, 5.0 s")
    assert watcher.of(other).counted.endswith("1 computed, 10.0 s")


@pytest.mark.parametrize("kind", [LineWatcher, LiveWatcher])
def test_cells_that_were_there_have_no_lines_and_are_counted(plan: Plan, kind: type[Watcher]):
    out = io.StringIO()
    watcher = kind(Console(file=out, width=120))
    try:
        watcher.started(plan)
        for turn in plan.missing:
            watcher.turn_started(turn)
            for stage in plan.missing[turn]:
                watcher.stage_reused(turn, stage)
            watcher.turn_ended(turn)
        watcher.ended()
    finally:
        watcher.close()
    said = [line.strip() for line in out.getvalue().splitlines() if "speaker" in line]
    assert said == []
    assert "2 cells were there already" in out.getvalue()


def test_all_work_is_done_once_all_turns_are_over_even_those_that_failed(plan: Plan):
    one, other = plan.missing
    watcher = Watcher()
    watcher.started(plan)
    watcher.turn_started(one)
    watcher.turn_started(other)
    shared = [stage for stage in plan.missing[one] if stage in plan.missing[other]]
    assert shared
    watcher.stage_started(one, shards(plan, one)[0])
    watcher.stage_failed(one, shards(plan, one)[0])
    watcher.turn_failed(one, "shard 1 of 3", "it is NaN")
    watcher.turn_ended(one)
    assert watcher.total - watcher.done == pytest.approx(sum(map(weight, plan.missing[other])))
    for stage in plan.missing[other]:
        go_through(watcher, other, stage)
    watcher.turn_ended(other)
    assert watcher.done == pytest.approx(watcher.total)
    assert watcher.n_over == 2
    assert watcher.turns == {}


def test_a_new_plan_in_the_middle_does_not_lose_what_is_done(plan: Plan):
    one, other = plan.missing
    watcher = Watcher()
    watcher.started(plan)
    before = watcher.total
    watcher.turn_started(one)
    go_through(watcher, one, plan.missing[one][0])
    left = {one: plan.missing[one][1:], other: plan.missing[other]}
    done = plan.missing[one][0]
    left[other] = tuple(stage for stage in left[other] if stage.place != done.place)
    watcher.replanned(one, Plan(plan.stages, left, frozenset(), {}))
    assert watcher.total == pytest.approx(before)
    assert watcher.done == pytest.approx(weight(done))
    assert watcher.of(one).n_stages == len(plan.missing[one])


def timed(plan: Plan, seconds: float) -> Estimates:
    """As if every stage had taken so long a unit of its weight."""
    works = [Work.of(stage) for stage in plan.stages]
    return Estimates(
        Timing(w.stage, w.cell, w.weight, seconds * w.weight, None, w.device) for w in works
    )


def test_the_time_left_is_known_before_anything_is_done_where_it_was_timed_before(plan: Plan):
    watcher = Watcher()
    watcher.started(plan)
    assert watcher.seconds_left is None
    watcher = Watcher()
    watcher.timed(timed(plan, 10.0))
    watcher.started(plan)
    assert watcher.seconds_left == pytest.approx(10 * watcher.total, rel=0.1)


def test_the_time_left_falls_with_what_is_done_and_with_what_is_done_at_a_time(
    plan: Plan, now: list[float]
):
    watcher = Watcher()
    watcher.timed(timed(plan, 10.0))
    watcher.started(plan)
    whole = watcher.seconds_left
    assert whole == pytest.approx(10 * watcher.total)
    one, other = plan.missing
    watcher.turn_started(one)
    watcher.turn_started(other)
    for turn in (one, other):  # a shard of weight 1 of each, side by side
        watcher.stage_started(turn, shards(plan, turn)[0])
    now[0] += 9.0
    for turn in (one, other):
        watcher.stage_computed(turn, shards(plan, turn)[0])
    left = 10 * watcher.total - sum(10 * weight(shards(plan, turn)[0]) for turn in (one, other))
    at_a_time = (2 * 9 + 5) / (9 + 5)
    assert watcher.seconds_left == pytest.approx(left / at_a_time, rel=1e-6)


def test_watchers_hand_on_every_event():
    own = {name for name, _ in inspect.getmembers(Watchers, inspect.isfunction)}
    events = {
        name
        for name, one in inspect.getmembers(Watcher, inspect.isfunction)
        if not name.startswith("_") and name not in ("of", "count")
    }
    told = {name for name in events if getattr(Watchers, name) is not getattr(Watcher, name)}
    assert told == events <= own


def test_watchers_tell_all_in_their_order(plan: Plan):
    said: list[str] = []

    class Noting(Watcher):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def stage_retried(self, turn: Turn, stage: Stage, sentence: str, seconds: float) -> None:
            super().stage_retried(turn, stage, sentence, seconds)
            said.append(f"{self.name} {sentence} {seconds}")

    both = Watchers(Noting("a"), Noting("b"))
    turn = next(iter(plan.missing))
    both.started(plan)
    both.turn_started(turn)
    both.stage_started(turn, shards(plan, turn)[0])
    both.stage_retried(turn, shards(plan, turn)[0], "no memory", 4.0)
    assert said == ["a no memory 4.0", "b no memory 4.0"]
    assert (both.done, both.total) == (0, both.watchers[0].total)


def test_a_line_instead_of_the_bar_says_what_comes_before_and_after_the_work(
    plan: Plan, now: list[float]
):
    watcher = LiveWatcher(Console(file=io.StringIO(), force_terminal=True, width=80), now[0] - 75)

    def shown() -> str:
        plain = Console(file=io.StringIO(), width=80, record=True)
        plain.print(watcher._render())
        return plain.export_text()

    try:
        assert "looking at the store 0:01:15" in shown()
        watcher.waiting("starting Prefect")
        assert "starting Prefect 0:01:15" in shown()
        watcher.started(plan)
        now[0] += 4
        assert "0 of 2" in shown()
        assert "0:01:19" in shown()
        for turn in plan.missing:
            watcher.turn_started(turn)
            watcher.turn_ended(turn)
        watcher.ended()
        assert "writing the leaderboard and drawings 0:01:19" in shown()
        assert "%" not in shown()
    finally:
        watcher.close()


def test_lines_in_a_narrow_terminal_break_between_words_and_keep_the_time_whole(plan: Plan):
    out = io.StringIO()
    watcher = LiveWatcher(Console(file=out, force_terminal=True, width=40, color_system=None))
    try:
        watcher.started(plan)
        turn = list(plan.missing)[1]
        watcher.turn_started(turn)
        go_through(watcher, turn, plan.missing[turn][0])
        watcher.of(turn).seconds = 1234.5
        watcher.turn_failed(
            turn, "shard", "set PREFECT_API_URL to the address of a server you keep"
        )
        watcher.turn_ended(turn)
    finally:
        watcher.close()
    text = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", out.getvalue()).replace("\r", "\n")
    lines = [line for line in text.splitlines() if line.strip()]
    (ended,) = (line for line in lines if line.startswith("✗"))
    assert ended.startswith("✗ speaker")
    assert "…" in ended
    assert ended.endswith("1 computed, 1234.5 s")
    assert "  set PREFECT_API_URL to the address of" in lines
    assert "  a server you keep" in lines


@pytest.mark.parametrize("width", [80, 120])
def test_the_bar_shows_what_is_done_now_and_fits_into_the_terminal(plan: Plan, width: int):
    out = io.StringIO()
    watcher = LiveWatcher(Console(file=out, force_terminal=True, width=width, height=20))
    try:
        watcher.timed(timed(plan, 100.0))
        watcher.started(plan)
        for turn in plan.missing:
            watcher.turn_started(turn)
        one, other = plan.missing
        watcher.stage_started(one, shards(plan, one)[1])
        watcher.stage_elsewhere(other, shards(plan, other)[2], "far:12")
        plain = Console(file=io.StringIO(), width=width, record=True)
        plain.print(watcher._render())
        lines = [line.rstrip() for line in plain.export_text().splitlines()]
        assert "0 of 2" in lines[0]
        assert lines[0].endswith("left")
        assert f"0/{len(plan.missing[one])} shard 2 of 3" in lines[1]
        assert "speaker · ioi · EAP" in lines[1]
        assert "shard 3 of 3 (by process 12 on far)" in lines[2]
        assert all(len(line) < width for line in lines)
        watcher.stage_retried(one, shards(plan, one)[1], "no memory", 4.0)
        watcher.stage_cut(one, shards(plan, one)[1], 1)
        watcher.turn_failed(one, "shard 2 of 3", "not enough memory")
        watcher.turn_ended(one)
    finally:
        watcher.close()
    said = out.getvalue()
    assert "shard 2 of 3 failed, again in 4 s: no memory" in " ".join(said.split())
    assert "fits with 1 example at a time" in " ".join(said.split())
    assert "not enough memory" in said


def test_lines_say_what_became_of_turns_and_of_stages_that_did_not_just_work(plan: Plan):
    console = Console(file=io.StringIO(), width=200)
    watcher = LineWatcher(console)
    watcher.started(plan)
    one, other = plan.missing
    watcher.turn_started(one)
    watcher.turn_started(other)
    first = shards(plan, other)[0]
    go_through(watcher, one, shards(plan, one)[0])
    watcher.stage_started(other, first)
    watcher.stage_retried(other, first, "no memory", 1.0)
    watcher.stage_elsewhere(other, first, "far:12")
    watcher.stage_reused(other, first)
    watcher.turn_ended(other)  # nothing of it was done here
    watcher.turn_ended(one)
    assert isinstance(console.file, io.StringIO)
    retried, elsewhere, ended = console.file.getvalue().splitlines()
    label = other.label
    assert retried == f"[2/2] {label}: shard 1 of 3 failed, again in 1 s: no memory"
    assert elsewhere == f"[2/2] {label}: shard 1 of 3 is being done by process 12 on far"
    assert ended == f"[1/2] {one.label}: 1 computed"


def test_long_runs_say_now_and_then_how_far_they_are(plan: Plan, now: list[float]):
    console = Console(file=io.StringIO(), width=200)
    watcher = LineWatcher(console)
    watcher.timed(timed(plan, 10.0))
    watcher.started(plan)
    turn = next(iter(plan.missing))
    watcher.turn_started(turn)
    watcher.stage_started(turn, shards(plan, turn)[0])
    now[0] += 20
    watcher.stage_computed(turn, shards(plan, turn)[0])
    watcher.stage_started(turn, shards(plan, turn)[1])
    assert isinstance(console.file, io.StringIO)
    (line,) = console.file.getvalue().splitlines()
    assert line.startswith(f"[1/2] {turn.label}: shard 2 of 3, ")
    assert " % of the work, ~0:0" in line
