"""Greater-than: "The war lasted from the year 1741 to the year 17" → a year above 41.

The correct answers are all two-digit years above the first one, the incorrect ones all others;
the corrupted prompt begins in 01, from which nearly every year is above. Judged by prob-diff.

Source: Hanna et al. 2023, "How does GPT-2 compute greater-than?"; the nouns are this project's.
"""

from __future__ import annotations

from tasks.combinations import Combinations
from tasks.registry import task
from tasks.task import Pair

TEMPLATE = "The {noun} lasted from the year 17{year} to the year 17"
YEARS = tuple(f"{year:02d}" for year in range(100))
CORRUPTED_YEAR = "01"
_NOUNS = """
war siege battle campaign conflict rebellion revolt uprising invasion occupation blockade truce
peace alliance treaty negotiation dispute debate crisis famine drought flood plague epidemic fever
storm winter voyage expedition journey pilgrimage exploration migration crossing tour visit
mission construction restoration excavation repair survey investigation trial inquiry study
experiment project program partnership marriage friendship romance feud rivalry reign dynasty
regime government ministry presidency regency rule monarchy republic empire colony settlement
trade boom recession depression strike embargo tax contract lease festival tradition movement
school fashion craze era age period phase transition reform revolution renaissance decline
recovery growth expansion captivity exile sentence service apprenticeship career tenure
"""
NOUNS = tuple(_NOUNS.split())


def years_above(year: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the two-digit years above one, and those not above it."""
    return (
        tuple(other for other in YEARS if other > year),
        tuple(other for other in YEARS if other <= year),
    )


def pair(noun: str, year: str) -> Pair:
    """Return the pair of a noun and the two-digit year it began in."""
    correct, incorrect = years_above(year)
    return Pair(
        clean=TEMPLATE.format(noun=noun, year=year),
        corrupted=TEMPLATE.format(noun=noun, year=CORRUPTED_YEAR),
        correct=correct,
        incorrect=incorrect,
    )


@task("greater-than", metric="prob-diff")
def greater_than() -> Combinations:
    """End later than it began: two-digit years above a first one."""
    return Combinations(pair, NOUNS, YEARS[2:99])
