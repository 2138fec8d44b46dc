"""An answer gives its prompt, whatever a model or a server puts around it."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens.reasoner.cleaning import chosen_answer, clean_answer
from lens.reasoner.rules.quotes import MARKS, PAIRS, missing_quotes, quotes_of

ANSWERS = json.loads((Path(__file__).parent / "answers.json").read_text("utf-8"))
LETTERS = st.text("abcdefgh XYZ", min_size=1, max_size=12).map(str.strip).filter(bool)


@pytest.mark.parametrize(("answer", "prompt"), ANSWERS["leading_talk"])
def test_talk_before_a_prompt_is_taken_off(answer, prompt):
    assert clean_answer(answer).text == prompt


@pytest.mark.parametrize("prompt", ANSWERS["no_talk"])
def test_a_prompt_that_looks_like_talk_stays_whole(prompt):
    assert clean_answer(prompt).text == prompt


@pytest.mark.parametrize("answer", ANSWERS["thinking"])
def test_thinking_and_control_tokens_of_every_form_are_taken_off(answer):
    clean = clean_answer(answer)
    assert (clean.text, clean.is_cut, clean.is_only_thinking) == ("A red fox.", False, False)


@pytest.mark.parametrize("answer", ANSWERS["only_thinking"])
def test_an_answer_that_is_only_thinking_is_empty(answer):
    clean = clean_answer(answer)
    assert (clean.text, clean.is_only_thinking) == ("", True)
    assert clean.is_cut == ("</think>" not in answer)


@pytest.mark.parametrize("answer", ANSWERS["wrapped"])
def test_fences_outer_quotes_and_objects_are_taken_off(answer):
    clean = clean_answer(answer)
    assert clean.text in ("A red fox.", "A red fox in the snow.")
    assert not clean.is_cut


def test_a_fence_that_stays_open_was_cut():
    assert clean_answer("```text\nA red fox in the")[:2] == ("A red fox in the", True)


def test_a_short_quotation_and_one_of_the_request_keep_their_marks():
    assert clean_answer('"OPEN"').text == '"OPEN"'
    flowers = "FLOWERS FOR ALL PEOPLE"
    assert clean_answer(f'"{flowers}"', [flowers]).text == f'"{flowers}"'
    assert clean_answer('"OPEN" and "CLOSED" and some more words').text.startswith('"OPEN" and')
    nested = 'A door with a sign "OPEN" on it'
    assert clean_answer(f'"{nested}"').text == nested


def test_what_files_cannot_hold_is_replaced():
    assert clean_answer("A\0 red\ud83d fox").text == "A red? fox"


@pytest.mark.parametrize("unit", ["```a\n", "<think>", "1. a\n\n", "<|channel|>final<|message|>", "Sure! "])
def test_the_longest_answer_takes_bounded_time(unit):
    started_at = time.process_time()
    clean_answer((unit * 20_000)[:20_000])
    assert time.process_time() - started_at < 2


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=120))
def test_cleaning_ends_on_one_line_and_changes_nothing_twice_but_wrapping(text):
    clean = clean_answer(text).text
    assert "\n" not in clean and clean == clean.strip()


@pytest.mark.parametrize(
    ("answer", "choice"),
    [
        ("none", "none"), ("None.", "none"), ("**hate**", "hate"), ('{"answer": "self_harm"}', "self_harm"),
        ("<think>none? hate!</think>hate", "hate"), ("Answer: none", "none"),
        ("The category is hate.", "hate"), ('```json\n{"answer": "none"}\n```', "none"),
        ("It shows hate against people.", "hate"),
        ("hate or self_harm", None), ("I cannot say", None), ("", None), ("<think>hate", None),
        ("hateful", None),
    ],
)  # fmt: skip
def test_a_choice_is_read_where_it_is_certain(answer, choice):
    assert chosen_answer(answer, ["hate", "self_harm", "none"]) == choice


@pytest.mark.parametrize(("text", "quoted"), ANSWERS["quotes"])
def test_quotations_are_found_by_marks_of_every_kind_and_apostrophes_are_none(text, quoted):
    assert [quote.text for quote in quotes_of(text)] == quoted


@settings(max_examples=60, deadline=None)
@given(LETTERS, st.sampled_from(sorted(PAIRS)), st.sampled_from(sorted(PAIRS)))
def test_quoted_text_may_change_its_marks_and_no_letter(text, mark, other):
    request = f"a sign {mark}{text}{PAIRS[mark][0]}"
    assert missing_quotes(request, f"a wooden sign {other}{text}{PAIRS[other][0]} on a door") == []
    assert missing_quotes(request, f"a wooden sign {other}{text}q{PAIRS[other][0]} on a door") == [text]
    assert missing_quotes(request, f"a wooden sign {text} on a door") == [text]


def test_nested_marks_apostrophes_and_a_final_stop_may_take_another_form():
    curly = "\u201cShe said \u2018hi\u2019, didn\u2019t she\u201d"
    assert missing_quotes(curly, "a card \"She said 'hi', didn't she.\" on a desk") == []
    mixed = 'a card "Il a dit \u201coui\u201d" here'
    assert missing_quotes(mixed, 'a card \u00abIl a dit "oui"\u00bb here') == []
    assert missing_quotes('a sign "STOP!"', 'a sign "STOP"') == ["STOP!"]
    assert missing_quotes('signs "A" and "B"', 'signs "A" and "C"') == ["B"]
    assert missing_quotes('a sign "CAT"', 'a sign "CATALOGUE"') == ["CAT"]


@settings(max_examples=100, deadline=None)
@given(st.text(st.sampled_from([*sorted(MARKS), *"ab s1\u4f60 .,"]), max_size=30))
def test_quotations_lie_in_order_and_never_overlap(text):
    place = 0
    for quote in quotes_of(text):
        assert place <= quote.start < quote.end <= len(text)
        assert quote.text in text[quote.start : quote.end] and quote.text
        place = quote.end
