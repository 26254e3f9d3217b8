import pytest
from tokenizers import Tokenizer, decoders, models, processors
from transformers import PreTrainedTokenizerFast

from tasks import Pair, TaskError, load_dataset
from tasks.alignment import (
    DIFFERENT_LENGTH,
    EMPTY_PROMPT,
    NOT_ONE_TOKEN,
    SHARED_ANSWER,
    UNKNOWN_WORD,
    Aligner,
)

PAIR = Pair(
    "When Mary and John went to the store, John gave a book to",
    "When Mary and John went to the store, Mary gave a book to",
    (" Mary",),
    (" John",),
)


def merging(vocabulary: list[str], merges: list[tuple[str, str]]) -> PreTrainedTokenizerFast:
    """A BPE with these merges and no BOS, whose pieces are joined without spaces."""
    ids = {piece: position for position, piece in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(ids, merges))
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_an_example_reads_back_as_its_texts(bpe):
    example = Aligner(bpe).align(PAIR)
    assert bpe.decode(example.clean_tokens) == "<|endoftext|>" + PAIR.clean
    assert bpe.decode(example.corrupted_tokens) == "<|endoftext|>" + PAIR.corrupted
    assert [bpe.decode([token]) for token in example.correct] == [" Mary"]
    assert [bpe.decode([token]) for token in example.incorrect] == [" John"]


def test_an_answer_is_the_token_that_continues_the_prompt(words):
    ids = words.get_vocab()
    example = Aligner(words).align(PAIR)
    assert (example.correct, example.incorrect) == ((ids["Mary"],), (ids["John"],))
    assert Aligner(words).answer_token("to the year 17", "42") == ids["42"]


def test_a_glued_answer_that_merges_with_the_prompt_is_encoded_alone():
    tokenizer = merging(
        ["1", "7", "4", "17", "42", "2", "1742"], [("1", "7"), ("4", "2"), ("17", "42")]
    )
    assert tokenizer("1742", add_special_tokens=False)["input_ids"] == [6]
    assert Aligner(tokenizer).answer_token("17", "42") == 4


def test_a_glued_answer_of_several_tokens_has_no_token():
    tokenizer = merging(["1", "7", "4", "2", "17", "174"], [("1", "7"), ("17", "4")])
    assert Aligner(tokenizer).answer_token("17", "42") is None


def test_bos_is_put_in_front_once(bpe):
    tokens = Aligner(bpe).align(PAIR).clean_tokens
    assert tokens[0] == bpe.bos_token_id
    assert bpe.bos_token_id not in tokens[1:]


def test_bos_already_written_in_the_text_is_not_doubled(bpe):
    written = Pair(f"<|endoftext|>{PAIR.clean}", f"<|endoftext|>{PAIR.corrupted}", *PAIR_ANSWERS)
    assert Aligner(bpe).align(written).clean_tokens == Aligner(bpe).align(PAIR).clean_tokens


PAIR_ANSWERS = (PAIR.correct, PAIR.incorrect)


@pytest.mark.parametrize("prepend_bos", [True, False])
def test_special_tokens_of_the_tokenizer_itself_never_sneak_in(bpe, prepend_bos):
    eager = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(bpe.backend_tokenizer.to_str()),
        bos_token="<|endoftext|>",
    )
    eager.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A <|endoftext|>",
        special_tokens=[("<|endoftext|>", eager.bos_token_id)],
    )
    assert eager("to")["input_ids"][0] == eager("to")["input_ids"][-1] == eager.bos_token_id
    expected = Aligner(bpe, prepend_bos).align(PAIR)
    assert Aligner(eager, prepend_bos).align(PAIR) == expected


def test_without_bos_only_the_first_token_is_missing(bpe):
    with_bos, without = Aligner(bpe).align(PAIR), Aligner(bpe, prepend_bos=False).align(PAIR)
    assert with_bos.clean_tokens[1:] == without.clean_tokens
    assert with_bos.correct == without.correct


def test_a_tokenizer_without_bos_gets_none():
    tokenizer = merging(["a", "b", "c"], [])
    assert Aligner(tokenizer).align(Pair("ab", "ba", ("a",), ("b",))).clean_tokens == (0, 1)


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (Pair("to Mary", "to to Mary", (" John",), (" Mary",)), DIFFERENT_LENGTH),
        (Pair("to Mary", "to John", (" Zerubbabel",), (" Mary",)), NOT_ONE_TOKEN),
        (Pair("to Mary", "to John", (" Mary", " Xerxes"), (" John",)), NOT_ONE_TOKEN),
        (Pair("to Mary", "to John", (), (" John",)), NOT_ONE_TOKEN),
        (Pair("to Mary", "to John", (" Mary",), (" John", " Mary")), SHARED_ANSWER),
        (Pair("", "", (" Mary",), (" John",)), EMPTY_PROMPT),
    ],
)
def test_what_cannot_be_aligned_is_dropped_for_a_reason(bpe, pair, reason):
    assert Aligner(bpe).align(pair) == reason


def test_a_word_that_the_tokenizer_does_not_know_drops_the_pair(words):
    aligner = Aligner(words)
    assert aligner.align(Pair("Mary and", "Xerxes and", (" John",), (" Tom",))) == UNKNOWN_WORD
    assert aligner.align(Pair("Mary and", "Tom and", (" Xerxes",), (" Tom",))) == NOT_ONE_TOKEN


def test_what_is_no_tokenizer_is_refused_by_name():
    with pytest.raises(TaskError, match=r"needs a transformers tokenizer .* not dict"):
        load_dataset("ioi", {})
