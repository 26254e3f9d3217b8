from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import SPLITS, TaskError, get_task, load_dataset, split_of
from tasks.generation import draw
from tasks.splits import drawing_order

BUILT_IN = ("greater-than", "ioi", "sva")


def first(task, split, seed, n):
    drawn = draw(get_task(task), split, seed)
    return [next(drawn).clean for _ in range(n)]


@given(seeds=st.tuples(*[st.integers(0, 2**40)] * 3), task=st.sampled_from(BUILT_IN))
def test_splits_are_disjoint_whatever_the_seeds(seeds, task):
    prompts = [set(first(task, split, seed, 60)) for split, seed in zip(SPLITS, seeds, strict=True)]
    assert len(set.union(*prompts)) == 3 * 60


@given(seed=st.integers(), n=st.integers(0, 300))
def test_the_drawing_order_visits_every_index_once(seed, n):
    assert sorted(drawing_order(n, str(seed))) == list(range(n))


def test_the_drawing_order_is_uniform():
    firsts = Counter(next(drawing_order(5, f"seed {seed}")) for seed in range(5000))
    assert all(850 < firsts[index] < 1150 for index in range(5))


def test_seeds_draw_different_prompts():
    assert first("ioi", "train", 0, 20) != first("ioi", "train", 1, 20)


@pytest.mark.parametrize("task", BUILT_IN)
def test_no_prompt_is_drawn_twice(task):
    prompts = first(task, "validation", 0, 400)
    assert len(set(prompts)) == 400


def test_a_prompt_is_in_the_split_of_its_hash_and_shares_are_60_20_20():
    counts = Counter(split_of(f"prompt {number}") for number in range(10_000))
    assert abs(counts["train"] - 6000) < 200
    assert abs(counts["validation"] - 2000) < 200
    # fixed once and for all: a change here would let test prompts into trained models
    assert [split_of(text) for text in ("a", "b", "c", "d", "e")] == FIVE


FIVE = ["validation", "train", "train", "train", "train"]


def test_an_unknown_split_is_answered_with_the_nearest(words):
    with pytest.raises(TaskError, match="no split 'valid' here; did you mean 'validation'"):
        load_dataset("ioi", words, split="valid")
    with pytest.raises(TaskError, match="no split 'all'"):
        load_dataset("ioi", words, split="all")
