"""From a grid file to a `GridConfig`: everything that is wrong is said at once, with its line.

Three kinds of faults are gathered: the document's own (a key given twice), those of shape (unknown
keys, wrong types, numbers out of range) and those of meaning (names that nobody knows, a method
given options it does not take, one thing listed twice).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows.config import (
    ExampleCounts,
    ExtractionChoice,
    GridConfig,
    Judging,
    MethodChoice,
    ModelChoice,
    Section,
    TaskChoice,
)
from flows.document import Document, Place, Problem, read_document, read_text
from flows.errors import GridError
from flows.faults import faults_of, nearest
from flows.judging import StabilityChoice
from flows.methods import KINDS
from flows.vocabulary import Vocabulary

_SECTIONS: dict[str, type[Section]] = {
    "models": ModelChoice,
    "tasks": TaskChoice,
    "methods": MethodChoice,
    "extraction": ExtractionChoice,
    "examples": ExampleCounts,
    "judging": Judging,
}


def read_grid(path: str | Path, vocabulary: Vocabulary | None = None) -> GridConfig:
    """The grid in the YAML file at `path`; GridError lists everything that is wrong with it."""
    path = Path(path)
    return parse_grid(read_text(path), str(path), path.parent, vocabulary)


def parse_grid(
    text: str | bytes, name: str, base: Path, vocabulary: Vocabulary | None = None
) -> GridConfig:
    """The grid in YAML `text`, called `name` in messages, with paths relative to `base`."""
    document = read_document(text, name)
    if not isinstance(document.value, dict):
        raise GridError(f"{name} is not a grid: it must be a mapping, with `models:` and `tasks:`.")
    problems = list(document.problems)
    config = None
    try:
        config = GridConfig.model_validate(document.value, context={"base": base})
    except ValidationError as error:
        problems += [
            _explain(document, item)
            for item in error.errors(include_url=False)
            if item["type"] != "too_short" or not item["input"]  # all of its entries were wrong
        ]
    names = vocabulary or Vocabulary.of_the_rooms()
    faults = faults_of(document.value, base, names)
    problems += [Problem(document.line(place), message) for place, message in faults]
    if problems or config is None:
        raise GridError(_report(name, problems))
    return config.model_copy(
        update={"methods": tuple(names.completed(method) for method in config.methods)}
    )


def _report(name: str, problems: Iterable[Problem]) -> str:
    found = sorted(set(problems))
    if len(found) == 1:
        return f"{name}, line {found[0].line}: {found[0].message}"
    lines = "".join(f"\n  line {problem.line}: {problem.message}" for problem in found)
    return f"{name} has {len(found)} problems:{lines}"


def _explain(document: Document, error: Any) -> Problem:
    place: Place = tuple(part for part in error["loc"] if part not in KINDS)
    section = _section(error["loc"])
    key = _subject(place)
    given = _quote(error["input"])
    bare = given.strip("`")
    kind = error["type"]
    if kind == "extra_forbidden":
        message = f"unknown key {key}; {nearest(str(place[-1]), section.model_fields)}"
    elif kind == "missing":
        message = f"{key} is missing"
    elif kind in ("tuple_type", "list_type"):
        is_mapping = isinstance(error["input"], dict)
        how = "a line `- …` for each" if is_mapping else f"such as `{place[-1]}: [{bare}]`"
        message = f"{key} must be a list, {how}"
    elif kind in ("too_short", "too_long"):
        message = f"{key} lists nothing" if kind == "too_short" else f"{key} lists too much"
    elif kind in ("model_type", "model_attributes_type"):
        named = place[0] in ("models", "tasks", "methods", "extraction")
        message = f"{given} must be a {'word or a mapping with `name:`' if named else 'mapping'}"
    elif kind == "int_type":
        message = f"{key} must be a whole number, not {_typed(error['input'])}"
    elif kind == "string_type":
        message = f"{key} must be text, not {given}"
    elif kind == "bool_type":
        message = f"{key} must be true or false, not {given}"
    elif kind == "value_error":
        subject = f"{_subject(place)}: " if place and place[-1] not in ("path", "name") else ""
        message = f"{subject}{error['ctx']['error']}"
        message += f", not {given}" if message.count("must") and place else ""
    else:
        message = f"{key}: {_lower_first(error['msg'].replace('Input', 'it'))}, not {given}"
    return Problem(document.line(place), message)


def _section(place: Place) -> type[Section]:
    """The section that a place of a grid, as pydantic says it, is a key of."""
    if len(place) < 2:
        return GridConfig
    if "stability" in place[1:-1]:
        return StabilityChoice
    *_, own = [_SECTIONS.get(str(place[0]), GridConfig)] + [
        MethodChoice if part == "ensemble" else KINDS[str(part)]
        for part in place[:-1]
        if part == "ensemble" or part in KINDS
    ]
    return own


def _subject(place: Place) -> str:
    words = [str(part) for part in place if isinstance(part, str)]
    return f"`{words[-1]}`" if words else "the grid"


def _quote(value: object) -> str:
    text = repr(value) if not isinstance(value, str) else value
    return f"`{text[:57]}…`" if len(text) > 60 else f"`{text}`"


def _typed(value: object) -> str:
    return f"the text {_quote(value)}" if isinstance(value, str) else _quote(value)


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
