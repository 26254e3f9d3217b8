"""The tasks of the models whose circuits are known by construction, `truth/induction`, `truth/gate`
and `truth/backup`: what their circuits are is in `data/bundled/truth`, how they are built in
`training/truths.py`.

A prompt's words stand in fixed places, because those models tell places apart by position. Each
pair differs in all that its circuit reads, and in things that it must not read.
"""

from __future__ import annotations

from collections.abc import Sequence

from tasks.combinations import Combinations
from tasks.registry import task
from tasks.task import Pair

# -- induction ------------------------------------------------------------------------------------

_OBJECTS = """
apple bird coin door egg fish gate hat ink jar key lamp
"""
OBJECTS = tuple(_OBJECTS.split())
# which of five different words stands where; the second follows the first, and answers it again
REPEATS = ((0, 1, 2, 3, 4, 0), (2, 0, 1, 3, 4, 0), (2, 3, 0, 1, 4, 0), (2, 3, 4, 0, 1, 0))


def induction_pair(order: Sequence[int], chosen: Sequence[str], others: Sequence[str]) -> Pair:
    """Return the pair of two times five different words in one order."""
    return Pair(
        clean=" ".join(chosen[i] for i in order),
        corrupted=" ".join(others[i] for i in order),
        correct=(f" {chosen[1]}",),
        incorrect=(f" {others[1]}",),
    )


def _drawn(*places: int) -> list[str]:
    """Return as many different words as there are places, each the place among those left."""
    left = list(OBJECTS)
    return [left.pop(place) for place in places]


@task("truth/induction", metric="logit-diff")
def induction() -> Combinations:
    """Say again what followed the last word when it came before: "apple bird … apple" → " bird"."""

    def build(order: Sequence[int], *places: int) -> Pair:
        words = _drawn(*places)
        return induction_pair(order, words[:5], words[5:])

    n = len(OBJECTS)
    return Combinations(build, REPEATS, *(range(n - drawn) for drawn in range(10)))


# -- gate -----------------------------------------------------------------------------------------

_DAYS = """
monday tuesday wednesday thursday friday saturday sunday
"""
DAYS = tuple(_DAYS.split())
WET, DRY = ("rain", "snow", "hail"), ("sun", "wind", "frost")
_TRACKS = """
one two three four five six seven eight nine ten
"""
TRACKS = tuple(_TRACKS.split())
RAISED, LOWERED = ("raised", "lifted", "open", "up"), ("lowered", "dropped", "closed", "down")
FREE, BLOCKED = ("green", "blue", "white", "clear"), ("red", "amber", "orange", "dark")
GO, WAIT = " go", " wait"


def gate_prompt(day: str, weather: str, track: str, barrier: str, signal: str) -> str:
    """Return what is said of a train."""
    return f"{day} {weather} track {track} barrier {barrier} signal {signal} so"


def gate_pair(
    day: str, weather: int, wet: bool, track: str, barrier: int, signal: int, closed: str
) -> Pair:
    """Return the pair of an open gate and one with the barrier, the signal or both against it.

    The weather is another in the corrupted prompt; nothing depends on it.
    """
    here, there = (WET, DRY) if wet else (DRY, WET)
    barriers = LOWERED if "barrier" in closed else RAISED
    signals = BLOCKED if "signal" in closed else FREE
    return Pair(
        clean=gate_prompt(day, here[weather], track, RAISED[barrier], FREE[signal]),
        corrupted=gate_prompt(day, there[weather], track, barriers[barrier], signals[signal]),
        correct=(GO,),
        incorrect=(WAIT,),
    )


@task("truth/gate", metric="logit-diff")
def gate() -> Combinations:
    """Go where the barrier is raised and the signal is free, whatever the weather."""
    return Combinations(
        gate_pair,
        DAYS,
        range(len(WET)),
        (True, False),
        TRACKS,
        range(len(RAISED)),
        range(len(FREE)),
        ("barrier", "signal", "barrier and signal"),
    )


# -- backup ---------------------------------------------------------------------------------------

_COLOURS = """
amber blue crimson green orange purple silver yellow
"""
COLOURS = tuple(_COLOURS.split())
NOTHING = ("nothing", "something", "anything")
_PEOPLE = """
anna ben carl dora emma frank gina hans
"""
PEOPLE = tuple(_PEOPLE.split())


def backup_prompt(speaker: str, said: str, day: str, listener: str) -> str:
    """Return who said what, and who repeats it."""
    return f"{speaker} said {said} on {day} so {listener} repeats"


def backup_pair(
    speaker: str, colour: int, day: int, listener: str, nothing: str, days_later: int
) -> Pair | None:
    """Return the pair of a colour that was said and of none, on another day."""
    if speaker == listener:
        return None
    said, others = COLOURS[colour], COLOURS[:colour] + COLOURS[colour + 1 :]
    later = DAYS[(day + days_later) % len(DAYS)]
    return Pair(
        clean=backup_prompt(speaker, said, DAYS[day], listener),
        corrupted=backup_prompt(speaker, nothing, later, listener),
        correct=(f" {said}",),
        incorrect=tuple(f" {other}" for other in others),
    )


@task("truth/backup", metric="logit-diff")
def backup() -> Combinations:
    """Repeat the colour that was said; the corrupted prompt says none."""
    days = range(len(DAYS))
    return Combinations(backup_pair, PEOPLE, range(len(COLOURS)), days, PEOPLE, NOTHING, days[1:])
