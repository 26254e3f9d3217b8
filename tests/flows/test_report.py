"""What people are told of results: rows in an order that holds, tables that fit the terminal."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from data import Catalog, Store
from flows.config import GridConfig
from flows.leaderboard import rows_of_run
from flows.outcome import Failure
from flows.report import namesake, report
from flows.run import Run
from flows.showing import show_table
from tasks import metric

WIDE = {
    "model": ["tiny"] * 6,
    "task": ["ioi"] * 3 + ["sva"] * 3,
    "found_on": [None] * 6,
    "method": ["EAP", "EAP-IG-inputs (5, midpoint)", "rank-mean of EAP and random"] * 2,
    "metric": ["logit-diff"] * 3 + ["prob-diff"] * 3,
    "cpr": [0.98961, 0.98962, 0.5, 0.4, 0.3, 0.2],
    "cpr_low": [0.1234, 0.2234, 0.3234, 0.4234, 0.5234, 0.6234],
    "cpr_high": [0.6543] * 5 + [0.7],
    "log_cpr": [1.5, 2.5, 3.5, 4.5, 5.5, 6.5],
    "circuit": [f"{n:x}" * 64 for n in range(10, 16)],
}


def shown(columns: dict[str, Any], width: int, terminal: bool = True) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, color_system=None)
    show_table(pa.table(columns), console)
    return out.getvalue()


def test_a_table_that_fits_has_all_columns_that_vary():
    said = shown(WIDE, 140)
    assert said.splitlines()[0] == "model tiny"
    assert "found_on" not in said
    assert said.splitlines()[1].split() == [
        *("task", "method", "metric", "cpr", "cpr_low", "cpr_high", "log_cpr", "circuit")
    ]
    assert "no room" not in said
    assert len(said.splitlines()) == 2 + 6 + 1


def test_a_table_too_wide_is_grouped_and_broken_between_words_alone():
    said = shown(WIDE, 66)
    lines = said.splitlines()
    assert max(map(len, lines)) <= 66
    assert "task ioi, metric logit-diff" in lines
    assert "task sva, metric prob-diff" in lines
    assert "no room" not in said
    words = said.split()
    assert words.count("EAP-IG-inputs") == 2
    for name in ("cpr", "cpr_low", "log_cpr"):
        for value in WIDE[name]:
            assert f"{value:.4g}" in words
    assert {key[:12] for key in WIDE["circuit"]} <= set(words)


def test_details_give_way_first_and_a_line_says_which():
    said = shown(WIDE, 44)
    assert max(map(len, said.splitlines())) <= 44
    assert "no room for cpr_low, cpr_high, log_cpr:" in said
    assert "--format csv" in said
    assert {"0.9896", "0.3", "a" * 12} <= set(said.split())
    assert "0.1234" not in said


def test_where_there_is_no_terminal_nothing_moves_or_is_left_out():
    said = shown(WIDE, 80, terminal=False)
    assert "task ioi" not in said
    assert {"0.1234", "0.6543", "1.5", "a" * 12} <= set(said.split())
    assert len([line for line in said.splitlines() if line.startswith(("ioi", "sva"))]) == 6


@pytest.mark.parametrize("width", [20, 60])
def test_one_row_that_is_too_wide_is_listed(width: int):
    said = shown({name: values[:1] for name, values in WIDE.items()}, width)
    assert "cpr_low   0.1234" in said
    assert "method    EAP" in said
    assert "no room" not in said


def test_a_table_without_rows_has_its_headings_even_where_they_have_no_room():
    columns = {name: pa.array([], pa.string()) for name in ("extraction", "algorithm", "circuit")}
    said = shown(columns, 20)
    assert "extraction" in said
    assert "0 rows" in said
    assert "no room for" in said
    assert {*columns} <= set(shown(columns, 60).split())


def test_an_exact_method_of_most_edges_stands_below_those_that_cover_all(
    grid: Callable[..., GridConfig], run: Callable[[GridConfig, Path], Run], tmp_path: Path
):
    methods = "[random, {name: exact, top: 45, of: random}]"  # of 46
    done = run(grid(methods=methods), tmp_path / "store")
    rows = rows_of_run(Catalog(done.bench.store), done.outcome.products.values())
    assert [row["method"] for row in rows] == ["random", "exact"]
    assert [row["comparable"] for row in rows] == [True, False]
    assert 0.75 < rows[1]["largest"] < rows[0]["largest"] == 1
    assert rows[1]["largest"] - rows[1]["smallest"] > 0.75


def test_two_files_with_grids_of_one_name_are_told_apart(
    grid: Callable[..., GridConfig], tmp_path: Path
):
    first, second, store = tmp_path / "1.yaml", tmp_path / "2.yaml", tmp_path / "store"
    first.touch()
    second.touch()
    assert namesake(grid(), str(store), str(first)) is None
    assert not store.exists()
    Store.open(store).save_grid("small", [], file=str(first))
    assert namesake(grid(), str(store), str(first)) is None
    assert namesake(grid(name="other"), str(store), str(second)) is None
    said = namesake(grid(), str(store), str(second))
    assert f"in {first}: from now on the store takes it for that of {second}, and" in str(said)
    first.rename(tmp_path / "moved.yaml")
    assert namesake(grid(), str(store), str(second)) is None


@metric("gives-none")
def gives_none(logits: object, answers: object, reference: object = None) -> None:
    """Forgets what it came for."""


def test_a_metric_that_gives_no_number_an_example_fails_its_cell_in_a_sentence(
    grid: Callable[..., GridConfig], run: Callable[[GridConfig, Path], Run], tmp_path: Path
):
    tasks = "[{name: ioi, metric: gives-none}, sva]"
    done = run(grid(tasks=tasks, methods="[EAP]"), tmp_path / "store")
    (sentence,) = {failure.sentence for failure in done.outcome.failures}
    assert sentence == (
        "the metric gives-none must return a tensor of one floating-point number an example, [2], "
        "not None"
    )
    out = io.StringIO()
    report(done, Console(file=out, width=200), 1.0)
    assert f"    shard 1 of 3: {sentence}" in out.getvalue()
    assert len(done.outcome.products) == 1


def test_the_failure_of_a_turn_itself_names_no_stage(grid: Callable[..., GridConfig]):
    cell = next(iter(grid().cells()))
    assert Failure(cell, "plan", "there is no such file").told == "there is no such file"
    assert Failure(cell, "dataset (train)", "it took longer").told == (
        "dataset (train): it took longer"
    )
