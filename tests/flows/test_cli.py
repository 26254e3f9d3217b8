"""The command line as a stranger meets it: exit codes, sentences, a clean terminal, no waiting."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flows.config import GridConfig
from flows.run import Run
from flows.server import PrivateServer

CHATTER = ("Traceback", "prefect", "Prefect.", "Warning", "INFO", "ERROR", "flow run", "Flow run")
COMMANDS = ("run", "status", "query", "draw", "compare", "export", "schedule", "clean", "doctor")
HEAVY = ("torch", "transformer_lens", "transformers", "prefect", "duckdb", "pandas", "pyarrow")


def command(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "flows.cli", *map(str, arguments)]
    words += ["--runner", "inline"] if arguments[0] == "run" and "--runner" not in arguments else []
    root = Path(__file__).parents[2]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=cwd or root)


@pytest.fixture(scope="module")
def store(server: PrivateServer, speaker: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one finished and one failing task, made by the command itself."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "grid.yaml").write_text(
        f"name: cli\nmodels: [{speaker}]\ntasks: [ioi, greater-than]\n"
        "methods: [EAP, clean-corrupted]\nexamples: {train: 4, evaluate: 4}\nsizes: [0.2, 1.0]\n"
    )
    done = command("run", folder / "grid.yaml", "--store", folder / "store")
    (folder / "out").write_text(done.stdout)
    (folder / "err").write_text(done.stderr)
    assert done.returncode == 1, done.stdout + done.stderr
    return folder / "store"


def test_a_run_with_a_failing_cell_ends_with_1_and_tells_what_and_why(store: Path):
    out = (store.parent / "out").read_text()
    assert "2 of 4 cells failed:" in out
    assert "speaker · greater-than · EAP" in out
    assert "cannot express the task greater-than" in out
    assert "ioi" in out.split("CPR")[1].splitlines()[1]
    assert list((store / "drawings").glob("ioi-*-edges.svg"))


def test_nobody_but_the_grid_speaks_in_the_terminal(store: Path):
    said = (store.parent / "out").read_text() + (store.parent / "err").read_text()
    said = said.replace("starting Prefect …", "")
    assert [word for word in CHATTER if word in said] == []


def test_a_second_run_says_that_everything_was_reused(store: Path, speaker: Path):
    grid = store.parent / "ioi.yaml"
    text = (store.parent / "grid.yaml").read_text().replace("[ioi, greater-than]", "[ioi]")
    grid.write_text(text.replace("name: cli", "name: ioi"))
    done = command("run", grid, "--store", store)
    assert done.returncode == 0
    assert "Every stage was reused" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [[], *([name] for name in COMMANDS)],
    ids=lambda arguments: " ".join(arguments) or "alone",
)
def test_help_needs_nothing_heavy(arguments: list[str]):
    asked = [sys.executable, "-X", "importtime", "-m", "flows.cli", *arguments, "--help"]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in imported
    assert imported.isdisjoint(HEAVY)


def test_the_version_is_that_of_the_distribution():
    from importlib.metadata import version

    assert command("--version").stdout.strip() == f"circuit-grid {version('circuit-grid')}"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "nowhere.yaml"], "There is no grid file nowhere.yaml: check the path."),
        (["status", "--store", "nowhere"], "nowhere"),
        (["query", "--store", "nowhere", "leaderboard"], "nowhere"),
        (["draw", "--store", "nowhere"], "nowhere"),
        (["compare", "abcdef", "012345", "--store", "nowhere"], "nowhere"),
        (["compare", "a.json", "b.json"], "a.json: the file cannot be read"),
        (["compare", "a.gif", "b.json"], "a.gif: the ending '.gif' is none of a circuit file"),
        (["compare", "folder", "b.json"], "folder: the ending '' is none of a circuit file"),
        (["run", "folder"], "folder is a directory: name the grid file in it."),
        (["run", "map.yaml"], "line 1: `models` must be a list, a line `- …` for each"),
        (
            ["schedule", "grid.yaml", "--every", "1h"],
            "a schedule needs a Prefect server that stays",
        ),
        (["export", "abcdef", "-o", "x.json", "--store", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_gets_one_sentence_and_exit_code_2(
    arguments: list[str], sentence: str, tmp_path: Path
):
    (tmp_path / "folder").mkdir()
    grid = "models: [bundled/behaviours]\ntasks: [ioi]\nmethods: [EAP]\n"
    (tmp_path / "grid.yaml").write_text(grid)
    (tmp_path / "map.yaml").write_text(grid.replace("[bundled/behaviours]", "{a: b}"))
    before = sorted(tmp_path.rglob("*"))
    settings = {"PYTHONPATH": str(Path(__file__).parents[2])}
    settings |= {"PREFECT_PROFILES_PATH": str(tmp_path / "none.toml")}
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"} | settings,
    )
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_wrong_grid_lists_its_faults_before_any_work(tmp_path: Path):
    (tmp_path / "grid.yaml").write_text("models: [gpt2]\ntasks: [oi]\nmethods: [EPA]\n")
    done = command("run", tmp_path / "grid.yaml", "--store", tmp_path / "store")
    assert done.returncode == 2
    assert "line 2: unknown task `oi`; did you mean `ioi`?" in done.stderr
    assert "line 3: unknown method `EPA`; did you mean `EAP`?" in done.stderr
    assert not (tmp_path / "store").exists()


def test_a_prefect_server_that_does_not_answer_is_told_in_a_sentence(
    speaker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "grid.yaml").write_text(f"models: [{speaker}]\ntasks: [ioi]\nmethods: [EAP]\n")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    done = command("run", tmp_path / "grid.yaml", "--store", tmp_path / "store")
    assert done.returncode == 2
    assert "nothing answers at http://127.0.0.1:9/api" in done.stderr
    assert "Traceback" not in done.stderr


def test_status_counts_stages_and_repeats_failures(store: Path):
    done = command("status", "--store", store)
    assert done.returncode == 0
    assert "cannot express the task greater-than" in done.stdout
    scores = next(line for line in done.stdout.splitlines() if line.startswith("scores"))
    assert scores.split()[1:4] == ["2", "2", "0"]  # done, missing, failed


def test_status_of_a_grid_s_file_is_about_that_grid_and_watching_ends_when_it_is_done(store: Path):
    grid = store.parent / "half.yaml"
    text = (store.parent / "grid.yaml").read_text().replace("[ioi, greater-than]", "[ioi]")
    grid.write_text(text.replace("name: cli", "name: half"))
    done = command("status", grid, "--watch", "--every", "0.2", "--store", store)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()  # no other grid, and none of its failures
    assert line.endswith("half: finished")
    grid.write_text(grid.read_text().replace("train: 4", "train: 6"))
    done = command("status", grid, "--store", store)
    scores = next(line for line in done.stdout.splitlines() if line.startswith("scores"))
    assert scores.split()[1:3] == ["0", "2"]  # done, missing


def test_query_without_a_question_lists_what_can_be_asked(store: Path):
    out = command("query", "--store", store).stdout
    assert "leaderboard" in out
    assert "benchmark" in out


def test_query_answers_in_three_forms(store: Path):
    sql = "SELECT task, method, cpr FROM leaderboard ORDER BY method"
    answers = {
        form: command("query", sql, "--format", form, "--store", store).stdout
        for form in ("table", "csv", "json")
    }
    rows = json.loads(answers["json"])
    assert [row["method"] for row in rows] == ["EAP", "clean-corrupted"]
    read = list(csv.DictReader(io.StringIO(answers["csv"])))
    assert [float(row["cpr"]) for row in read] == [row["cpr"] for row in rows]
    assert "2 rows" in answers["table"]


def test_query_takes_parameters_and_explains_wrong_ones(store: Path):
    done = command("query", "top-edges", "task=ioi", "n=3", "--format", "json", "--store", store)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 6  # three edges of two methods
    assert command("query", "top-edges", "nonsense=1", "--store", store).returncode == 2
    assert command("query", "top-edgs", "--store", store).returncode == 2
    wrong = command("query", "DELETE FROM models", "--store", store)
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr


def test_draw_finds_a_circuit_by_what_it_is(store: Path, tmp_path: Path):
    for ending in ("svg", "png", "dot"):
        file = tmp_path / f"circuit.{ending}"
        done = command(
            *("draw", "--task", "ioi", "--method", "EAP", "--size", "0.2"),
            *("-o", file, "--store", store),
        )
        assert done.returncode == 0, done.stderr
        assert file.stat().st_size > 500
    sql = "SELECT circuit FROM circuits LIMIT 1"
    (row,) = json.loads(command("query", sql, "--format", "json", "--store", store).stdout)
    by_id = command("draw", row["circuit"][:10], "-o", tmp_path / "x.svg", "--store", store)
    assert by_id.returncode == 0


def test_draw_lists_the_candidates_where_several_are_meant(store: Path, tmp_path: Path):
    done = command("draw", "--task", "ioi", "-o", tmp_path / "x.svg", "--store", store)
    assert done.returncode == 2
    assert "4 circuits have task ioi; say which by an id, or by --model, --method" in done.stderr
    assert "clean-corrupted" in done.stderr
    assert not (tmp_path / "x.svg").exists()
    nodes = command("draw", "--level", "node", "-o", tmp_path / "x.svg", "--store", store)
    assert "no circuit has level node (there are level: edge)" in nodes.stderr
    none = command("draw", "--task", "oi", "-o", tmp_path / "x.svg", "--store", store)
    assert "no circuit has task oi (there are task: ioi)" in none.stderr
    wrong = command("draw", "--size", "some", "--store", store)
    assert (wrong.returncode, wrong.stderr.split(":")[0]) == (2, "there is no size 'some'")
    units = command("draw", "--method", "EAP", "--size", "1", "--store", store)  # not all of them
    assert "no circuit has method EAP and size 1 (there are" in units.stderr
    ending = command("draw", "--method", "EAP", "--size", "1.0", "-o", "x.gif", "--store", store)
    assert ending.returncode == 2


def ids(store: Path, sql: str) -> list[str]:
    rows = json.loads(command("query", sql, "--format", "json", "--store", store).stdout)
    return [next(iter(row.values())) for row in rows]


def test_compare_sets_circuits_and_their_scores_side_by_side(store: Path, tmp_path: Path):
    circuits = ids(store, "SELECT circuit FROM circuit_sizes WHERE size_asked = 0.2 ORDER BY label")
    assert len(circuits) == 2
    done = command("compare", circuits[0][:12], circuits[1], "--store", store)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0].startswith("first   ioi · speaker · EAP · top-n")
    assert said[1].startswith("second  ioi · speaker · clean-corrupted · top-n")
    answer = command("compare", *circuits, "--format", "json", "--store", store)
    found = {(row["of"], row["measure"]): row["value"] for row in json.loads(answer.stdout)}
    sql = (
        "SELECT n_units, other_n_units, n_shared, expected, p_value, jaccard_edges, jaccard_nodes"
        " FROM circuit_overlap WHERE size_asked = 0.2"
    )
    stored = json.loads(command("query", sql, "--format", "json", "--store", store).stdout)[0]
    assert found["circuits", "edges shared"] == stored["n_shared"]
    assert found["circuits", "edges shared by chance"] == pytest.approx(stored["expected"])
    assert found["circuits", "p-value"] == pytest.approx(stored["p_value"])
    assert found["circuits", "Jaccard index of edges"] == stored["jaccard_edges"]
    assert {of for of, _ in found} == {"circuits", "scores", "profiles"}


def test_an_exported_circuit_is_the_stored_one_in_every_format(store: Path, tmp_path: Path):
    (circuit,) = ids(
        store, "SELECT circuit FROM circuit_sizes WHERE label = 'EAP' AND size_asked = 0.2"
    )
    edges = ids(store, f"SELECT edge FROM circuit_edges WHERE circuit = '{circuit}'")
    for ending in ("json", "pt", "graphml"):
        file = tmp_path / f"circuit.{ending}"
        done = command("export", circuit[:10], "-o", file, "--store", store)
        assert done.returncode == 0, done.stderr
        again = command("compare", file, circuit, "--format", "json", "--store", store)
        assert again.returncode == 0, again.stderr
        found = {(row["of"], row["measure"]): row["value"] for row in json.loads(again.stdout)}
        assert found["circuits", "Jaccard index of edges"] == 1
        assert found["circuits", "edges of the second"] == len(edges)
        assert found["scores", "weighted IoU"] == pytest.approx(1)
    command("export", circuit, "-o", tmp_path / "circuit.csv", "--store", store)
    with (tmp_path / "circuit.csv").open() as file:
        assert {row["edge"] for row in csv.DictReader(file)} == set(edges)
    wrong = command("export", circuit, "-o", tmp_path / "circuit.gif", "--store", store)
    assert wrong.returncode == 2
    assert "must end in .json, .pt, .graphml or .csv" in wrong.stderr


def test_exported_scores_are_the_stored_ones_and_make_a_submission(store: Path, tmp_path: Path):
    (scores,) = ids(store, "SELECT scores FROM attributions WHERE label = 'EAP'")
    stored = ids(store, f"SELECT score FROM scores WHERE scores = '{scores}' ORDER BY unit_id")
    for ending in ("json", "pt"):
        file = tmp_path / f"scores.{ending}"
        assert command("export", scores, "-o", file, "--store", store).returncode == 0
        from circuits.interchange import load_circuit_file

        assert load_circuit_file(file).scores.unit_values.tolist() == stored
    done = command("export", scores, "-o", tmp_path / "submission", "--store", store)
    assert done.returncode == 0, done.stderr
    from circuits.interchange import load_submission

    (found,) = load_submission(tmp_path / "submission")
    assert (found.task, found.model) == ("ioi", "speaker")
    assert found.imported.scores.unit_values.tolist() == stored
    again = command("export", scores, "-o", tmp_path / "submission", "--store", store)
    assert again.returncode == 2
    assert "is already there" in again.stderr
    graph = command("export", scores, "-o", tmp_path / "scores.graphml", "--store", store)
    assert graph.returncode == 2


def test_compare_says_what_it_cannot_compare(store: Path, tmp_path: Path):
    (scores,) = ids(store, "SELECT scores FROM attributions WHERE label = 'EAP'")
    none = command("compare", "00000000", scores, "--store", store)
    assert none.returncode == 2
    assert "no circuit and no scores have an id that begins with '00000000'" in none.stderr
    circuits = ids(store, "SELECT circuit FROM circuits ORDER BY circuit")
    alike = command("compare", "", scores, "--store", store)
    assert alike.returncode == 2
    mixed = command("compare", scores, circuits[0], "--store", store)
    assert mixed.returncode == 0  # the circuit's own scores beside the others
    assert "circuits" not in {line.split()[0] for line in mixed.stdout.splitlines()[3:] if line}


def test_the_report_names_best_rows_first(
    grid: Callable[..., GridConfig], run: Callable[[GridConfig, Path], Run], store: Path
):
    from data import Catalog
    from flows.leaderboard import rows_of_run

    done = run(grid(methods="[EAP, clean-corrupted]", name="report"), store)
    rows = rows_of_run(Catalog(done.bench.store), done.outcome.products.values())
    assert len(rows) == 2  # not those of the other grids in the store
    assert rows[0]["cpr"] >= rows[1]["cpr"]


def test_a_table_too_wide_for_its_terminal_keeps_every_word():
    import pyarrow as pa
    from rich.console import Console

    from flows.asking import show_rows

    numbers = {f"measure_{i}": pa.array([0.123456, 0.2, 0.3]) for i in range(12)}
    rows = pa.table({"task": ["ioi", "sva", "gt"], "method": ["EAP", "exact", "random"]} | numbers)
    out = io.StringIO()
    show_rows(rows.slice(0, 2), "table", Console(file=out, width=80))
    words = out.getvalue().split()
    assert {"ioi", "sva", "EAP", "exact"} <= set(words)
    assert words.count("0.1235") == words.count("0.2") == 12
    show_rows(rows.slice(0, 0), "table", Console(file=out, width=80))
    assert out.getvalue().endswith("0 rows\n")


def test_a_value_that_nothing_has_is_said(store: Path):
    done = command("query", "circuit", "circuit=zz", "--store", store)
    assert "0 rows" in done.stdout
    assert "nothing in the store fits circuit=zz (id of the circuit, or how it be" in done.stderr
    done = command("query", "sizes", "task=iio", "--store", store)
    assert "nothing in the store fits task=iio\n" in done.stderr


def test_drawing_without_a_word_says_what_there_is_to_choose_from(store: Path):
    done = command("draw", "--store", store)
    assert done.returncode == 2
    assert done.stderr.startswith("there are ")
    assert " circuits; say which by an id, or by --model, --task, --method, --lev" in done.stderr


def test_pairs_that_are_left_out_are_said(store: Path, tmp_path: Path):
    names = "[truth/induction, truth/gate]"
    (tmp_path / "truths.yaml").write_text(
        f"name: truths\nmodels: {names}\ntasks: {names}\nmethods: [random]\n"
        "examples: {train: 2, evaluate: 2}\nsizes: [0.5, 1.0]\n"
    )
    done = command("run", tmp_path / "truths.yaml", "--store", tmp_path / "store")
    assert done.returncode == 0
    assert "left out  2 of 4 pairs of a model and a task: a model truth/" in done.stdout
