"""What stage keys know of the code that a user brings."""

from __future__ import annotations

import importlib
import linecache
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.config import TaskChoice
from flows.identity import Identities, identify_metric, identify_rule
from tasks.metrics import METRICS
from tasks.registry import TASKS
from tasks.rules import RULES

OWN = """
from tasks import Pair, metric, rule, task

PAIRS = [("a {i}", "b {i}") for i in range(600)]

@metric("own-metric")
def own_metric(logits, answers, reference):
    return {factor} * logits[:, 0]

@rule("own-rule")
def own_rule(label):
    return (" {word}",), (" no",)

@task("own-task")
def own_task():
    return [Pair(f"clean {{i}}", f"corrupted {{i}}", (" {word}",) if i == 1 else (" x",), (" y",))
            for i in range(600)]
"""


@pytest.fixture
def bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Write the user's module and import it, as a new process would."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(**values: object) -> None:
        (tmp_path / "brought.py").write_text(OWN.format(i="", **values))
        sys.modules.pop("brought", None)
        linecache.clearcache()
        importlib.invalidate_caches()
        importlib.import_module("brought")

    yield write
    for registry in (METRICS, RULES, TASKS):  # other tests count what there is
        for name in ("own-metric", "own-rule", "own-task"):
            registry._entries.pop(name, None)
            registry._origins.pop(name, None)


def test_an_edited_metric_of_ones_own_is_another_metric(bring: Callable[..., None]) -> None:
    bring(factor=1, word="yes")
    before = identify_metric("own-metric")
    bring(factor=1, word="yes")
    assert identify_metric("own-metric") == before
    bring(factor=2, word="yes")
    assert identify_metric("own-metric") != before


def test_an_edited_rule_of_ones_own_is_another_rule(bring: Callable[..., None]) -> None:
    bring(factor=1, word="yes")
    before = identify_rule("own-rule")
    bring(factor=1, word="oh")
    assert identify_rule("own-rule") != before


def test_one_edited_pair_of_many_makes_another_task(bring: Callable[..., None]) -> None:
    bring(factor=1, word="yes")
    before = Identities().task(TaskChoice(name="own-task"))
    assert Identities().task(TaskChoice(name="own-task")) == before
    bring(factor=1, word="oh")
    assert Identities().task(TaskChoice(name="own-task")) != before


def test_metrics_and_rules_of_this_project_are_known_by_name() -> None:
    assert identify_metric("logit-diff") == "logit-diff"
    assert identify_rule("greater-than") == "greater-than"
    assert identify_rule(None) is None
