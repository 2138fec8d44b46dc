"""A trained tokenizer behaves and is laid out as the released one."""

import json

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lens.errors import SettingError
from lens.models.prompt_template import PREAMBLE, SCAFFOLD, PromptTemplate
from lens.models.tokenizer import CONTROL_TOKENS, train_tokenizer

TEXTS = [
    "two red apples to the left of a fox, on a blue background",
    "It's a green bird's nest; they'll see 12345 HTTPServers.\n\n\nAnd more   spaces",
    "an apple, a bird and a fox under a blue sky",
]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS * 3, vocab_size=330)


@pytest.fixture(scope="module")
def caseless():
    return train_tokenizer(TEXTS * 3, vocab_size=330, ignores_case=True)


def words(tokenizer, text: str) -> list[str]:
    """The normalized text of each piece before merging."""
    backend = tokenizer.backend_tokenizer
    normalized = backend.normalizer.normalize_str(text)
    return [normalized[start:end] for _, (start, end) in backend.pre_tokenizer.pre_tokenize_str(normalized)]


def pieces(tokenizer, text: str) -> list[str]:
    return [piece for piece, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)]


def test_any_text_survives_the_round_trip(tokenizer):
    for text in (*TEXTS, "Zoe\u0308 \u4f60\u597d \U0001f98a\t\r\n  x", "", " "):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text


def test_the_vocabulary_has_the_size_asked_for_and_control_tokens_last(tokenizer):
    assert len(tokenizer) == 330
    assert tokenizer.convert_tokens_to_ids(list(CONTROL_TOKENS)) == list(range(321, 330))


def test_frequent_words_become_one_token(tokenizer):
    assert len(tokenizer(" blue", add_special_tokens=False)["input_ids"]) == 1


def test_nothing_is_added_around_a_text(tokenizer):
    assert tokenizer("a fox")["input_ids"] == tokenizer("a fox", add_special_tokens=False)["input_ids"]


def test_control_tokens_are_single_ids_with_the_released_roles(tokenizer):
    for token in CONTROL_TOKENS:
        assert tokenizer(token)["input_ids"] == [tokenizer.convert_tokens_to_ids(token)]
    assert (tokenizer.pad_token, tokenizer.eos_token) == ("<|endoftext|>", "<|return|>")
    assert tokenizer.padding_side == "right"


def test_words_split_as_in_o200k(tokenizer):
    assert pieces(tokenizer, "It's a fox") == ["It's", "\u0120a", "\u0120fox"]
    assert pieces(tokenizer, "HTTPServers 12345") == ["HTTPServers", "\u0120", "123", "45"]
    assert pieces(tokenizer, "fooBar") == ["foo", "Bar"]
    assert pieces(tokenizer, "end.\n\nNext") == ["end", ".\u010a\u010a", "Next"]


def test_the_same_texts_give_the_same_tokenizer(tokenizer):
    again = train_tokenizer(TEXTS * 3, vocab_size=330)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_it_is_saved_in_the_published_layout_and_loads_the_same(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
    }  # fmt: skip
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "TokenizersBackend"
    assert "chat_template" not in config
    for loaded in (
        AutoTokenizer.from_pretrained(tmp_path),
        PreTrainedTokenizerFast.from_pretrained(tmp_path),
    ):
        assert loaded(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
        assert loaded.chat_template == tokenizer.chat_template
        assert loaded.pad_token_id == tokenizer.pad_token_id


def test_too_small_a_vocabulary_is_refused():
    with pytest.raises(SettingError, match="vocab_size is 200"):
        train_tokenizer(TEXTS, vocab_size=200)


def test_one_that_ignores_case_reads_all_cases_and_widths_alike(caseless, tokenizer):
    plain = caseless("two red apples")["input_ids"]
    for text in ("TWO RED APPLES", "Two Red apples", "\uff34\uff57\uff4f red\u3000apples"):
        assert caseless(text)["input_ids"] == plain
        assert tokenizer(text)["input_ids"] != tokenizer("two red apples")["input_ids"]
    upper, lower = "\u041b\u0418\u0421\u0410", "\u043b\u0438\u0441\u0430"
    assert caseless(upper)["input_ids"] == caseless(lower)["input_ids"]


def test_a_word_has_the_same_token_at_the_start_after_a_mark_and_after_a_space(caseless):
    start, mark, space = (words(caseless, text)[-1] for text in ("fox", "red,fox", "red fox"))
    assert start == mark == space == " fox"


def test_one_that_ignores_case_keeps_the_control_tokens_and_the_words_of_a_conversation(caseless, tmp_path):
    template = PromptTemplate(caseless)
    text = template.render("a fox")
    ids = caseless(text, add_special_tokens=False)["input_ids"]
    expected = (PREAMBLE.format(date=template.date) + "a fox" + SCAFFOLD).lower()
    assert "".join(caseless.decode(ids).split()) == "".join(expected.split())
    assert caseless.convert_tokens_to_ids("<|start|>") in ids
    caseless.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"] == caseless(text)["input_ids"]


@pytest.mark.parametrize(("text", "expected"), [
    ('says "FOX8" here', [" says", ' "', "f", "o", "x", "8", '"', " here"]),
    ('"FOX"', [' "', "f", "o", "x", '"']),
    ("\u300cFOX\u300d", [" \u300c", "f", "o", "x", "\u300d"]),
    ("\u5199\u7740\u201cFOX\u201d", [" \u5199\u7740", "\u201c", "f", "o", "x", "\u201d"]),
    ("\u00abFOX\u00bb", [" \u00ab", "f", "o", "x", "\u00bb"]),
    ("'FOX'", [" '", "f", "o", "x", "'"]),
    ('says "EXIT2DAY"', [" says", ' "', *"exit2day", '"']),
])  # fmt: skip
def test_short_quoted_words_are_split_into_letters_whatever_is_before_the_quotation_mark(
    text, expected, caseless
):
    assert words(caseless, text) == expected


@pytest.mark.parametrize(("text", "expected"), [
    ("a fox's nest", [" a", " fox's", " nest"]),
    ("two foxes' nests", [" two", " foxes", "'", " nests"]),
    ('"nightingale"', [' "', 'nightingale', '"']),
    ("sign: FOX", [" sign", ":", " fox"]),
])  # fmt: skip
def test_words_that_are_not_quoted_or_long_stay_whole(text, expected, caseless):
    assert words(caseless, text) == expected


def test_only_one_that_ignores_case_spells_quoted_words(tokenizer):
    assert pieces(tokenizer, 'says "fox"') == ["says", '\u0120"', "fox", '"']
