"""Rules that turn the ``label`` of a row in a dataset file into correct and incorrect answers."""

from __future__ import annotations

from collections.abc import Callable

from tasks.greater_than import YEARS, years_above
from tasks.registry import Registry
from tasks.sva import PLURAL_ANSWERS, SINGULAR_ANSWERS
from tasks.task import TaskError

Answers = tuple[tuple[str, ...], tuple[str, ...]]
Rule = Callable[[str], Answers]

RULES: Registry[Rule] = Registry("label rule")


def rule(name: str) -> Callable[[Rule], Rule]:
    """Register ``function(label) -> (correct, incorrect)``, answers as text, as a label rule.

    A label that makes no sense is a TaskError, to which the file and the row are added.
    """

    def register(function: Rule) -> Rule:
        RULES.add(name, function, function)
        return function

    return register


def get_rule(name: str) -> Rule:
    """Return a label rule by name; TaskError with the nearest name if there is none."""
    return RULES.get(name)


def rule_names() -> tuple[str, ...]:
    """Return the names of all label rules, in alphabetical order."""
    return RULES.names()


@rule("greater-than")
def greater_than(label: str) -> Answers:
    """Two-digit years above the label, against those not above it; the label is 00 … 98."""
    year = label.strip().zfill(2)
    if year not in YEARS[:-1]:
        raise TaskError(f"the label {label!r} is no two-digit year from 00 to 98")
    return years_above(year)


@rule("number-agreement")
def number_agreement(label: str) -> Answers:
    """Verbs that agree with the label, singular (0) or plural (1), against those that do not."""
    match label.strip().lower():
        case "singular" | "0":
            return SINGULAR_ANSWERS, PLURAL_ANSWERS
        case "plural" | "1":
            return PLURAL_ANSWERS, SINGULAR_ANSWERS
    raise TaskError(f"the label {label!r} is neither singular (0) nor plural (1)")
