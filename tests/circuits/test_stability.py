"""Frequencies against attributions of one example at a time, averaged and ranked anew."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits import (
    AttributionError,
    CircuitError,
    EvaluationError,
    ExtractionError,
    Graph,
    Scores,
    attribute,
    mean_activations,
)
from circuits import stability as module
from circuits.scores import PartialScores
from circuits.stability import ResampledScores, Stability, resample, stability
from tests.checkpoints import random_dataset

N_EXAMPLES, SEED = 5, 3
MIXED = random_dataset(N_EXAMPLES, seed=2)
LEVEL_LENGTH = random_dataset(N_EXAMPLES, lengths=(6,), seed=2)
MANY, FEW = 12, 3  # resamples: more and fewer than there are examples


def unit_list(values: np.ndarray, graph: Graph, level: str) -> list[float]:
    if level == "edge":
        return [float(values[e.writer_index, e.reader_index]) for e in graph.edges]
    return [float(value) for value in values.reshape(-1)]


def best(values: list[float], size: int) -> set[int]:
    scored = [i for i, value in enumerate(values) if not math.isnan(value)]
    return set(sorted(scored, key=lambda unit: (-abs(values[unit]), unit))[:size])


def drawn_examples(n_resamples: int, n_examples: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return rng.integers(n_examples, size=(n_resamples, n_examples)).tolist()


def by_running_again(model, dataset, method, size, n_resamples, **how) -> tuple[list[float], float]:
    """Frequency of every unit and the mean Jaccard, from datasets of one example each."""
    level = how.get("level", "edge")
    alone = [
        unit_list(attribute(model, dataset[i : i + 1], method, **how).values, model.graph, level)
        for i in range(len(dataset))
    ]
    whole = best(np.mean(alone, axis=0).tolist(), size)
    times, jaccards = [0] * len(alone[0]), []
    for drawn in drawn_examples(n_resamples, len(dataset), SEED):
        taken = best(np.mean([alone[i] for i in drawn], axis=0).tolist(), size)
        for unit in taken:
            times[unit] += 1
        jaccards.append(len(taken & whole) / len(taken | whole))
    frequency = [
        math.nan if math.isnan(score) else count / n_resamples
        for count, score in zip(times, alone[0], strict=True)
    ]
    return frequency, sum(jaccards) / n_resamples


CASES = [
    ("gpt2", "ungrouped", "EAP", {"level": "edge"}, 12),
    ("gpt2", "ungrouped", "EAP", {"level": "node", "intervention": "zero"}, 3),
    ("llama", "ungrouped", "EAP", {"level": "neuron"}, 0.1),
    ("llama", "grouped", "EAP-IG-inputs", {"level": "edge", "steps": 2}, 0.15),
    ("llama", "grouped", "EAP", {"level": "edge", "intervention": "mean"}, 9),
    ("gptj", "ungrouped", "EAP", {"level": "node", "intervention": "mean-positional"}, 2),
    (
        "gpt2",
        "ungrouped",
        "exact",
        {"nodes": ("a0.h0", "a0.h1", "m0", "a1.h2", "m1"), "level": "node"},
        3,
    ),
    ("gptj", "ungrouped", "information-flow-routes", {}, 30),
]


@pytest.mark.parametrize("n_resamples", [MANY, FEW])
@pytest.mark.parametrize(("family", "kv", "method", "how", "size"), CASES)
def test_frequencies_are_those_of_attributions_run_again(
    family, kv, method, how, size, n_resamples, model_of
):
    model, dataset = model_of(family, kv), LEVEL_LENGTH
    level = how.get("level", "edge")
    means = {}
    if str(how.get("intervention")).startswith("mean"):
        means = {"intervention_dataset": dataset}  # those of one example would be its own
    found = stability(
        model, dataset, method, size=size, resamples=n_resamples, seed=SEED, **how, **means
    )
    n_best = size if isinstance(size, int) else max(1, round(size * found.scores.n_units))
    expected, jaccard = by_running_again(
        model, dataset, method, n_best, n_resamples, **how, **means
    )
    np.testing.assert_allclose(unit_list(found.frequency, model.graph, level), expected)
    assert found.mean_jaccard == pytest.approx(jaccard)
    assert (found.size, found.n_resamples) == (n_best, n_resamples)
    assert 0 < found.mean_jaccard < 1  # so that the case decides something
    assert np.nansum(found.frequency) == pytest.approx(n_best)
    if level == "edge":
        assert (found.frequency[~model.graph.edge_mask] == 0).all()


def test_the_scores_are_those_of_attribute_to_the_last_bit(model_of):
    model = model_of("gpt2")
    for resamples in (MANY, FEW):
        found = stability(model, MIXED, "EAP", size=5, resamples=resamples, memory_budget=1)
        expected = attribute(model, MIXED, "EAP", memory_budget=1)
        np.testing.assert_array_equal(found.scores.values, expected.values)
        np.testing.assert_array_equal(found.scores.standard_error, expected.standard_error)
        assert (found.scores.method, found.scores.n_examples) == ("EAP", N_EXAMPLES)


def test_the_attribution_runs_once_however_many_sizes_are_asked_for(model_of, monkeypatch):
    model, runs, run = model_of("gpt2"), [], module.example_scores

    def counted(*args, **kwargs):
        runs.append(args)
        return run(*args, **kwargs)

    monkeypatch.setattr(module, "example_scores", counted)
    resampled = resample(model, MIXED, "EAP", resamples=MANY, seed=SEED)
    found = [resampled.stability(size) for size in (1, 10, 1.0)]
    assert len(runs) == 1
    assert [one.size for one in found] == [1, 10, model.graph.n_edges]
    for one in found:
        alone = stability(model, MIXED, "EAP", size=one.size, resamples=MANY, seed=SEED)
        np.testing.assert_array_equal(one.frequency, alone.frequency)
        assert one.mean_jaccard == alone.mean_jaccard
    assert (found[-1].frequency[model.graph.edge_mask] == 1).all()
    assert found[-1].mean_jaccard == 1


def test_examples_may_come_in_any_batches(model_of):
    model = model_of("gpt2")
    for resamples in (MANY, FEW):
        one, other = (
            resample(model, MIXED, "EAP", resamples=resamples, memory_budget=budget)
            for budget in (1, 1 << 30)
        )
        np.testing.assert_allclose(
            np.concatenate(list(one.blocks())), np.concatenate(list(other.blocks())), atol=1e-12
        )


def test_means_may_be_given_or_taken_over_a_dataset(model_of):
    model, source = model_of("llama"), random_dataset(3, lengths=(6,), seed=9)
    how = {"size": 6, "resamples": MANY, "intervention": "mean"}
    given = mean_activations(model, source, "mean")
    own, over_source, over_means = (
        stability(model, MIXED, "EAP", **how, **means)
        for means in ({}, {"intervention_dataset": source}, {"means": given})
    )
    np.testing.assert_array_equal(over_source.frequency, over_means.frequency)
    np.testing.assert_array_equal(over_source.scores.values, over_means.scores.values)
    np.testing.assert_array_equal(
        own.scores.values, attribute(model, MIXED, "EAP", intervention="mean").values
    )
    assert (own.scores.values != over_source.scores.values).any()
    with pytest.raises(AttributionError, match="not both"):
        stability(model, MIXED, "EAP", **how, means=given, intervention_dataset=source)
    with pytest.raises(AttributionError, match="takes no mean"):
        stability(model, MIXED, "EAP", size=6, intervention_dataset=source)
    with pytest.raises(AttributionError, match="means of the kind mean say nothing"):
        stability(model, MIXED, "EAP", size=6, means=given)


def test_scores_that_no_example_changes_are_wholly_stable(model_of):
    """The method `random` has a seed of its own, beside that of the resamples."""
    model = model_of("gpt2")
    found = [
        stability(model, MIXED, "random", size=10, seed=seed, method_seed=method_seed)
        for seed, method_seed in ((0, 1), (5, 1), (0, 2))
    ]
    for one in found:
        assert one.mean_jaccard == 1
        assert set(np.unique(one.frequency)) == {0, 1}
        assert one.frequency.sum() == 10
    np.testing.assert_array_equal(found[0].frequency, found[1].frequency)
    assert (found[0].frequency != found[2].frequency).any()


def test_one_example_says_nothing_about_others(model_of):
    model = model_of("gpt2")
    found = stability(model, MIXED[:1], "EAP", size=4)
    assert np.isnan(found.frequency[model.graph.edge_mask]).all()
    assert (found.frequency[~model.graph.edge_mask] == 0).all()
    assert found.mean_jaccard is None
    assert "undefined" in repr(found)


def test_a_table_has_the_frequency_beside_the_score(model_of):
    model = model_of("llama", "grouped")
    found = stability(model, MIXED, "EAP", size=4, resamples=MANY)
    table = found.to_pandas()
    assert table.columns.tolist() == [*found.scores.to_pandas().columns, "frequency"]
    for row in table.itertuples():
        u, v = model.graph.writers.index(row.writer), model.graph.readers.index(row.reader)
        assert row.frequency == found.frequency[u, v]


def test_what_cannot_be_asked_is_refused(model_of):
    model = model_of("gpt2")
    n_edges = model.graph.n_edges
    for size in (0, n_edges + 1):
        with pytest.raises(ExtractionError, match=rf"circuit of {size} edges.*1 to {n_edges}"):
            stability(model, MIXED, "EAP", size=size, resamples=2)
    for share in (0.0, 1.5):
        with pytest.raises(ExtractionError, match=f"share of the edges.*{share}"):
            stability(model, MIXED, "EAP", size=share, resamples=2)
    with pytest.raises(ExtractionError, match=r"how many edges .* is a whole number, not True"):
        stability(model, MIXED, "EAP", size=True, resamples=2)
    with pytest.raises(EvaluationError, match="two or more resamples"):
        stability(model, MIXED, "EAP", size=4, resamples=1)
    with pytest.raises(AttributionError, match="EAP takes no seed"):
        stability(model, MIXED, "EAP", size=4, method_seed=1)
    with pytest.raises(AttributionError, match="there is no attribution method 'EPA'"):
        stability(model, MIXED, "EPA", size=4)
    with pytest.raises(CircuitError, match="no example"):
        stability(model, MIXED[:0], "EAP", size=4)


WRONG_KINDS = """
import numpy as np
from circuits import CircuitError, Graph, Scores, cmd, cpr
from circuits.completeness import completeness
from circuits.confidence import Bootstrap, bootstrap_cmd, bootstrap_cpr
from circuits.stability import ResampledScores

graph = Graph(2, 3)
rows, counts = np.ones((4, 9)), np.ones((3, 4), int)
resampled = ResampledScores(Scores(graph, rows[0], rows[0], 4, level="node"), counts, rows, True)
curve = [0.5, 0.5], np.ones((2, 3)), np.ones(3), np.zeros(3)
for ask in (
    *(lambda size=size: resampled.stability(size) for size in ("5", None, True, [3], 2j)),
    *(lambda n=n: Bootstrap(n_resamples=n) for n in (2.5, None, "9", True)),
    *(lambda n=n: Bootstrap(confidence=n) for n in (None, "0.9")),
    *(lambda n=n: Bootstrap(seed=n) for n in (None, 1.0, "1")),
    *(lambda n=n: completeness(None, None, None, subsets=n) for n in (1.5, None, True, "2")),
    *(lambda n=n: completeness(None, None, None, seed=n) for n in (1.5, None, "2")),
    *(lambda area=area: area([0.5, 0.5], [1.0, 1.0], "square") for area in (cpr, cmd)),
    *(lambda area=area: area(*curve, "square") for area in (bootstrap_cpr, bootstrap_cmd)),
):
    try:
        ask()
    except CircuitError as error:
        print(error)
"""


def test_what_is_of_the_wrong_kind_is_refused_in_a_sentence():
    """In a process of its own, where nothing else looks at what kind an argument is."""
    run = subprocess.run([sys.executable, "-c", WRONG_KINDS], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    said = run.stdout.splitlines()
    starts = (
        *["how many nodes a circuit has is a whole number, not"] * 5,
        *["a bootstrap needs two or more resamples, a whole number, not"] * 4,
        *["the confidence of an interval lies between 0 and 1, not at"] * 2,
        *["the seed of a bootstrap is a whole number, 0 or more, not"] * 3,
        *["the number of subsets and their seed are whole numbers, 0 or more, not"] * 7,
        *["there is no axis 'square': choose linear or log"] * 4,
    )
    assert len(said) == len(starts)
    for sentence, start in zip(said, starts, strict=True):
        assert sentence.startswith(start)


# --- without a model


def resampled(rows: np.ndarray, counts: np.ndarray, graph: Graph, by_example: bool):
    """What an attribution of nodes would have left behind; NaN where a node has no score."""
    scores = Scores(graph, rows.mean(0), np.zeros(rows.shape[1]), len(rows), "by hand", "node")
    kept = rows[:, ~np.isnan(rows[0])]
    return ResampledScores(scores, counts, kept if by_example else counts @ kept, by_example)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 999), st.integers(2, 6), st.integers(1, 9), st.booleans(), st.data())
def test_ties_go_to_the_first_unit_and_unscored_units_take_no_place(
    seed, n_examples, n_resamples, by_example, data
):
    graph = Graph(2, 3)
    rng = np.random.default_rng(seed)
    rows = rng.integers(-1, 2, size=(n_examples, graph.n_writers)).astype(float)
    rows[:, rng.random(graph.n_writers) < data.draw(st.sampled_from([0.0, 0.4]))] = np.nan
    draws = rng.integers(n_examples, size=(n_resamples, n_examples)).tolist()
    counts = np.array([[drawn.count(i) for i in range(n_examples)] for drawn in draws])
    size = data.draw(st.integers(1, graph.n_writers))
    found = resampled(rows, counts, graph, by_example).stability(size)
    whole = best((rows.sum(0) / n_examples).tolist(), size)
    taken = [best(sum(rows[i] for i in drawn).tolist(), size) for drawn in draws]
    for unit in range(graph.n_writers):
        share = sum(unit in one for one in taken) / n_resamples
        expected = math.nan if np.isnan(rows[0, unit]) else share
        np.testing.assert_allclose(found.frequency[unit], expected)
    if np.isnan(rows).all():
        assert found.mean_jaccard is None
    else:
        jaccards = [len(one & whole) / len(one | whole) for one in taken]
        assert found.mean_jaccard == pytest.approx(sum(jaccards) / n_resamples)


@pytest.mark.parametrize("share", [0.5, np.float32(0.5), np.float64(0.5)])
def test_a_share_may_be_a_number_of_numpy(share):
    graph = Graph(2, 3)
    rows, counts = np.ones((4, graph.n_writers)), np.ones((3, 4), dtype=int)
    assert resampled(rows, counts, graph, True).stability(share).size == round(0.5 * 9)
    assert resampled(rows, counts, graph, True).stability(np.int64(4)).size == 4


@pytest.mark.parametrize(("n_examples", "n_resamples"), [(37, 100), (100, 37)])
def test_units_with_the_same_scores_on_every_example_tie_in_every_resample(n_examples, n_resamples):
    """479 edges in the columns of a matrix: sums in another order would put some before others."""
    graph = Graph(4, 4)
    rng, n_best = np.random.default_rng(0), 20
    each = torch.from_numpy(rng.normal(size=n_examples) + 5)
    scores = each[:, None, None] * torch.tensor(graph.edge_mask)
    found = [(tuple(range(i, min(i + 10, n_examples))), scores[i : i + 10])
             for i in range(0, n_examples, 10)]  # fmt: skip
    counts = rng.multinomial(n_examples, [1 / n_examples] * n_examples, n_resamples)
    stable = module._collected(PartialScores.zero(graph), found, counts, "by hand").stability(
        n_best
    )
    assert stable.mean_jaccard == 1.0
    frequency = unit_list(stable.frequency, graph, "edge")
    assert frequency == [1.0] * n_best + [0.0] * (graph.n_edges - n_best)


def test_resamples_in_blocks_are_the_same_resamples(monkeypatch):
    graph = Graph(2, 3)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4, graph.n_writers))
    counts = rng.multinomial(4, [0.25] * 4, 7)
    for by_example in (True, False):
        source = resampled(rows, counts, graph, by_example)
        whole = source.stability(3)
        with monkeypatch.context() as patch:
            patch.setattr(module, "_BLOCK_BYTES", 8 * graph.n_writers * 2)
            assert [len(block) for block in source.blocks()] == [2, 2, 2, 1]
            cut = source.stability(3)
        np.testing.assert_array_equal(whole.frequency, cut.frequency)
        assert whole.mean_jaccard == pytest.approx(cut.mean_jaccard)
        assert isinstance(cut, Stability)
