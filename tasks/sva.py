"""Subject–verb agreement: "The keys near the cabinet" → " are", " were", " have".

Between the subject and its verb stands a phrase with another noun, of either number, that must
not be agreed with. The corrupted prompt has the subject in the other number, so that the answers
swap. Several verbs answer together: the form of each that agrees, against the form that does not.

Source: Linzen et al. 2016, "Assessing the ability of LSTMs to learn syntax-sensitive
dependencies"; the sentences are this project's own.
"""

from __future__ import annotations

from tasks.combinations import Combinations
from tasks.registry import task
from tasks.task import Pair

VERBS = ((" is", " are"), (" was", " were"), (" has", " have"))
SINGULAR_ANSWERS = tuple(singular for singular, _ in VERBS)
PLURAL_ANSWERS = tuple(plural for _, plural in VERBS)

OPENINGS = (
    "The",
    "I think that the",
    "Everyone knows that the",
    "In this town the",
    "She says the",
)
PHRASES = (
    "near the",
    "behind the",
    "beside the",
    "next to the",
    "in front of the",
    "with the",
    "that saw the",
    "that followed the",
)
_NOUNS = """
key table chair car truck boat house door window painting letter teacher doctor lawyer farmer
driver actor singer writer painter student friend neighbor brother sister king queen dog cat bird
horse tree flower river mountain road bridge tower picture machine
"""
NOUNS = tuple((noun, f"{noun}s") for noun in _NOUNS.split())


def pair(
    opening: str,
    subject: tuple[str, str],
    phrase: str,
    attractor: tuple[str, str],
    subject_is_plural: bool,
    attractor_is_plural: bool,
) -> Pair | None:
    """Return the pair of a subject and an attractor in their numbers."""
    if subject == attractor:
        return None
    tail = f"{phrase} {attractor[attractor_is_plural]}"
    correct, incorrect = SINGULAR_ANSWERS, PLURAL_ANSWERS
    if subject_is_plural:
        correct, incorrect = incorrect, correct
    return Pair(
        clean=f"{opening} {subject[subject_is_plural]} {tail}",
        corrupted=f"{opening} {subject[not subject_is_plural]} {tail}",
        correct=correct,
        incorrect=incorrect,
    )


@task("sva", metric="logit-diff")
def sva() -> Combinations:
    """Agree with the subject in number, not with the noun that stands nearer."""
    numbers = (False, True)
    return Combinations(pair, OPENINGS, NOUNS, PHRASES, NOUNS, numbers, numbers)
