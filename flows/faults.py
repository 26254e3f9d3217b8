"""What a grid says that cannot be meant: faults of names and of meaning, with their places.

Words that no room knows, options that a method does not take, one thing listed twice, questions
that nothing in the grid could answer. They are looked for in a grid whose shape may be wrong
elsewhere, so that everything is told at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data.bundled import is_bundled_name
from flows.config import (
    DEFAULT_SIZES,
    EnsembleChoice,
    ExtractionChoice,
    Judging,
    MethodChoice,
    ModelChoice,
    Section,
    TaskChoice,
    goes_with,
)
from flows.document import Place
from flows.methods import KINDS, kind_of
from flows.vocabulary import Vocabulary

Fault = tuple[Place, str]
_LISTS: dict[str, type[Section]] = {
    "models": ModelChoice,
    "tasks": TaskChoice,
    "methods": MethodChoice,
    "extraction": ExtractionChoice,
}


def faults_of(value: dict[str, Any], base: Path, names: Vocabulary) -> Iterator[Fault]:
    """All faults of a grid's value; paths in it are relative to `base`."""
    sections = _well_formed(value, base)
    yield from _faults_of_names(value, names)
    yield from _faults_of_meaning(sections, names)
    yield from _faults_of_judging(value, sections, names)
    yield from _repeats(list(enumerate(_entries(value, "sizes"))), ("sizes",))
    rules = [rule for _, rule in sections["extraction"]]
    if "sizes" in value and rules and all(rule.values or rule.sizes for rule in rules):
        reason = "no rule under `extraction` takes these `sizes`"
        yield ("sizes",), f"{reason}: each has `values` or `sizes` of its own; leave them out"


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
            "combine": ("combination", names.combinations),
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
            if section == "models" and isinstance(name, str) and is_bundled_name(name):
                yield (*place, "name"), "bundled model", name, names.bundled_models
            if section in lists:
                key, kind, known = lists[section]
                words = entry.get(key)
                for j, word in enumerate(words if isinstance(words, list) else []):
                    if isinstance(word, str):
                        yield (*place, key, j), kind, word, known


def _mappings(value: dict[str, Any], section: str) -> Iterator[tuple[Place, dict[str, Any]]]:
    """The entries of a section that are mappings or stand for one, and those within them."""
    for i, entry in enumerate(_entries(value, section)):
        yield from _within((section, i), entry)


def _within(place: Place, entry: Any) -> Iterator[tuple[Place, dict[str, Any]]]:
    """An entry, and what it holds under `of` and `ensemble`."""
    if isinstance(entry, str):
        entry = {"name": entry}
    if not isinstance(entry, dict):
        return
    yield place, entry
    if place[0] == "methods":
        yield from _within((*place, "of"), entry.get("of"))
        for j, member in enumerate(_entries(entry, "ensemble")):
            yield from _within((*place, "ensemble", j), member)


def _entries(value: dict[str, Any], section: str) -> list[Any]:
    entries = value.get(section)
    return entries if isinstance(entries, list) else []


def _well_formed(value: dict[str, Any], base: Path) -> dict[str, list[tuple[int, Any]]]:
    """The entries of each section that have the right shape by themselves, with their positions."""
    found: dict[str, list[tuple[int, Any]]] = {}
    for section, of_section in _LISTS.items():
        found[section] = []
        for i, entry in enumerate(_entries(value, section)):
            kind = KINDS[kind_of(entry)] if section == "methods" else of_section
            try:
                choice = kind.model_validate(entry, context={"base": base})
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
    for section, entries in (sections | {"methods": methods, "extraction": []}).items():
        yield from _repeats(entries, (section,))
    yield from _faults_of_pairs(sections)
    for i, source in sections["methods"]:
        yield from _repeats(list(enumerate(source.judged_under)), ("methods", i, "judged_under"))
        if isinstance(source, EnsembleChoice):
            for where, message in names.refused_members(source):
                yield ("methods", i, *where), message
        for j, method in enumerate(source.methods):
            place: Place = ("methods", i)
            if isinstance(source, EnsembleChoice):
                place = (*place, "ensemble", j)
            for where, message in names.refused_options(method):
                yield (*place, *where), message
            for key in ("edges", "nodes"):
                yield from _repeats(list(enumerate(getattr(method, key) or ())), (*place, key))
    for i, task in sections["tasks"]:
        for key in ("train_on", "evaluate_on", "means_on"):
            split = getattr(task, key)
            if task.path is None and split is not None and split not in names.splits:
                yield ("tasks", i, key), f"unknown split `{split}`; {nearest(split, names.splits)}"
        yield from _repeats(list(enumerate(task.judged_by)), ("tasks", i, "judged_by"))
        replaced_by = {one for _, method in sections["methods"] for one in method.interventions}
        for key in ("means", "means_on"):
            if getattr(task, key) is not None and not replaced_by & set(names.means):
                yield ("tasks", i, key), f"`{key}` is for mean interventions, and no method has one"
        for _, method in sections["methods"]:
            reason = names.refused_metric(names.completed(method), task)
            if reason is not None:
                yield ("tasks", i, "metric"), reason
    yield from _faults_of_extraction(sections, names)


def _faults_of_pairs(sections: dict[str, list[tuple[int, Any]]]) -> Iterator[Fault]:
    """Models that no task is for, tasks that no model is for, revisions of what has none."""
    models, tasks = sections["models"], sections["tasks"]
    for i, model in models:
        if model.revision is not None and (model.is_directory or is_bundled_name(model.name)):
            kind = "a directory" if model.is_directory else "bundled"
            reason = f"`revision` is of a name on the hub, and {Path(model.name).name} is {kind}"
            yield ("models", i, "revision"), f"{reason}: leave it out"
        if tasks and not any(goes_with(model, task) for _, task in tasks):
            add = f"add {model.name} to `tasks`"
            yield ("models", i), f"{model.name} does the task of its own name alone: {add}"
    for i, task in tasks:
        if models and not any(goes_with(model, task) for _, model in models):
            add = f"add {task.name} to `models`"
            yield ("tasks", i), f"{task.name} is for the model of its own name alone: {add}"


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
    yield from _repeated_rules(rules, tuple({method.level for _, method in sections["methods"]}))
    for i, method in sections["methods"]:
        if rules and all(rule.level not in (None, method.level) for _, rule in rules):
            yield ("methods", i, "level"), f"no extraction is for {method.level} scores: add top-n"


def _repeated_rules(rules: list[tuple[int, Any]], levels: tuple[str, ...]) -> Iterator[Fault]:
    """Rules that are the same rule for the scores of a level."""
    met: dict[str, list[ExtractionChoice]] = {level: [] for level in levels}
    for i, rule in rules:
        meant = {level: rule.at(level) for level in levels if rule.level in (None, level)}
        again = sorted(level for level, one in meant.items() if one in met[level])
        if again:
            scores = f"{' and '.join(again)} scores"
            yield ("extraction", i), f"`{rule.label}` is listed twice for {scores}"
        for level, one in meant.items():
            met[level].append(one)


def _faults_of_judging(
    value: dict[str, Any], sections: dict[str, list[tuple[int, Any]]], names: Vocabulary
) -> Iterator[Fault]:
    """Questions that nothing in the grid could answer."""
    try:
        judging = Judging.model_validate(value.get("judging", {}))
    except ValidationError:
        return
    sources = [source for _, source in sections["methods"]]
    if judging.cross_task and len(_entries(value, "tasks")) == 1:
        yield (
            ("judging", "cross_task"),
            "`cross_task` needs two tasks or more, and the grid has one",
        )
    if judging.stability is not None and sources:
        drawn = [
            source.name
            for source in sources
            if isinstance(source, MethodChoice)
            and (source.name not in names.methods or names.methods[source.name].runs_model)
        ]
        if not drawn:
            reason = "`stability` is for methods that score examples, and the grid has none"
            yield ("judging", "stability"), reason
    most = judging.minimality
    rules = [rule for _, rule in sections["extraction"]] or [ExtractionChoice(name="top-n")]
    sizes = [
        size
        for rule in rules
        for size in rule.values or rule.sizes or _entries(value, "sizes") or DEFAULT_SIZES
    ]
    if most is not None and all(isinstance(size, int) and size > most for size in sizes):
        reason = (
            f"no circuit has at most {most} units: the least that is asked for has {min(sizes)}"
        )
        yield ("judging", "minimality"), f"{reason}; raise `minimality`, or add a smaller size"


def _repeats(entries: list[tuple[int, Any]], place: Place) -> Iterator[Fault]:
    for n, (i, entry) in enumerate(entries):
        # 1 is one edge and 1.0 every edge: equal as numbers, not as sizes.
        if any(entry == other and type(entry) is type(other) for _, other in entries[:n]):
            shown = getattr(entry, "label", None) or getattr(entry, "name", None) or entry
            yield (*place, i), f"`{shown}` is listed twice"
