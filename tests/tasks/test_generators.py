import os
import re
import subprocess
import sys

import pytest

from tasks import Combinations, Pair, TaskError, load_dataset, split_of
from tasks import ioi as ioi_file
from tasks.alignment import DIFFERENT_LENGTH, NOT_ONE_TOKEN
from tasks.generation import DEFAULT_SIZE
from tasks.registry import TASKS, task

BUILT_IN = ("greater-than", "ioi", "sva")


@pytest.fixture
def own_task():
    """Registers tasks for one test and takes them away after it."""
    before = dict(TASKS._entries), dict(TASKS._origins)
    yield task
    TASKS._entries, TASKS._origins = before


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_example_is_aligned_token_by_token(name, bpe):
    dataset = load_dataset(name, bpe, size=100)
    assert len(dataset) == 100
    for example in dataset:
        assert len(example.clean_tokens) == len(example.corrupted_tokens)
        assert bpe.decode(example.clean_tokens[1:]) == example.clean
        assert bpe.decode(example.corrupted_tokens[1:]) == example.corrupted
        assert 1 < example.shared_prefix < example.length


def test_pairs_that_the_tokenizer_splits_into_pieces_are_dropped_and_counted(bpe):
    dataset = load_dataset("ioi", bpe, size=100)
    assert set(dataset.dropped) <= {NOT_ONE_TOKEN, DIFFERENT_LENGTH}
    assert dataset.dropped[NOT_ONE_TOKEN] > 20
    answers = {token for example in dataset for token in (*example.correct, *example.incorrect)}
    assert all(bpe.decode([token]).strip() in ioi_file.NAMES for token in answers)
    assert len(answers) < len(ioi_file.NAMES)


def test_subjects_whose_plural_has_more_pieces_are_dropped_and_counted(bpe):
    dataset = load_dataset("sva", bpe, size=100)
    assert dataset.dropped[DIFFERENT_LENGTH] > 10


def test_ioi_answers_are_the_two_names_and_the_corrupted_prompt_swaps_them(words):
    orders = set()
    for example in load_dataset("ioi", words, size=200):
        [correct], [incorrect] = (
            [words.decode([token]) for token in tokens]
            for tokens in (example.correct, example.incorrect)
        )
        named = re.findall("|".join(rf"\b{name}\b" for name in ioi_file.NAMES), example.clean)
        assert sorted(named) == sorted([correct, incorrect, incorrect])
        assert named[-1] == incorrect
        named_when_corrupted = [*named[:-1], correct]
        assert named_when_corrupted == re.findall(
            "|".join(rf"\b{name}\b" for name in ioi_file.NAMES), example.corrupted
        )
        orders.add("ABBA" if named[0] == correct else "BABA")
    assert orders == {"ABBA", "BABA"}


def test_greater_than_answers_are_all_years_above_against_all_others(words):
    ids = words.get_vocab()
    for example in load_dataset("greater-than", words, size=50):
        year = int(re.search(r"from the year 17(\d\d) to the year 17$", example.clean)[1])
        assert example.corrupted == example.clean.replace(f"17{year:02d}", "1701")
        assert example.correct == tuple(ids[f"{other:02d}"] for other in range(year + 1, 100))
        assert example.incorrect == tuple(ids[f"{other:02d}"] for other in range(year + 1))


def test_sva_flips_the_number_of_the_subject_and_nothing_else(words):
    numbers = set()
    for example in load_dataset("sva", words, size=200):
        differing = [
            (clean, corrupted)
            for clean, corrupted in zip(
                example.clean.split(), example.corrupted.split(), strict=True
            )
            if clean != corrupted
        ]
        [(subject, flipped)] = differing
        plural = subject == f"{flipped}s"
        assert plural or flipped == f"{subject}s"
        correct = {words.decode([token]) for token in example.correct}
        assert correct == ({"are", "were", "have"} if plural else {"is", "was", "has"})
        numbers.add((plural, example.clean.endswith("s")))
    assert len(numbers) == 4


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_smaller_dataset_is_the_beginning_of_a_larger_one(name, words):
    small, large = (load_dataset(name, words, size=size, seed=3) for size in (7, 130))
    assert small.examples == large.examples[:7]
    assert small.digest == large[:7].digest != large.digest


def test_without_a_size_a_task_gives_the_default(words):
    assert len(load_dataset("sva", words)) == DEFAULT_SIZE


def test_rows_are_the_same_in_every_process(words, tmp_path):
    words.save_pretrained(tmp_path)
    script = (
        "import sys; from transformers import PreTrainedTokenizerFast; from tasks import *;"
        "tokenizer = PreTrainedTokenizerFast.from_pretrained(sys.argv[1]);"
        "print(*(load_dataset(name, tokenizer, 'test', 40, 5).digest for name in sys.argv[2:]))"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path), *BUILT_IN],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    here = [load_dataset(name, words, "test", 40, 5).digest for name in BUILT_IN]
    assert digests == {" ".join(here) + "\n"}


def test_a_tokenizer_with_single_digits_cannot_express_greater_than(digit_bpe):
    with pytest.raises(TaskError, match="cannot express the task greater-than") as error:
        load_dataset("greater-than", digit_bpe, size=10)
    assert f"dropped {NOT_ONE_TOKEN}: 2000" in str(error.value)
    assert "\n" not in str(error.value)


def test_asking_for_more_prompts_than_there_are_says_how_many(own_task, words):
    @own_task("lunch")
    def lunch():
        return [
            Pair(f"{a} and {b}", f"{b} and {a}", (f" {a}",), (f" {b}",))
            for a in ioi_file.NAMES[:30]
            for b in ioi_file.NAMES[:30]
            if a != b
        ]

    there = sum(split_of(pair.clean) == "validation" for pair in lunch())
    assert len(load_dataset("lunch", words, "validation", size=there)) == there
    with pytest.raises(TaskError, match=f"lunch has only {there} distinct prompts") as error:
        load_dataset("lunch", words, "validation", size=there + 1)
    assert f"{there + 1} were asked for" in str(error.value)


def test_a_size_below_one_is_refused(words):
    with pytest.raises(TaskError, match="size of at least 1, not 0"):
        load_dataset("ioi", words, size=0)


def test_a_task_of_ones_own_is_a_function_that_returns_pairs(own_task, words):
    @own_task("opposites", metric="prob-diff")
    def opposites():
        """Say the other name."""
        return [
            Pair(f"{a} and {b}. {a} and", f"{a} and {b}. {b} and", (f" {b}",), (f" {a}",))
            for a in ioi_file.NAMES
            for b in ioi_file.NAMES
            if a != b
        ]

    dataset = load_dataset("opposites", words, size=30)
    assert (len(dataset), dataset.task, dataset.dropped) == (30, "opposites", {})


def test_prompts_that_occur_twice_are_drawn_once(own_task, words):
    own_task("twice")(lambda: [Pair("Mary and", "John and", (" John",), (" Mary",))] * 5)
    with pytest.raises(TaskError, match="only 1 distinct prompts"):
        load_dataset("twice", words, split=split_of("Mary and"), size=2)


def test_combinations_are_the_cartesian_product_in_order():
    made = Combinations(lambda a, b: Pair(a, b, ("x",), ("y",)), "ab", "cde")
    assert len(made) == 6
    assert [(pair.clean, pair.corrupted) for pair in made] == [(a, b) for a in "ab" for b in "cde"]
    assert made[-1] == made[5]
    with pytest.raises(IndexError):
        made[6]
