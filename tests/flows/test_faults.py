"""Grids on models and machines that fail: memory that ends, numbers that are none."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from data import Store
from flows.grid import run_grid
from flows.progress import Watcher
from flows.reading import parse_grid
from flows.workbench import workbench
from tasks import get_task
from tests.checkpoints import change_parameters
from tests.flows.checkpoints import speaker as write_speaker
from tests.flows.limited import do_all

# --- out of memory

LIMITED = """
name: limited
models: [wide]
tasks: [ioi]
methods:
  - {name: exact, top: 8, of: EAP}
  - {name: EAP-IG-activations, level: node, steps: 2, intervention: mean}
examples: {train: 128, evaluate: 128}
sizes: [4]
extraction: [top-n]
shard_size: 128
memory_budget: 4GiB
judging: {stability: {resamples: 3, size: 8}}
"""


@pytest.mark.soak
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory")
def test_a_stage_that_memory_does_not_hold_is_done_with_half_the_examples(tmp_path):
    """Really too little memory: every stage that runs the model ends as it does with enough."""
    write_speaker(tmp_path / "wide", ("ioi",), n_embd=192, n_head=4)
    grid = tmp_path / "limited.yaml"
    grid.write_text(LIMITED)
    expected = do_all(grid, tmp_path / "enough")
    command = [sys.executable, "-m", "tests.flows.limited", grid, tmp_path / "little", "28"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=560)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])

    assert not any(most for _, most in expected.values())
    halved = {name: most for name, (_, most) in found.items() if most}
    assert set(halved.values()) <= {64, 32, 16, 8}
    assert any(": shard" in name for name in halved), halved
    assert len(halved) > 2, halved
    enough, little = (Store.open(tmp_path / name) for name in ("enough", "little"))
    assert list(found) == list(expected)
    for name, (keys, _) in found.items():
        for kind, key in keys.items():
            _compare(little.read(kind, key), enough.read(kind, expected[name][0][kind]), name)


def _compare(found: pa.Table, expected: pa.Table, name: str) -> None:
    """The same numbers in the same order; keys of what rests on rounded sums may differ."""
    assert found.num_rows == expected.num_rows, name
    for column in expected.column_names:
        if pa.types.is_floating(expected.schema.field(column).type):
            numbers = (table[column].to_pylist() for table in (found, expected))
            largest = max((abs(one) for one in expected[column].to_pylist() if one), default=0.0)
            assert next(numbers) == pytest.approx(next(numbers), abs=1e-4 * largest), (name, column)
        elif pa.types.is_integer(expected.schema.field(column).type):
            assert found[column].equals(expected[column]), (name, column)


# --- NaN

BROKEN = """
name: broken
models: [model]
tasks: [{path: sound.csv}, {path: one-long.csv}]
methods: [EAP, {name: exact, top: 3, of: EAP}, {name: EAP, level: node, intervention: mean}]
sizes: [0.5]
extraction: [top-n]
shard_size: 2
"""
PLACE, ROW = 40, 3  # where the model is broken, and which pair reaches so far


def write_pairs(path: Path, long: int | None) -> None:
    """Six pairs of each split; the one at `long` says its sentence three times."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["clean", "corrupted", "correct", "incorrect", "split"])
        pairs = [pair for pair in get_task("ioi").pairs()[:400:2] if pair is not None]
        for split in ("train", "test"):
            for i, pair in enumerate(pairs[:6]):
                times = 3 if i == long else 1
                prompts = [" ".join([text] * times) for text in (pair.clean, pair.corrupted)]
                rows.writerow([*prompts, *pair.correct[:1], *pair.incorrect[:1], split])


def test_an_example_that_is_not_a_number_fails_its_cells_alone(tmp_path, server):
    """Named in every failure; the cells of the other task end as if it were not there."""
    directory = write_speaker(tmp_path / "model", ("ioi",))

    def change(name, tensor):
        if name.endswith("wpe.weight"):
            tensor[PLACE, 3] = torch.nan
        return tensor

    change_parameters(directory, change)
    write_pairs(tmp_path / "sound.csv", None)
    write_pairs(tmp_path / "one-long.csv", ROW)
    config = parse_grid(BROKEN, "broken.yaml", tmp_path)
    workbench.cache_clear()
    run = run_grid(config, str(tmp_path / "store"), Watcher(), runner="inline")
    (bad,) = [
        i
        for dataset in run.bench.datasets_at_hand
        for i, example in enumerate(dataset)
        if dataset.split == "train" and example.length > PLACE
    ]
    failed = {one.turn.label: one.sentence for one in run.outcome.failures}
    assert len(failed) == 3
    for label, sentence in failed.items():
        assert "one-long" in label
        assert f"example {bad} " in f"{sentence} ".replace(",", " "), sentence
        assert "nan" in sentence.lower() or "not finite" in sentence
    assert sorted(cell.task.label for cell in run.outcome.products) == ["sound"] * 3
