"""Held-out prompts of `lens eval nano --prompts`: every line can be checked, and none occurs twice."""

import json
from itertools import combinations
from pathlib import Path

import pytest

from lens.nano.world.colours import COLOURS, OBJECT_COLOURS
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scene_spec import MAX_COUNT, MAX_GROUPS, MAX_TEXT_LENGTH, RELATIONS, SIGN_CHARACTERS

PROMPTS = Path(__file__).parents[3] / "recipes" / "nano" / "prompts"
HELD_OUT = ("words", "forms", "many", "details", "signs", "dense", "languages")
DEVELOPMENT = ("development/words", "development/forms", "development/languages")
LANGUAGES = {"de", "fr", "es", "it", "pt", "ru", "hi", "ko", "zh", "ja", "ar"}


def read(name: str) -> list[dict]:
    return [json.loads(line) for line in (PROMPTS / f"{name}.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("name", HELD_OUT + DEVELOPMENT)
def test_lines_state_what_the_world_can_show(name):
    for line in read(name):
        fields = {"prompt", "background", "objects", "relations", "text"}
        assert set(line) - {"language"} == fields, line
        assert line["prompt"].strip() == line["prompt"] != "", line
        assert line["background"] is None or line["background"] in COLOURS, line
        assert line["objects"] or line["text"], line
        assert len(line["objects"]) <= MAX_GROUPS, line
        for thing in line["objects"]:
            assert set(thing) == {"name", "count", "color", "size"}, line
            assert thing["name"] in OBJECT_CLASSES, line
            assert thing["count"] is None or 1 <= thing["count"] <= MAX_COUNT, line
            assert thing["color"] is None or thing["color"] in OBJECT_COLOURS, line
            assert thing["size"] in (None, "small", "large"), line
        for first, second in combinations(line["objects"], 2):  # or one group could not be told from another
            assert first != second, line
            if first["name"] == second["name"]:
                assert first["color"] != second["color"] or first["size"] != second["size"], line
        for one, relation, other in line["relations"]:
            assert relation in RELATIONS, line
            assert {one, other} <= set(range(len(line["objects"]))) and one != other, line
        text = line["text"]
        assert text is None or (0 < len(text) <= MAX_TEXT_LENGTH and set(text) <= set(SIGN_CHARACTERS)), line


@pytest.mark.parametrize("name", HELD_OUT)
def test_a_kind_has_at_least_sixty_prompts(name):
    assert len(read(name)) >= 60


@pytest.mark.parametrize("name", DEVELOPMENT)
def test_prompts_for_tuning_are_at_least_forty(name):
    assert len(read(name)) >= 40


def test_no_prompt_occurs_twice():
    prompts = [line["prompt"] for name in HELD_OUT + DEVELOPMENT for line in read(name)]
    assert len(set(prompts)) == len(prompts)


def test_dense_captions_have_60_to_120_words():
    lengths = {line["prompt"]: len(line["prompt"].split()) for line in read("dense")}
    assert not {prompt: words for prompt, words in lengths.items() if not 60 <= words <= 120}


@pytest.mark.parametrize("name, least", [("languages", 12), ("development/languages", 3)])
def test_every_language_has_its_prompts(name, least):
    languages = [line["language"] for line in read(name)]
    assert set(languages) == LANGUAGES
    assert min(languages.count(language) for language in LANGUAGES) >= least


def test_kinds_ask_for_what_they_are_named_after():
    assert all(any(thing["count"] in (6, 7, 8) for thing in line["objects"]) for line in read("many"))
    assert all(line["text"] for line in read("signs"))
    for line in read("details"):
        coloured_or_sized = any(thing["color"] or thing["size"] for thing in line["objects"])
        assert coloured_or_sized or len(line["relations"]) == 2, line
