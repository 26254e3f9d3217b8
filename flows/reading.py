"""From a grid file to a `GridConfig`: everything that is wrong is said at once, with its line.

Three kinds of faults are gathered: the document's own (a key given twice), those of shape (unknown
keys, wrong types, numbers out of range) and those of meaning (names that nobody knows, a method
given options it does not take, one thing listed twice).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from flows.config import (
    ExampleCounts,
    ExtractionChoice,
    GridConfig,
    MethodChoice,
    ModelChoice,
    Section,
    TaskChoice,
)
from flows.document import Document, Place, Problem, read_document, read_text
from flows.errors import GridError
from flows.vocabulary import Vocabulary

Fault = tuple[Place, str]
_SECTIONS: dict[str, type[Section]] = {
    "models": ModelChoice,
    "tasks": TaskChoice,
    "methods": MethodChoice,
    "extraction": ExtractionChoice,
    "examples": ExampleCounts,
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
    faults = [
        *_faults_of_names(document.value, names),
        *_faults_of_meaning(_well_formed(document.value, base), names),
        *_repeats(list(enumerate(_entries(document.value, "sizes"))), ("sizes",)),
    ]
    problems += [Problem(document.line(place), message) for place, message in faults]
    if problems or config is None:
        raise GridError(_report(name, problems))
    return config.model_copy(
        update={"methods": tuple(names.completed(method) for method in config.methods)}
    )


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean …?` for the known word that is nearest, else the list of known words."""
    known = list(known)
    lowered = {name.lower(): name for name in known}
    begun = [name for name in known if name.lower().startswith(f"{word.lower()}-")]
    if len(begun) == 1:
        return f"did you mean `{begun[0]}`?"
    close = difflib.get_close_matches(word.lower(), list(lowered), n=1, cutoff=0.5)
    if close:
        return f"did you mean `{lowered[close[0]]}`?"
    return f"known are {', '.join(known)}" if known else "none are known"


def _report(name: str, problems: Iterable[Problem]) -> str:
    found = sorted(set(problems))
    if len(found) == 1:
        return f"{name}, line {found[0].line}: {found[0].message}"
    lines = "".join(f"\n  line {problem.line}: {problem.message}" for problem in found)
    return f"{name} has {len(found)} problems:{lines}"


def _explain(document: Document, error: Any) -> Problem:
    place: Place = tuple(error["loc"])
    section = _SECTIONS.get(str(place[0]), GridConfig) if len(place) > 1 else GridConfig
    key = f"`{place[-1]}`" if place else "the grid"
    given = _quote(error["input"])
    kind = error["type"]
    if kind == "extra_forbidden":
        message = f"unknown key {key}; {nearest(str(place[-1]), section.model_fields)}"
    elif kind == "missing":
        message = f"{key} is missing"
    elif kind in ("tuple_type", "list_type"):
        message = f"{key} must be a list, such as `{place[-1]}: [{given.strip('`')}]`"
    elif kind in ("too_short", "too_long"):
        message = f"{key} lists nothing" if kind == "too_short" else f"{key} lists too much"
    elif kind in ("model_type", "model_attributes_type"):
        message = f"{given} must be a word or a mapping with `name:`"
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


def _faults_of_names(value: dict[str, Any], names: Vocabulary) -> Iterator[Fault]:
    """Words that no room knows. Works on a grid whose shape is wrong elsewhere."""
    for place, kind, word, known in _words(value, names):
        if word not in known:
            if kind == "task" and Path(word).suffix.lower() in (".csv", ".jsonl", ".parquet"):
                yield place, f"unknown task `{word[:60]}`; a file is written {{path: {word[:60]}}}"
                continue
            yield place, f"unknown {kind} `{word[:60]}`; {nearest(word, known)}"


def _words(
    value: dict[str, Any], names: Vocabulary
) -> Iterator[tuple[Place, str, str, tuple[str, ...]]]:
    columns: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {
        "models": {"dtype": ("dtype", names.dtypes), "kv": ("kv", names.kv)},
        "tasks": {
            "name": ("task", names.tasks),
            "metric": ("metric", tuple(names.metrics)),
            "rule": ("rule", names.rules),
        },
        "methods": {
            "name": ("method", tuple(names.methods)),
            "level": ("level", names.levels),
            "quadrature": ("quadrature", names.quadratures),
            "scope": ("scope", names.scopes),
            "intervention": ("intervention", names.interventions),
        },
        "extraction": {
            "name": ("extraction", names.extractions),
            "level": ("level", names.levels),
        },
    }
    lists = {
        "tasks": ("judged_by", "metric", tuple(names.metrics)),
        "methods": ("judged_under", "intervention", names.interventions),
    }
    for section, kinds in columns.items():
        for place, entry in _mappings(value, section):
            for key, (kind, known) in kinds.items():
                if isinstance(entry.get(key), str):
                    yield (*place, key), kind, entry[key], known
            name = entry.get("name")
            if section == "models" and isinstance(name, str) and name.startswith("bundled/"):
                yield (*place, "name"), "bundled model", name, names.bundled_models
            if section in lists:
                key, kind, known = lists[section]
                words = entry.get(key)
                for j, word in enumerate(words if isinstance(words, list) else []):
                    if isinstance(word, str):
                        yield (*place, key, j), kind, word, known


def _mappings(value: dict[str, Any], section: str) -> Iterator[tuple[Place, dict[str, Any]]]:
    """The entries of a section that are mappings or stand for one, those under `of` included."""
    for i, entry in enumerate(_entries(value, section)):
        place: Place = (section, i)
        while True:
            if isinstance(entry, str):
                entry = {"name": entry}
            if not isinstance(entry, dict):
                break
            yield place, entry
            place, entry = (*place, "of"), entry.get("of") if section == "methods" else None


def _entries(value: dict[str, Any], section: str) -> list[Any]:
    entries = value.get(section)
    return entries if isinstance(entries, list) else []


def _well_formed(value: dict[str, Any], base: Path) -> dict[str, list[tuple[int, Any]]]:
    """The entries of each section that have the right shape by themselves, with their positions."""
    found: dict[str, list[tuple[int, Any]]] = {}
    for section in ("models", "tasks", "methods", "extraction"):
        found[section] = []
        for i, entry in enumerate(_entries(value, section)):
            try:
                choice = _SECTIONS[section].model_validate(entry, context={"base": base})
            except ValidationError:
                continue
            found[section].append((i, choice))
    return found


def _faults_of_meaning(
    sections: dict[str, list[tuple[int, Any]]], names: Vocabulary
) -> Iterator[Fault]:
    """What is well formed and can't be meant: options nobody takes, combinations, doubles."""
    # two entries that differ in what their circuits are run under alone are one attribution
    methods = [
        (i, names.completed(method).model_copy(update={"judged_under": ()}))
        for i, method in sections["methods"]
    ]
    for section, entries in (sections | {"methods": methods}).items():
        yield from _repeats(entries, (section,))
    for i, method in sections["methods"]:
        for where, message in names.refused_options(method):
            yield ("methods", i, *where), message
        yield from _repeats(list(enumerate(method.judged_under)), ("methods", i, "judged_under"))
        for key in ("edges", "nodes"):
            yield from _repeats(list(enumerate(getattr(method, key) or ())), ("methods", i, key))
    for i, task in sections["tasks"]:
        for key in ("train_on", "evaluate_on", "means_on"):
            split = getattr(task, key)
            if task.path is None and split is not None and split not in names.splits:
                yield ("tasks", i, key), f"unknown split `{split}`; {nearest(split, names.splits)}"
        replaced_by = {one for _, method in sections["methods"] for one in method.interventions}
        for key in ("means", "means_on"):
            if getattr(task, key) is not None and not replaced_by & set(names.means):
                yield ("tasks", i, key), f"`{key}` is for mean interventions, and no method has one"
        for _, method in sections["methods"]:
            reason = names.refused_metric(names.completed(method), task)
            if reason is not None:
                yield ("tasks", i, "metric"), reason
    yield from _faults_of_extraction(sections, names)


def _faults_of_extraction(
    sections: dict[str, list[tuple[int, Any]]], names: Vocabulary
) -> Iterator[Fault]:
    """Rules that say too little or too much, that no score fits, and scores that no rule fits."""
    for i, rule in sections["extraction"]:
        if (rule.name == "threshold") != (rule.values is not None):
            wants = "needs" if rule.name == "threshold" else "takes no"
            yield ("extraction", i, "values"), f"{rule.name} {wants} `values`"
        if rule.name == "threshold" and rule.sizes is not None:
            yield ("extraction", i, "sizes"), "threshold takes `values`, not `sizes`"
        for key in ("values", "sizes"):
            yield from _repeats(list(enumerate(getattr(rule, key) or ())), ("extraction", i, key))
        for _, method in sections["methods"]:
            reason = names.refused_extraction(rule, names.completed(method))
            if reason is not None:
                yield ("extraction", i), reason
                break
        levels = {method.level for _, method in sections["methods"]}
        if rule.level in names.levels and levels and rule.level not in levels:
            yield ("extraction", i, "level"), f"no method has {rule.level} scores to extract from"
    rules = sections["extraction"]
    for i, method in sections["methods"]:
        if rules and all(rule.level not in (None, method.level) for _, rule in rules):
            yield ("methods", i, "level"), f"no extraction is for {method.level} scores: add top-n"


def _repeats(entries: list[tuple[int, Any]], place: Place) -> Iterator[Fault]:
    for n, (i, entry) in enumerate(entries):
        # 1 is one edge and 1.0 every edge: equal as numbers, not as sizes.
        if any(entry == other and type(entry) is type(other) for _, other in entries[:n]):
            shown = getattr(entry, "label", None) or getattr(entry, "name", None) or entry
            yield (*place, i), f"`{shown}` is listed twice"
