"""What a refined prompt must keep is noticed where it breaks, in twelve languages, and nowhere else."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lens.reasoner.checks import RULES, broken, check_prompt, is_detailed

REQUESTS = json.loads((Path(__file__).parent / "requests.json").read_text("utf-8"))
PAIRS = json.loads((Path(__file__).parent / "pairs.json").read_text("utf-8"))
BREAKING = ("numbers", "colours", "quoted_text", "language", "one_prompt", "no_refusal")


def rules_broken(request: str, refined: str, **options) -> list[str]:
    options = {"count_tokens": lambda text: len(text.split()), "max_tokens": 393} | options
    return [check.rule for check in broken(check_prompt(request, refined, **options))]


@pytest.mark.parametrize("code", REQUESTS)
def test_a_faithful_prompt_keeps_every_rule(code):
    assert rules_broken(REQUESTS[code]["request"], REQUESTS[code]["good"]) == []


@pytest.mark.parametrize("code", REQUESTS)
def test_a_request_keeps_its_own_rules(code):
    assert rules_broken(REQUESTS[code]["request"], REQUESTS[code]["request"]) == []


@pytest.mark.parametrize("rule", BREAKING)
@pytest.mark.parametrize("code", REQUESTS)
def test_a_prompt_that_breaks_a_rule_is_noticed(code, rule):
    found = rules_broken(REQUESTS[code]["request"], REQUESTS[code][rule])
    assert found == [rule] if rule in ("numbers", "colours", "quoted_text") else rule in found


@pytest.mark.parametrize("asked", REQUESTS)
@pytest.mark.parametrize("got", REQUESTS)
def test_every_language_is_told_from_every_other(asked, got):
    refined = REQUESTS[got]["good"]
    assert ("language" in rules_broken(REQUESTS[asked]["request"], refined)) == (asked != got)


@pytest.mark.parametrize(("request_text", "refined"), PAIRS["faithful"])
def test_what_a_good_model_writes_raises_no_alarm(request_text, refined):
    assert rules_broken(request_text, refined) == []


@pytest.mark.parametrize(("request_text", "refined", "rule"), PAIRS["broken"])
def test_what_a_bad_model_writes_is_noticed_by_its_rule(request_text, refined, rule):
    assert rule in rules_broken(request_text, refined)


def test_checks_come_in_their_order_with_words_for_the_user():
    checks = check_prompt('2 red "A"', "a fox", count_tokens=len, max_tokens=3)
    assert tuple(check.rule for check in checks) == RULES
    details = {check.rule: check.detail for check in checks}
    assert details["quoted_text"] == 'The text "A" is missing or changed.'
    assert details["numbers"] == "The number 2 is missing or changed."
    assert details["colours"] == "The colour red is missing or changed."
    assert details["length"] == "It has 5 tokens, of which the model reads 3: it must be 45% shorter."
    assert details["language"] == ""


@pytest.mark.parametrize(
    "request_text", ["fox", "Tokyo", "\U0001f98a", "", "42", "\u6771\u4eac", "NASA logo", "..."]
)
def test_a_short_request_whose_language_cannot_be_told_is_not_failed(request_text):
    for refined in ("A red fox stands in the snow of a forest.", "Ein roter Fuchs steht im Schnee im Wald."):
        is_other_script = request_text == "\u6771\u4eac"
        assert ("language" in rules_broken(request_text, refined)) == is_other_script


@pytest.mark.parametrize(
    "name",
    ["Los Angeles skyline", "los angeles skyline", "La La Land poster", "Rio de Janeiro carnival",
     "Die Hard poster", "Leonardo da Vinci", "El Capitan at dawn", "Las Vegas at night", "a van Gogh",
     "Eau de Cologne bottle", "rose garden", "film noir poster", "pea pod", "mint tea", "sei whale",
     "dulce de leche cake", "la la land poster", "ai robot", "moulin rouge"],
)  # fmt: skip
def test_names_from_other_languages_are_no_evidence(name):
    refined = f"{name}, seen from the street in the soft light of an evening, with people on the left."
    assert "language" not in rules_broken(name, refined)


@pytest.mark.parametrize(
    "request_text", ["ein Hund", "un chien noir", "un perro negro", "une maison", "el gato", "drei Hunde"]
)
def test_two_words_may_tell_a_language(request_text):
    assert "language" in rules_broken(request_text, "It stands in the soft light of an evening on the left.")


def test_the_script_of_a_short_request_can_be_told():
    chinese = REQUESTS["zh"]["good"]
    assert "language" in rules_broken("Tokyo", chinese)
    assert "language" not in rules_broken("\u6771\u4eac\u591c\u666f", chinese)
    assert "language" not in rules_broken("\u6771\u4eac\u591c\u666f", REQUESTS["ja"]["good"])


@pytest.mark.parametrize(
    ("request_text", "refined"),
    [
        ("3 cats", "Three cats on a sofa"),
        ("twenty-five candles", "A cake with 25 candles"),
        ("25 candles", "A cake with twenty-five candles"),
        ("a dozen roses", "Twelve roses in a vase"),
        ("1,000 lanterns", "A lake with 1000 lanterns"),
        ("1 cat", "A single cat on a wall"),
        ("two cats", "A pair of cats on a wall"),
        ("the 3rd floor", "The third floor of a house"),
        ("the answer to 2+2 on a blackboard", 'A blackboard on which "2+2=4" is written'),
        ("f/1.8 portrait", "A portrait at f/1.8"),
        ("a gray wall", "A grey wall in the rain"),
        ("red hair", "A woman with RED hair"),
        ("#FF8800 wall", "A wall in #ff8800"),
    ],
)
def test_another_way_to_say_it_keeps_a_number_or_a_colour(request_text, refined):
    assert rules_broken(request_text, refined) == []


@pytest.mark.parametrize(
    ("request_text", "refined", "rule"),
    [
        ("3 cats", "Four cats on a sofa", "numbers"),
        ("two cats and two dogs", "two cats and dogs", "numbers"),
        ("16:9 poster", "A poster of 16 by 10", "numbers"),
        ("1.5 m tall robot", "A robot of 15 m", "numbers"),
        ("a red fox", "A crimson fox", "colours"),
        ("a red fox", "A fox in a shredded coat", "colours"),
        ("#FF8800 wall", "A wall in #FF8801", "colours"),
    ],
)
def test_a_number_or_a_colour_that_changes_is_noticed(request_text, refined, rule):
    assert rule in rules_broken(request_text, refined)


@pytest.mark.parametrize(
    "refined",
    [
        "1. A red fox in deep snow at dawn. 2. A red fox on a green meadow at noon.",
        "Option 1: a red fox in snow. Option 2: a red fox on grass.",
        '{"prompt": "a red fox", "negative": "blur"}',
        "## Prompt A red fox",
        "A red fox in snow. Note: I kept the colour.",
        "Here is a red fox for the user.",
        "A red fox. Negative prompt: blurry",
    ],
)
def test_several_prompts_and_talk_are_noticed(refined):
    assert "one_prompt" in rules_broken("a red fox", refined)


def test_two_paragraphs_of_one_scene_are_two_prompts_and_of_a_long_one_are_not():
    first = "A red fox stands in deep snow under a tall pine tree at dawn."
    second = "A red fox stands in deep snow beside a tall pine tree at night."
    more = "Behind it, mountains fade into a pale sky while smoke rises from one cabin."
    assert rules_broken("a red fox", f"{first} {second}", paragraphs=(first, second)) == ["one_prompt"]
    assert rules_broken("a red fox", f"{first} {more}", paragraphs=(first, more)) == []


def test_words_of_the_request_are_no_talk_and_no_refusal():
    assert rules_broken("a card: I'm sorry I can't come", "A card that reads: I'm sorry I can't come") == []
    assert rules_broken("a poster of the prompt", "A large poster of the prompt on a wall") == []
    assert rules_broken('a sign "As an AI"', 'A sign with the words "As an AI" on a door') == []


def test_cut_and_empty_answers_are_known():
    assert rules_broken("a fox", "A fox in the", is_cut=True) == ["answer"]
    assert rules_broken("a fox", "") == ["answer"]


def test_the_count_of_the_tokenizer_decides_the_length():
    assert rules_broken("a fox", "A fox in snow", count_tokens=lambda _: 394) == ["length"]
    assert rules_broken("a fox", "A fox in snow", count_tokens=lambda _: 393) == []


def test_length_and_structure_make_a_prompt_detailed():
    assert not is_detailed("a red fox in the snow")
    assert not is_detailed("")
    assert is_detailed(" ".join(["word"] * 60))
    parts = "A red fox stands in deep snow, its tail raised, under a tall pine; behind it mountains "
    parts += "fade into fog, and soft morning light falls from the left. "
    assert is_detailed(parts + "A photograph, long lens.")
    assert not is_detailed(f'a sign "{" ".join(["word"] * 80)}"'), "a text to be written describes no picture"


@pytest.mark.parametrize("code", REQUESTS)
def test_no_request_of_a_line_is_detailed(code):
    assert not is_detailed(REQUESTS[code]["request"])


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80), st.text(max_size=80))
def test_any_two_texts_have_checks_and_every_text_keeps_its_own_words(first, second):
    assert len(check_prompt(first, second, count_tokens=len, max_tokens=9)) in (1, len(RULES))
    own = rules_broken(first, first, count_tokens=lambda _: 1)
    assert not {"quoted_text", "numbers", "colours", "language", "no_refusal"} & set(own)


@pytest.mark.parametrize(
    "unit", ['"a ', "\u00aba", "\u201e", "'a ", "1. a ", "two ", "<|", "Here is the prompt "]
)
def test_the_longest_request_takes_bounded_time(unit):
    started_at = time.process_time()
    check_prompt((unit * 32_000)[:32_000], (unit * 2000)[:4000], count_tokens=len, max_tokens=9)
    assert time.process_time() - started_at < 3
