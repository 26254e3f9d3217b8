"""Folders for the leaderboard: checked before they are written, whole or not there."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits import Circuit, Graph, Scores
from circuits.errors import InterchangeError
from circuits.interchange import (
    SHARES,
    load_circuit_file,
    load_submission,
    save_circuit_file,
    save_submission,
    submission_circuits,
)
from circuits.interchange.submission import edge_count

GRAPH = Graph(3, 4)  # 3 layers of 4 heads: 262 edges


def scores_of(graph: Graph = GRAPH, seed: int = 0, level: str = "edge") -> Scores:
    shape = graph.edge_mask.shape if level == "edge" else (graph.n_writers,)
    values = np.random.default_rng(seed).normal(size=shape)
    if level == "edge":
        values = np.where(graph.edge_mask, values, 0.0)
    return Scores(graph, values, np.zeros_like(values), 4, "EAP", level)


def test_the_shares_are_those_of_the_benchmark():
    assert [100 * share for share in SHARES] == [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50]


@pytest.mark.parametrize("suffix", [".json", ".pt"])
def test_scores_are_one_file_and_come_back(tmp_path, suffix):
    both = (scores_of(), scores_of(level="node"))
    folder = save_submission(
        tmp_path / "new" / "place", "arc_easy", "qwen2.5", both, d_model=8, suffix=suffix
    )
    assert folder == tmp_path / "new" / "place" / "arc-easy_qwen2.5"
    assert [path.name for path in folder.iterdir()] == [f"importances{suffix}"]
    save_submission(tmp_path / "new" / "place", "ioi", "gpt2", scores_of(seed=1), d_model=8)
    found = load_submission(tmp_path / "new" / "place")
    assert [(one.task, one.model) for one in found] == [("arc-easy", "qwen2.5"), ("ioi", "gpt2")]
    for ours, theirs in zip(both, found[0].imported.all_scores, strict=True):
        assert np.array_equal(ours.values, theirs.values)
    assert np.array_equal(found[1].imported.scores.values, scores_of(seed=1).values)
    (alone,) = load_submission(folder)
    assert (alone.task, alone.model, alone.circuits) == ("arc-easy", "qwen2.5", {})


@pytest.mark.parametrize("suffix", [".json", ".pt"])
def test_nine_circuits_are_nine_files_and_come_back(tmp_path, suffix):
    circuits = submission_circuits(scores_of())
    folder = save_submission(tmp_path, "ioi", "gpt2", circuits, d_model=8, suffix=suffix)
    assert len(list(folder.iterdir())) == 9
    assert load_circuit_file(folder / f"0.5-percent{suffix}").circuit == circuits[0.005]
    (found,) = load_submission(tmp_path)
    assert found.imported is None
    assert dict(found.circuits) == circuits


def test_files_of_other_names_are_put_in_order_by_their_edges(tmp_path):
    circuits = submission_circuits(scores_of())
    folder = tmp_path / "ioi_gpt2"
    folder.mkdir()
    for i, circuit in enumerate(circuits.values()):
        suffix = ".pt" if i % 2 else ".json"
        save_circuit_file(folder / f"{9 - i}_edges{suffix}", circuit, d_model=2)
    (folder / "README.md").write_text("more about it")
    counts = [circuit.n_edges for circuit in load_submission(tmp_path)[0].circuits.values()]
    assert counts == sorted(circuit.n_edges for circuit in circuits.values())


@settings(max_examples=20, deadline=None)
@given(st.builds(Graph, st.integers(1, 4), st.integers(1, 4), st.booleans()), st.integers(0, 2**32))
def test_no_circuit_has_more_edges_than_its_share(graph, seed):
    for share, circuit in submission_circuits(scores_of(graph, seed)).items():
        assert circuit.n_edges * 1000 <= round(share * 1000) * graph.n_edges


def test_the_largest_circuits_allowed_are_as_large_as_the_published_tools_make_them(tmp_path):
    gpt2 = Graph(12, 12)
    # first every node's way from the input and to the logits, so that nothing is ever pruned
    ways = [name for node in gpt2.writers[1:] for name in way_through(node)]
    rank = {name: i for i, name in enumerate(ways)}
    values = np.zeros(gpt2.edge_mask.shape)
    for edge in gpt2.edges:
        place = edge.writer_index, edge.reader_index
        values[place] = 1000.0 - rank.get(edge.name, len(ways))
    scores = Scores(gpt2, values, np.zeros_like(values), 1)
    circuits = submission_circuits(scores)
    # int(share × 32,491), as the published evaluation rounds
    expected = [32, 64, 162, 324, 649, 1624, 3249, 6498, 16245]
    assert [circuit.n_edges for circuit in circuits.values()] == expected
    with pytest.raises(InterchangeError, match="has 66 edges, and at most 64 of 32491 are taken"):
        save_submission(tmp_path, "ioi", "gpt2", circuits | {0.002: scores.top_n(66)}, d_model=768)
    assert list(tmp_path.iterdir()) == []


def way_through(node: str) -> tuple[str, str]:
    return f"input->{node}" + "<q>" * node.startswith("a"), f"{node}->logits"


def test_edges_count_by_the_share_of_their_writers_neurons():
    graph = Graph(1, 1)
    neurons = np.array([[1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]], bool)
    circuit = Circuit.from_neurons(graph, neurons)
    # input feeds q, k, v, m0 and logits; a0.h0 feeds m0 and logits; m0 feeds logits
    assert edge_count(circuit) == Fraction(5, 4) + 2 + Fraction(1, 2)
    assert edge_count(Circuit(graph, graph.edge_mask)) == graph.n_edges


def without(circuits: dict, share: float) -> dict:
    return {key: value for key, value in circuits.items() if key != share}


def test_what_the_benchmark_would_refuse_is_refused_before_anything_is_written(tmp_path):
    target = tmp_path / "submission"
    scores, circuits = scores_of(), submission_circuits(scores_of())
    values = scores.values.copy()
    values[0, 0] = np.nan
    partial = Scores(GRAPH, values, scores.standard_error, 4)
    grouped = Graph(3, 4, n_kv_heads=2)
    full, other = Circuit(GRAPH, GRAPH.edge_mask), Graph(2, 4)
    for task, model, content, options, words in [
        ("ioi", "gpt2", partial, {"d_model": 8}, "1 of 262 edges have no score"),
        ("ioi", "gpt2", (), {"d_model": 8}, "no scores to submit"),
        ("ioi", "gpt2", scores, {}, "say d_model"),
        ("ioi", "gpt2", circuits, {}, "say d_model"),
        ("ioi", "gpt2", scores_of(grouped), {"d_model": 8}, "share 2: load the model"),
        ("ioi", "gpt2", without(circuits, 0.02), {"d_model": 8}, "and 0.02 is missing"),
        ("ioi", "gpt2", circuits | {1.0: full}, {"d_model": 8}, "and 1.0 is none of them"),
        ("ioi", "gpt2", circuits | {0.5: full}, {"d_model": 8}, "circuit of 50 % has 262 edges"),
        (
            *("ioi", "gpt2"),
            circuits | {0.5: Circuit(other, np.zeros_like(other.edge_mask))},
            {"d_model": 8},
            "of different graphs",
        ),
        ("../ioi", "gpt2", scores, {"d_model": 8}, "the task '../ioi' cannot be part"),
        ("ioi", "gpt_2", scores, {"d_model": 8}, "the model 'gpt_2' cannot be part"),
        ("", "gpt2", scores, {"d_model": 8}, "the task '' cannot be part"),
        ("ioi", ".gpt2", scores, {"d_model": 8}, "the model '.gpt2' cannot be part"),
        ("ioi", "gpt2", scores, {"d_model": 8, "suffix": ".graphml"}, "no '.graphml' files"),
    ]:
        with pytest.raises(InterchangeError) as caught:
            save_submission(target, task, model, content, **options)
        assert words in str(caught.value)
        assert not target.exists()
    with pytest.raises(InterchangeError, match="need scores of edges"):
        submission_circuits(scores_of(level="node"))


def test_a_folder_that_is_there_is_left_as_it_is(tmp_path):
    folder = save_submission(tmp_path, "ioi", "gpt2", scores_of(), d_model=8)
    before = (folder / "importances.json").read_bytes()
    with pytest.raises(InterchangeError, match="is already there: remove it"):
        save_submission(tmp_path, "ioi", "gpt2", scores_of(seed=9), d_model=8)
    assert (folder / "importances.json").read_bytes() == before


def test_a_submission_that_fails_on_the_way_leaves_nothing(tmp_path, monkeypatch):
    calls = []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 5:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InterchangeError, match="No space left on device"):
        save_submission(tmp_path, "ioi", "gpt2", submission_circuits(scores_of()), d_model=8)
    assert len(calls) == 5
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(InterchangeError, match="ioi_gpt2 cannot be written"):
        save_submission(tmp_path / "file", "ioi", "gpt2", scores_of(), d_model=8)


def published(folder, name: str, n_edges: int, score: float | None) -> None:
    """A file as others write it: the first edges into the logits, with scores or without."""
    graph = Graph(1, 1)
    edges = {}
    for i, edge in enumerate(graph.edges):
        edges[edge.name] = {"in_graph": i < n_edges}
        if score is not None:
            edges[edge.name]["score"] = score + i
    nodes = {key: {"in_graph": n_edges > 0} for key in graph.nodes}
    cfg = {"n_layers": 1, "n_heads": 1, "parallel_attn_mlp": False, "d_model": 2}
    (folder / name).write_text(json.dumps({"cfg": cfg, "nodes": nodes, "edges": edges}))


def test_folders_that_are_no_submission(tmp_path):
    def refused(words: str) -> None:
        with pytest.raises(InterchangeError, match=words):
            load_submission(tmp_path)

    refused("has no circuit files and no folders")
    with pytest.raises(InterchangeError, match="is no folder"):
        load_submission(tmp_path / "nowhere")
    folder = tmp_path / "ioi"
    folder.mkdir()
    refused("ioi is not named after a task and a model")
    folder = folder.rename(tmp_path / "ioi_gpt2")
    refused("ioi_gpt2 has 0 circuit files")
    published(folder, "a.json", 0, None)
    refused("a.json has no scores")
    published(folder, "a.json", 0, 1.5)
    (found,) = load_submission(tmp_path)
    assert found.imported.scores.unit_values.tolist() == [1.5 + i for i in range(8)]
    published(folder, "b.json", 0, 1.5)
    refused("ioi_gpt2 has 2 circuit files: a submission has one file of scores, or 9 circuits")
    for name in "abcdefghi":
        published(folder, f"{name}.json", 0, None)
    published(folder, "i.json", 4, None)
    (found,) = load_submission(tmp_path)
    assert [circuit.n_edges for circuit in found.circuits.values()] == [0] * 8 + [4]
    published(folder, "i.json", 5, None)
    refused("the circuit of 50 % has 5 edges, and at most 4 of 8 are taken")
    published(folder, "i.json", 0, 2.5)
    refused("i.json has scores and no circuit")
    torch.save([], folder / "i.pt")
    (folder / "i.json").unlink()
    refused(r"i\.pt: the file holds a list")
