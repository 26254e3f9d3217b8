"""How a store bears many artifacts: finding all, listing, asking, in seconds and bytes.

    python -m benchmarks.store_scale [--artifacts 1000 10000 100000] [--folder FOLDER]

Makes stores of small artifacts, ten a cell, as a grid over a small model would. Everything is timed
in a process of its own: `cold` with nothing known of the store, so that every file is read once,
`warm` as every later process finds it. FOLDER keeps the stores, for another run to use.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from data import Catalog, PlannedStage, Store, place_id, provenance, stage_key
from data.artifact import Artifact, Voucher, encode, file_digest
from data.memory import held
from data.schema import TABLES
from data.tables import complete_artifacts

EDGES, EXAMPLES, SIZES = 32, 8, (0.1, 0.2, 0.5, 1.0)
CELL = ("shards", "scores", "circuits", "extractions", "members", "member_neurons",
        "evaluations", "example_values", "intervals", "curves")  # fmt: skip
LEADERBOARD = "leaderboard"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--artifacts", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(_measure(_MEASURES[options.measure], options.folder)))
        return
    folder = options.folder or Path(tempfile.mkdtemp(prefix="circuit-grid-"))
    table = Table(title="A store of many artifacts: seconds · of them computing · MB of memory")
    table.add_column("artifacts", justify="right")
    for name in _MEASURES:
        table.add_column(name, justify="right")
    for number in options.artifacts:
        make(folder / str(number), number)
        shutil.rmtree(folder / str(number) / "index", ignore_errors=True)
        found = [_measured(name, folder / str(number)) for name in _MEASURES]
        cells = (f"{wall:.2f} · {cpu:.2f} · {peak / 1e6:.0f}" for wall, cpu, peak in found)
        table.add_row(f"{number:,}", *cells)
    Console(width=120).print(table)
    if options.folder is None:
        shutil.rmtree(folder)


def _measured(name: str, folder: Path) -> tuple[float, float, int]:
    """Seconds, seconds of computing and peak memory of one measure, in a new process."""
    command = [sys.executable, "-m", "benchmarks.store_scale", "--measure", name]
    done = subprocess.run([*command, "--folder", folder], capture_output=True, check=True)
    wall, cpu, peak = json.loads(done.stdout)
    return wall, cpu, peak


def _measure(work: Callable[[Path], None], folder: Path) -> tuple[float, float, int]:
    wall, cpu = time.perf_counter(), time.process_time()
    work(folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return time.perf_counter() - wall, time.process_time() - cpu, peak


def _find_all(folder: Path) -> None:
    """What a plan does: the note of a grid, and every artifact that its stages need."""
    store = Store.open(folder)
    stages = store.grids()["synthetic"]
    with store.listed():
        for stage in stages:
            assert store.complete(stage.kind, str(stage.key)) is not None
    store.save_index()


def _list_all(folder: Path) -> None:
    complete_artifacts(Store.open(folder, create=False))


def _status(folder: Path) -> None:
    Catalog(Store.open(folder, create=False)).query("status")


def _leaderboard(folder: Path) -> None:
    assert Catalog(Store.open(folder, create=False)).query(LEADERBOARD).num_rows


_MEASURES: dict[str, Callable[[Path], None]] = {
    "find all, cold": _find_all,
    "find all, warm": _find_all,
    "list all": _list_all,
    "status": _status,
    "leaderboard, first": _leaderboard,
    "leaderboard": _leaderboard,
}


def make(folder: Path, artifacts: int) -> None:
    """A store of about so many artifacts, unless the folder has it."""
    if (folder / "grids").exists():
        return
    store = Store.open(folder)
    planned = []
    for stage, cell, key, tables in _stages(artifacts // len(CELL)):
        about = provenance(stage, cell, 0.25, 10_000_000, "cpu", "float32")
        for kind, rows in tables.items():
            _publish(folder, kind, key, rows, about)
        place = place_id(f"{stage} {cell}")
        primary = next(kind for kind in tables if TABLES[kind].companion_of is None)
        planned.append(PlannedStage(stage, cell, primary, key, place))
    store.save_grid("synthetic", planned)


def _publish(folder: Path, kind: str, key: str, rows: pa.Table, about: dict[str, object]) -> None:
    """Both files of an artifact, without waiting for the disk."""
    path = folder / kind / key[:2] / f"{key}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = encode(rows, kind, key, about)
    path.write_bytes(content)
    metadata = pq.read_metadata(held(content)).metadata or {}
    digest = json.loads(metadata[b"circuit-grid"])["digest"]
    voucher = Voucher(Artifact(kind, key, digest, rows.num_rows, about), file_digest(content))
    path.with_suffix(".json").write_bytes(voucher.to_json())


def _stages(cells: int) -> Iterator[tuple[str, str, str, dict[str, pa.Table]]]:
    """Stages with their keys and tables: what cells share, then five stages a cell."""
    model, graph, dataset, baseline = (_key(name) for name in ("model", "graph", "test", "whole"))
    sizes = {"n_layers": 2, "n_heads": 2, "n_kv_heads": 2, "d_model": 8, "d_head": 4, "d_mlp": 16}
    about = sizes | {"parallel": False, "d_vocab": 64, "n_positions": 16, "n_parameters": 1000}
    edges = [
        {"graph": graph, "edge_id": i, "edge": f"e{i}", "writer_id": 0, "reader_id": i,
         "writer": "input", "reader": f"r{i}", "kind": "mlp", "writer_layer": -1,
         "reader_layer": 0, "reader_nodes": ["m0"]}
        for i in range(EDGES)
    ]  # fmt: skip
    nodes = [{"graph": graph, "node_id": 0, "node": "input", "kind": "input", "layer": -1}]
    counts = {"n_writers": 1, "n_readers": EDGES, "n_nodes": 1, "n_edges": EDGES}
    described = {
        "models": [about | {"model": model, "name": "tiny", "family": "gpt2"}],
        "edges": edges,
        "nodes": nodes,
        "graphs": [about | counts | {"graph": graph}],
    }
    yield "model", "tiny", _key("described"), _tables(described)
    examples = [
        {"dataset": dataset, "example_id": i, "clean": "a", "corrupted": "b", "clean_tokens": [1],
         "corrupted_tokens": [2], "correct": [3], "incorrect": [4]}
        for i in range(EXAMPLES)
    ]  # fmt: skip
    drawn = {"dataset": dataset, "task": "ioi", "source": "ioi", "split": "test", "seed": 0,
             "n_examples": EXAMPLES, "dropped_json": "{}", "tokenizer": model}  # fmt: skip
    yield "dataset", "ioi", dataset, _tables({"examples": examples, "datasets": [drawn]})
    whole = {"baseline": baseline, "model": model, "dataset": dataset, "metric": "logit-diff",
             "intervention": "patching", "n_examples": EXAMPLES}  # fmt: skip
    runs = [whole | {"run": run, "mean": mean} for run, mean in (("clean", 2), ("corrupted", 0))]
    values = [
        {"baseline": baseline, "run": run["run"], "example_id": i, "value": run["mean"]}
        for run in runs
        for i in range(EXAMPLES)
    ]
    tables = _tables({"baseline_values": values, "baselines": runs})
    yield "baselines", "ioi", baseline, tables
    for number in range(cells):
        yield from _cell(number, model, graph, dataset, baseline)


def _cell(
    number: int, model: str, graph: str, dataset: str, baseline: str
) -> Iterator[tuple[str, str, str, dict[str, pa.Table]]]:
    """A cell's stages; each cell is one method's, so that the leaderboard has as many rows."""
    cell, scores, circuits = f"tiny · ioi · {number}", _key(number, "scores"), _key(number, "c")
    method = _key("method", number % 1000)
    if number < 1000:
        row = {"method": method, "name": f"m{number}", "label": f"m{number}", "level": "edge",
               "intervention": "patching", "metric": "logit-diff"}  # fmt: skip
        yield "method", cell, method, _tables({"methods": [row]})
    shards = [
        {"shard_index": 0, "first_example": 0, "n_examples": EXAMPLES, "level": "edge",
         "unit_id": i, "total": 0.5 * i, "total_of_squares": 0.1 * i}
        for i in range(EDGES)
    ]  # fmt: skip
    yield "shard", cell, _key(number, "shard"), _tables({"shards": shards})
    scored = [
        {"scores": scores, "model": model, "graph": graph, "dataset": dataset, "method": method,
         "level": "edge", "unit_id": i, "score": 0.1 * i, "n_examples": EXAMPLES}
        for i in range(EDGES)
    ]  # fmt: skip
    yield "scores", cell, scores, _tables({"scores": scored})
    names = [_key(number, "circuit", size) for size in SIZES]
    found = [
        {"circuit": name, "scores": scores, "graph": graph, "level": "edge", "algorithm": "top-n",
         "rule": "top-n", "absolute": True, "size_asked": size, "n_units": int(size * EDGES),
         "n_edges": int(size * EDGES), "n_nodes": 1, "fraction": size}
        for name, size in zip(names, SIZES, strict=True)
    ]  # fmt: skip
    members = [
        {"circuit": name, "edge_id": i}
        for name, size in zip(names, SIZES, strict=True)
        for i in range(int(size * EDGES))
    ]
    extracted = [{"extraction": circuits, "circuit": name} for name in names]
    tables = {"extractions": extracted, "members": members, "member_neurons": []}
    yield "circuits", cell, circuits, _tables(tables | {"circuits": found})
    evaluated = [
        {"evaluation": _key(name, "on"), "circuit": name, "part": "circuit", "model": model,
         "dataset": dataset, "intervention": "patching", "metric": "logit-diff",
         "mean": 2 * size, "faithfulness": size, "baseline": baseline, "n_examples": EXAMPLES}
        for name, size in zip(names, SIZES, strict=True)
    ]  # fmt: skip
    each = [
        {"evaluation": row["evaluation"], "example_id": i, "value": row["mean"]}
        for row in evaluated
        for i in range(EXAMPLES)
    ]
    tables = {"example_values": each, "evaluations": evaluated}
    yield "evaluation", cell, _key(number, "evaluation"), _tables(tables)
    drawn: dict[str, Any] = {"n_resamples": 1000, "confidence": 0.95, "seed": 0}
    ends = {"standard_error": 0.1, "low": 0.0, "high": 1.0}
    intervals = [drawn | ends | {"evaluation": row["evaluation"]} for row in evaluated]
    curves = [
        drawn | {"extraction": circuits, "baseline": baseline, "axis": axis, "cpr": 0.5, "cmd": 0.5}
        for axis in ("linear", "log")
    ]
    tables = {"curves": curves, "intervals": intervals}
    yield "confidence", cell, _key(number, "confidence"), _tables(tables)


def _tables(rows: Mapping[str, Any]) -> dict[str, pa.Table]:
    """Rows by kind in the schemas of their tables; columns that are not given are null."""
    return {kind: pa.Table.from_pylist(some, TABLES[kind].schema) for kind, some in rows.items()}


def _key(*names: object) -> str:
    return stage_key("synthetic", 1, {"names": [str(name) for name in names]}, {})


if __name__ == "__main__":
    main()
