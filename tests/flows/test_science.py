"""Every method, level and intervention through a grid: its tables hold what is computed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import Catalog, Store
from flows.config import GridConfig
from flows.progress import Watcher
from flows.run import Run
from flows.workbench import workbench
from tests.flows.conftest import digests, statuses

Grid = Callable[..., GridConfig]
RunGrid = Callable[[GridConfig, Path], Run]

PAIRS = "clean,corrupted,correct,incorrect\n" + "\n".join(
    f"Then {a} and {b} went to the store. {a} gave a book to,"
    f"Then {b} and {a} went to the store. {c} gave a book to, {b}, {a}"
    for a, b, c in [
        ("Mary", "John", "Tom"),
        ("John", "Tom", "James"),
        ("Tom", "James", "Mary"),
        ("James", "Mary", "John"),
        ("Mary", "Tom", "John"),
    ]
)
UNITS = {"edge": "edges", "node": "nodes", "neuron": "neurons"}


def every_entry() -> list[str]:
    """A grid's entry for every method at every level it takes under every intervention."""
    from circuits.attribution import METHODS

    entries = []
    for name in METHODS:
        method = METHODS[name]
        for level in method.levels:
            for intervention in method.interventions or (None,):
                entry: dict[str, Any] = {"name": name, "level": level}
                entry |= {"intervention": intervention} if intervention else {}
                entry |= {"steps": 2} if method.takes_steps else {}
                entry |= {"nodes": ["a0.h1", "m1"]} if (name, level) == ("exact", "neuron") else {}
                entries.append(json.dumps(entry))
    return entries


def catalog_of(store: Path) -> Catalog:
    return Catalog(Store.open(store))


def test_the_entries_are_those_of_the_table_of_methods():
    entries = [json.loads(entry) for entry in every_entry()]
    assert len(entries) == 12 + 3 + 3 + 12 + 2 + 12 + 3
    assert {entry["name"] for entry in entries} == {
        "EAP",
        "clean-corrupted",
        "EAP-IG-inputs",
        "EAP-IG-activations",
        "information-flow-routes",
        "exact",
        "random",
    }


@pytest.mark.slow
def test_every_method_at_every_level_under_every_intervention_is_stored_as_computed(
    grid: Grid, run: RunGrid, speaker: Path, tmp_path: Path
):
    from circuits import attribute, evaluate, load_model
    from circuits.attribution import METHODS
    from tasks import load_dataset

    (tmp_path / "pairs.csv").write_text(PAIRS)
    config = grid(
        tasks=f"[{{path: {tmp_path / 'pairs.csv'}, train_on: all, evaluate_on: all}}]",
        methods=f"[{', '.join(every_entry())}]",
        sizes="[0.5, 1.0]",
        shard_size="3",
        shard_units="7",
    )
    done = run(config, tmp_path / "store")
    assert [failure.sentence for failure in done.outcome.failures] == []
    assert done.outcome.count("computed", "means") == 2

    model = load_model(speaker, device="cpu")
    dataset = load_dataset(tmp_path / "pairs.csv", model.tokenizer, split="all")
    catalog = catalog_of(tmp_path / "store")
    circuits = {
        (one["scores"], one["size_asked"]): one for one in catalog.query("benchmark").to_pylist()
    }
    rows = catalog.query("attributions").to_pylist()
    assert len(rows) == len(config.methods)
    for row in rows:
        (method,) = [one for one in config.methods if one.label == row["label"]]
        accepts = METHODS[method.name]
        options = {
            option: getattr(method, option)
            for option in ("level", "intervention", "steps", "quadrature", "scope", "seed", "nodes")
        }
        expected = attribute(model, dataset, method.name, **options)
        stored = done.bench.store.read("scores", row["scores"]).to_pydict()
        for column, values in (
            ("score", expected.values),
            ("standard_error", expected.standard_error),
        ):
            ordered = values[model.graph.edge_mask] if method.level == "edge" else values.ravel()
            found = np.array([np.nan if one is None else one for one in stored[column]])
            close = 1e-5 * np.nanmax(np.abs(expected.values))
            assert found == pytest.approx(ordered, rel=1e-4, abs=close, nan_ok=True), row
        assert row["metric"] == ("logit-diff" if accepts.takes_metric else None)
        assert (row["level"], row["n_units"]) == (method.level, expected.n_units)

        kept = circuits[row["scores"], 0.5]
        under = method.intervention or "patching"
        n = max(1, round(0.5 * expected.n_units))
        result = evaluate(model, expected.top_n(n), dataset, intervention=under)
        assert kept["evaluated_under"] == under
        assert (kept["n_units"], kept["n_edges"]) == (
            expected.top_n(n).n_units,
            expected.top_n(n).n_edges,
        )
        assert kept["mean"] == pytest.approx(result.mean, rel=1e-3, abs=1e-4), row
        whole = circuits[row["scores"], 1.0]
        if method.restriction is None and not np.isnan(expected.values).any():
            assert whole["mean"] == pytest.approx(whole["clean"], abs=1e-4), row
    again = run(config, tmp_path / "store")
    assert statuses(again)["computed"] == {}


def test_exact_is_cut_by_units_and_comes_together_again(grid: Grid, run: RunGrid, tmp_path: Path):
    whole = run(grid(methods="[exact]"), tmp_path / "whole")
    cut = run(grid(methods="[exact]", shard_units="10"), tmp_path / "cut")
    assert whole.outcome.count("computed", "shard") == 3  # runs of two examples
    assert cut.outcome.count("computed", "shard") == 3 * 5  # 46 edges, ten at a time
    query = "SELECT edge, score, standard_error FROM edge_scores ORDER BY edge_id"
    expected, found = (
        catalog_of(tmp_path / where).query(query).to_pydict() for where in ("whole", "cut")
    )
    assert found["edge"] == expected["edge"]
    assert found["score"] == pytest.approx(expected["score"], rel=1e-4, abs=1e-6)
    assert found["standard_error"] == pytest.approx(expected["standard_error"], rel=1e-3, abs=1e-6)
    again = run(grid(methods="[exact]", shard_units="20"), tmp_path / "cut")
    assert again.outcome.count("computed", "shard") == 3 * 2  # the last six edges are the same


def test_the_bar_knows_the_work_of_a_model_it_meets_for_the_first_time(
    grid: Grid, server: object, tmp_path: Path
):
    from flows.grid import run_grid

    class Noting(Watcher):
        def started(self, plan):
            super().started(plan)
            self.first = self.total

        def turn_ended(self, turn):
            super().turn_ended(turn)
            self.seen = [*getattr(self, "seen", []), (self.done, self.total)]

    workbench.cache_clear()
    watcher = Noting()
    config = grid(tasks="[ioi, sva]", methods="[{name: exact, top: 12, of: EAP}]", shard_units="4")
    run_grid(config, str(tmp_path / "store"), watcher, "inline")  # one stage after another
    (half, known), *_, (done, total) = watcher.seen
    assert watcher.first < known
    assert 0.4 * known < half < 0.8 * known  # of the other turn, some may be done by then
    assert (done, total) == (pytest.approx(known), pytest.approx(known))


def test_exact_on_the_best_edges_of_another_method_scores_those_alone(
    grid: Grid, run: RunGrid, speaker: Path, tmp_path: Path
):
    from circuits import attribute, load_model
    from tasks import load_dataset

    store = tmp_path / "store"
    done = run(grid(methods="[EAP, {name: exact, top: 5, of: EAP}]"), store)
    assert statuses(done)["computed"]["shard"] == 3 + 3  # EAP's own are used for the choice
    catalog = catalog_of(store)
    top = catalog.query("top-edges", method="EAP", n=5).to_pylist()
    exact = catalog.query("SELECT * FROM edge_scores WHERE method = 'exact'").to_pylist()
    scored = {row["edge"]: row["score"] for row in exact if row["score"] is not None}
    assert set(scored) == {row["edge"] for row in top}
    assert len(exact) == 46
    model = load_model(speaker, device="cpu")
    train = load_dataset("ioi", model.tokenizer, "train", 6)
    science = attribute(model, train, "exact", edges=list(scored)).to_pandas().set_index("edge")
    for edge, score in scored.items():
        assert score == pytest.approx(science["score"][edge], rel=1e-4, abs=1e-6)
    asked = catalog.query("SELECT * FROM attributions WHERE method = 'exact'").to_pylist()
    assert [(row["restriction"], row["n_scores"]) for row in asked] == [("top 5 of EAP", 5)]

    alone = run(grid(methods="[{name: exact, top: 5, of: EAP}]"), tmp_path / "alone")
    assert statuses(alone)["computed"]["shard"] == 6
    assert statuses(alone)["computed"]["scores"] == 2


def test_neurons_of_the_best_nodes_of_another_method(grid: Grid, run: RunGrid, tmp_path: Path):
    store = tmp_path / "store"
    methods = "[{name: exact, level: neuron, top: 2, of: EAP-IG-inputs}]"
    done = run(grid(methods=methods, shard_units="16"), store)
    assert done.outcome.failures == []
    catalog = catalog_of(store)
    best = catalog.query("top-units", level="node", n=2)["unit"].to_pylist()
    rows = catalog.query("SELECT * FROM neuron_scores WHERE score IS NOT NULL").to_pylist()
    assert {row["node"] for row in rows} == set(best)
    assert len(rows) == 2 * 16
    assert done.outcome.count("computed", "shard") == 3 + 3 * 2  # EAP-IG's, then a node a shard


def test_names_that_the_model_does_not_have_fail_before_anything_is_scored(
    grid: Grid, run: RunGrid, tmp_path: Path
):
    methods = (
        "[{name: exact, edges: [input->m0, m0->m11]}, {name: exact, level: node, nodes: [a0.h9]},"
        " {name: exact, top: 1000, of: EAP}]"
    )
    done = run(grid(methods=methods), tmp_path / "store")
    sentences = [failure.sentence for failure in done.outcome.failures]
    assert "the model has no edge 'm0->m11'; did you mean m0->m1?" in sentences[0]
    assert "the model has no node that writes 'a0.h9'; did you mean a0.h" in sentences[1]
    assert "the top 1000 edges were asked for, but the model has 46" in sentences[2]
    assert done.outcome.count("computed", "shard") == 0


def test_a_metric_that_no_method_follows_is_no_reason_to_score_again(
    grid: Grid, run: RunGrid, tmp_path: Path
):
    methods, store = "[random, information-flow-routes, EAP]", tmp_path / "store"
    first = run(grid(methods=methods), store)
    # numbers that are drawn need one shard, whatever the examples
    assert statuses(first)["computed"]["shard"] == 1 + 3 + 3
    other = run(grid(methods=methods, tasks="[{name: ioi, metric: prob-diff}]"), store)
    assert statuses(other)["computed"] == {
        "method": 1,
        "shard": 3,
        "scores": 1,
        "circuits": 1,
        "baselines": 1,
        "evaluation": 3,
        "confidence": 3,
        "score comparisons": 1,
        "circuit comparisons": 1,
    }


def test_means_are_taken_once_for_all_methods_and_again_for_other_examples(
    grid: Grid, run: RunGrid, tmp_path: Path
):
    store = tmp_path / "store"
    methods = "[{name: EAP, intervention: mean}, {name: exact, level: node, intervention: mean}]"
    first = run(grid(methods=methods, sizes="[0.5]"), store)
    assert first.outcome.failures == []
    assert statuses(first)["computed"]["means"] == 1
    rows = catalog_of(store).query("SELECT * FROM mean_activations ORDER BY writer_id").to_pylist()
    assert [row["writer"] for row in rows] == [
        *("input", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1"),
    ]
    assert [len(row["vector"]) for row in rows] == [16, 8, 8, 16, 8, 8, 16]
    assert {row["position"] for row in rows} == {None}
    (baseline,) = catalog_of(store).query("clean_and_corrupted").to_pylist()
    assert (baseline["intervention"], baseline["means"]) == ("mean", rows[0]["means"])

    others = "[{name: ioi, means: 9}]"
    again = run(grid(methods=methods, tasks=others, sizes="[0.5]"), store)
    assert statuses(again)["computed"] == {
        "dataset": 1,
        "method": 2,  # their labels say what means are over
        "means": 1,
        "shard": 6,
        "scores": 2,
        "circuits": 2,
        "baselines": 1,
        "evaluation": 2,
        "confidence": 2,
    }


def test_means_by_position_need_inputs_of_one_length(grid: Grid, run: RunGrid, tmp_path: Path):
    methods = "[{name: EAP, intervention: mean-positional}, EAP]"
    done = run(grid(methods=methods, examples="{train: 12, evaluate: 12}"), tmp_path / "store")
    (failure,) = done.outcome.failures
    assert failure.turn.method.intervention == "mean-positional"
    assert "mean-positional needs inputs of one length" in failure.sentence
    assert len(done.outcome.products) == 1


def test_circuits_are_run_under_every_intervention_asked_for(
    grid: Grid, run: RunGrid, tmp_path: Path
):
    store = tmp_path / "store"
    methods = "[{name: random, judged_under: [patching, zero]}]"
    done = run(grid(methods=methods), store)
    assert statuses(done)["computed"]["baselines"] == 2
    rows = catalog_of(store).query("leaderboard").to_pylist()
    assert sorted(row["evaluated_under"] for row in rows) == ["patching", "zero"]
    assert len({row["extraction"] for row in rows}) == 1
    whole = catalog_of(store).query(
        "SELECT evaluated_under, mean, clean, corrupted FROM benchmark WHERE size_asked = 1.0"
    )
    by = {row["evaluated_under"]: row for row in whole.to_pylist()}
    for row in by.values():
        assert row["mean"] == pytest.approx(row["clean"], abs=1e-4)
    assert by["patching"]["corrupted"] != pytest.approx(by["zero"]["corrupted"], abs=1e-4)

    from flows.leaderboard import rows_of_run

    less = run(grid(methods="[random]"), store)
    assert statuses(less)["computed"] == {}
    mine = rows_of_run(catalog_of(store), less.outcome.products.values())
    assert [row["evaluated_under"] for row in mine] == ["patching"]


def test_a_grouped_model_has_two_graphs_of_one_function(
    grid: Grid, run: RunGrid, grouped_speaker: Path, tmp_path: Path
):
    store = tmp_path / "store"
    models = f"[{grouped_speaker}, {{name: {grouped_speaker}, kv: grouped}}]"
    done = run(grid(models=models, methods="[EAP]"), store)
    assert done.outcome.failures == []
    catalog = catalog_of(store)
    (model,) = catalog.query("models").to_pylist()
    assert (model["n_heads"], model["n_kv_heads"]) == (4, 2)
    graphs = {row["n_kv_heads"]: row for row in catalog.query("graphs").to_pylist()}
    assert set(graphs) == {2, 4}
    rows = catalog.query(
        "SELECT edges.*, score, attributions.n_kv_heads FROM scores"
        " JOIN attributions USING (scores)"
        " JOIN edges ON edges.graph = scores.graph AND edges.edge_id = scores.unit_id"
    ).to_pylist()
    own = {row["edge"]: row["score"] for row in rows if row["n_kv_heads"] == 4}
    shared = [row for row in rows if row["n_kv_heads"] == 2]
    largest = max(abs(score) for score in own.values())
    assert any(len(row["reader_nodes"]) == 2 for row in shared)
    for row in shared:
        fed = row["reader_nodes"]
        if row["kind"] in ("k", "v"):
            names = [f"{row['writer']}->{node}<{row['kind']}>" for node in fed]
            assert row["reader_head"] is None
        else:
            names = [row["edge"]]
        expected = sum(own[name] for name in names)
        assert row["score"] == pytest.approx(expected, rel=1e-3, abs=1e-4 * largest)
    fractions = catalog.query(
        "SELECT graph, max(fraction) AS most FROM circuits GROUP BY graph"
    ).to_pylist()
    assert [row["most"] for row in fractions] == [1.0, 1.0]


@pytest.mark.parametrize("level", ["node", "neuron"])
def test_circuits_of_nodes_and_neurons_come_back_from_the_store_and_are_drawn(
    grid: Grid, run: RunGrid, tmp_path: Path, level: str
):
    from flows.finding import find_circuit, load_circuit

    store = tmp_path / "store"
    done = run(grid(methods=f"[{{name: EAP, level: {level}}}]", sizes="[0.5]"), store)
    assert done.outcome.failures == []
    catalog = catalog_of(store)
    found = find_circuit(catalog, None, {"level": level, "method": f"EAP ({level})", "size": 0.5})
    circuit, title = load_circuit(catalog, found)
    assert circuit.level == level
    assert circuit == circuit.scores.top_n(round(0.5 * circuit.scores.n_units))
    assert f"{circuit.n_units} of {circuit.scores.n_units} {UNITS[level]}" in title
    assert circuit.draw(tmp_path / "circuit.svg", title=title).stat().st_size > 500
    names = set(catalog.query("circuit_nodes")["node"].to_pylist())
    assert names == set(circuit.nodes)
    neurons = catalog.query("circuit_neurons").num_rows
    assert neurons == (circuit.n_units if level == "neuron" else 0)


def test_one_damaged_chunk_is_built_again_alone(grid: Grid, run: RunGrid, tmp_path: Path):
    store = tmp_path / "store"
    config = grid(methods="[{name: exact, level: node}]", shard_units="3", sizes="[1.0]")
    run(config, store)
    before = digests(store)
    sorted((store / "shards").rglob("*.parquet"))[4].unlink()
    assert statuses(run(config, store))["computed"] == {"shard": 1}
    assert digests(store) == before
