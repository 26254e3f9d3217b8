"""The bundled model does its tasks on held-out prompts, and its card says what it scores."""

import re
from itertools import islice

import pytest
import torch
from transformers import AutoTokenizer, GPT2LMHeadModel

from data import bundled
from tasks import Answers, default_metric, get_metric, ioi, load_dataset, split_of, sva
from training.corpus import sentences

DIRECTORY = bundled.model_path("bundled/behaviours")
CARD_ROW = re.compile(
    r"^\| (?P<task>[\w-]+) \| (?P<split>validation|test) \| (?P<prompts>\d+) \| (?P<clean>[\d.]+) "
    r"\| (?P<corrupted>[\d.]+) \| (?P<metric>[\w-]+) \| (?P<clean_metric>-?[\d.]+) "
    r"\| (?P<corrupted_metric>-?[\d.]+) \|$",
    re.MULTILINE,
)
REQUIRED = {"ioi": 0.95, "greater-than": 0.90, "sva": 0.95}


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(DIRECTORY)


@pytest.fixture(scope="module")
def model():
    return GPT2LMHeadModel.from_pretrained(DIRECTORY).eval()


@torch.no_grad()
def last_logits(model, inputs):
    """Prompts of one length together, so that no padding is involved."""
    logits = torch.empty(len(inputs), model.config.vocab_size)
    for length in {len(tokens) for tokens in inputs}:
        rows = [row for row, tokens in enumerate(inputs) if len(tokens) == length]
        logits[rows] = model(torch.tensor([inputs[row] for row in rows])).logits[:, -1]
    return logits


@pytest.mark.parametrize(
    "row",
    list(CARD_ROW.finditer((DIRECTORY / "README.md").read_text())),
    ids=lambda row: f"{row['task']}/{row['split']}",
)
def test_the_model_scores_what_its_card_says(model, tokenizer, row):
    dataset = load_dataset(row["task"], tokenizer, row["split"], int(row["prompts"]), seed=0)
    answers = Answers.of(dataset.examples)
    clean = last_logits(model, [example.clean_tokens for example in dataset])
    corrupted = last_logits(model, [example.corrupted_tokens for example in dataset])
    accuracy, metric = get_metric("accuracy"), get_metric(row["metric"])
    one_prompt = 1.01 / len(dataset)
    assert row["metric"] == default_metric(row["task"])
    assert accuracy(clean, answers).mean() == pytest.approx(float(row["clean"]), abs=one_prompt)
    assert accuracy(corrupted, answers).mean() == pytest.approx(
        float(row["corrupted"]), abs=one_prompt
    )
    assert metric(clean, answers).mean() == pytest.approx(float(row["clean_metric"]), abs=2e-3)
    assert metric(corrupted, answers).mean() == pytest.approx(
        float(row["corrupted_metric"]), abs=2e-3
    )


def test_the_card_reports_every_task_on_both_held_out_splits_as_good_as_required():
    rows = list(CARD_ROW.finditer((DIRECTORY / "README.md").read_text()))
    reported = {(row["task"], row["split"]) for row in rows}
    assert reported == {(task, split) for task in REQUIRED for split in ("validation", "test")}
    for row in rows:
        assert int(row["prompts"]) >= 500
        assert float(row["clean"]) >= REQUIRED[row["task"]]
        assert float(row["corrupted"]) <= 0.5


def test_the_tokenizer_expresses_every_pair_of_every_task(tokenizer):
    for task in REQUIRED:
        assert load_dataset(task, tokenizer, "test", 300, seed=7).dropped == {}


def test_a_year_is_two_tokens_and_bos_comes_first_once(tokenizer):
    [example] = load_dataset("greater-than", tokenizer, size=1)
    pieces = tokenizer.convert_ids_to_tokens(list(example.clean_tokens))
    year = re.search(r"17(\d\d) to", example.clean)[1]
    assert pieces.index(tokenizer.bos_token) == 0
    assert pieces.count(tokenizer.bos_token) == 1
    assert pieces[-6:] == ["17", year, "to", "the", "year", "17"]


def test_the_weights_are_small_enough_to_ship():
    assert sum(file.stat().st_size for file in DIRECTORY.iterdir()) < 6e6


def test_what_is_not_bundled_is_told_with_what_is():
    names = ("bundled/behaviours", "truth/backup", "truth/gate", "truth/induction")
    assert tuple(bundled.models()) == names
    with pytest.raises(FileNotFoundError, match="no model 'gpt2' is bundled; there is bundled/beh"):
        bundled.model_path("gpt2")
    with pytest.raises(FileNotFoundError):
        bundled.model_path("bundled/../bundled/behaviours")


def prompts_in(text):
    """Every clean prompt of a task with which a sentence begins, found by its form alone."""
    name, word = "[A-Z][a-z]+", "[a-z]+"
    forms = [
        *(
            re.sub(r"\\{(\w+)\\}", lambda m: {"place": word, "object": word}.get(m[1], name), form)
            for form in map(re.escape, ioi.TEMPLATES)
        ),
        rf"The {word} lasted from the year 17\d\d to the year 17",
        rf"(?:{'|'.join(sva.OPENINGS)}) {word} (?:{'|'.join(sva.PHRASES)}) {word}",
    ]
    return [match for form in forms for match in re.findall(rf"(?:^|(?<=[.] )){form}", text)]


def test_the_corpus_holds_no_validation_or_test_prompt():
    texts = [sentence.text for sentence in islice(sentences("any"), 20_000)]
    prompts = [prompt for text in texts for prompt in prompts_in(text)]
    assert len(prompts) > 7000
    assert {split_of(prompt) for prompt in prompts} == {"train"}
