"""LoRAs are taken out of a prompt; what does not act here is read as plain words, and told."""

import pytest

from lens.errors import SettingError
from lens.prompts.reading import PromptReader
from lens.prompts.syntax import escape, plain_text, take_loras


@pytest.mark.parametrize(
    ("prompt", "text", "loras"),
    [
        ("a fox, <lora:ink:0.8>", "a fox", [("ink", 0.8)]),
        ("a <lora:ink> fox <LORA:sea foam:-.5>, at sea", "a fox, at sea", [("ink", 1.0), ("sea foam", -0.5)]),
        ("<lora:ink.v2:1>, a fox", "a fox", [("ink.v2", 1.0)]),
        (r"a \<lora:ink:1>", r"a \<lora:ink:1>", []),
        ("a fox", "a fox", []),
    ],
)
def test_loras_are_taken_out_of_a_prompt(prompt, text, loras):
    assert take_loras(prompt) == (text, tuple(loras))


@pytest.mark.parametrize(
    "prompt", ["<lora:ink:much>", "<lora:ink:1:2>", "<lora:ink:100>", "<lora:a><lora:a:2>"]
)
def test_a_lora_that_cannot_be_applied_is_an_error(prompt):
    with pytest.raises(SettingError, match="lora:"):
        take_loras(prompt)


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("a (red:1.3) fox", "a red fox"),
        ("a (big (red:1.2) one:0.8) fox", "a big red one fox"),
        ("((a fox)), (((a cat)))", "a fox, a cat"),
        ("( a fox : 1.5 )", " a fox "),
    ],
)
def test_weights_are_read_as_their_words_and_told(prompt, text):
    plain = plain_text(prompt)
    assert plain.text == text
    assert "no effect" in plain.warnings[0] and "is read as" in plain.warnings[0]


@pytest.mark.parametrize(
    "prompt",
    ["a fox (left) and a cat", "a clock (at 12:30)", "a screen (16:9)", "a fox :)", "(a", "b)",
     "a (big) (red) fox", "a poster: stars, {json}? no: a | b", "C:\\temp",
     'a sign "THIS AND [THAT]"', "light-blue --- sky"],
)  # fmt: skip
def test_ordinary_text_stays_as_it_is(prompt):
    assert plain_text(prompt).text == prompt


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("a [red] fox", "[red]"), ("a [fox:cat:0.5]", "[fox:cat:0.5]"), ("[a|b] cow", "[a|b]"),
        ("<hypernet:x:1> fox", "<hypernet:x:1>"), ("<lyco:x:1> fox", "<lyco:x:1>"), ("a {fox}", "{fox}"),
        ("embedding:easy", "embedding:easy"), ("a red++ fox", "d++"), ("a fox BREAK a cat", "BREAK"),
        ("a fox AND a cat", "AND"),
    ],
)  # fmt: skip
def test_other_syntax_is_told_to_be_read_as_words(prompt, shown):
    plain = plain_text(prompt)
    assert plain.text == prompt and shown in plain.warnings[0] and "not understood" in plain.warnings[0]


def test_a_backslash_draws_the_character_behind_it():
    plain = plain_text(r"a \(red:1.3\) fox, \{a\|b\} \__x\__ \<lora:i:1\>")
    assert plain == ("a (red:1.3) fox, {a|b} __x__ <lora:i:1>", ())


@pytest.mark.parametrize(
    "text", ["a fox", "(red:1.3) {a|b} __x__ <lora:i:1>", "a\\b \\( x", '{"a": "b"}', "((a))"]
)
def test_an_escaped_text_is_read_as_it_was(text):
    assert PromptReader().read(escape(text), "", seed=0)[:3] == (text, "", ())
    assert escape("a fox (left)") == "a fox (left)"


def test_a_prompt_of_loras_alone_has_no_words():
    with pytest.raises(SettingError, match="some words"):
        PromptReader().read("<lora:ink:1>", "", seed=0)
    with pytest.raises(SettingError, match="negative_prompt"):
        PromptReader().read("a fox", "<lora:ink:1>", seed=0)


def test_the_template_is_kept_where_something_was_read():
    assert PromptReader().read("a fox", "", 3).template is None
    read = PromptReader().read("a {red|blue} fox <lora:ink:0.5>", "{fog|rain}", 3)
    assert read.template == "a {red|blue} fox <lora:ink:0.5>"
    assert read.prompt in ("a red fox", "a blue fox") and read.negative_prompt in ("fog", "rain")


def test_prompts_full_of_brackets_take_no_time():
    for text in ("(" * 30_000, "(" * 15_000 + ")" * 15_000, "<lora:" * 6_000, "[" * 30_000, "(a:1" * 7_000):
        plain_text(text)
        take_loras(text)
