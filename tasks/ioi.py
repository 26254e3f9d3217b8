"""Indirect object identification: "When Mary and John went …, John gave a book to" → " Mary".

Two names, then one of them again as the subject; the answer is the other, the indirect object.
The corrupted prompt names the indirect object the second time, so that the answers swap. Both
orders occur (ABBA, the indirect object first, and BABA).

Source: Wang et al. 2023, "Interpretability in the Wild: a circuit for indirect object
identification in GPT-2 small"; names, places, objects and sentences are this project's own.
"""

from __future__ import annotations

from tasks.combinations import Combinations
from tasks.registry import task
from tasks.task import Pair

TEMPLATES = (
    "When {first} and {second} went to the {place}, {subject} gave a {object} to",
    "Then, {first} and {second} went to the {place}. {subject} handed a {object} to",
    "After {first} and {second} arrived at the {place}, {subject} offered a {object} to",
    "While {first} and {second} were working at the {place}, {subject} passed a {object} to",
    "{first} and {second} met at the {place}, and {subject} showed a {object} to",
    "Yesterday {first} and {second} had lunch near the {place}. Later {subject} sent a {object} to",
    "The {place} was closed, so {first} and {second} went home, and {subject} lent a {object} to",
    "Friends {first} and {second} found a {object} at the {place}. {subject} gave it to",
    "Once {first} and {second} got back from the {place}, {subject} sold a {object} to",
    "{first} and {second} had a long talk at the {place}. Then {subject} threw a {object} to",
    "Before {first} and {second} left the {place}, {subject} brought a {object} to",
    "As {first} and {second} walked past the {place}, {subject} promised a {object} to",
)
_NAMES = """
Mary John Tom James Michael David Robert William Richard Joseph Thomas Charles Daniel Matthew
Anthony Mark Paul Steven Andrew Kenneth Kevin Brian George Edward Ronald Timothy Jason Jeffrey
Ryan Jacob Gary Eric Stephen Scott Justin Benjamin Samuel Frank Patrick Jack Dennis Jerry Tyler
Aaron Adam Henry Peter Sarah Jennifer Linda Elizabeth Susan Jessica Karen Nancy Lisa Margaret
Sandra Ashley Kimberly Emily Michelle Amanda Melissa Deborah Stephanie Rebecca Laura Helen Amy
Anna Emma Rachel Maria Kate Alice Julia Grace Rose Victoria Christine Martin Simon Alan Bruce Carl
"""
NAMES = tuple(_NAMES.split())
_PLACES = """
store school park garden office hospital station market library beach
"""
PLACES = tuple(_PLACES.split())
_OBJECTS = """
book drink ring ball letter present basket pen phone key hat snack
"""
OBJECTS = tuple(_OBJECTS.split())


def pair(
    template: str, object_first: bool, io: str, subject: str, place: str, thing: str
) -> Pair | None:
    """Return the pair of two different names in one template."""
    if io == subject:
        return None
    first, second = (io, subject) if object_first else (subject, io)
    words = {"first": first, "second": second, "place": place, "object": thing}
    return Pair(
        clean=template.format(subject=subject, **words),
        corrupted=template.format(subject=io, **words),
        correct=(f" {io}",),
        incorrect=(f" {subject}",),
    )


@task("ioi", metric="logit-diff")
def ioi() -> Combinations:
    """Name the indirect object: the one of two names that is not said again."""
    return Combinations(pair, TEMPLATES, (True, False), NAMES, NAMES, PLACES, OBJECTS)
