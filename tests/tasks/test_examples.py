import pickle

import pytest

from tasks import Dataset, Example, TaskError


def example(clean=(1, 2, 3), corrupted=(1, 4, 3), correct=(5,), incorrect=(6,), text="text"):
    return Example(text, "other", clean, corrupted, correct, incorrect)


def dataset(*examples, **changes):
    return Dataset(**{"name": "d", "split": "train", "seed": 0, "examples": examples, **changes})


@pytest.mark.parametrize(
    ("corrupted", "prefix"), [((9, 2, 3), 0), ((1, 4, 3), 1), ((1, 2, 9), 2), ((1, 2, 3), 3)]
)
def test_the_shared_prefix_ends_at_the_first_difference(corrupted, prefix):
    assert example(corrupted=corrupted).shared_prefix == prefix
    assert example(corrupted=corrupted).length == 3


def test_inputs_of_different_length_are_no_example():
    with pytest.raises(TaskError, match="one length above zero, not 3 and 2 tokens: 'text'"):
        example(corrupted=(1, 2))


@pytest.mark.parametrize(("correct", "incorrect"), [((), (1,)), ((1,), ()), ((1, 2), (2, 3))])
def test_answers_are_never_empty_and_never_overlap(correct, incorrect):
    with pytest.raises(TaskError, match="no token in common"):
        example(correct=correct, incorrect=incorrect)


def test_the_digest_covers_tokens_and_answers_in_order_and_nothing_else():
    one, two = example(), example(clean=(7, 8, 9))
    digest = dataset(one, two).digest
    renamed = dataset(example(text="renamed"), two, name="e", split="test", seed=9, task="t")
    assert renamed.digest == digest
    assert dataset(two, one).digest != digest
    assert dataset(one).digest != digest
    assert dataset(one, example(clean=(7, 8, 9), correct=(4,))).digest != digest
    # the same ids, cut differently into correct and incorrect
    cut = [
        dataset(example(correct=a, incorrect=b)).digest for a, b in [((5, 6), (7,)), ((5,), (6, 7))]
    ]
    assert cut[0] != cut[1]


def test_a_slice_is_a_dataset_and_an_index_an_example():
    whole = dataset(*(example(clean=(number, 2, 3)) for number in range(5)), task="ioi")
    assert whole[1:3].examples == whole.examples[1:3]
    assert (whole[1:3].task, len(whole[1:3])) == ("ioi", 2)
    assert whole[-1] == whole.examples[4]
    assert list(whole) == list(whole.examples)


def test_datasets_are_values_that_can_be_hashed_and_sent_to_another_process():
    whole = dataset(example(), dropped={"answer is not one token": 2})
    assert pickle.loads(pickle.dumps(whole)) == whole
    assert hash(whole) == hash(dataset(example(), dropped={}))
