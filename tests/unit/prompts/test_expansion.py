"""Alternatives and wildcards become one of their texts, by the seed alone."""

from collections import Counter

import pytest

from lens.errors import SettingError
from lens.prompts.expansion import expand
from lens.prompts.wildcards import Wildcards


@pytest.fixture
def wildcards(tmp_path):
    (tmp_path / "colour.txt").write_text("# comment\nred\n\n blue \n", encoding="utf-8")
    (tmp_path / "fruit.txt").write_bytes("a __colour__ apple\r\n{a lemon|a pear}".encode("utf-16"))
    (tmp_path / "circle.txt").write_text("a __circle__")
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "clothes").mkdir()
    (tmp_path / "clothes" / "red_hats.txt").write_text("a top hat")
    return Wildcards(tmp_path, "--wildcards")


def texts(prompt, wildcards, num_seeds=200):
    return Counter(expand(prompt, seed, wildcards) for seed in range(num_seeds))


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a {red|blue} fox", {"a red fox", "a blue fox"}),
        ("a {red |}fox", {"a redfox", "a fox"}),
        ("{a|{b|c} d}", {"a", "b d", "c d"}),
        ("__colour__ sky", {"red sky", "blue sky"}),
        ("{__colour__|green}", {"red", "blue", "green"}),
        ("__fruit__", {"a red apple", "a blue apple", "a lemon", "a pear"}),
        ("__clothes/red_hats__", {"a top hat"}),
        ("{2$$a|b|c}", {"a, b", "b, a", "a, c", "c, a", "b, c", "c, b"}),
        ("{1-2$$ and $$a|b}", {"a", "b", "a and b", "b and a"}),
        ('{"subject": "a {red|blue} fox"}', {'{"subject": "a red fox"}', '{"subject": "a blue fox"}'}),
    ],
)
def test_each_text_is_chosen_by_some_seed_and_nothing_else(prompt, expected, wildcards):
    assert set(texts(prompt, wildcards)) == expected


@pytest.mark.parametrize(
    "prompt",
    [r"a \{red|blue\} fox", r"\__colour\__", "a {fox}", "a | b", "{a|b", "a} b", "a_b __ c ___d___", "\\"],
)
def test_what_is_escaped_or_no_syntax_stays(prompt, wildcards):
    assert texts(prompt, wildcards, 5) == {prompt: 5}


def test_the_seed_alone_decides_and_a_share_makes_a_text_more_frequent(wildcards):
    assert expand("{a|b|c|d} __colour__", 7, wildcards) == expand("{a|b|c|d} __colour__", 7, wildcards)
    counts = texts("{9::red|blue}", wildcards, 400)
    assert counts["red"] > 4 * counts["blue"] > 0


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("__color__", r"__color__.*color\.txt.*--wildcards.*colour"),
        ("__circle__", "at most 20"),
        ("__empty__", "at least one line"),
        ("{2$$" * 30 + "b" + "|c}" * 30, "at most 20"),
        (("{" + "x" * 20_000 + "|" + "y" * 20_000 + "}") * 2, "32000"),
    ],
)
def test_what_cannot_be_chosen_is_an_error(prompt, message, wildcards):
    with pytest.raises(SettingError, match=f"(?s){message}"):
        for seed in range(20):
            expand(prompt, seed, wildcards)


def test_a_wildcard_without_a_folder_says_how_to_name_one():
    with pytest.raises(SettingError, match="--wildcards names the folder"):
        expand("__colour__", 0, Wildcards(None, "--wildcards"))


@pytest.mark.parametrize(
    "text", ["{" * 30_000, "{a" * 10_000 + "}" * 10_000, "__a___" * 5_000, "\\{" * 15_000]
)
def test_prompts_full_of_brackets_take_no_time(text, wildcards):
    assert expand(text, 0, wildcards) == text
