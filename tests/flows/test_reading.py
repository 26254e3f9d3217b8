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

HEAD = "models: [gpt2]\ntasks: [ioi]\nmethods: [EAP]\n"


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


def test_a_method_gets_its_own_defaults():
    grid = parse(HEAD.replace("EAP", "EAP-IG-inputs"))
    assert (grid.methods[0].steps, grid.methods[0].quadrature) == (5, "midpoint")


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
    "sizes: [0.1, 1.5]": "line 4: `sizes`: a fraction lies above 0 and up to 1.0; write edges",
    "sizes: [0]": "line 4: `sizes`: must be at least one edge, not `0`",
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
    "extraction: [{name: top-n, absolute: maybe}]": "line 4: `absolute`",
    "methods: [EAP]": "line 4: `methods` is given twice (first on line 3)",
    "device: !!python/name:os.system": "line 4: the tag `tag:yaml.org,2002:python/name:os.system`",
}


@pytest.mark.parametrize("line", FAULTS)
def test_a_fault_of_the_grid_is_told_with_its_line(line: str):
    assert FAULTS[line] in fault(HEAD + line + "\n")


FAULTS_OF_ENTRIES = {
    ("methods", "EPA"): "line 3: unknown method `EPA`; did you mean `EAP`?",
    ("methods", "{name: EAP, steps: 5}"): "line 3: EAP takes no `steps`; EAP-IG-inputs does",
    ("methods", "{name: EAP, intervention: zeroo}"): "line 3: unknown intervention `zeroo`",
    ("methods", "{name: EAP-IG-inputs, steps: 0}"): "line 3: `steps`: it should be greater",
    ("methods", "{name: EAP-IG-inputs, quadrature: lft}"): "unknown quadrature `lft`; did you mean",
    ("methods", "{name: EAP-IG-inputs, quadrature: trapezoid, steps: 1}"): "at least 2 steps",
    ("methods", "EAP, EAP"): "line 3: `EAP` is listed twice",
    ("methods", "EAP-IG-inputs, {name: EAP-IG-inputs, steps: 5}"): "is listed twice",
    ("tasks", "oi"): "line 2: unknown task `oi`; did you mean `ioi`?",
    ("tasks", "{name: ioi, metric: logit}"): "unknown metric `logit`; did you mean `logit-diff`?",
    ("tasks", "{name: ioi, metric: accuracy}"): "line 2: accuracy has no gradient for a method",
    ("tasks", "{name: ioi, metric: kl}"): "line 2: kl is flat at the clean input, where EAP takes",
    ("tasks", "{name: ioi, judged_by: [acc]}"): "line 2: unknown metric `acc`",
    ("tasks", "{name: ioi, train_on: test1}"): "line 2: unknown split `test1`; did you mean `test`",
    ("tasks", "{path: nowhere.csv}"): "line 2: there is no file ",
    ("tasks", "{name: ioi, rule: greater-than}"): "line 2: `tasks`: `rule` belongs to a file",
    ("tasks", "{metric: kl}"): "line 2: `tasks`: a task has either a `name` or a `path`",
    ("tasks", "5"): "line 2: `5` must be a word or a mapping with `name:`",
    ("models", "bundled/behavior"): "line 1: unknown bundled model `bundled/behavior`",
    ("models", "./nowhere"): "line 1: there is no model directory ",
    ("models", "{name: gpt2, dtype: float31}"): "line 1: unknown dtype `float31`; did you mean",
    ("models", "{dtype: float32}"): "line 1: `name` is missing",
    ("models", "gpt2, gpt2"): "line 1: `gpt2` is listed twice",
}


@pytest.mark.parametrize(("section", "entries"), FAULTS_OF_ENTRIES)
def test_a_fault_of_an_entry_is_told_with_its_line(section: str, entries: str):
    lines = [line for line in HEAD.splitlines() if not line.startswith(section)]
    lines.insert(["models", "tasks", "methods"].index(section), f"{section}: [{entries}]")
    assert FAULTS_OF_ENTRIES[section, entries] in fault("\n".join(lines))


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
            st.sampled_from(["name", "path", "steps", "metric", "sizes", "values", "x"]),
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
