import importlib
import sys

import pytest

from tasks import TaskError, default_metric, get_task, load_dataset, task, task_names
from tasks.registry import TASKS, _load_plugins


@pytest.fixture(autouse=True)
def registrations():
    before = dict(TASKS._entries), dict(TASKS._origins)
    yield
    TASKS._entries, TASKS._origins = before


def test_the_tasks_and_their_metrics():
    assert {name: default_metric(name) for name in task_names()} == {
        "greater-than": "prob-diff",
        "ioi": "logit-diff",
        "sva": "logit-diff",
        "truth/backup": "logit-diff",
        "truth/gate": "logit-diff",
        "truth/induction": "logit-diff",
    }
    assert get_task("ioi").description.startswith("Name the indirect object")


def test_a_file_is_judged_by_logit_diff_unless_its_rule_is_a_task(tmp_path):
    assert default_metric(tmp_path / "a.csv") == "logit-diff"
    assert default_metric("somewhere/a.csv", rule="greater-than") == "prob-diff"
    assert default_metric("somewhere/a.csv", rule="number-agreement") == "logit-diff"


@pytest.mark.parametrize("wrong", ["greater_than", "Greater-Than", "greaterthan"])
def test_an_unknown_task_is_answered_with_the_nearest(words, wrong):
    with pytest.raises(TaskError, match="did you mean 'greater-than'"):
        load_dataset(wrong, words)
    with pytest.raises(TaskError, match="the tasks are greater-than, ioi, sva"):
        default_metric("zzzzzz")


def test_a_name_belongs_to_the_function_that_registered_it():
    def mine():
        return []

    def other():
        return []

    task("mine")(mine)
    task("mine")(mine)
    with pytest.raises(TaskError, match=r"'mine' is already registered by .*mine"):
        task("mine")(other)


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Install a distribution with an entry point, as pip would, and forget it afterwards."""

    def install(source):
        (tmp_path / "their_tasks.py").write_text(source)
        info = tmp_path / "theirs-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[circuit_grid.tasks]\ntheirs = their_tasks\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.invalidate_caches()
        _load_plugins.cache_clear()

    yield install
    _load_plugins.cache_clear()
    sys.modules.pop("their_tasks", None)


def test_tasks_of_installed_packages_are_found_by_their_entry_point(plugin, words):
    plugin(
        "from tasks import Pair, task\n"
        "@task('theirs')\n"
        "def theirs():\n"
        "    return [Pair(f'{a} and', f'Tom and', (' Mary',), (' John',))"
        " for a in 'Mary John Alice Emma Paul Mark Anna Rose Adam Carl'.split()]\n"
    )
    assert "theirs" in task_names()
    assert len(load_dataset("theirs", words, size=2)) == 2


def test_a_plugin_that_does_not_load_is_named(plugin):
    plugin("import a_module_that_is_not_there\n")
    with pytest.raises(TaskError, match=r"plug-in 'theirs' \(their_tasks\).*a_module_that_is_not"):
        get_task("nothing")
