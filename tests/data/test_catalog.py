"""The catalog: what the views say is what was written, joined, ranked and integrated."""

import itertools
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data import TABLES, Catalog, PlannedStage, Store, StoreError, provenance
from tests.data.synthetic import (
    D_MODEL,
    FRACTIONS,
    N_EDGES,
    Synthetic,
    build,
    build_levels,
    key_of,
    members_table,
    rows_of,
)

CELLS = [
    (model, task, method)
    for model in ("tiny", "small")
    for task in ("ioi", "sva")
    for method in ("EAP", "EAP-IG-inputs")
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Synthetic:
    return build(Store.open(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def catalog(made: Synthetic) -> Catalog:
    return Catalog(made.store)


def written_views() -> dict[str, str]:
    """The comment in front of every view in the SQL files."""
    texts = [
        path.read_text()
        for path in files("data").joinpath("views").iterdir()
        if path.name.endswith(".sql")
    ]
    found = (re.finditer(r"((?:--.*\n)+)CREATE VIEW (\w+)", text) for text in texts)
    return {match[2]: match[1] for match in itertools.chain.from_iterable(found)}


def test_views_of_an_empty_store_are_empty_and_typed_as_those_of_a_full_one(
    tmp_path: Path, catalog: Catalog
) -> None:
    empty = Catalog(Store.open(tmp_path))
    assert set(written_views()) <= set(empty.views)
    for name in empty.views:
        rows = empty.query(name)
        assert rows.num_rows == 0, name
        assert rows.schema == catalog.query(name).schema, name


def test_full_store_leaves_no_view_empty_that_it_has_rows_for(catalog: Catalog) -> None:
    without = {"grid_stages", "damaged", "mean_activations", "member_neurons"}
    without |= {"node_scores", "neuron_scores", "circuit_neurons"}
    assert {name for name in catalog.views if catalog.query(name).num_rows == 0} == without


def test_every_column_of_every_view_is_described_where_it_is_defined(catalog: Catalog) -> None:
    for name, comment in written_views().items():
        described = set(re.findall(r"^--   ([a-z_]+(?:, [a-z_]+)*)  +\S", comment, re.MULTILINE))
        words = {word for names in described for word in names.split(", ")}
        columns = set(catalog.query(f"SELECT * FROM {name} LIMIT 0").column_names)
        assert columns <= words, (name, columns - words)


def test_every_named_query_runs_as_it_is_described(made: Synthetic, catalog: Catalog) -> None:
    assert {"leaderboard", "sizes", "top-edges", "shared-edges"} <= set(catalog.queries)
    for name, query in catalog.queries.items():
        assert query.description.endswith("."), name
        used = set(re.findall(r"\$(\w+)", re.sub(r"--.*", "", query.sql)))
        assert used == {parameter.name for parameter in query.parameters}, name
        needed = {one.name: "0" for one in query.parameters if one.required}
        assert catalog.query(name, **needed).num_columns > 2, name


def test_benchmark_names_everything_once_per_evaluation(made: Synthetic, catalog: Catalog) -> None:
    rows = catalog.query("SELECT * FROM benchmark WHERE scores IS NOT NULL").to_pylist()
    assert len(rows) == len(CELLS) * len(FRACTIONS)
    by_cell = {(r["model"], r["task"], r["method"], r["size_asked"]): r for r in rows}
    assert set(by_cell) == {(*cell, size) for cell in CELLS for size in FRACTIONS}
    for (model, task, method, size), row in by_cell.items():
        scores = made.scores[model, task, method]
        assert row["faithfulness"] == made.faithfulness[scores][FRACTIONS.index(size)]
        assert (row["split"], row["found_on"], row["level"]) == ("test", task, "edge")
        assert (row["clean"], row["corrupted"], row["n_examples"]) == (3.0, -1.0, 3)
        assert row["steps"] == (5 if method == "EAP-IG-inputs" else None)
        assert row["fraction"] == row["n_edges"] / N_EDGES


def trapezoid(k: list[float], heights: np.ndarray) -> float:
    return float(np.trapezoid(heights, np.array(k)))


def test_leaderboard_is_the_trapezoid_over_the_fractions_achieved(
    made: Synthetic, catalog: Catalog
) -> None:
    rows = {
        (r["model"], r["task"], r["method"]): r
        for r in catalog.query("SELECT * FROM leaderboard").to_pylist()
    }
    assert set(rows) == set(CELLS)
    achieved = [round(size * N_EDGES) / N_EDGES for size in FRACTIONS]
    assert achieved[0] == 0  # an empty circuit: it has no place on the log axis
    for cell, row in rows.items():
        faithfulness = made.faithfulness[made.scores[cell]]
        areas = [row[name] for name in ("cpr", "cmd", "log_cpr", "log_cmd")]
        if None in faithfulness:
            assert cell[:2] == ("small", "sva")
            assert areas == [None] * 4
            continue
        f = np.array(faithfulness)
        assert areas[:2] == pytest.approx([trapezoid(achieved, f), trapezoid(achieved, abs(1 - f))])
        assert areas[2:] == [None, None]
        assert (row["n_sizes"], row["smallest"], row["largest"]) == (5, 0.0, 1.0)


def test_leaderboard_counts_the_shards_into_time_and_memory(catalog: Catalog) -> None:
    for row in catalog.query("SELECT * FROM leaderboard").to_pylist():
        assert row["seconds"] == pytest.approx(2.0 + 2.0 + 0.5)
        assert (row["peak_bytes"], row["n_examples"], row["n_evaluated"]) == (200, 2, 3)


def test_perfect_circuits_have_cpr_of_the_axis_and_no_cmd(tmp_path: Path) -> None:
    made = build(Store.open(tmp_path))
    heights = {0.1: 0.25, 0.2: 1.5, 1.0: 1.0}  # faithfulness by size
    circuits = [
        {
            "circuit": key_of("by hand", k), "scores": made.scores["tiny", "ioi", "EAP"],
            "graph": key_of("graph"), "level": "edge", "algorithm": "greedy",
            "rule": "greedy (signed)", "absolute": False, "size_asked": k,
            "n_units": int(k * N_EDGES), "n_edges": int(k * N_EDGES),
            "n_nodes": 1, "fraction": k,
        }
        for k in heights
    ]  # fmt: skip
    evaluations = [
        {
            "evaluation": key_of(one["circuit"]), "circuit": one["circuit"], "part": "circuit",
            "model": key_of("tiny"), "dataset": key_of("ioi", "test"),
            "intervention": "patching", "metric": "logit-diff", "mean": 3.0,
            "faithfulness": heights[one["fraction"]],
            "n_examples": 3,
            "baseline": key_of("baseline", "tiny", "ioi"),
        }
        for one in circuits
    ]  # fmt: skip
    about = provenance("circuits", "by hand", 0.1)
    members = members_table(key_of("by hand", 1.0), range(N_EDGES))
    belongs = [{"extraction": key_of("by hand"), "circuit": one["circuit"]} for one in circuits]
    tables = {
        "circuits": rows_of("circuits", circuits),
        "extractions": rows_of("extractions", belongs),
        "members": members,
        "member_neurons": rows_of("member_neurons", []),
    }
    made.store.write_all(key_of("by hand"), tables, about)
    tables = {
        "evaluations": rows_of("evaluations", evaluations),
        "example_values": rows_of("example_values", []),
    }
    made.store.write_all(key_of("by hand runs"), tables, about)
    (row,) = (
        Catalog(made.store)
        .query("SELECT * FROM leaderboard WHERE algorithm = 'greedy'")
        .to_pylist()
    )
    f, k = np.array([*heights.values()]), np.array([*heights])
    length = np.log(k[-1] / k[0])
    assert [row[name] for name in ("cpr", "cmd", "log_cpr", "log_cmd")] == pytest.approx(
        [
            np.trapezoid(f, k),
            np.trapezoid(abs(1 - f), k),
            np.trapezoid(f, np.log(k)) / length,
            np.trapezoid(abs(1 - f), np.log(k)) / length,
        ]
    )


def test_a_circuit_of_two_lists_of_sizes_counts_once_in_each(tmp_path: Path) -> None:
    made = build(Store.open(tmp_path))
    before = Catalog(made.store)
    benchmark = before.query("SELECT * FROM benchmark ORDER BY ALL").to_pylist()
    first = next(made.store.artifacts("circuits"))
    circuits = made.store.read("circuits", first.key).to_pylist()[:2]
    kept = {one["circuit"] for one in circuits}
    members = made.store.read("members", first.key).to_pylist()
    tables = {
        "circuits": rows_of("circuits", circuits),
        "extractions": rows_of(
            "extractions", [{"extraction": key_of("two"), "circuit": one} for one in kept]
        ),
        "members": rows_of("members", [row for row in members if row["circuit"] in kept]),
        "member_neurons": rows_of("member_neurons", []),
    }
    made.store.write_all(key_of("two"), tables, provenance("circuits", "two", 0.1))
    after = Catalog(made.store)
    assert after.query("SELECT * FROM benchmark ORDER BY ALL").to_pylist() == benchmark
    (row,) = after.query(
        "SELECT * FROM leaderboard WHERE extraction = $key", key=key_of("two")
    ).to_pylist()
    assert row["n_sizes"] == 2
    assert after.query("leaderboard").num_rows == before.query("leaderboard").num_rows + 1


def judged(made: Synthetic) -> dict[str, object]:
    """The cell that most is known of, as the columns of a row name it."""
    return {"model": "tiny", "task": "ioi", "label": "EAP"}


def cell_of(row: dict) -> dict[str, object]:
    return {name: row[name] for name in ("model", "task", "label")}


def test_intervals_are_those_of_the_most_resamples(made: Synthetic, catalog: Catalog) -> None:
    rows = catalog.query("SELECT * FROM benchmark WHERE faithfulness_low IS NOT NULL").to_pylist()
    (row,) = rows
    assert cell_of(row) == judged(made)
    ends = [row[f"faithfulness_{name}"] for name in ("standard_error", "low", "high")]
    assert (row["size_asked"], ends) == (0.1, [0.1, -100, 100])
    (row,) = catalog.query("SELECT * FROM leaderboard WHERE n_resamples IS NOT NULL").to_pylist()
    assert cell_of(row) == judged(made)
    names = ("cpr_low", "cpr_high", "cmd_low", "cmd_high", "log_cpr_low", "log_cmd_high")
    assert [row[name] for name in names] == [-100, 100, -200, 200, -100, 200]
    assert (row["n_resamples"], row["confidence"]) == (100, 0.9)


def test_what_a_circuit_leaves_out_stands_beside_it_and_counts_nowhere_else(
    made: Synthetic, catalog: Catalog
) -> None:
    (row,) = catalog.query("SELECT * FROM completeness").to_pylist()
    assert cell_of(row) == judged(made)
    (beside,) = catalog.query(
        "SELECT * FROM benchmark WHERE circuit = $circuit", circuit=row["circuit"]
    ).to_pylist()
    assert (row["faithfulness"], row["without"]) == (beside["faithfulness"], 0.1)
    assert (row["without_low"], row["without_high"]) == (-100, 100)
    assert row["evaluation"] != beside["evaluation"]
    assert catalog.query("benchmark").num_rows == len(CELLS) * len(FRACTIONS)
    n_sizes = catalog.query("SELECT DISTINCT n_sizes FROM leaderboard")["n_sizes"].to_pylist()
    assert n_sizes == [len(FRACTIONS)]


def test_marginals_are_named_and_measured_against_the_whole_model(
    made: Synthetic, catalog: Catalog
) -> None:
    rows = catalog.query("unit_marginals").to_pylist()
    circuit = key_of("circuit", "tiny · ioi · EAP", 0.1)
    assert {row["unit_id"] for row in rows} == made.members[circuit]
    for row in rows:
        assert cell_of(row) == judged(made)
        assert row["unit"] == f"w{row['unit_id'] // 5}->r{row['unit_id'] % 5}"
        assert row["marginal"] == 2.0 * row["unit_id"]
        assert row["share"] == row["marginal"] / 4  # from -1 to 3


def test_stable_units_have_names_scores_and_ranks(made: Synthetic, catalog: Catalog) -> None:
    rows = catalog.query("stability", n="2").to_pylist()
    assert [(row["unit"], row["frequency"]) for row in rows] == [("w0->r0", 1.0), ("w1->r2", 0.6)]
    score = made.score_values[made.scores["tiny", "ioi", "EAP"]][0]
    assert rows[0]["score"] == score


def test_recoveries_and_comparisons_name_what_they_are_of(
    made: Synthetic, catalog: Catalog
) -> None:
    (row,) = catalog.query("recoveries").to_pylist()
    assert (row["model"], row["task"], row["method"]) == ("tiny", "ioi", "EAP")
    assert (row["n_true"], row["n_units"], row["auroc"], row["auprc"]) == (4, N_EDGES, 0.75, None)
    (row,) = catalog.query("comparisons").to_pylist()
    assert {row["first"], row["second"]} == {"ioi · EAP", "sva · EAP"}
    assert (row["n_common"], row["tau"], row["iou"]) == (19, 0.25, None)
    (row,) = catalog.query("overlaps").to_pylist()
    assert {row["first"], row["second"]} == {"ioi · EAP", "sva · EAP"}
    assert (row["size"], row["n_shared"], row["p_value"]) == (0.1, 1, 0.5)


def test_profiles_share_out_every_score_by_depth_and_kind(
    made: Synthetic, catalog: Catalog
) -> None:
    # one layer covers every depth evenly; all writers are of it, every fifth reader is logits
    for scores, values in made.score_values.items():
        rows = catalog.query(
            "SELECT * FROM profiles WHERE scores = $scores", scores=scores
        ).to_pylist()
        shares = {
            (row["side"], row["kind"], row["from_depth"] and round(10 * row["from_depth"])): row[
                "share"
            ]
            for row in rows
        }
        size = np.nan_to_num(np.abs(values))
        logits = size[4::5].sum() / size.sum()
        expected = {("read", "logits", None): logits / 2}
        for i in range(10):
            expected["written", "mlp", i] = 0.5 / 10
            expected["read", "mlp", i] = (1 - logits) / 2 / 10
        assert shares == pytest.approx(expected)


def test_edges_are_ranked_by_magnitude_with_nan_last(made: Synthetic, catalog: Catalog) -> None:
    for scores, values in made.score_values.items():
        rows = catalog.query(
            "SELECT edge_id, edge, score FROM edge_scores WHERE scores = $scores ORDER BY rank",
            scores=scores,
        ).to_pylist()
        magnitude = -np.abs(np.nan_to_num(values, nan=-0.0))
        assert [row["edge_id"] for row in rows] == list(np.argsort(magnitude, kind="stable"))
        assert rows[-1]["edge_id"] == 3
        assert all(row["edge"] == f"w{row['edge_id'] // 5}->r{row['edge_id'] % 5}" for row in rows)


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Catalog, dict[str, list]]:
    store = Store.open(tmp_path_factory.mktemp("levels"))
    values = build_levels(store)
    return Catalog(store), values


def test_nodes_and_neurons_are_named_and_ranked_and_what_is_not_scored_comes_last(
    levels: tuple[Catalog, dict[str, list]],
) -> None:
    catalog, values = levels
    nodes = catalog.query("SELECT * FROM node_scores ORDER BY rank").to_pylist()
    assert [row["node"] for row in nodes] == ["w1", "w2", "w0", "w3"]
    assert [row["score"] for row in nodes] == [-2.0, 1.0, 0.5, None]
    neurons = catalog.query("SELECT * FROM neuron_scores ORDER BY rank").to_pylist()
    assert [row["neuron"] for row in neurons[:2]] == ["w2[7]", "w2[6]"]
    assert {row["node"] for row in neurons if row["score"] is None} == {"w3"}
    for row in neurons:
        assert row["neuron"] == f"{row['node']}[{row['dimension']}]"
        assert row["node_id"] * D_MODEL + row["dimension"] == row["neuron_id"]
        assert row["score"] == values["neuron"][row["neuron_id"]]


def test_scores_of_all_levels_stand_in_one_view(levels: tuple[Catalog, dict[str, list]]) -> None:
    catalog, values = levels
    rows = catalog.query("unit_scores").to_pylist()
    assert {level: sum(row["level"] == level for row in rows) for level in values} == {
        "node": 4,
        "neuron": 32,
    }
    best = catalog.query("top-units", level="neuron", n="1").to_pylist()
    assert [(row["method"], row["unit"], row["score"]) for row in best] == [
        ("exact (neuron)", "w2[7]", -23.0)
    ]
    asked = catalog.query("top-units", n="100").to_pylist()
    assert len(asked) == 3 + 24  # units without a score have no place among the best


def test_an_attribution_counts_what_was_scored_of_what_there_is(
    levels: tuple[Catalog, dict[str, list]],
) -> None:
    rows = {row["level"]: row for row in levels[0].query("attributions").to_pylist()}
    assert (rows["node"]["n_scores"], rows["node"]["n_units"]) == (3, 4)
    assert (rows["neuron"]["n_scores"], rows["neuron"]["n_units"]) == (24, 32)
    assert rows["node"]["restriction"] == "top 3 of EAP"
    assert rows["node"]["intervention"] == "mean"


def test_circuits_of_nodes_and_neurons_have_edges_nodes_and_neurons_by_name(
    levels: tuple[Catalog, dict[str, list]],
) -> None:
    catalog, _ = levels
    edges = catalog.query(
        "SELECT * FROM circuit_edges WHERE circuit = $c", c=key_of("circuit", "node")
    )
    assert sorted(edges["edge"].to_pylist()) == ["w1->r2", "w2->r4"]
    assert edges["score"].to_pylist() == [None, None]
    nodes = catalog.query("SELECT * FROM circuit_nodes ORDER BY node_id").to_pylist()
    of_nodes = {row["node"]: row["score"] for row in nodes if row["level"] == "node"}
    assert of_nodes == {"w1": -2.0, "w2": 1.0, "r4": None}
    of_neurons = {row["node"]: row["score"] for row in nodes if row["level"] == "neuron"}
    assert of_neurons == dict.fromkeys(of_nodes)
    neurons = catalog.query("SELECT * FROM circuit_neurons ORDER BY dimension").to_pylist()
    assert [(row["neuron"], row["score"]) for row in neurons] == [("w1[0]", 8.0), ("w1[7]", -15.0)]


def test_circuit_edges_carry_names_and_scores(made: Synthetic, catalog: Catalog) -> None:
    rows = catalog.query("circuit_edges").to_pylist()
    assert len(rows) == sum(len(edges) for edges in made.members.values())
    scores = {name: made.score_values[made.scores[name]] for name in made.scores}
    for row in rows:
        assert row["edge_id"] in made.members[row["circuit"]]
        expected = scores[row["model"], row["task"], row["method"]][row["edge_id"]]
        assert row["score"] == pytest.approx(expected, nan_ok=True)


def test_shared_edges_are_the_jaccard_index_of_every_pair_once(
    made: Synthetic, catalog: Catalog
) -> None:
    rows = catalog.query("shared_edges").to_pylist()
    n_cells = len(CELLS)
    assert len(rows) == len(FRACTIONS) * n_cells * (n_cells - 1) // 2
    assert len({frozenset((row["circuit"], row["other_circuit"])) for row in rows}) == len(rows)
    for row in rows:
        one, other = made.members[row["circuit"]], made.members[row["other_circuit"]]
        assert (row["n_shared"], row["n_either"]) == (len(one & other), len(one | other))
        assert row["jaccard"] == (len(one & other) / len(one | other) if one | other else None)


def test_example_faithfulness_sets_every_example_beside_the_whole_model(
    made: Synthetic, catalog: Catalog
) -> None:
    rows = catalog.query("example_faithfulness").to_pylist()
    assert len(rows) == len(CELLS) * len(FRACTIONS) * 3
    for row in rows:
        assert row["clean_text"] == f"{row['task']} clean {row['example_id']}"
        assert (row["clean"], row["corrupted"]) == (3.0, -1.0)
        assert row["faithfulness"] == pytest.approx(row["example_id"] / 4)


def test_stages_are_done_or_failed(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.write(
        "members", key_of(1), members_table(key_of(1), []), provenance("circuits", "ioi", 2.0)
    )
    for kind in ("extractions", "member_neurons", "circuits"):
        store.write(kind, key_of(1), rows_of(kind, []), provenance("circuits", "ioi", 2.0))
    store.record_failure(key_of(2), "scores", "sva", "The metric is NaN.")
    store.save_grid(
        "demo",
        [
            PlannedStage("circuits", "ioi", "circuits", key_of(1)),
            PlannedStage("scores", "sva", "scores", key_of(2)),
            PlannedStage("circuits", "sva", "circuits", None),
        ],
    )
    catalog = Catalog(store)
    stages = {row["key"]: row for row in catalog.query("stages").to_pylist()}
    done, failed = stages[key_of(1)], stages[key_of(2)]
    assert (done["stage"], done["cell"], done["status"]) == ("circuits", "ioi", "done")
    assert (done["kinds"], done["error"]) == (
        "circuits, extractions, member_neurons, members",
        None,
    )
    assert (failed["stage"], failed["cell"], failed["status"]) == ("scores", "sva", "failed")
    assert (failed["kinds"], failed["error"]) == (None, "The metric is NaN.")
    planned = catalog.query("SELECT status, error FROM grid_stages ORDER BY position").to_pylist()
    assert [row["status"] for row in planned] == ["done", "failed", "missing"]
    assert planned[1]["error"] == "The metric is NaN."
    assert catalog.query("failures").num_rows == 1
    (times,) = catalog.query("SELECT * FROM run_times WHERE stage = 'circuits'").to_pylist()
    assert (times["n_done"], times["n_failed"], times["seconds"]) == (1, 0, 2.0)


def test_finishing_times_are_times(catalog: Catalog) -> None:
    column = catalog.query("SELECT finished_at FROM stages")["finished_at"]
    assert pa.types.is_timestamp(column.type)
    assert column.null_count == 0


@pytest.mark.parametrize("kind", ["circuits", "members"])
def test_views_leave_out_what_is_damaged_with_what_belongs_to_it(tmp_path: Path, kind: str) -> None:
    made = build(Store.open(tmp_path))
    key = next(iter(made.store.artifacts(kind))).key
    Path(made.store.path(kind, key)).write_bytes(b"PAR1")
    catalog = Catalog(Store.open(tmp_path))
    for name in ("circuits", "members"):
        total = sum(artifact.rows for artifact in made.store.artifacts(name))
        here = catalog.query(name).num_rows
        lost = made.store.find(name, key)
        assert here == total - (lost.rows if lost else 0)
    assert catalog.query("damaged")["path"].to_pylist() == [f"{kind}/{key[:2]}/{key}.parquet"]
    assert catalog.query("circuit_edges").num_rows == catalog.query("members").num_rows


def test_a_grid_whose_note_is_damaged_is_told_as_damaged(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.save_grid("nightly", [PlannedStage("shard", "a", "shards", "ab" * 32)])
    assert Catalog(store).query("status").num_rows == 1
    (tmp_path / "grids" / "nightly.json").write_text("{")
    catalog = Catalog(Store.open(tmp_path))
    assert catalog.query("status").num_rows == 0
    told = [{"path": "grids/nightly.json", "reason": "it is damaged"}]
    assert catalog.query("damaged").to_pylist() == told


def test_rows_that_two_artifacts_share_are_there_once(catalog: Catalog) -> None:
    # both models have the one graph, and each wrote it with its edges
    assert catalog.query("graphs").num_rows == 1
    assert catalog.query("edges").num_rows == N_EDGES
    assert catalog.query("nodes").num_rows == 5


def test_catalog_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = build(Store.open(tmp_path / "store"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    before = sorted(tmp_path.rglob("*"))
    Catalog(made.store).query("leaderboard")
    index = tmp_path / "store" / "index"
    left = [path for path in tmp_path.rglob("*") if path != index and index not in path.parents]
    assert sorted(left) == before


def test_catalog_reads_a_store_on_another_file_system(tmp_path: Path) -> None:
    made = build(Store.open(f"fsspec+memory://catalog/{tmp_path.name}"))
    assert Catalog(made.store).query("leaderboard").num_rows == len(CELLS)


def test_query_takes_parameters_as_text(catalog: Catalog) -> None:
    rows = catalog.query("top-edges", task="ioi", n="2")
    assert rows.num_rows == 2 * 4
    assert set(rows["task"].to_pylist()) == {"ioi"}
    assert catalog.query("shared-edges", size="0.5", task="sva").num_rows > 0
    assert catalog.query("SELECT $x AS x", x=1)["x"].to_pylist() == [1]


@pytest.mark.parametrize(
    ("question", "parameters", "answer"),
    [
        ("benchmrk", {}, "'benchmark'"),
        ("circuit", {}, r"\$circuit"),
        ("leaderboard", {"taks": "ioi"}, r"\$taks.*\$metric"),
        ("SELECT nonsense FROM benchmark", {}, "nonsense"),
        ("SELECT FROM WHERE", {}, "cannot be run"),
        ("SELECT $a", {}, r"\$a"),
        ("top-edges", {"n": "many"}, "many"),
    ],
)
def test_what_cannot_be_answered_is_one_sentence(
    catalog: Catalog, question: str, parameters: dict, answer: str
) -> None:
    with pytest.raises(StoreError, match=answer) as refused:
        catalog.query(question, **parameters)
    assert "\n" not in str(refused.value)


def test_catalog_answers_after_an_error(catalog: Catalog) -> None:
    with pytest.raises(StoreError):
        catalog.query("SELECT CAST('x' AS INTEGER) FROM benchmark")
    assert catalog.query("leaderboard").num_rows == len(CELLS)


def test_tables_without_an_owner_in_their_rows_are_not_shown(catalog: Catalog) -> None:
    assert set(TABLES) - set(catalog.views) == {"shards"}


def test_areas_over_a_part_of_the_sizes_are_marked_and_stand_last(tmp_path: Path) -> None:
    made = build(Store.open(tmp_path))
    first = next(
        one
        for one in made.store.artifacts("circuits")
        if one.key == key_of("circuits", "tiny · ioi · EAP")
    )
    rows = made.store.read("circuits", first.key).to_pylist()
    small = [row["circuit"] for row in rows if row["fraction"] <= 0.5]
    for name, kept in (("half", small), ("most", [row["circuit"] for row in rows])):
        belongs = [{"extraction": key_of(name), "circuit": one} for one in kept]
        tables = {
            "circuits": rows_of("circuits", [row for row in rows if row["circuit"] in kept]),
            "extractions": rows_of("extractions", belongs),
            "members": rows_of("members", []),
            "member_neurons": rows_of("member_neurons", []),
        }
        made.store.write_all(key_of(name), tables, provenance("circuits", name, 0.1))
    catalog = Catalog(made.store)
    found = {
        row["extraction"]: row for row in catalog.query("SELECT * FROM leaderboard").to_pylist()
    }
    assert (found[key_of("half")]["largest"], found[key_of("half")]["comparable"]) == (0.5, False)
    assert found[key_of("most")]["comparable"]
    undefined = [row["comparable"] for row in found.values() if row["cpr"] is None]
    assert undefined == [None] * len(undefined)
    assert undefined
    ordered = [
        row
        for row in catalog.query("leaderboard").to_pylist()
        if (row["model"], row["task"]) == ("tiny", "ioi")
    ]
    assert [row["sizes"] for row in ordered] == [*[None] * (len(ordered) - 1), "0 to 0.5"]
