"""Runs of a real grid by real Prefect on a real, small model: what is done, reused, told."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data import Catalog, Store
from flows.config import GridConfig
from flows.run import Run
from flows.settings import prefect_server
from flows.workbench import workbench
from tests.flows.conftest import digests, statuses
from tests.flows.damage import damaged_by

Grid = Callable[..., GridConfig]
RunGrid = Callable[[GridConfig, Path], Run]

ALL_STAGES = {
    "model": 1,
    "dataset": 2,
    "method": 1,
    "shard": 3,
    "scores": 1,
    "circuits": 1,
    "baselines": 1,
    "evaluation": 1,
    "confidence": 1,
}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the store of a finished small grid is kept, for tests to copy."""
    return tmp_path_factory.mktemp("finished") / "store"


@pytest.fixture
def store(finished: Path, grid: Grid, run: RunGrid, tmp_path: Path) -> Path:
    """A copy of the store of a finished small grid."""
    if not finished.exists():
        assert statuses(run(grid(), finished))["computed"] == ALL_STAGES
    return Path(shutil.copytree(finished, tmp_path / "store"))


def test_a_second_run_reuses_every_stage_and_loads_no_model(store: Path, grid: Grid, run: RunGrid):
    before = digests(store)
    again = run(grid(), store)
    assert statuses(again) == {"computed": {}, "reused": ALL_STAGES, "failed": {}}
    assert again.bench.models.held == ()
    assert digests(store) == before


@pytest.mark.parametrize(
    ("changes", "computed"),
    [
        ({"memory_budget": "64MiB"}, {}),
        ({"device": "cpu"}, {}),
        ({"name": "another"}, {}),
        ({"sizes": "[0.1, 0.2]"}, {"circuits": 1, "evaluation": 1, "confidence": 1}),
        ({"extraction": "[greedy]"}, {"circuits": 1, "evaluation": 1, "confidence": 1}),
        (
            {"examples": "{train: 6, evaluate: 5}"},
            {"dataset": 1, "baselines": 1, "evaluation": 1, "confidence": 1},
        ),
        (
            {"examples": "{train: 8, evaluate: 4}"},  # the first three shards are the same
            {
                "dataset": 1,
                "shard": 1,
                "scores": 1,
                "circuits": 1,
                "evaluation": 1,
                "confidence": 1,
            },
        ),
        (
            {"methods": "[EAP, clean-corrupted]"},
            {
                "method": 1,
                "shard": 3,
                "scores": 1,
                "circuits": 1,
                "evaluation": 1,
                "confidence": 1,
                "score comparisons": 1,
                "circuit comparisons": 1,
            },
        ),
        (
            {"tasks": "[{name: ioi, judged_by: [logit-diff, accuracy]}]"},
            {"baselines": 1, "evaluation": 1, "confidence": 1},
        ),
        ({"judging": "{confidence: 0.9}"}, {"confidence": 1}),
        ({"judging": "{completeness: true}"}, {"evaluation": 1, "confidence": 1}),
        ({"judging": "{minimality: 20}"}, {"minimality": 1}),
        ({"judging": "{stability: {resamples: 10, size: 5}}"}, {"stability": 1}),
        ({"judging": "{comparisons: false}"}, {}),
    ],
)
def test_a_change_recomputes_what_depends_on_it_and_nothing_else(
    store: Path, grid: Grid, run: RunGrid, changes: dict[str, str], computed: dict[str, int]
):
    assert statuses(run(grid(**changes), store))["computed"] == computed


def test_another_name_for_the_same_weights_shares_everything(
    store: Path, grid: Grid, run: RunGrid, speaker: Path, tmp_path: Path
):
    elsewhere = shutil.copytree(speaker, tmp_path / "renamed")
    assert statuses(run(grid(models=f"[{elsewhere}]"), store))["computed"] == {}


@pytest.mark.parametrize("how", ["deleted", "truncated", "one bit flipped"])
@pytest.mark.parametrize(
    ("kind", "stage"),
    [("shards", "shard"), ("scores", "scores"), ("members", "circuits"), ("models", "model")],
)
def test_a_damaged_artifact_is_rebuilt_alone(
    store: Path, grid: Grid, run: RunGrid, kind: str, stage: str, how: str
):
    before = digests(store)
    damaged_by(how, sorted((store / kind).rglob("*.parquet"))[0])
    assert statuses(run(grid(), store))["computed"] == {stage: 1}
    assert digests(store) == before


def test_a_file_that_says_the_same_in_other_words_changes_nothing_downstream(
    grid: Grid, run: RunGrid, tmp_path: Path
):
    text = "Then {0} and {1} went to the store. {0} gave a book to"
    names = ["Mary", "John", "Tom", "James"]
    header = ["clean", "corrupted", "correct", "incorrect"]
    lines = [
        [text.format(a, b), text.format(b, a), f" {b}", f" {a}"]
        for a in names
        for b in names
        if a != b
    ]
    file, store = tmp_path / "pairs.csv", tmp_path / "store"
    task = f"[{{path: {file}, train_on: all, evaluate_on: all}}]"
    file.write_text("\n".join(",".join(line) for line in [header, *lines]))
    first = run(grid(tasks=task), store)
    assert first.outcome.failures == []
    file.write_text("\n".join(",".join([*line, "a remark"]) for line in [header, *lines]))
    assert file.read_text().splitlines()[0].endswith("a remark")
    again = run(grid(tasks=task), store)
    assert statuses(again)["computed"] == {"dataset": 1}


def test_a_failing_cell_leaves_the_others_alone_and_is_named(
    grid: Grid, run: RunGrid, tmp_path: Path
):
    store = tmp_path / "store"
    done = run(grid(tasks="[greater-than, ioi]"), store)
    (failure,) = done.outcome.failures
    assert failure.turn.label == "speaker · greater-than · EAP"
    assert "cannot express the task greater-than" in failure.sentence
    assert [cell.task.label for cell in done.outcome.products] == ["ioi"]
    assert [one.sentence for one in Store.open(store).failures()] == [failure.sentence]
    again = run(grid(tasks="[ioi]"), store)
    assert again.outcome.failures == []
    assert Store.open(store).failures() == []  # the grid no longer has the stage that failed


def test_a_stage_that_several_cells_share_fails_once(grid: Grid, run: RunGrid, tmp_path: Path):
    config = grid(tasks="[greater-than]", methods="[EAP, clean-corrupted]")
    done = run(config, tmp_path / "store")
    assert len(done.outcome.failures) == 2
    assert done.outcome.count("failed") == 1


def test_prefect_sees_the_run_fail_with_the_list_of_cells(grid: Grid, run: RunGrid, tmp_path: Path):
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.sorting import FlowRunSort

    run(grid(tasks="[greater-than, ioi]", name="with-a-failure"), tmp_path / "store")
    with prefect_server(), get_client(sync_client=True) as client:
        (last,) = client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=1)
        assert last.name == "with-a-failure"
        assert last.state_name == "Failed"
        assert "speaker · greater-than · EAP" in last.state.message


def test_weights_that_are_not_numbers_fail_their_cells_alone(
    grid: Grid, run: RunGrid, speaker: Path, tmp_path: Path
):
    import torch
    from safetensors.torch import load_file, save_file

    broken = Path(shutil.copytree(speaker, tmp_path / "broken"))
    weights = load_file(broken / "model.safetensors")
    weights["transformer.h.1.mlp.c_proj.weight"][0, 0] = torch.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    done = run(grid(models=f"[{speaker}, {broken}]"), tmp_path / "store")
    (failure,) = done.outcome.failures
    assert failure.turn.label == "broken · ioi · EAP"
    assert "nan" in failure.sentence
    assert [cell.model.label for cell in done.outcome.products] == ["speaker"]


def test_a_size_above_the_number_of_edges_fails_before_anything_is_scored(
    grid: Grid, run: RunGrid, tmp_path: Path
):
    store = tmp_path / "store"
    done = run(grid(sizes="[0.5, 100000]"), store)
    (failure,) = done.outcome.failures
    assert "a circuit of 100000 edges was asked for, but speaker has 46" in failure.sentence
    assert done.outcome.count("computed", "shard") == 0


def test_a_fault_that_nobody_foresaw_leaves_its_story_in_the_store(
    grid: Grid, run: RunGrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import flows.stages.attribution

    def broken(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("somewhere deep")

    monkeypatch.setattr(flows.stages.attribution.PartialScores, "finish", broken)
    done = run(grid(), tmp_path / "store")
    (failure,) = done.outcome.failures
    assert failure.sentence.startswith("ZeroDivisionError: somewhere deep (the whole story is in ")
    (log,) = (tmp_path / "store" / "logs").glob("*.log")
    assert "Traceback (most recent call last)" in log.read_text()
    assert str(log) in failure.sentence


def test_a_model_that_is_not_there_fails_its_cells_and_is_tried_again(
    grid: Grid, run: RunGrid, speaker: Path, tmp_path: Path
):
    store = tmp_path / "store"
    done = run(grid(models=f"[no-such-model-anywhere, {speaker}]"), store)
    (failure,) = done.outcome.failures
    assert "no-such-model-anywhere" in failure.sentence
    assert len(done.outcome.products) == 1
    again = run(grid(models=f"[no-such-model-anywhere, {speaker}]"), store)
    assert [one.sentence for one in again.outcome.failures] == [failure.sentence]
    assert again.outcome.count("computed") == 0


def test_the_store_tells_where_the_grid_stands(store: Path, grid: Grid, run: RunGrid):
    def standing() -> dict[str, int]:
        rows = Catalog(Store.open(store)).query("SELECT status FROM grid_stages").to_pylist()
        found = [row["status"] for row in rows]
        return {status: found.count(status) for status in set(found)}

    assert standing() == {"done": 12}
    sorted((store / "evaluations").rglob("*.json"))[0].unlink()
    workbench.cache_clear()
    assert standing() == {"done": 11, "missing": 1}


def test_the_tables_agree_with_the_science_they_store(store: Path, speaker: Path, grid: Grid):
    from circuits import attribute, evaluate, load_model
    from tasks import load_dataset

    model = load_model(speaker, device="cpu")
    train = load_dataset("ioi", model.tokenizer, "train", 6)
    test = load_dataset("ioi", model.tokenizer, "test", 4)
    scores = attribute(model, train, "EAP")
    catalog = Catalog(Store.open(store))
    rows = catalog.query("SELECT edge, score, standard_error FROM edge_scores").to_pylist()
    stored = {row["edge"]: (row["score"], row["standard_error"]) for row in rows}
    for row in scores.to_pandas().itertuples():
        assert stored[row.edge] == pytest.approx(
            (row.score, row.standard_error), rel=1e-4, abs=1e-7
        )
    result = evaluate(model, scores.top_n(20), test)
    (kept,) = catalog.query("SELECT * FROM benchmark WHERE units_asked = 20").to_pylist()
    assert kept["mean"] == pytest.approx(result.mean, rel=1e-4, abs=1e-6)
    assert kept["faithfulness"] == pytest.approx(result.faithfulness, rel=1e-3, abs=1e-5)
    assert kept["n_edges"] == scores.top_n(20).n_edges
    (whole,) = catalog.query("SELECT * FROM benchmark WHERE size_asked = 1.0").to_pylist()
    assert whole["faithfulness"] == pytest.approx(1.0, abs=1e-4)


def pairs_file(path: Path) -> Path:
    """Pairs whose train prompts have ten tokens, and whose test prompts have six."""
    long, short = "Then {0} and {1} went to the store. {0} gave a book to", "{0} gave a book to"
    rows = [["clean", "corrupted", "correct", "incorrect", "split"]]
    for a, b in [("Mary", "John"), ("John", "Mary"), ("Tom", "Mary"), ("Mary", "Tom")]:
        rows.append([long.format(a, b), long.format(b, a), f" {b}", f" {a}", "train"])
        rows.append([short.format(a), short.format(b), f" {b}", f" {a}", "test"])
    path.write_text("\n".join(",".join(row) for row in rows))
    return path


@pytest.mark.parametrize(
    ("methods", "task"),
    [
        ("[{name: exact, intervention: mean-positional}]", ""),
        ("[{name: EAP, judged_under: [mean-positional]}]", ""),
        (
            "[{ensemble: [{name: EAP, intervention: mean-positional}, random],"
            " judged_under: [patching]}]",
            ", means_on: test",
        ),
        (
            "[{name: exact, top: 3, of: {name: EAP, intervention: mean-positional},"
            " judged_under: [zero]}]",
            ", means_on: test",
        ),
    ],
)
def test_prompts_of_several_lengths_are_refused_before_anything_is_run_that_needs_one(
    grid: Grid, run: RunGrid, tmp_path: Path, methods: str, task: str
):
    file = pairs_file(tmp_path / "pairs.csv")
    config = grid(tasks=f"[{{path: {file}{task}}}]", methods=methods)
    done = run(config, tmp_path / "store")
    (failure,) = done.outcome.failures
    assert "mean-positional needs inputs of one length, but pairs has several" in failure.sentence
    assert "split train have" in failure.sentence
    assert "split test have" in failure.sentence
    assert set(statuses(done)["computed"]) == {"dataset", "method", "model"}


def test_lengths_matter_only_where_means_at_positions_are_put_in(
    grid: Grid, run: RunGrid, tmp_path: Path
):
    file = pairs_file(tmp_path / "pairs.csv")
    method = "{name: EAP, intervention: mean-positional, judged_under: [patching, mean]}"
    done = run(grid(tasks=f"[{{path: {file}}}]", methods=f"[{method}]"), tmp_path / "store")
    assert done.outcome.failures == []


def test_only_patching_needs_corrupted_prompts(grid: Grid, run: RunGrid, tmp_path: Path):
    """And is refused before anything is scored; a way without it gives all its numbers."""
    lines = pairs_file(tmp_path / "pairs.csv").read_text(encoding="utf-8").splitlines()
    rows = list(csv.DictReader(lines))
    kept = [name for name in rows[0] if name != "corrupted"]
    file = tmp_path / "alone.csv"
    with file.open("w", encoding="utf-8", newline="") as sink:
        writer = csv.DictWriter(sink, kept, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    ways = "{name: EAP, intervention: zero}, {name: random, judged_under: [zero]}"
    tasks = f"[{{path: {file}}}]"
    done = run(grid(tasks=tasks, methods=f"[{ways}]"), tmp_path / "store")
    assert done.outcome.failures == []
    assert len(Catalog(done.bench.store).query("leaderboard")) == 2
    patched = "{name: EAP, intervention: zero, judged_under: [patching]}"
    for methods in ("[EAP]", "[random]", f"[{patched}]"):
        done = run(grid(tasks=tasks, methods=methods), tmp_path / "other")
        (failure,) = done.outcome.failures
        assert "alone, split t" in failure.sentence
        assert "without a corrupted prompt" in failure.sentence
        assert done.outcome.count("computed", "shard") == 0


def test_a_wrong_size_is_refused_before_means_are_taken(grid: Grid, run: RunGrid, tmp_path: Path):
    config = grid(methods="[{name: EAP, intervention: mean}]", sizes="[100000]")
    done = run(config, tmp_path / "store")
    assert "a circuit of 100000 edges was asked for" in done.outcome.failures[0].sentence
    assert done.outcome.count("computed", "means") == 0


def test_a_graph_without_groups_is_refused_the_second_time(
    grid: Grid, run: RunGrid, speaker: Path, tmp_path: Path
):
    config = grid(models=f"[{speaker}, {{name: {speaker}, kv: grouped}}]")
    done = run(config, tmp_path / "store")
    (failure,) = done.outcome.failures
    assert failure.turn.label == "speaker (grouped) · ioi · EAP"
    assert "speaker is listed twice: its heads share no keys and values" in failure.sentence
    alone = grid(models=f"[{{name: {speaker}, kv: grouped}}]")
    assert run(alone, tmp_path / "store").outcome.failures == []


def test_rows_of_different_means_are_told_apart(grid: Grid, run: RunGrid, tmp_path: Path):
    methods = "[{name: EAP, intervention: mean}, {name: random, judged_under: [mean]}]"
    config = grid(
        tasks="[{name: ioi, means: 5}, {name: ioi, means: 4, means_on: validation}]",
        methods=methods,
    )
    done = run(config, tmp_path / "store")
    assert done.outcome.failures == []
    catalog = Catalog(Store.open(tmp_path / "store"))
    rows = catalog.query("SELECT label, means_over FROM leaderboard").to_pylist()
    assert sorted((row["label"], row["means_over"]) for row in rows) == [
        ("EAP (mean), means over 4 of validation", 4),
        ("EAP (mean), means over 5", 5),
        ("random", 4),
        ("random", 5),
    ]
    labels = [cell.label for cell in done.outcome.products]
    assert len(set(labels)) == 4


def test_the_graphs_and_dtypes_of_one_model_are_told_apart(
    grid: Grid, run: RunGrid, grouped_speaker: Path, tmp_path: Path
):
    import io

    from rich.console import Console

    from flows.finding import find_circuit, load_circuit
    from flows.leaderboard import leaderboard_table, rows_of_run

    models = (
        f"[{grouped_speaker}, {{name: {grouped_speaker}, kv: grouped}},"
        f" {{name: {grouped_speaker}, dtype: float64}}]"
    )
    done = run(grid(models=models), tmp_path / "store")
    assert done.outcome.failures == []
    labels = ["grouped", "grouped (float64)", "grouped (grouped)"]
    assert sorted(cell.model.label for cell in done.outcome.products) == labels
    catalog = Catalog(Store.open(tmp_path / "store"))
    for view in ("leaderboard", "benchmark", "edge_scores", "circuit_sizes"):
        found = catalog.query(f"SELECT DISTINCT model FROM {view} ORDER BY model")
        assert found["model"].to_pylist() == labels
    rows = rows_of_run(catalog, done.outcome.products.values())
    out = io.StringIO()
    Console(file=out, width=140).print(leaderboard_table(rows, 140))
    assert [line.split("  ")[0] for line in out.getvalue().splitlines() if "EAP" in line] == labels
    filters = {"model": "grouped (grouped)", "size": 0.5}
    _, title = load_circuit(catalog, find_circuit(catalog, None, filters))
    assert title.startswith("ioi · grouped (grouped) · EAP")


def test_areas_over_few_sizes_stand_below_the_others_with_their_sizes(
    grid: Grid, run: RunGrid, tmp_path: Path
):
    import io

    from rich.console import Console

    from flows.leaderboard import leaderboard_table, rows_of_run

    methods = "[{name: exact, top: 20, of: EAP}, random]"
    done = run(grid(methods=methods), tmp_path / "store")
    catalog = Catalog(Store.open(tmp_path / "store"))
    rows = rows_of_run(catalog, done.outcome.products.values())
    assert [(row["method"], row["comparable"]) for row in rows] == [
        ("random", True),
        ("exact", False),
    ]
    assert rows[1]["cmd"] < rows[0]["cmd"]  # which says nothing
    out = io.StringIO()
    Console(file=out, width=140).print(leaderboard_table(rows, 140))
    heading, _, last = out.getvalue().splitlines()
    assert "sizes" in heading
    assert f"{rows[1]['smallest']:.2g} to {rows[1]['largest']:.2g}" in last
    asked = catalog.query("leaderboard").to_pylist()
    assert [row["sizes"] is None for row in asked] == [True, False]
