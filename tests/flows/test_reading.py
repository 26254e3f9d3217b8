"""What a grid file may say, and how its faults are told: all at once, by line, with a way out."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flows.config import DEFAULT_SIZES, GridConfig
from flows.errors import GridError
from flows.reading import parse_grid, read_grid

HUGE = "1" * 401
HEAD = "models: [gpt2]\ntasks: [ioi]\nmethods: [EAP]\n"


def with_methods(*entries: str, head: str = HEAD) -> str:
    return head.replace("[EAP]", f"[{', '.join(entries)}]")


def parse(text: str | bytes, base: Path = Path()) -> GridConfig:
    return parse_grid(text, "my.yaml", base)


def fault(text: str | bytes, base: Path = Path()) -> str:
    with pytest.raises(GridError) as caught:
        parse(text, base)
    return str(caught.value)


def test_three_lists_make_a_grid():
    grid = parse(HEAD)
    assert [cell.label for cell in grid.cells()] == ["gpt2 · ioi · EAP"]
    assert grid.sizes == DEFAULT_SIZES
    assert [rule.name for rule in grid.extraction] == ["top-n"]
    assert (grid.shard_size, grid.memory_budget, grid.device) == (32, 2**30, "auto")


def test_cells_of_one_model_stand_together():
    text = "models: [a/b, gpt2]\ntasks: [ioi, sva]\nmethods: [EAP, clean-corrupted]\n"
    cells = [cell.label for cell in parse(text).cells()]
    assert cells[:4] == [
        "a/b · ioi · EAP",
        "a/b · ioi · clean-corrupted",
        "a/b · sva · EAP",
        "a/b · sva · clean-corrupted",
    ]
    assert len(cells) == 8


def test_a_truth_and_the_task_of_its_name_go_together():
    text = (
        "models: [bundled/behaviours, truth/gate, truth/backup]\n"
        "tasks: [ioi, truth/gate, truth/backup, {path: pyproject.toml}]\nmethods: [EAP]\n"
    )
    assert [cell.label.removesuffix(" · EAP") for cell in parse(text).cells()] == [
        "bundled/behaviours · ioi",
        "bundled/behaviours · pyproject",
        "truth/gate · truth/gate",
        "truth/gate · pyproject",
        "truth/backup · truth/backup",
        "truth/backup · pyproject",
    ]


def test_cells_of_one_task_with_different_options_are_told_apart():
    tasks = "[ioi, {name: ioi, train: 5, judged_by: [kl, accuracy]}, {name: sva, train: 5}]"
    titles = [cell.title for cell in parse(HEAD.replace("[ioi]", tasks)).cells()]
    assert titles == ["ioi", "ioi (train 5, judged_by kl, accuracy)", "sva"]


def test_a_rule_without_the_scores_it_is_for_may_stand_beside_another():
    rules = (
        "[{name: top-n, level: edge}, {name: top-n, level: node}, {name: top-n, absolute: false}]"
    )
    grid = parse(with_methods("EAP", "{name: EAP, level: node}") + f"extraction: {rules}\n")
    assert len(grid.extraction) == 3


def test_edges_in_another_order_are_the_same_edges():
    one, other = (
        parse(with_methods(f"{{name: exact, edges: [{edges}]}}")).methods[0]
        for edges in ("m1->logits, input->m0", "input->m0, m1->logits")
    )
    assert one == other


def test_a_method_gets_its_own_defaults():
    grid = parse(HEAD.replace("EAP", "EAP-IG-inputs"))
    assert (grid.methods[0].steps, grid.methods[0].quadrature) == (5, "midpoint")


def test_every_method_gets_the_options_that_it_takes_and_no_others():
    names = ["EAP", "EAP-IG-activations", "information-flow-routes", "exact", "random"]
    methods = {method.name: method for method in parse(with_methods(*names)).methods}
    assert methods["EAP"].intervention == "patching"
    activations = methods["EAP-IG-activations"]
    assert (activations.steps, activations.quadrature, activations.scope) == (
        *(5, "midpoint", "component"),
    )
    assert methods["information-flow-routes"].intervention is None
    assert (methods["random"].intervention, methods["random"].seed) == (None, 0)
    assert methods["exact"].steps is None


@pytest.mark.parametrize(
    ("entry", "label"),
    [
        ("EAP", "EAP"),
        ("{name: EAP, level: node, intervention: mean}", "EAP (node, mean)"),
        ("EAP-IG-activations", "EAP-IG-activations (5, midpoint)"),
        (
            "{name: EAP-IG-activations, steps: 3, quadrature: left, scope: all}",
            "EAP-IG-activations (3, left, all)",
        ),
        ("random", "random"),
        ("{name: random, seed: 7}", "random (seed 7)"),
        ("{name: exact, top: 500, of: EAP}", "exact (top 500 of EAP)"),
        (
            "{name: exact, level: neuron, top: 2, of: {name: EAP-IG-inputs, steps: 3}}",
            "exact (neuron, top 2 of EAP-IG-inputs (node, 3, midpoint))",
        ),
        ("{name: exact, edges: [input->m0, m0->logits]}", "exact (input->m0 and 1 more)"),
    ],
)
def test_labels_of_methods_say_what_is_not_the_default(entry: str, label: str):
    (cell,) = parse(with_methods(entry)).cells()
    assert cell.label == f"gpt2 · ioi · {label}"


def test_labels_of_models_tell_entries_of_the_same_weights_apart():
    models = "[gpt2, {name: gpt2, dtype: float64}, {name: gpt2, kv: grouped, revision: v2}]"
    grid = parse(HEAD.replace("[gpt2]", models))
    assert [model.label for model in grid.models] == [
        *("gpt2", "gpt2 (float64)", "gpt2@v2 (grouped)"),
    ]
    assert [model.short_name for model in grid.models] == ["gpt2", "gpt2", "gpt2@v2"]


def test_what_ranks_units_has_the_level_of_the_targets():
    edges, neurons = parse(
        with_methods(
            "{name: exact, top: 0.1, of: EAP}", "{name: exact, level: neuron, top: 3, of: EAP}"
        )
    ).methods
    assert (edges.of.level, neurons.of.level) == ("edge", "node")


def test_circuits_are_run_under_their_methods_intervention_unless_told_otherwise():
    grid = parse(
        with_methods(
            "EAP", "random", "{name: EAP, intervention: zero}", "{name: random, seed: 1, "
            "judged_under: [mean, zero]}",
        )
    )  # fmt: skip
    assert [method.evaluated_under for method in grid.methods] == [
        ("patching",), ("patching",), ("zero",), ("mean", "zero"),
    ]  # fmt: skip


def test_an_extraction_may_be_for_one_level_alone():
    grid = parse(
        with_methods("EAP", "{name: EAP, level: node}")
        + "extraction: [top-n, {name: greedy, level: edge}]\n"
    )
    rules = [[rule.name for rule in grid.extractions_of(method)] for method in grid.methods]
    assert rules == [["top-n", "greedy"], ["top-n"]]


def test_metrics_bind_only_methods_that_follow_them():
    accuracy = HEAD.replace("[ioi]", "[{name: ioi, metric: accuracy}]")
    fine = with_methods("exact", "random", "information-flow-routes", head=accuracy)
    assert len(parse(fine).methods) == 3
    told = fault(with_methods("random", "{name: exact, top: 5, of: EAP}", head=accuracy))
    assert "accuracy has no gradient for a method to follow" in told


def test_means_are_over_the_train_examples_unless_told_otherwise():
    tasks = "[ioi, {name: sva, means: 9}, {name: greater-than, means_on: validation, train: 5}]"
    grid = parse(with_methods("{name: EAP, intervention: mean}", head=HEAD.replace("[ioi]", tasks)))
    assert [grid.means_of(task) for task in grid.tasks] == [
        ("train", 64), ("train", 9), ("validation", 5),
    ]  # fmt: skip


def test_a_whole_number_is_edges_and_a_decimal_point_a_fraction():
    grid = parse(HEAD + "sizes: [1, 1.0, 200, 0.5]\n")
    assert [type(size) for size in grid.sizes] == [int, float, int, float]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1GiB", 2**30), ("1.5 MiB", 3 * 2**19), ("2GB", 2 * 10**9), ("4194304", 4194304)],
)
def test_memory_budgets_have_units(text: str, expected: int):
    assert parse(HEAD + f"memory_budget: {text}\n").memory_budget == expected


def test_paths_are_relative_to_the_file_that_names_them(tmp_path: Path):
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "pairs.csv").write_text("clean,corrupted\n")
    text = "models: [checkpoint, ./checkpoint/../other]\ntasks: [{path: pairs.csv}]\nmethods: [EAP]"
    (tmp_path / "other").mkdir()
    (tmp_path / "grid.yaml").write_text(text)
    grid = read_grid(tmp_path / "grid.yaml")
    assert [model.name for model in grid.models] == [
        str(tmp_path / "checkpoint"),
        str(tmp_path / "other"),
    ]
    assert grid.tasks[0].source == str(tmp_path / "pairs.csv")
    assert grid.tasks[0].label == "pairs"


def test_a_file_gives_all_it_has_unless_told_otherwise(tmp_path: Path):
    (tmp_path / "pairs.csv").write_text("clean,corrupted\n")
    text = HEAD.replace("[ioi]", "[ioi, {path: pairs.csv}, {path: pairs.csv, train: 5}]")
    grid = parse(text, tmp_path)
    assert [grid.counts_of(task) for task in grid.tasks] == [(64, 64), (None, None), (5, None)]


FAULTS = {
    "shard_sizes: 3": "line 4: unknown key `shard_sizes`; did you mean `shard_size`?",
    "shard_size: 0": "line 4: `shard_size`: it should be greater than or equal to 1, not `0`",
    "shard_size: many": "line 4: `shard_size` must be a whole number, not the text `many`",
    "examples: {train: 1.5}": "line 4: `train` must be a whole number, not `1.5`",
    "examples: {trian: 1}": "line 4: unknown key `trian`; did you mean `train`?",
    "sizes: [0.1, 1.5]": "line 4: `sizes`: a fraction lies above 0 and up to 1.0; write units",
    "sizes: [0]": "line 4: `sizes`: must be at least 1, not `0`",
    "sizes: [.nan]": "line 4: `sizes`: a fraction lies above 0",
    "sizes: [true]": "line 4: `sizes`: must be a fraction such as 0.05 or a whole number",
    "sizes: [0.1, 0.5, 0.1]": "line 4: `0.1` is listed twice",
    "sizes: []": "line 4: `sizes` lists nothing",
    "sizes: 0.1": "line 4: `sizes` must be a list, such as `sizes: [0.1]`",
    "memory_budget: lots": "line 4: `memory_budget`: must be bytes, such as 512MiB or 2GB",
    "memory_budget: 1": "line 4: `memory_budget`: must lie between 1MiB and",
    "device: gpu": "line 4: `device`: must be auto, cpu, mps, cuda or cuda:<number>, not `gpu`",
    "name: a/b": "line 4: `name`: ",
    "extraction: [topn]": "line 4: unknown extraction `topn`; did you mean `top-n`?",
    "extraction: [threshold]": "line 4: threshold needs `values`",
    "extraction: [{name: greedy, values: [1]}]": "line 4: greedy takes no `values`",
    "extraction: [top-n, {name: top-n, absolute: true}]": "line 4: `top-n` is listed twice",
    "extraction: [{name: top-n, level: nod}]": "line 4: unknown level `nod`; did you mean `node`?",
    "extraction: [{name: top-n, level: node}]": "line 3: no extraction is for edge scores: add top",
    "extraction: [top-n, {name: greedy, level: node}]": "line 4: no method has node scores to extr",
    "shard_units: 0": "line 4: `shard_units`: it should be greater than or equal to 1",
    "extraction: [{name: top-n, absolute: maybe}]": "line 4: `absolute`",
    f"memory_budget: {HUGE}": "line 4: `11111111111111111111…` is too large a number",
    f"sizes: [{HUGE}]": "line 4: `11111111111111111111…` is too large a number",
    f"examples: {{train: {HUGE}}}": "line 4: `11111111111111111111…` is too large a number",
    "examples: {train: 1000001}": "line 4: `train`: it should be less than or equal to 1000000",
    f"extraction: [{{name: threshold, values: [{HUGE}]}}]": "line 4: `11111111111111111111…` is",
    "extraction: [{name: threshold, values: []}]": "line 4: `values` lists nothing",
    "extraction: [{name: top-n, sizes: []}]": "line 4: `sizes` lists nothing",
    "extraction: [top-n, {name: top-n, level: edge}]": "line 4: `top-n` is listed twice for edge",
    "extraction: [top-n, {name: top-n, keep_unscored: false}]": "top-n (unscored out)` is listed",
    "extraction: [{name: threshold, values: [0.1]}]\nsizes: [0.1]": "line 5: no rule under `ext",
    "judging: {resample: 5}": "line 4: unknown key `resample`; did you mean `resamples`?",
    "judging: {resamples: 1}": "line 4: `resamples`: it should be greater than or equal to 2",
    "judging: {confidence: 95}": "`confidence`: must be a number between 0 and 1, such as 0.95, n",
    "judging: {seed: -1}": "line 4: `seed`: it should be greater than or equal to 0",
    "judging: {cross_task: true}": "line 4: `cross_task` needs two tasks or more, and the grid h",
    "judging: {cross_task: ioi}": "line 4: `cross_task` must be true or false, not `ioi`",
    "judging: {minimality: 0}": "line 4: `minimality`: it should be greater than or equal to 1",
    "judging: {stability: {sizes: 1}}": "line 4: unknown key `sizes`; did you mean `size`?",
    "judging: {stability: {size: 0.0}}": "line 4: `size`: a fraction lies above 0 and up to 1.0",
    "judging: 5": "line 4: `5` must be a mapping",
    "sizes: [100, 200]\njudging: {minimality: 50}": "line 5: no circuit has at most 50 units: the",
    "methods: [EAP]": "line 4: `methods` is given twice (first on line 3)",
    "device: !!python/name:os.system": "line 4: the tag `tag:yaml.org,2002:python/name:os.system`",
}


@pytest.mark.parametrize("line", FAULTS)
def test_a_fault_of_the_grid_is_told_with_its_line(line: str):
    assert FAULTS[line] in fault(HEAD + line + "\n")


FAULTS_OF_ENTRIES = {
    ("methods", "EPA"): "line 3: unknown method `EPA`; did you mean `EAP`?",
    ("methods", "{name: EAP, steps: 5}"): "line 3: EAP takes no `steps`; EAP-IG-inputs, EAP-IG-",
    ("methods", "{name: EAP, quadrature: left}"): "line 3: EAP takes no `quadrature`; EAP-IG-inp",
    ("methods", "{name: EAP, scope: all}"): "EAP takes no `scope`; EAP-IG-activations does",
    ("methods", "{name: EAP-IG-activations, scope: al}"): "unknown scope `al`; did you mean `all`?",
    ("methods", "{name: EAP, seed: 1}"): "line 3: EAP takes no `seed`; random does",
    ("methods", "{name: random, seed: -1}"): "line 3: `seed`: it should be greater than or equal",
    ("methods", "{name: EAP, level: nodes}"): "line 3: unknown level `nodes`; did you mean `node`?",
    (
        "methods",
        "{name: information-flow-routes, level: neuron}",
    ): "has no neuron scores, only edge and node scores",
    ("methods", "{name: EAP, edges: [m0->m1]}"): "line 3: EAP takes no `edges`; exact does",
    ("methods", "{name: EAP, top: 5, of: EAP}"): "line 3: EAP takes no `top`; exact does",
    ("methods", "{name: exact, level: neuron}"): "exact scores the neurons of chosen nodes: add",
    ("methods", "{name: exact, nodes: [m0]}"): "exact at edge level is restricted by `edges`",
    ("methods", "{name: exact, level: node, edges: [m0->m1]}"): "is restricted by `nodes`",
    (
        "methods",
        "{name: exact, edges: [m0]}",
    ): "`m0` is no edge: edges are written as in a0.h1->m2, i",
    (
        "methods",
        "{name: exact, level: node, nodes: [m0->m1]}",
    ): "`m0->m1` is no node that has scores",
    ("methods", "{name: exact, edges: [1]}"): "line 3: `edges` must be text, not `1`",
    ("methods", "{name: exact, edges: [m0->input]}"): "line 3: `m0->input` is no edge: edges are",
    ("methods", "{name: exact, level: node, nodes: [logits]}"): "`logits` is no node that has scor",
    ("methods", "{name: exact, level: neuron, nodes: ['m0[3]']}"): "`m0[3]` is no node that has sc",
    (
        "methods",
        "{name: exact, edges: [m0->m1, m0->m2]}, {name: exact, edges: [m0->m2, m0->m1]}",
    ): "line 3: `exact (m0->m1 and 1 more)` is listed twice",
    ("methods", "{name: exact, edges: [m0->m1, m0->m1]}"): "line 3: `m0->m1` is listed twice",
    ("methods", "{name: exact, edges: []}"): "line 3: `edges` lists nothing",
    ("methods", "{name: exact, top: 5}"): "line 3: `top` needs `of`, as in {top: 500, of: EAP}",
    ("methods", "{name: exact, of: EAP}"): "line 3: `of` needs `top`, as in {top: 500, of: EAP}",
    ("methods", "{name: exact, top: 0, of: EAP}"): "line 3: `top`: must be at least 1, not",
    ("methods", "{name: exact, top: 5, of: EAP, edges: [m0->m1]}"): "or by `top` and `of`, not by",
    ("methods", "{name: exact, top: 5, of: EPA}"): "unknown method `EPA`; did you mean `EAP`?",
    ("methods", "{name: exact, top: 5, of: {name: EAP, steps: 5}}"): "line 3: EAP takes no `steps`",
    ("methods", "{name: exact, top: 5, of: {name: EAP, level: node}}"): "ranks edges for exact",
    (
        "methods",
        "{name: exact, top: 5, of: {name: exact, top: 5, of: EAP}}",
    ): "`of` ranks all units",
    ("methods", "{name: exact, top: 5, of: {nam: EAP}}"): "unknown key `nam`; did you mean `name`?",
    ("methods", "{name: clean-corrupted, intervention: zero}"): "the intervention zero, only patch",
    ("methods", "{name: EAP-IG-inputs, intervention: mean}"): "EAP, EAP-IG-activations or exact wo",
    (
        "methods",
        "{name: random, intervention: zero}",
    ): "random takes no `intervention`; run its cir",
    ("methods", "{name: EAP, judged_under: [zer]}"): "unknown intervention `zer`; did you mean `ze",
    ("methods", "{name: EAP, judged_under: [zero, zero]}"): "line 3: `zero` is listed twice",
    ("methods", "EAP, {name: EAP, judged_under: [zero]}"): "line 3: `EAP` is listed twice",
    ("methods", "{name: EAP, intervention: zeroo}"): "line 3: unknown intervention `zeroo`",
    ("methods", "{name: EAP-IG-inputs, steps: 0}"): "line 3: `steps`: it should be greater",
    ("methods", "{name: EAP-IG-inputs, quadrature: lft}"): "unknown quadrature `lft`; did you mean",
    ("methods", "{name: EAP-IG-inputs, quadrature: trapezoid, steps: 1}"): "at least 2 steps",
    (
        "methods",
        "{name: EAP-IG-inputs, steps: 1001}",
    ): "line 3: integrated gradients take at most 1",
    ("methods", "EAP, EAP"): "line 3: `EAP` is listed twice",
    ("methods", "EAP-IG-inputs, {name: EAP-IG-inputs, steps: 5}"): "is listed twice",
    ("methods", "{ensemble: [EAP, exact], combine: rank-men}"): "unknown combination `rank-men`; d",
    (
        "methods",
        "{ensemble: [EAP]}",
    ): "line 3: an ensemble combines two or more methods: EAP is one",
    ("methods", "{ensemble: []}"): "line 3: `ensemble` lists nothing",
    ("methods", "{ensemble: EAP}"): "line 3: `ensemble` must be a list, such as `ensemble: [EAP]`",
    (
        "methods",
        "{ensemble: [EAP, {name: EAP, level: node}]}",
    ): "members of an ensemble score one level: EAP has edge scores, EAP (node) node scores",
    ("methods", "{ensemble: [EAP, EAP]}"): "line 3: `EAP` is listed twice",
    ("methods", "{ensemble: [EAP, EPA]}"): "line 3: unknown method `EPA`; did you mean `EAP`?",
    ("methods", "{ensemble: [EAP, {name: random, steps: 2}]}"): "line 3: random takes no `steps`",
    ("methods", "{ensemble: [EAP, exact], steps: 2}"): "line 3: unknown key `steps`; known are",
    (
        "methods",
        "{ensemble: [EAP, {name: exact, judged_under: [zero]}]}",
    ): "members are only scored",
    ("methods", "{ensemble: [EAP, exact]}, {ensemble: [EAP, exact]}"): "EAP and exact` is listed t",
    ("methods", "{name: EAP, combine: rank-mean}"): "line 3: unknown key `combine`",
    ("methods", "{path: nowhere.json}"): "line 3: there is no file ",
    ("methods", "{path: .}"): "line 3: there is no file ",
    ("methods", "{path: pyproject.toml}"): "pyproject.toml is no circuit file: those end in .json",
    ("methods", "{path: nowhere.json, steps: 3}"): "line 3: unknown key `steps`; known are",
    ("models", "truth/indction"): "unknown bundled model `truth/indction`; did you mean `truth/ind",
    ("tasks", "oi"): "line 2: unknown task `oi`; did you mean `ioi`?",
    ("tasks", "{name: ioi, metric: logit}"): "unknown metric `logit`; did you mean `logit-diff`?",
    ("tasks", "{name: ioi, metric: accuracy}"): "line 2: accuracy has no gradient for a method",
    ("tasks", "{name: ioi, metric: kl}"): "line 2: kl is flat at the clean input, where EAP takes",
    ("tasks", "{name: ioi, judged_by: [acc]}"): "line 2: unknown metric `acc`",
    ("tasks", "{name: ioi, judged_by: [kl, kl]}"): "line 2: `kl` is listed twice",
    ("tasks", "ioi, truth/gate"): "line 2: truth/gate is for the model of its own name alone: add",
    ("tasks", "{name: ioi, train_on: test1}"): "line 2: unknown split `test1`; did you mean `test`",
    ("tasks", "{name: ioi, means_on: tst}"): "line 2: unknown split `tst`; did you mean `test`?",
    ("tasks", "{name: ioi, means: 5}"): "line 2: `means` is for mean interventions, and no method",
    ("tasks", "{path: nowhere.csv}"): "line 2: there is no file ",
    ("tasks", "{name: ioi, rule: greater-than}"): "line 2: `tasks`: `rule` belongs to a file",
    ("tasks", "{metric: kl}"): "line 2: `tasks`: a task has either a `name` or a `path`",
    ("tasks", "5"): "line 2: `5` must be a word or a mapping with `name:`",
    ("models", "bundled/behavior"): "line 1: unknown bundled model `bundled/behavior`",
    ("models", "./nowhere"): "line 1: there is no model directory ",
    ("models", "{name: gpt2, dtype: float31}"): "line 1: unknown dtype `float31`; did you mean",
    ("models", "{dtype: float32}"): "line 1: `name` is missing",
    ("models", "{name: gpt2, kv: group}"): "line 1: unknown kv `group`; did you mean `grouped`?",
    ("models", "{name: bundled/behaviours, revision: main}"): "and behaviours is bundled: leave it",
    ("models", "{name: ., revision: main}"): "line 1: `revision` is of a name on the hub, and",
    ("models", "gpt2, truth/gate"): "line 1: truth/gate does the task of its own name alone: add",
    ("models", "gpt2, gpt2"): "line 1: `gpt2` is listed twice",
}


@pytest.mark.parametrize(("section", "entries"), FAULTS_OF_ENTRIES)
def test_a_fault_of_an_entry_is_told_with_its_line(section: str, entries: str):
    lines = [line for line in HEAD.splitlines() if not line.startswith(section)]
    lines.insert(["models", "tasks", "methods"].index(section), f"{section}: [{entries}]")
    assert FAULTS_OF_ENTRIES[section, entries] in fault("\n".join(lines))


@pytest.mark.parametrize("level", ["node", "neuron"])
def test_greedy_is_refused_for_scores_that_are_not_of_edges(level: str):
    text = with_methods("EAP", f"{{name: EAP, level: {level}}}") + "extraction: [top-n, greedy]\n"
    told = fault(text)
    assert (
        f"line 4: greedy grows circuits edge by edge, and EAP ({level}) has {level} scores" in told
    )
    assert "{name: greedy, level: edge}" in told


def test_everything_that_is_wrong_is_told_at_once_in_the_order_of_the_lines():
    text = """\
models: [./nowhere]
tasks:
  - oi
  - {name: ioi, metric: kl, trian: 3}
methods:
  - EPA
  - {name: EAP, steps: 5}
sizes: [0]
foo: 1
foo: 2
"""
    told = fault(text).splitlines()
    assert told[0] == "my.yaml has 8 problems:"
    assert [line.strip().split(":")[0] for line in told[1:]] == [
        "line 1",
        "line 3",
        "line 4",
        "line 6",
        "line 7",
        "line 8",
        "line 9",
        "line 10",
    ]


def test_stability_needs_a_method_that_scores_examples():
    told = fault(with_methods("random") + "judging: {stability: {size: 5}}\n")
    assert "line 4: `stability` is for methods that score examples, and the grid has none" in told


def test_judging_has_intervals_and_comparisons_unless_told_otherwise():
    judging = parse(HEAD).judging
    assert (judging.resamples, judging.confidence, judging.seed) == (1000, 0.95, 0)
    assert judging.comparisons
    asked = (judging.cross_task, judging.completeness, judging.minimality, judging.stability)
    assert asked == (False, False, None, None)
    stability = parse(HEAD + "judging: {stability: {}}\n").judging.stability
    assert stability is not None
    assert (stability.resamples, stability.size) == (100, 0.01)


def test_an_ensemble_is_a_method_of_its_members_level_with_their_defaults():
    (ensemble,) = parse(
        with_methods("{ensemble: [{name: EAP, level: node}, {name: EAP-IG-inputs, level: node}]}")
    ).methods
    assert (ensemble.level, ensemble.combine) == ("node", "rank-mean")
    assert [member.steps for member in ensemble.ensemble] == [None, 5]
    assert ensemble.label == "rank-mean of EAP (node) and EAP-IG-inputs (node, 5, midpoint)"
    assert ensemble.evaluated_under == ("patching",)


def test_circuits_of_an_ensemble_are_run_under_every_intervention_of_its_members():
    both = "{name: EAP, intervention: zero}, {name: EAP, intervention: mean}, random"
    told, asked = parse(
        with_methods(
            f"{{ensemble: [{both}]}}",
            f"{{ensemble: [{both}], judged_under: [patching], combine: minimum}}",
        )
    ).methods
    assert told.evaluated_under == ("mean", "zero")
    assert asked.evaluated_under == ("patching",)
    assert asked.interventions == {"mean", "zero", "patching"}


def test_a_metric_that_a_member_cannot_follow_is_refused():
    accuracy = HEAD.replace("[ioi]", "[{name: ioi, metric: accuracy}]")
    told = fault(with_methods("{ensemble: [random, EAP]}", head=accuracy))
    assert "accuracy has no gradient for a method to follow" in told


def test_a_file_of_scores_is_a_method_by_its_name(tmp_path: Path):
    (tmp_path / "ioi.json").write_text("{}")
    (method,) = parse(with_methods("{path: ioi.json, level: node}"), tmp_path).methods
    assert (method.label, method.level) == ("ioi.json (node)", "node")
    assert method.path == str(tmp_path / "ioi.json")
    assert method.evaluated_under == ("patching",)


def test_kl_may_be_integrated_and_accuracy_may_judge():
    task = "[{name: ioi, metric: kl, judged_by: [kl, accuracy]}]"
    grid = parse(HEAD.replace("[ioi]", task).replace("EAP", "EAP-IG-inputs"))
    assert grid.tasks[0].judged_by == ("kl", "accuracy")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "my.yaml is empty: a grid needs at least `models` and `tasks`."),
        ("# nothing\n", "my.yaml is empty"),
        ("- a\n- b\n", "my.yaml is not a grid: it must be a mapping"),
        ("models:\n\t- gpt2\n", "my.yaml, line 2: YAML is indented with spaces, and this line has"),
        ("models: [gpt2\n", "my.yaml, line 2: not valid YAML"),
        (b"models: [\xff]\n", "my.yaml, line 1: not UTF-8 text"),
        ("[" * 5000, "my.yaml is nested too deeply"),
        ("a: &a [*a]\n", "nested too deep, or repeated too often"),
        ("a: *b\n", "my.yaml, line 1: not valid YAML: found undefined alias"),
        ("models:\ntasks: [ioi]\nmethods: [EAP]", "line 1: `models` must be a list"),
    ],
)
def test_what_is_no_grid_at_all_gets_one_sentence(text: str | bytes, expected: str):
    assert expected in fault(text)


def test_an_alias_bomb_ends_in_a_sentence():
    bomb = "a0: &a0 [x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    assert "repeated too often" in fault(bomb)


@pytest.mark.parametrize("name", ["missing.yaml", "."])
def test_a_file_that_cannot_be_read_gets_one_sentence(tmp_path: Path, name: str):
    with pytest.raises(GridError, match=r"(There is no grid file|is a directory)"):
        read_grid(tmp_path / name)


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just("EAP")
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                [
                    *("name", "path", "steps", "metric", "sizes", "values", "level", "of", "top"),
                    *("ensemble", "combine", "resamples", "stability", "minimality", "x"),
                ]
            ),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=8,
)
KEYS = st.sampled_from([*GridConfig.model_fields, "nonsense"])


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, VALUES))
def test_any_values_give_a_grid_or_a_grid_error(values: dict):
    import io

    from ruamel.yaml import YAML

    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(values, stream)
    with suppress(GridError):
        assert isinstance(parse(stream.getvalue()), GridConfig)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab:-[]{}#&*!|>'\"%@`,? \n\t0x\u00e9\u2028"), max_size=60))
@example("%YAML 9")
@example("? [a]\n: b")
@example("a: !!int x")
def test_any_text_gives_a_grid_or_a_grid_error(text: str):
    with pytest.raises(GridError):
        parse(text)
