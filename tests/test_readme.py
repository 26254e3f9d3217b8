"""What the README shows works as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from circuits import attribute, evaluate, load_model
from flows.reading import read_grid
from tasks import load_dataset

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_lines_of_python_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for lines in blocks("python"):
        exec(compile(lines, "README.md", "exec"), names)
    circuit, result = names["circuit"], names["result"]
    assert (circuit.n_edges, circuit.n_nodes) == (200, 22)  # type: ignore[attr-defined]
    assert result.faithfulness == pytest.approx(1, abs=0.02)  # type: ignore[attr-defined]
    assert names["ensemble"].n_units == circuit.graph.n_edges  # type: ignore[attr-defined]
    assert (tmp_path / "circuit.svg").read_text(encoding="utf-8").count("<svg") == 1


def test_a_notebook_sees_matrices_names_and_values(tmp_path: Path) -> None:
    model = load_model("bundled/behaviours")
    dataset = load_dataset("ioi", model.tokenizer, split="train", size=8, seed=0)
    scores = attribute(model, dataset, "EAP-IG-inputs", steps=2, quadrature="left")
    writers, readers = scores.graph.writers, scores.graph.readers
    assert scores.matrix.shape == scores.standard_error.shape == (len(writers), len(readers))
    table = scores.to_pandas()
    row = table.loc[table["edge"] == "a0.h2->m0"].iloc[0]
    assert row["score"] == scores.matrix[writers.index("a0.h2"), readers.index("m0")]
    for circuit in (scores.top_n(20), scores.greedy(20), scores.threshold(0.01)):
        result = evaluate(model, circuit, dataset, metric="logit-diff")
        assert result.values.shape == (8,)
        assert result.mean == pytest.approx(result.values.mean())
        assert circuit.mask.sum() == circuit.n_edges > 0
        assert np.isfinite(result.faithfulness)


def test_the_grid_it_shows_is_one(tmp_path: Path) -> None:
    (text,) = blocks("yaml")
    (tmp_path / "pairs.csv").write_text('clean,corrupted,correct,incorrect\na,b," c"," d"\n')
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    assert len(list(read_grid(path).cells())) == 2 * 6


def test_the_bundled_grid_is_three_tasks_by_eight_methods() -> None:
    grid = read_grid(ROOT / "flows" / "grids" / "demo.yaml")
    assert len(list(grid.cells())) == 3 * 8
    assert grid.sizes == (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
