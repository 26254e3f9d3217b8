"""What a stage imports is imported before its time is taken, and where it is needed alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from data import Store
from flows.doing import carry_out
from flows.errors import StageError
from flows.runner import HOST, Order
from flows.stages import Rows, Stage
from flows.workbench import Workbench
from flows.worker import Worker
from tests.data.synthetic import rows_of

MODULE = "imported_by_a_stage"
ROOT = Path(__file__).parents[2]
PATIENCE = 120.0
WAITING = """
import time
from pathlib import Path

(Path({folder!r}) / "importing").touch()
while not (Path({folder!r}) / "go on").exists():
    time.sleep(0.01)


def build():
    while not (Path({folder!r}) / "end").exists():
        time.sleep(0.01)
"""
FIRST_DATASET = """
import sys

from flows.config import TaskChoice
from flows.identity import ModelIdentity
from flows.stages import DatasetStage
from flows.workbench import Workbench


def packages():
    return {{name.split(".")[0] for name in sys.modules}}


bench = Workbench({store!r}, 2**20)
name = "bundled/behaviours"
model = ModelIdentity(name, name, name, None, "float32", "grouped", "cpu", "a" * 64, "b" * 64)
stage = DatasetStage("cell", TaskChoice(name="ioi"), "c" * 64, "train", 8, model)
before = packages()
stage.prepare()
prepared = packages()
print(*(prepared - before))
assert stage.build(bench)["examples"].num_rows == 8
print(*(packages() - prepared))
"""


@dataclass(frozen=True)
class Importing(Stage):
    """Notes, when it is built, whether its module was imported before."""

    name = "importing"
    kinds = ("shards",)
    modules = (MODULE,)

    @property
    def parameters(self) -> dict[str, Any]:
        return {}

    def build(self, bench: Workbench) -> Rows:
        BUILT.append(MODULE in sys.modules)
        getattr(sys.modules[MODULE], "build", lambda: None)()
        return {"shards": rows_of("shards", [])}


BUILT: list[bool] = []


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    BUILT.clear()
    return tmp_path


def test_what_a_stage_imports_is_no_part_of_its_time(folder: Path):
    (folder / f"{MODULE}.py").touch()
    order = Order(Importing("cell"), str(folder / "store"), 2**20)
    done = carry_out(order)
    assert done is not None
    assert BUILT == [True]
    assert Importing("cell").key is not None
    assert carry_out(order) is not None
    assert len(list(Store.open(folder / "store").artifacts("shards"))) == len(BUILT) == 1


def test_a_module_that_cannot_be_imported_fails_its_stage_with_the_whole_story(folder: Path):
    (folder / f"{MODULE}.py").write_text("1 / 0")
    with pytest.raises(StageError, match="ZeroDivisionError") as failed:
        carry_out(Order(Importing("cell"), str(folder / "store"), 2**20))
    assert f"{MODULE}.py" in str(failed.value.story)
    assert BUILT == []


def test_a_worker_counts_the_time_of_a_stage_from_when_all_is_imported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    (folder / f"{MODULE}.py").write_text(WAITING.format(folder=str(folder)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(folder)]))
    worker = Worker(HOST)
    with ThreadPoolExecutor(1) as threads:
        doing = threads.submit(worker.do, Order(Importing("cell"), str(folder / "store"), 2**20))
        try:
            deadline = time.monotonic() + PATIENCE
            while not (folder / "importing").exists():
                assert time.monotonic() < deadline, "nothing is imported"
                assert not doing.done(), doing.result()
                time.sleep(0.01)
            assert worker.seconds == 0.0
            (folder / "go on").touch()
            while worker.seconds == 0.0:
                assert time.monotonic() < deadline, "nothing is built"
                assert not doing.done(), doing.result()
                time.sleep(0.01)
            (folder / "end").touch()
            done = doing.result(PATIENCE)
            assert done is not None
            assert not done.reused
        finally:
            worker.close()


def test_the_first_dataset_of_a_process_imports_nothing_large_while_its_time_is_taken(
    tmp_path: Path,
):
    code = FIRST_DATASET.format(store=str(tmp_path / "store"))
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    prepared, built = done.stdout.splitlines()
    assert "transformers" in prepared.split()
    assert built.split() == []
