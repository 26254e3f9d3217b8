import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import Pair, TaskError, load_dataset, rule, split_of
from tasks.alignment import DIFFERENT_LENGTH, Aligner
from tasks.files import REPEATED
from tasks.rules import RULES

MARY = "When Mary and John went to the store, John gave a book to"
JOHN = "When Mary and John went to the store, Mary gave a book to"
TOM = "When Tom and Alice went to the park, Alice gave a ring to"
ALICE = "When Tom and Alice went to the park, Tom gave a ring to"
TEXT_ROWS = [
    {"clean": MARY, "corrupted": JOHN, "correct": " Mary", "incorrect": " John"},
    {"clean": TOM, "corrupted": ALICE, "correct": " Tom", "incorrect": " Alice"},
]


def write(path, rows):
    """Write rows in the format of the path's ending; lists become JSON in CSV."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        import csv

        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            for row in rows:
                writer.writerow(
                    {k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()}
                )
    return path


def expected(words):
    return tuple(
        Aligner(words).align(
            Pair(row["clean"], row["corrupted"], (row["correct"],), (row["incorrect"],))
        )
        for row in TEXT_ROWS
    )


def with_answers(make):
    return [{"clean": r["clean"], "corrupted": r["corrupted"], **make(r)} for r in TEXT_ROWS]


WAYS = {
    "texts": lambda ids, row: {"correct": row["correct"], "incorrect": row["incorrect"]},
    "lists of texts": lambda ids, row: {
        "correct": [row["correct"]],
        "incorrect": [row["incorrect"]],
    },
    "ids": lambda ids, row: {
        "correct_idx": ids[row["correct"].strip()],
        "incorrect_idx": ids[row["incorrect"].strip()],
    },
    "lists of ids": lambda ids, row: {
        "correct_idx": [ids[row["correct"].strip()]],
        "incorrect_idx": [ids[row["incorrect"].strip()]],
    },
    "answer_ids": lambda ids, row: {
        "answer_ids": [ids[row["correct"].strip()], ids[row["incorrect"].strip()]]
    },
    "answer_ids of lists": lambda ids, row: {
        "answer_ids": [[ids[row["correct"].strip()]], [ids[row["incorrect"].strip()]]]
    },
}


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("way", WAYS)
def test_every_format_and_every_way_of_naming_answers_gives_the_same_examples(
    words, tmp_path, ending, way
):
    ids = words.get_vocab()
    rows = with_answers(lambda row: WAYS[way](ids, row))
    dataset = load_dataset(write(tmp_path / f"names{ending}", rows), words, split="all")
    assert dataset.examples == expected(words)
    assert (dataset.task, dataset.seed, dataset.dropped) == ("names", None, {})


def test_several_answers_a_side_are_kept_in_order(words, tmp_path):
    rows = [{"clean": MARY, "corrupted": JOHN, "correct_idx": [9, 7], "incorrect_idx": [8]}]
    [example] = load_dataset(write(tmp_path / "a.csv", rows), words, split="all")
    assert (example.correct, example.incorrect) == ((9, 7), (8,))


def test_greater_than_labels_become_years_above_and_not_above(words, tmp_path):
    prompt = "The war lasted from the year 17{} to the year 17"
    rows = [
        {"clean": prompt.format(year), "corrupted": prompt.format("01"), "label": label}
        for year, label in (("41", "41"), ("05", "5"))
    ]
    dataset = load_dataset(
        write(tmp_path / "years.csv", rows), words, split="all", rule="greater-than"
    )
    years = [[words.decode([t]) for t in example.correct] for example in dataset]
    assert years[0] == [f"{year:02d}" for year in range(42, 100)]
    assert years[1] == [f"{year:02d}" for year in range(6, 100)]
    assert len(dataset[0].incorrect) == 42


@pytest.mark.parametrize("label", [1, 1.0, "plural"])
def test_number_labels_become_verbs_that_agree(words, tmp_path, label):
    rows = [{"clean": "The keys near the table", "corrupted": "The key near the table"}]
    path = write(tmp_path / "numbers.parquet", [{**rows[0], "label": label}])
    [example] = load_dataset(path, words, split="all", rule="number-agreement")
    assert [words.decode([t]) for t in example.correct] == ["are", "were", "have"]
    assert [words.decode([t]) for t in example.incorrect] == ["is", "was", "has"]


def test_a_rule_of_ones_own_is_registered_by_a_decorator(words, tmp_path):
    @rule("first-of-two")
    def first_of_two(label):
        first, second = label.split("/")
        return (f" {first}",), (f" {second}",)

    try:
        rows = [{"clean": MARY, "corrupted": JOHN, "label": "Mary/John"}]
        path = write(tmp_path / "a.jsonl", rows)
        dataset = load_dataset(path, words, split="all", rule="first-of-two")
        assert dataset.examples == expected(words)[:1]
    finally:
        del RULES._entries["first-of-two"], RULES._origins["first-of-two"]


def many(n=200):
    names = ["Mary", "John", "Tom", "Alice", "Emma", "Paul", "Mark", "Anna", "Rose", "Adam"]
    rows = []
    for first in names:
        for second in names:
            for place in ("store", "park", "beach"):
                if first != second:
                    text = f"{first} and {second} met at the {place}, and {{}} gave a book to"
                    rows.append(
                        {
                            "clean": text.format(second),
                            "corrupted": text.format(first),
                            "correct": f" {first}",
                            "incorrect": f" {second}",
                        }
                    )
    return rows[:n]


def test_without_a_split_column_rows_fall_to_splits_by_their_prompt(words, tmp_path):
    path = write(tmp_path / "many.csv", many())
    splits = {
        split: [example.clean for example in load_dataset(path, words, split=split)]
        for split in ("train", "validation", "test", "all")
    }
    assert splits["all"] == [row["clean"] for row in many()]
    for split in ("train", "validation", "test"):
        assert splits[split] == [text for text in splits["all"] if split_of(text) == split]
        assert splits[split]


def test_a_split_column_is_honoured(words, tmp_path):
    rows = [{**row, "split": ("train", "mine")[i]} for i, row in enumerate(TEXT_ROWS)]
    path = write(tmp_path / "a.csv", rows)
    assert load_dataset(path, words, split="train").examples == expected(words)[:1]
    assert load_dataset(path, words, split="mine").examples == expected(words)[1:]
    assert load_dataset(path, words, split="all").examples == expected(words)
    with pytest.raises(TaskError, match=r"no split 'test' here .*choose from train, mine, all"):
        load_dataset(path, words, split="test")


def test_a_size_draws_rows_by_the_seed(words, tmp_path):
    path = write(tmp_path / "many.jsonl", many())
    one, again, other = (
        load_dataset(path, words, split="all", size=20, seed=seed) for seed in (1, 1, 2)
    )
    assert one == again
    assert one.examples != other.examples
    assert len({example.clean for example in one}) == 20
    larger = load_dataset(path, words, split="all", size=50, seed=1)
    assert larger.examples[:20] == one.examples


def test_rows_that_cannot_be_aligned_or_repeat_are_dropped_and_counted(words, tmp_path):
    longer = {**TEXT_ROWS[0], "corrupted": "Mary gave a book to"}
    path = write(tmp_path / "a.jsonl", [TEXT_ROWS[0], longer, TEXT_ROWS[0], TEXT_ROWS[1]])
    dataset = load_dataset(path, words, split="all")
    assert dataset.examples == expected(words)
    assert dataset.dropped == {DIFFERENT_LENGTH: 1, REPEATED: 1}


def test_a_byte_order_mark_and_blank_lines_are_no_rows(words, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        f'\ufeffclean,corrupted,correct,incorrect\n"{MARY}","{JOHN}", Mary, John\n\n',
        encoding="utf-8",
    )
    assert load_dataset(path, words, split="all").examples == expected(words)[:1]


def malformed(rows_or_text, ending, match, **options):
    return pytest.param(rows_or_text, ending, match, options, id=match[:40])


def test_a_file_without_counterfactuals_is_one(tmp_path, words):
    """Zero and mean interventions need none; a misspelt column is no missing one."""
    rows = [{k: v for k, v in row.items() if k != "corrupted"} for row in TEXT_ROWS]
    path = tmp_path / "clean.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = load_dataset(path, words, split="all")
    assert len(dataset) == len(rows)
    for example, row in zip(dataset, rows, strict=True):
        assert example.clean == row["clean"]
        assert (example.corrupted, example.corrupted_tokens) == ("", ())
        assert not example.has_counterfactual
    path.write_text("".join(json.dumps(row | {"corupted": MARY}) + "\n" for row in rows))
    with pytest.raises(TaskError, match="no column 'corrupted'; did you mean 'corupted'"):
        load_dataset(path, words, split="all")


ROW = {"clean": MARY, "corrupted": JOHN}
IDS = {**ROW, "correct_idx": 3, "incorrect_idx": 4}


@pytest.mark.parametrize(
    ("content", "ending", "match", "options"),
    [
        malformed(
            [{"claen": MARY, "corrupted": JOHN}], ".csv", "no column 'clean'; did you mean 'claen'"
        ),
        malformed([ROW], ".csv", "has no answers: it needs correct_idx"),
        malformed([{**ROW, "correct": " Mary"}], ".csv", "no column 'incorrect'"),
        malformed([{**IDS, "answer_ids": [1, 2]}], ".csv", "more than one way"),
        malformed(
            [{**ROW, "label": 41}], ".csv", "pass rule= one of greater-than, number-agreement"
        ),
        malformed(
            [{**ROW, "label": 41}], ".csv", "no label rule 'greater'; did you mean", rule="greater"
        ),
        malformed([IDS], ".csv", "no column 'label'", rule="greater-than"),
        malformed(
            [{**ROW, "label": 99}],
            ".csv",
            "a.csv, line 2: the label '99' is no two-digit",
            rule="greater-than",
        ),
        malformed(
            [{**ROW, "label": "two"}],
            ".csv",
            "line 2: the label 'two' is neither",
            rule="number-agreement",
        ),
        malformed("", ".csv", "has no rows"),
        malformed("clean,corrupted\n", ".csv", "has no rows"),
        malformed("", ".jsonl", "has no rows"),
        malformed("clean,clean\na,b\n", ".csv", "two columns of one name"),
        malformed("clean,corrupted\na,b,c\n", ".csv", "line 2: 3 cells in a file of 2 columns"),
        malformed('clean,corrupted\n"a,b\n', ".csv", "line 2: not valid CSV"),
        malformed('{"clean": "a"}\n{"clean": \n', ".jsonl", "line 2: not valid JSON"),
        malformed(
            "[1, 2]\n", ".jsonl", "line 1: a JSON list where each line must be one JSON object"
        ),
        malformed("no parquet", ".parquet", "is not valid Parquet"),
        malformed(b"clean,corrupted\n\xff\xfe,b\n", ".csv", "is not UTF-8 text"),
        malformed(b'{"clean": "\xe9"}\n', ".jsonl", "is not UTF-8 text"),
        malformed("clean\ta\n", ".tsv", "ends in none of .csv, .jsonl, .parquet"),
        malformed([{**IDS, "clean": ""}], ".csv", "line 2: the cell 'clean' is empty"),
        malformed([{**IDS, "clean": "  "}], ".csv", "line 2: the cell 'clean' is empty"),
        malformed(
            [IDS, {**IDS, "corrupted": None}], ".jsonl", "line 2: the cell 'corrupted' is empty"
        ),
        malformed(
            [IDS, {"clean": MARY, "correct_idx": 3}],
            ".jsonl",
            "line 2: the cell 'corrupted' is empty",
        ),
        malformed([{**IDS, "clean": 7}], ".jsonl", "line 1: 'clean' must be text, not int 7"),
        malformed(
            [IDS, {**IDS, "correct_idx": float("nan")}],
            ".parquet",
            "row 2: the cell 'correct_idx' is empty",
        ),
        malformed(
            [{**IDS, "correct_idx": []}], ".jsonl", "line 1: the cell 'correct_idx' is empty"
        ),
        malformed(
            [{**IDS, "correct_idx": 10**6}],
            ".csv",
            "line 2: 'correct_idx' holds the token id 1000000",
        ),
        malformed(
            [{**IDS, "correct_idx": -1}], ".csv", "line 2: 'correct_idx' holds the token id -1"
        ),
        malformed(
            [{**IDS, "incorrect_idx": [1, 10**6]}],
            ".csv",
            "'incorrect_idx' holds the token id 1000000",
        ),
        malformed(
            [{**IDS, "incorrect_idx": 3}],
            ".csv",
            r"the token ids \[3\] are both correct and incorrect",
        ),
        malformed(
            [{**IDS, "correct_idx": "Mary"}],
            ".csv",
            "must be a token id or a list of them, not 'Mary'",
        ),
        malformed(
            [{**IDS, "correct_idx": 3.5}],
            ".parquet",
            "must be a token id or a list of them, not 3.5",
        ),
        malformed(
            [{**IDS, "correct_idx": True}],
            ".jsonl",
            "must be a token id or a list of them, not True",
        ),
        malformed(
            [{**IDS, "correct_idx": "[1, "}], ".csv", "looks like a list but is not valid JSON"
        ),
        malformed([{**ROW, "answer_ids": [1, 2, 3]}], ".csv", r"must be \[correct, incorrect\]"),
        malformed([{**ROW, "answer_ids": 5}], ".csv", r"must be \[correct, incorrect\]"),
        malformed([{**ROW, "answer_ids": [[], 5]}], ".jsonl", "'answer_ids' holds an empty list"),
        malformed(
            [{**ROW, "correct": 5, "incorrect": 6}],
            ".jsonl",
            "'correct' must be text or a list of it",
        ),
        malformed(
            [IDS], ".csv", "only 1 usable rows in the split 'all', and 2 were asked for", size=2
        ),
        malformed(
            [{**TEXT_ROWS[0], "correct": " Xerxes"}],
            ".csv",
            r"no usable row in the split 'all' .*\(dropped answer is not one token: 1\)",
        ),
        malformed([IDS], ".csv", "no split 'trian' here; did you mean 'train'", split="trian"),
        malformed(
            [{**IDS, "split": ""}], ".csv", "line 2: the cell 'split' is empty", split="train"
        ),
    ],
)
def test_malformed_files_are_told_by_file_and_row(words, tmp_path, content, ending, match, options):
    path = tmp_path / f"a{ending}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        write(path, content)
    with pytest.raises(TaskError, match=match) as error:
        load_dataset(path, words, **{"split": "all", **options})
    assert "\n" not in str(error.value)


def test_a_split_into_which_no_row_falls_is_told(words, tmp_path):
    path = write(tmp_path / "a.csv", TEXT_ROWS[:1])
    other = next(split for split in ("train", "test") if split != split_of(MARY))
    with pytest.raises(TaskError, match=f"no row in the split '{other}' .* take split='all'"):
        load_dataset(path, words, split=other)


def test_a_file_that_is_not_there_and_a_directory_are_told_apart(words, tmp_path):
    with pytest.raises(TaskError, match=r"none\.csv does not exist"):
        load_dataset(str(tmp_path / "none.csv"), words)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(TaskError, match=r"folder\.csv is a directory"):
        load_dataset(tmp_path / "folder.csv", words)


def test_a_rule_for_a_task_is_refused(words):
    with pytest.raises(TaskError, match="sva is a task with answers of its own"):
        load_dataset("sva", words, rule="number-agreement")
