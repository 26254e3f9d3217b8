"""A grid that judges all it can: its tables hold what is computed, and say it again in SQL."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

from circuits.circuit import Circuit
from data import Catalog, Store
from flows.config import GridConfig
from flows.reading import parse_grid
from flows.run import Run
from tests.flows.conftest import run_afresh, statuses

Grid = Callable[..., GridConfig]
RunGrid = Callable[[GridConfig, Path], Run]

ENSEMBLE = "{ensemble: [EAP, clean-corrupted], combine: score-mean}"
EXACT = "{name: exact, top: 9, of: EAP}"
GRID = """
name: judged
models: [{model}]
tasks: [{{name: ioi, judged_by: [kl]}}, {{name: sva, judged_by: [kl]}}]
examples: {{train: 6, evaluate: 5}}
methods: [EAP, clean-corrupted, {ensemble}, {exact}, {{name: EAP, level: node}},
  {{path: scores.json}}, {{path: circuit.pt}}]
sizes: [0.1, 0.5, 1.0, 6]
shard_size: 3
judging:
  resamples: 60
  confidence: 0.8
  seed: 3
  cross_task: true
  completeness: true
  minimality: 6
  stability: {{resamples: 40, size: 5}}
"""


@pytest.fixture(scope="module")
def science(speaker: Path) -> dict[str, Any]:
    """The model and its datasets, without a grid."""
    from circuits import attribute, load_model
    from tasks import load_dataset

    model = load_model(speaker, device="cpu")
    train, test = (
        {task: load_dataset(task, model.tokenizer, split, n) for task in ("ioi", "sva")}
        for split, n in (("train", 6), ("test", 5))
    )
    scores = attribute(model, train["sva"], "EAP")
    return {"model": model, "train": train, "test": test, "scores": scores}


@pytest.fixture(scope="module")
def folder(
    server: object, science: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Where two files to import lie: scores alone, and a circuit alone, which is not pruned."""
    from circuits.interchange import save_circuit_file

    folder = tmp_path_factory.mktemp("judged")
    width = science["model"].architecture.d_model
    save_circuit_file(folder / "scores.json", scores=science["scores"], d_model=width)
    graph = science["model"].graph
    dangling = Circuit.from_edges(graph, ["input->m0", "m0->m1", "m1->logits", "input->a1.h0<q>"])
    assert dangling.prune() != dangling
    save_circuit_file(folder / "circuit.pt", dangling, d_model=width)
    return folder


@pytest.fixture(scope="module")
def done(speaker: Path, folder: Path) -> Run:
    """The run of the whole grid."""
    return run_afresh(config_of(speaker, folder), folder / "store")


@pytest.fixture(scope="module")
def catalog(done: Run, folder: Path) -> Catalog:
    assert [failure.sentence for failure in done.outcome.failures] == []
    return Catalog(Store.open(folder / "store"))


def config_of(speaker: Path, folder: Path) -> GridConfig:
    text = GRID.format(model=speaker, ensemble=ENSEMBLE, exact=EXACT)
    return parse_grid(text, "judged.yaml", folder)


def circuit_of(catalog: Catalog, science: dict[str, Any], key: str) -> Circuit:
    """A circuit of edges by its members' names."""
    rows = catalog.query("SELECT edge FROM circuit_edges WHERE circuit = $key", key=key)
    return Circuit.from_edges(science["model"].graph, rows["edge"].to_pylist())


def test_a_second_run_computes_nothing(speaker: Path, folder: Path, done: Run):
    again = run_afresh(config_of(speaker, folder), folder / "store")
    assert statuses(again)["computed"] == {}
    assert again.bench.models.held == ()


def test_members_of_an_ensemble_and_files_are_worked_on_once(done: Run):
    computed = statuses(done)["computed"]
    # EAP and clean-corrupted on two tasks; EAP at node level; exact on the best of EAP
    assert computed["shard"] == 2 * (2 + 2 + 2 + 2)
    assert computed["scores"] == 2 * 4
    assert computed["ensemble"] == 2
    assert computed["file"] == 2  # on two tasks each
    rules = 6  # methods with scores to extract from
    assert computed["circuits"] == 2 * rules - 1  # those of the scores in a file belong to no task
    own = 2 * (rules + 1)  # and the circuit of a file
    # a file's circuits on the other task are those on their own task there
    assert computed["evaluation"] == 2 * own + 2 * (rules - 1)
    assert computed["confidence"] == computed["evaluation"]
    assert computed["stability"] == 2 * 4


def test_faithfulness_follows_from_the_values_of_examples(catalog: Catalog):
    rows = catalog.query(
        """
        WITH runs AS (
            SELECT baseline,
                avg(value) FILTER (run = 'clean') AS clean,
                avg(value) FILTER (run = 'corrupted') AS corrupted
            FROM baseline_values GROUP BY baseline
        ),
        means AS (SELECT evaluation, avg(value) AS mean FROM example_values GROUP BY evaluation)
        SELECT part, faithfulness, (means.mean - corrupted) / (clean - corrupted) AS again
        FROM evaluations JOIN means USING (evaluation) JOIN runs USING (baseline)
        """
    ).to_pylist()
    assert {row["part"] for row in rows} == {"circuit", "complement"}
    assert len(rows) == catalog.query("evaluations").num_rows
    for row in rows:
        assert row["faithfulness"] == pytest.approx(row["again"], abs=1e-9)


def test_intervals_follow_from_the_values_of_examples(catalog: Catalog):
    def values(sql: str, **key: str) -> np.ndarray:
        return catalog.query(f"{sql} ORDER BY example_id", **key)["value"].to_numpy()

    drawn = np.random.default_rng(3).integers(5, size=(60, 5))
    rows = catalog.query(
        "SELECT intervals.*, baseline FROM intervals JOIN evaluations USING (evaluation)"
    ).to_pylist()
    assert {row["n_resamples"] for row in rows} == {60}
    defined = 0
    for row in rows:
        mine = values(
            "SELECT * FROM example_values WHERE evaluation = $key", key=row["evaluation"]
        )[drawn].mean(axis=1)
        clean, corrupted = (
            values(
                "SELECT * FROM baseline_values WHERE baseline = $key AND run = $run",
                key=row["baseline"],
                run=run,
            )[drawn].mean(axis=1)
            for run in ("clean", "corrupted")
        )
        gaps = clean - corrupted
        if row["low"] is None or len(set(np.sign(gaps))) > 1:  # a draw without a gap
            continue
        found = (mine - corrupted) / gaps
        defined += 1
        assert row["standard_error"] == pytest.approx(found.std(ddof=1), rel=1e-6, abs=1e-9)
        expected = np.quantile(found, [0.1, 0.9])
        assert [row["low"], row["high"]] == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert defined > len(rows) / 2


def test_curves_are_the_areas_of_the_leaderboard(catalog: Catalog):
    rows = catalog.query(
        "SELECT curves.*, leaderboard.cpr AS of_view, leaderboard.cmd AS cmd_of_view,"
        " leaderboard.log_cpr, leaderboard.log_cmd"
        " FROM curves JOIN leaderboard USING (extraction, baseline)"
    ).to_pylist()
    assert len(rows) == 2 * catalog.query("leaderboard").num_rows
    compared = 0
    for row in rows:
        names = ("of_view", "cmd_of_view") if row["axis"] == "linear" else ("log_cpr", "log_cmd")
        for measure, name in zip(("cpr", "cmd"), names, strict=True):
            if row[measure] is not None:  # null where the gap is not told apart from zero
                assert row[measure] == pytest.approx(row[name], rel=1e-9, abs=1e-12)
                assert row[f"{measure}_low"] <= row[f"{measure}_high"]
                compared += 1
    assert compared > len(rows)


def test_what_a_circuit_leaves_out_is_run_as_the_science_says(
    catalog: Catalog, science: dict[str, Any]
):
    from circuits.completeness import completeness

    rows = catalog.query(
        "SELECT * FROM completeness WHERE level = 'edge' AND size_asked = 0.5 AND task = 'sva'"
        " AND label IN ('EAP', 'exact (top 9 of EAP)')"
    ).to_pylist()
    assert len(rows) == 2
    for row in rows:
        circuit = circuit_of(catalog, science, row["circuit"])
        found = completeness(science["model"], circuit, science["test"]["sva"], "kl")
        assert row["without"] == pytest.approx(found.without.faithfulness, rel=1e-3, abs=1e-4)


def test_marginals_follow_from_their_values_and_are_what_removal_costs(
    catalog: Catalog, science: dict[str, Any]
):
    from circuits import evaluate

    again = catalog.query(
        "SELECT marginal, standard_error, avg(value) AS mean,"
        " stddev_samp(value) / sqrt(count(*)) AS error FROM marginals"
        " JOIN marginal_values USING (circuit, baseline, unit_id)"
        " GROUP BY circuit, baseline, unit_id, marginal, standard_error"
    ).to_pylist()
    assert len(again) == catalog.query("marginals").num_rows
    for row in again:
        assert row["marginal"] == pytest.approx(row["mean"], abs=1e-9)
        assert row["standard_error"] == pytest.approx(row["error"], abs=1e-9)

    rows = catalog.query(
        "SELECT * FROM unit_marginals WHERE level = 'edge' AND task = 'ioi' AND label = 'EAP'"
    ).to_pylist()
    assert rows
    assert {row["n_units"] for row in rows} <= set(range(1, 7))
    for row in rows:
        circuit = circuit_of(catalog, science, row["circuit"])
        less = Circuit.from_edges(circuit.graph, set(circuit.edges) - {row["unit"]})
        with_it, without = (
            evaluate(science["model"], one, science["test"]["ioi"], "kl").mean
            for one in (circuit, less)
        )
        assert row["marginal"] == pytest.approx(with_it - without, rel=1e-3, abs=1e-4)


def test_circuits_are_run_on_other_tasks_by_their_metric_and_kept_apart(
    catalog: Catalog, science: dict[str, Any], done: Run
):
    from circuits import evaluate
    from flows.leaderboard import rows_of_run

    rows = catalog.query(
        "SELECT * FROM benchmark WHERE found_on = 'sva' AND task = 'ioi' AND level = 'edge'"
        " AND size_asked = 0.5"
    ).to_pylist()
    assert len(rows) == 4
    for row in rows:
        circuit = circuit_of(catalog, science, row["circuit"])
        result = evaluate(science["model"], circuit, science["test"]["ioi"], "kl")
        assert row["mean"] == pytest.approx(result.mean, rel=1e-3, abs=1e-4)
    everything = catalog.query("leaderboard").to_pylist()
    assert {(row["found_on"], row["task"]) for row in everything} >= {
        ("sva", "ioi"),
        ("ioi", "sva"),
    }
    mine = rows_of_run(catalog, done.outcome.products.values())
    assert {row["found_on"] for row in mine if row["found_on"] != row["task"]} == {None}
    assert len(mine) == 2 * 7


def test_the_report_shows_intervals_where_there_is_room(catalog: Catalog, done: Run):
    import io

    from rich.console import Console

    from flows.leaderboard import leaderboard_table, rows_of_run

    rows = rows_of_run(catalog, done.outcome.products.values())
    (best,) = [row for row in rows if (row["task"], row["label"]) == ("sva", "EAP")]
    interval = f"{best['cpr_low']:.3f} to {best['cpr_high']:.3f}"
    for width in (80, 140):
        out = io.StringIO()
        Console(file=out, width=width).print(leaderboard_table(rows, width))
        lines = out.getvalue().splitlines()
        assert max(map(len, lines)) <= width
        assert f"{best['cpr']:.3f}" in out.getvalue()
        assert ("80 %" in lines[0]) == (interval in out.getvalue()) == (width == 140)


def test_an_ensemble_is_its_members_combined_and_takes_their_time(catalog: Catalog):
    rows = catalog.query(
        "SELECT label, score, unit_id FROM scores JOIN attributions USING (scores)"
        " WHERE task = 'ioi' AND attributions.level = 'edge' ORDER BY unit_id"
    ).to_pylist()
    by = {
        label: np.array([row["score"] for row in rows if row["label"] == label])
        for label in {row["label"] for row in rows}
    }
    shares = [by[name] / np.abs(by[name]).sum() for name in ("EAP", "clean-corrupted")]
    label = "score-mean of EAP and clean-corrupted"
    assert by[label] == pytest.approx(np.mean(shares, axis=0), rel=1e-9, abs=1e-12)
    (row,) = catalog.query(
        "SELECT * FROM attributions WHERE label = $label AND task = 'ioi'", label=label
    ).to_pylist()
    about = (row["method"], row["metric"], row["intervention"], row["n_examples"])
    assert about == ("ensemble", "logit-diff", "patching", 6)
    seconds = catalog.query(
        "SELECT sum(seconds) AS s FROM attributions"
        " WHERE task = 'ioi' AND level = 'edge' AND label IN ('EAP', 'clean-corrupted')"
    )["s"][0].as_py()
    assert row["seconds"] > seconds


def test_scores_of_a_file_are_scores_and_its_circuit_is_run_as_it_is(
    catalog: Catalog, science: dict[str, Any]
):
    from circuits import evaluate

    rows = catalog.query(
        "SELECT unit_id, score FROM scores JOIN attributions USING (scores)"
        " WHERE label = 'scores.json' ORDER BY unit_id"
    )
    assert rows["score"].to_pylist() == science["scores"].unit_values.tolist()
    rows = catalog.query("SELECT * FROM benchmark WHERE algorithm = 'imported'").to_pylist()
    assert {(row["task"], row["found_on"], row["label"]) for row in rows} == {
        ("ioi", None, "circuit.pt"),
        ("sva", None, "circuit.pt"),
    }
    for row in rows:
        circuit = circuit_of(catalog, science, row["circuit"])
        assert (row["n_edges"], circuit.n_edges) == (4, 4)
        result = evaluate(science["model"], circuit, science["test"][row["task"]], "kl")
        assert row["mean"] == pytest.approx(result.mean, rel=1e-4, abs=1e-5)
    (of_circuit,) = catalog.query(
        "SELECT * FROM attributions WHERE label = 'circuit.pt'"
    ).to_pylist()
    assert (of_circuit["n_scores"], of_circuit["n_units"]) == (0, 46)


def test_every_pair_of_scores_and_of_circuits_is_compared_once(
    catalog: Catalog, science: dict[str, Any]
):
    sets = {row["scores"]: row["level"] for row in catalog.query("attributions").to_pylist()}
    pairs = catalog.query("SELECT * FROM score_agreement").to_pylist()
    n_edge, n_node = (list(sets.values()).count(level) for level in ("edge", "node"))
    assert (n_edge, n_node) == (2 * 4 + 2, 2)
    assert len(pairs) == n_edge * (n_edge - 1) // 2 + 1
    assert len({frozenset((row["scores"], row["other_scores"])) for row in pairs}) == len(pairs)
    for row in pairs:
        assert sets[row["scores"]] == sets[row["other_scores"]] == row["level"]
        columns = (
            catalog.query(
                "SELECT score FROM scores WHERE scores = $key ORDER BY unit_id", key=row[name]
            )["score"].to_pylist()
            for name in ("scores", "other_scores")
        )
        both = [(a, b) for a, b in zip(*columns, strict=True) if None not in (a, b)]
        assert row["n_common"] == len(both)
        if len(both) > 1:
            tau = kendalltau(*zip(*both, strict=True)).statistic
            assert row["kendall_tau"] == pytest.approx(tau, nan_ok=True)
        else:
            assert row["kendall_tau"] is None

    rows = catalog.query("SELECT * FROM circuit_overlap").to_pylist()
    jaccard = catalog.query(
        "SELECT circuit, other_circuit, n_shared, jaccard FROM shared_edges WHERE level = 'edge'"
    ).to_pylist()
    expected = {(row["circuit"], row["other_circuit"]): row for row in jaccard}
    of_edges = [row for row in rows if row["level"] == "edge"]
    assert {(row["circuit"], row["other_circuit"]) for row in of_edges} == set(expected)
    for row in of_edges:
        other = expected[row["circuit"], row["other_circuit"]]
        assert row["n_shared"] == other["n_shared"]
        assert row["jaccard_edges"] == other["jaccard"]


def test_stability_counts_every_draw_as_the_science_does(catalog: Catalog, science: dict[str, Any]):
    from circuits.stability import stability

    totals = catalog.query(
        "SELECT label, task, sum(frequency) AS total, any_value(n_best) AS n FROM unit_stability"
        " GROUP BY label, task, scores"
    ).to_pylist()
    assert len(totals) == 2 * 4
    for row in totals:
        assert row["total"] == pytest.approx(row["n"])
    found = stability(
        science["model"], science["train"]["ioi"], "EAP", size=5, resamples=40, seed=3
    )
    rows = catalog.query(
        "SELECT * FROM unit_stability WHERE label = 'EAP' AND task = 'ioi'"
    ).to_pylist()
    frequency = found.to_pandas().set_index("edge")["frequency"]
    assert {row["unit"]: row["frequency"] for row in rows} == pytest.approx(
        frequency[frequency > 0].to_dict()
    )
    assert [row["mean_jaccard"] for row in rows] == pytest.approx([found.mean_jaccard] * len(rows))


def test_profiles_in_sql_are_those_of_the_science(catalog: Catalog, science: dict[str, Any]):
    from circuits.comparison import profile

    rows = catalog.query("SELECT * FROM profiles WHERE label = 'scores.json'").to_pylist()
    found = {(row["side"], row["kind"], row["from_depth"]): row["share"] for row in rows}
    for row in profile(science["scores"]).itertuples():
        depth = None if np.isnan(row.from_depth) else row.from_depth
        share = next(
            (
                value
                for (side, kind, start), value in found.items()
                if (side, kind) == (row.side, row.kind)
                and (start == depth or (None not in (start, depth) and abs(start - depth) < 1e-9))
            ),
            0.0,
        )
        assert share == pytest.approx(row.share, abs=1e-9)
    assert sum(found.values()) == pytest.approx(1)


def test_overlaps_of_profiles_in_sql_are_those_of_the_science(catalog: Catalog):
    from circuits.comparison import compare_profiles, profile
    from flows.finding import load_scores

    rows = catalog.query("SELECT * FROM profile_overlap").to_pylist()
    assert len(rows) == 9 * 8 // 2 + 1  # edges without the file that has no scores, and nodes
    for row in rows[::5]:
        one, other = (
            profile(load_scores(catalog, row[name])[0]) for name in ("scores", "other_scores")
        )
        assert row["overlap"] == pytest.approx(compare_profiles(one, other), abs=1e-9)


def test_another_content_of_a_file_is_another_artifact(
    grid: Grid, run: RunGrid, folder: Path, science: dict[str, Any], tmp_path: Path
):
    from circuits.interchange import save_circuit_file

    file, store = tmp_path / "scores.json", tmp_path / "store"
    file.write_bytes((folder / "scores.json").read_bytes())
    config = grid(methods=f"[{{path: {file}}}]")
    assert statuses(run(config, store))["computed"]["file"] == 1
    assert statuses(run(config, store))["computed"] == {}
    width = science["model"].architecture.d_model
    others = science["scores"].top_n(5)
    save_circuit_file(file, others, d_model=width)
    # the same scores, and a circuit besides
    computed = {"method": 1, "file": 1, "circuits": 1, "evaluation": 2, "confidence": 2}
    assert statuses(run(config, store))["computed"] == computed


def test_a_file_of_another_model_or_level_is_refused_in_a_sentence(
    grid: Grid, run: RunGrid, folder: Path, grouped_speaker: Path, tmp_path: Path
):
    file = folder / "scores.json"
    done = run(
        grid(models=f"[{grouped_speaker}]", methods=f"[{{path: {file}}}, EAP]"), tmp_path / "a"
    )
    (failure,) = done.outcome.failures
    assert "cfg describes 2 layers of 2 heads" in failure.sentence
    assert "not 2 layers of 4 heads" in failure.sentence
    assert str(file) in failure.sentence
    assert len(done.outcome.products) == 1
    asked = grid(methods=f"[{{path: {file}, level: node}}]", sizes="[0.5]")
    done = run(asked, tmp_path / "b")
    (failure,) = done.outcome.failures
    assert "says nothing about nodes: its level is edge" in failure.sentence


def test_a_failed_cell_is_left_out_of_what_needs_several(grid: Grid, run: RunGrid, tmp_path: Path):
    store = tmp_path / "store"
    config = grid(tasks="[greater-than, ioi, sva]", judging="{cross_task: true}")
    done = run(config, store)
    (failure,) = done.outcome.failures
    assert failure.turn.label == "speaker · greater-than · EAP"
    assert statuses(done)["computed"]["evaluation"] == 2 + 2
    rows = Catalog(Store.open(store)).query("score_agreement").to_pylist()
    assert [{row["task"], row["other_task"]} for row in rows] == [{"ioi", "sva"}]
    again = run(config, store)
    assert statuses(again)["computed"] == {}
    assert [one.sentence for one in again.outcome.failures] == [failure.sentence]


def test_checkpoints_of_one_shape_are_compared_edge_by_edge(
    grid: Grid, run: RunGrid, speaker: Path, tmp_path: Path
):
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    later = Path(shutil.copytree(speaker, tmp_path / "later"))
    weights = load_file(later / "model.safetensors")
    weights = {name: tensor + 0.01 * torch.ones_like(tensor) for name, tensor in weights.items()}
    save_file(weights, later / "model.safetensors", metadata={"format": "pt"})
    done = run(grid(models=f"[{speaker}, {later}]"), tmp_path / "store")
    assert done.outcome.failures == []
    rows = Catalog(Store.open(tmp_path / "store")).query("score_agreement").to_pylist()
    assert [{row["model"], row["other_model"]} for row in rows] == [{"speaker", "later"}]


def test_every_method_is_held_against_a_known_truth(run: RunGrid, tmp_path: Path):
    from circuits import load_model
    from circuits.attribution import METHODS
    from circuits.recovery import recovery, true_circuit
    from flows.finding import load_scores

    methods = [{"name": name} for name in METHODS] + [{"name": "EAP", "level": "node"}]
    methods.append({"name": "EAP", "level": "neuron"})
    text = (
        "models: [truth/induction]\ntasks: [truth/induction]\nsizes: [0.5]\n"
        f"examples: {{train: 4, evaluate: 2}}\nmethods: {json.dumps(methods)}\n"
    )
    done = run(parse_grid(text, "truth.yaml", tmp_path), tmp_path / "store")
    assert [failure.sentence for failure in done.outcome.failures] == []
    catalog = Catalog(Store.open(tmp_path / "store"))
    rows = {
        (row["method"], row["level"]): row for row in catalog.query("truth_recovery").to_pylist()
    }
    assert set(rows) == {(name, "edge") for name in METHODS} | {("EAP", "node")}
    model = load_model("truth/induction", device="cpu")
    truth = true_circuit("truth/induction", model.graph)
    for row in rows.values():
        expected = recovery(load_scores(catalog, row["scores"])[0], truth)
        for name in ("n_true", "precision", "recall", "auroc", "auprc"):
            assert row[name] == getattr(expected, name), row
    assert rows["exact", "edge"]["auroc"] > rows["random", "edge"]["auroc"]
    assert catalog.query("recoveries").num_rows == len(rows)
