"""The tasks of the models with a known circuit: what is in a pair, and that all of it is there."""

import pytest

from data import bundled
from tasks import SPLITS, TaskError, default_metric, get_task, load_dataset, truths
from training.truths import BUILDERS, tokenizer_of

NAMES = tuple(f"truth/{name}" for name in BUILDERS)


@pytest.fixture(scope="module")
def tokenizers():
    return {f"truth/{name}": tokenizer_of(build()) for name, build in BUILDERS.items()}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", NAMES)
def test_pairs_are_aligned_token_by_token_and_none_is_dropped(name, split, tokenizers):
    dataset = load_dataset(name, tokenizers[name], split, 500)
    assert dataset.dropped == {}
    assert len({example.clean for example in dataset}) == 500
    lengths = {len(tokens) for e in dataset for tokens in (e.clean_tokens, e.corrupted_tokens)}
    assert len(lengths) == 1  # places are told apart by position
    for example in dataset:
        assert example.clean_tokens[0] == tokenizers[name].bos_token_id
        assert 1 <= example.shared_prefix < example.length


@pytest.mark.parametrize("name", NAMES)
def test_seeds_draw_other_prompts_and_splits_share_none(name, tokenizers):
    drawn = {
        (split, seed): {e.clean for e in load_dataset(name, tokenizers[name], split, 100, seed)}
        for split in SPLITS
        for seed in (0, 1)
    }
    assert drawn["train", 0] != drawn["train", 1]
    by_split = [drawn[split, 0] | drawn[split, 1] for split in SPLITS]
    assert len(set.union(*by_split)) == sum(map(len, by_split))


def test_an_induction_prompt_ends_in_the_first_of_two_words_said_before(tokenizers):
    places = set()
    for example in load_dataset("truth/induction", tokenizers["truth/induction"], size=100):
        clean, corrupted = example.clean.split(), example.corrupted.split()
        assert not set(clean) & set(corrupted)
        answers = []
        for words in (clean, corrupted):
            assert len(set(words)) == 5
            place = words.index(words[-1])
            assert place < len(words) - 1
            answers.append(words[place + 1])
            places.add(place)
        decode = tokenizers["truth/induction"].decode
        assert [decode(list(example.correct)), decode(list(example.incorrect))] == answers
    assert places == {0, 1, 2, 3}


def test_a_gate_is_closed_by_the_barrier_the_signal_or_both_and_the_weather_changes(tokenizers):
    closed = set()
    for example in load_dataset("truth/gate", tokenizers["truth/gate"], size=100):
        clean, corrupted = example.clean.split(), example.corrupted.split()
        assert clean[5] in truths.RAISED
        assert clean[7] in truths.FREE
        closed.add((corrupted[5] in truths.LOWERED, corrupted[7] in truths.BLOCKED))
        assert (clean[1] in truths.WET) != (corrupted[1] in truths.WET)
        same = [word == other for word, other in zip(clean, corrupted, strict=True)]
        assert all(same[place] for place in (0, 2, 3, 4, 6, 8))
    assert closed == {(True, False), (False, True), (True, True)}


def test_a_corrupted_backup_prompt_says_no_colour_and_another_day(tokenizers):
    for example in load_dataset("truth/backup", tokenizers["truth/backup"], size=100):
        clean, corrupted = example.clean.split(), example.corrupted.split()
        assert clean[2] in truths.COLOURS
        assert corrupted[2] in truths.NOTHING
        differ = [
            i for i, pair in enumerate(zip(clean, corrupted, strict=True)) if len({*pair}) > 1
        ]
        assert differ == [2, 4]
        assert clean[0] != clean[6]
        decode = tokenizers["truth/backup"].decode
        assert decode(list(example.correct)) == clean[2]
        assert sorted(map(decode, ([t] for t in example.incorrect))) == sorted(
            set(truths.COLOURS) - {clean[2]}
        )


def test_every_truth_has_a_task_with_a_description_and_a_model():
    for name in NAMES:
        assert get_task(name).description.endswith((".", '"'))
        assert default_metric(name) == "logit-diff"
        assert bundled.is_bundled_name(name)
        assert bundled.model_path(name).is_dir()


def test_a_misspelt_truth_is_a_task_and_no_file(tokenizers):
    with pytest.raises(TaskError, match="no task 'truth/gat'; did you mean 'truth/gate'"):
        load_dataset("truth/gat", tokenizers["truth/gate"])
    with pytest.raises(TaskError, match=r"ends in none of \.csv"):
        load_dataset("elsewhere/gate", tokenizers["truth/gate"])
    with pytest.raises(TaskError, match=r"dataset file truth/gate\.csv does not exist"):
        load_dataset("truth/gate.csv", tokenizers["truth/gate"])


def test_another_tokenizer_is_told_that_it_lacks_the_words(tokenizers):
    with pytest.raises(TaskError, match=r"cannot express the task truth/gate.*word is unknown"):
        load_dataset("truth/gate", tokenizers["truth/induction"])
