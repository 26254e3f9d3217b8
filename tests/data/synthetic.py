"""A small store with known contents: two models of one graph, two tasks, two methods.

One more model has scores of nodes and of neurons, with a circuit of each, and mean activations.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from data import TABLES, Store, provenance, stage_key

FRACTIONS = (0.001, 0.01, 0.1, 0.5, 1.0)
N_EDGES = 20
N_EXAMPLES = 3
D_MODEL = 8


def rows_of(kind: str, rows: Sequence[dict]) -> pa.Table:
    """Rows in the schema of a kind; columns that are not given are null."""
    schema = TABLES[kind].schema
    return pa.Table.from_pylist(
        [{name: row.get(name) for name in schema.names} for row in rows], schema
    )


def members_table(circuit: str, edges: Sequence[int]) -> pa.Table:
    return rows_of("members", [{"circuit": circuit, "edge_id": edge} for edge in edges])


def key_of(*names: object) -> str:
    return stage_key("synthetic", 1, {"names": [str(name) for name in names]}, {})


@dataclass
class Synthetic:
    """What was written, for comparison: faithfulness by (scores, size), edges by circuit."""

    store: Store
    faithfulness: dict[str, list[float | None]] = field(default_factory=dict)
    members: dict[str, set[int]] = field(default_factory=dict)
    scores: dict[tuple[str, str, str], str] = field(default_factory=dict)
    score_values: dict[str, list[float]] = field(default_factory=dict)


def build(store: Store, seed: int = 0) -> Synthetic:
    """Write everything that a small grid would."""
    made, random = Synthetic(store), np.random.default_rng(seed)
    graph = key_of("graph")
    for model in ("tiny", "small"):
        _model(store, model, graph)
    for name, steps in (("EAP", None), ("EAP-IG-inputs", 5)):
        row = {
            "method": key_of(name), "name": name, "level": "edge", "intervention": "patching",
            "label": f"{name} (5, left)" if steps else name,
            "steps": steps, "quadrature": steps and "left", "metric": "logit-diff",
        }  # fmt: skip
        store.write(
            "methods", key_of(name), rows_of("methods", [row]), provenance("method", name, 0.01)
        )
    for task in ("ioi", "sva"):
        for split in ("train", "test"):
            _dataset(store, task, split)
        for model in ("tiny", "small"):
            _baseline(store, model, task)
            for method in ("EAP", "EAP-IG-inputs"):
                _cell(made, model, task, method, graph, random)
    _judge(made)
    return made


def _judge(made: Synthetic) -> None:
    """What may be known of the cell tiny · ioi · EAP besides: rows of every table about it.

    Its intervals are there from 10 and from 100 resamples.
    """
    cell = "tiny · ioi · EAP"
    scores, other = made.scores["tiny", "ioi", "EAP"], made.scores["tiny", "sva", "EAP"]
    baseline, extraction = key_of("baseline", "tiny", "ioi"), key_of("circuits", cell)
    circuit, evaluation = key_of("circuit", cell, 0.1), key_of("evaluation", cell, 0.1)
    without = key_of("complement", cell, 0.1)
    for n_resamples in (10, 100):
        drawn = {"n_resamples": n_resamples, "confidence": 0.9, "seed": 0}
        ends = {"standard_error": 0.1, "low": -n_resamples, "high": n_resamples}
        intervals = [drawn | ends | {"evaluation": one} for one in (evaluation, without)]
        curves = [
            drawn | {"extraction": extraction, "baseline": baseline, "axis": axis, "cpr": 0.5}
            | {f"{name}_{end}": factor * value for name, factor in (("cpr", 1), ("cmd", 2))
               for end, value in ends.items()}
            for axis in ("linear", "log")
        ]  # fmt: skip
        tables = {"intervals": rows_of("intervals", intervals), "curves": rows_of("curves", curves)}
        key = key_of("confidence", n_resamples)
        made.store.write_all(key, tables, provenance("confidence", cell, 0.1))
    complement = {
        "evaluation": without, "circuit": circuit, "part": "complement", "model": key_of("tiny"),
        "dataset": key_of("ioi", "test"), "intervention": "patching", "metric": "logit-diff",
        "mean": -0.6, "faithfulness": 0.1, "n_examples": N_EXAMPLES, "baseline": baseline,
    }  # fmt: skip
    each = [{"evaluation": without, "example_id": i, "value": -0.6} for i in range(N_EXAMPLES)]
    marginals = [
        {"circuit": circuit, "baseline": baseline, "level": "edge", "unit_id": unit,
         "marginal": 2.0 * unit, "n_examples": N_EXAMPLES}
        for unit in sorted(made.members[circuit])
    ]  # fmt: skip
    values = [
        {"circuit": circuit, "baseline": baseline, "unit_id": row["unit_id"], "example_id": i,
         "value": row["marginal"] + i - 1}
        for row in marginals for i in range(N_EXAMPLES)
    ]  # fmt: skip
    stability = [
        {"scores": scores, "n_best": 2, "n_resamples": 10, "seed": 0, "unit_id": unit,
         "frequency": frequency, "mean_jaccard": 0.7}
        for unit, frequency in ((0, 1.0), (7, 0.6), (3, 0.4))
    ]  # fmt: skip
    pair = dict(zip(("scores_a", "scores_b"), sorted((scores, other)), strict=True))
    ids = sorted((circuit, key_of("circuit", "tiny · sva · EAP", 0.1)))
    pair_of_circuits = dict(zip(("circuit_a", "circuit_b"), ids, strict=True))
    others = {
        "evaluations": [complement],
        "example_values": each,
        "marginals": marginals,
        "marginal_values": values,
        "stability": stability,
        "recoveries": [{"scores": scores, "truth": "tiny", "n_true": 4, "auroc": 0.75}],
        "score_comparisons": [pair | {"n_common": 19, "kendall_tau": 0.25}],
        "circuit_comparisons": [
            pair_of_circuits | {"n_a": 2, "n_b": 2, "n_shared": 1, "p_value": 0.5}
        ],
    }
    tables = {kind: rows_of(kind, rows) for kind, rows in others.items()}
    made.store.write_all(key_of("judged"), tables, provenance("judgement", cell, 0.1))


def build_levels(store: Store) -> dict[str, list[float | None]]:
    """Scores of nodes and neurons with a circuit each, and means; the scores by level.

    At node level there are 4, at neuron level 4 × 8, those of the last node not scored.
    """
    graph = key_of("graph")
    _model(store, "tiny", graph)
    _dataset(store, "ioi", "train")
    values: dict[str, list[float | None]] = {
        "node": [0.5, -2.0, 1.0, None],
        "neuron": [*(float((-1) ** i * i) for i in range(3 * D_MODEL)), *[None] * D_MODEL],
    }
    for level, scored in values.items():
        method, scores, circuit = key_of("exact", level), key_of(level), key_of("circuit", level)
        about = {
            "method": method, "name": "exact", "label": f"exact ({level})", "level": level,
            "intervention": "mean", "metric": "logit-diff", "restriction": "top 3 of EAP",
        }  # fmt: skip
        store.write("methods", method, rows_of("methods", [about]), provenance("method", "x", 0.1))
        rows = [
            {
                "scores": scores, "model": key_of("tiny"), "graph": graph,
                "dataset": key_of("ioi", "train"), "method": method, "level": level,
                "unit_id": i, "score": value, "n_examples": 2,
            }
            for i, value in enumerate(scored)
        ]  # fmt: skip
        store.write("scores", scores, rows_of("scores", rows), provenance("scores", level, 0.1))
        of_circuit = {
            "circuit": circuit, "scores": scores, "graph": graph, "level": level,
            "algorithm": "top-n", "rule": "top-n", "absolute": True, "units_asked": 3,
            "n_units": 3, "n_edges": 2, "n_nodes": 3, "fraction": 3 / len(scored),
        }  # fmt: skip
        neurons = [{"circuit": circuit, "node_id": 1, "dimensions": [0, 7]}]
        tables = {
            "circuits": rows_of("circuits", [of_circuit]),
            "extractions": rows_of("extractions", []),
            # w1->r2 and w2->r4: the reader of the last one is the logits
            "members": members_table(circuit, [7, 14]),
            "member_neurons": rows_of("member_neurons", neurons if level == "neuron" else []),
        }
        store.write_all(circuit, tables, provenance("circuits", level, 0.1))
    vectors = [
        {
            "means": key_of("means"), "model": key_of("tiny"), "dataset": key_of("ioi", "train"),
            "kind": "mean", "writer_id": i, "writer": f"w{i}", "vector": [float(i)] * 4,
            "n_positions": 9,
        }
        for i in range(4)
    ]  # fmt: skip
    about_means = provenance("means", "tiny · ioi", 0.2)
    rows = rows_of("mean_activations", vectors)
    store.write("mean_activations", key_of("means"), rows, about_means)
    return values


def _model(store: Store, model: str, graph: str) -> None:
    about = {
        "model": key_of(model), "name": model, "family": "gpt2", "n_layers": 1, "n_heads": 2,
        "n_kv_heads": 2, "d_model": D_MODEL, "d_head": 4, "d_mlp": 32, "d_vocab": 50,
        "n_positions": 16, "parallel": False, "n_parameters": 1000,
    }  # fmt: skip
    shape = {
        "graph": graph, "n_layers": 1, "n_heads": 2, "n_kv_heads": 2, "parallel": False,
        "n_writers": 4,
        "n_readers": 8, "n_nodes": 5, "n_edges": N_EDGES,
    }  # fmt: skip
    edges = [
        {
            "graph": graph, "edge_id": i, "edge": f"w{i // 5}->r{i % 5}", "writer_id": i // 5,
            "reader_id": i % 5, "writer": f"w{i // 5}", "reader": f"r{i % 5}",
            "kind": "logits" if i % 5 == 4 else "mlp", "writer_layer": 0,
            "reader_layer": int(i % 5 == 4),
            "reader_nodes": [f"r{i % 5}"],
        }
        for i in range(N_EDGES)
    ]  # fmt: skip
    nodes = [
        {"graph": graph, "node_id": i, "node": f"w{i}", "kind": "head", "layer": 0, "head": i}
        for i in range(4)
    ]
    nodes.append({"graph": graph, "node_id": 4, "node": "r4", "kind": "logits", "layer": 1})
    tables = {
        "models": rows_of("models", [about]), "graphs": rows_of("graphs", [shape]),
        "edges": rows_of("edges", edges), "nodes": rows_of("nodes", nodes),
    }  # fmt: skip
    store.write_all(key_of("model", model), tables, provenance("model", model, 0.1))


def _dataset(store: Store, task: str, split: str) -> None:
    dataset = key_of(task, split)
    about = {
        "dataset": dataset, "task": task, "source": task, "split": split, "seed": 0, "asked": 3,
        "n_examples": N_EXAMPLES, "dropped_json": "{}", "tokenizer": key_of("tokenizer"),
    }  # fmt: skip
    examples = [
        {
            "dataset": dataset, "example_id": i, "clean": f"{task} clean {i}",
            "corrupted": f"{task} corrupted {i}", "clean_tokens": [1, 2, i],
            "corrupted_tokens": [1, 3, i], "correct": [4], "incorrect": [5, 6],
        }
        for i in range(N_EXAMPLES)
    ]  # fmt: skip
    tables = {"datasets": rows_of("datasets", [about]), "examples": rows_of("examples", examples)}
    store.write_all(key_of("dataset", task, split), tables, provenance("dataset", task, 0.2))


def _baseline(store: Store, model: str, task: str) -> None:
    baseline = key_of("baseline", model, task)
    about = [
        {
            "baseline": baseline, "model": key_of(model), "dataset": key_of(task, "test"),
            "intervention": "patching", "metric": "logit-diff", "run": run, "mean": mean,
            "n_examples": N_EXAMPLES,
        }
        for run, mean in (("clean", 3.0), ("corrupted", -1.0))
    ]  # fmt: skip
    values = [
        {"baseline": baseline, "run": run, "example_id": i, "value": value}
        for run, value in (("clean", 3.0), ("corrupted", -1.0))
        for i in range(N_EXAMPLES)
    ]
    tables = {
        "baselines": rows_of("baselines", about),
        "baseline_values": rows_of("baseline_values", values),
    }
    store.write_all(baseline, tables, provenance("baselines", f"{model} {task}", 0.3))


def _cell(
    made: Synthetic, model: str, task: str, method: str, graph: str, random: np.random.Generator
) -> None:
    store, cell = made.store, f"{model} · {task} · {method}"
    shards = []
    for index in range(2):
        shard = key_of("shard", cell, index)
        rows = [
            {
                "shard_index": index,
                "first_example": index,
                "n_examples": 1,
                "level": "edge",
                "unit_id": i,
                "total": 1.0,
                "total_of_squares": 1.0,
            }
            for i in range(N_EDGES)
        ]
        about = provenance("shard", cell, 2.0, 100 * (index + 1), "cpu", "float32")
        store.write("shards", shard, rows_of("shards", rows), about)
        shards.append(shard)
    scores = key_of("scores", cell)
    values = random.normal(size=N_EDGES)
    values[3] = np.nan
    rows = [
        {
            "scores": scores, "model": key_of(model), "graph": graph,
            "dataset": key_of(task, "train"), "method": key_of(method), "level": "edge",
            "unit_id": i, "score": value, "standard_error": 0.1, "n_examples": 2,
        }
        for i, value in enumerate(values)
    ]  # fmt: skip
    about = provenance("scores", cell, 0.5, 50, "cpu", "float32", shards)
    store.write("scores", scores, rows_of("scores", rows), about)
    made.scores[model, task, method] = scores
    made.score_values[scores] = values.tolist()
    _circuits(made, cell, scores, graph, key_of(model), key_of(task, "test"), random)


def _circuits(
    made: Synthetic, cell: str, scores: str, graph: str, model: str, dataset: str,
    random: np.random.Generator,
) -> None:  # fmt: skip
    circuits, members, evaluations, values = [], [], [], []
    undefined = cell.startswith("small · sva")
    made.faithfulness[scores] = []
    for place, size in enumerate(FRACTIONS):
        circuit, evaluation = key_of("circuit", cell, size), key_of("evaluation", cell, size)
        n_edges = round(size * N_EDGES)
        edges = sorted(int(i) for i in random.choice(N_EDGES, n_edges, replace=False))
        f = None if undefined and place == 2 else float(random.uniform(-0.2, 1.3))
        circuits.append(
            {
                "circuit": circuit, "scores": scores, "graph": graph, "level": "edge",
                "algorithm": "top-n", "rule": "top-n", "absolute": True, "size_asked": size,
                "n_units": n_edges, "n_edges": n_edges, "n_nodes": 3, "fraction": n_edges / N_EDGES,
            }
        )  # fmt: skip
        members += [{"circuit": circuit, "edge_id": edge} for edge in edges]
        evaluations.append(
            {
                "evaluation": evaluation, "circuit": circuit, "part": "circuit", "model": model,
                "dataset": dataset,
                "intervention": "patching", "metric": "logit-diff",
                "mean": 0.0 if f is None else -1 + 4 * f,
                "faithfulness": f, "n_examples": N_EXAMPLES,
                "baseline": key_of("baseline", *cell.split(" · ")[:2]),
            }
        )  # fmt: skip
        values += [
            {"evaluation": evaluation, "example_id": i, "value": -1.0 + i}
            for i in range(N_EXAMPLES)
        ]
        made.members[circuit] = set(edges)
        made.faithfulness[scores].append(f)
    # in another order than that of their sizes
    tables = {
        "circuits": rows_of("circuits", circuits[::-1]),
        "extractions": rows_of(
            "extractions",
            [{"extraction": key_of("circuits", cell), "circuit": c["circuit"]} for c in circuits],
        ),
        "members": rows_of("members", members),
        "member_neurons": rows_of("member_neurons", []),
    }
    made.store.write_all(key_of("circuits", cell), tables, provenance("circuits", cell, 0.1))
    tables = {
        "evaluations": rows_of("evaluations", evaluations),
        "example_values": rows_of("example_values", values),
    }
    made.store.write_all(key_of("evaluations", cell), tables, provenance("evaluation", cell, 1.0))
