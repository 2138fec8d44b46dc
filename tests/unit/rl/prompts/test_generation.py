import json
from pathlib import Path

import pytest
from writing_server import WritingServer

from lens.config import read_recipe
from lens.errors import LensError, SettingError
from lens.llm.batch import InvalidResponse
from lens.rl.prompts.dataset import read_prompts
from lens.rl.prompts.generation import build_prompts, parse_generated_prompt
from lens.rl.prompts.settings import TaxonomyPromptSetSettings, parse_prompt_settings
from lens.rl.prompts.taxonomy import CATEGORIES


@pytest.fixture(scope="module")
def server():
    started = WritingServer()
    yield started
    started.close()


def settings_for(url: str, out, **changes) -> TaxonomyPromptSetSettings:
    endpoint = {"url": url, "model": "writer", "first_wait_s": 0.0, "max_attempts": 1}
    values = {"out": out, "count": 20, "benchmarks": (), "model": {"endpoint": endpoint}}
    return TaxonomyPromptSetSettings.of(values | changes)


def test_a_smaller_set_is_the_beginning_of_a_larger_one_and_costs_nothing_beside_it(server, tmp_path):
    larger = build_prompts(settings_for(server.url, tmp_path))
    prompts = read_prompts(larger.path)
    smaller = build_prompts(settings_for(server.url, tmp_path, count=11))
    assert smaller.num_calls == 0
    assert read_prompts(smaller.path) == prompts[:11]


def test_a_set_without_one_category_costs_nothing_beside_the_whole_one(server, tmp_path):
    build_prompts(settings_for(server.url, tmp_path))
    nine = tuple(category for category in CATEGORIES if category != "text")
    assert build_prompts(settings_for(server.url, tmp_path, categories=nine, count=18)).num_calls == 0


def test_others_take_the_place_of_prompts_that_are_near_duplicates(server, tmp_path):
    whole = build_prompts(settings_for(server.url, tmp_path, spare=3.0, max_similarity=0.25))
    assert whole.summary["prompts"] == 20
    assert whole.summary["fallen"]["near_duplicate"] > 0
    fallen = [json.loads(line) for line in (tmp_path / "fallen.jsonl").read_text().splitlines()]
    assert len(fallen) == sum(whole.summary["fallen"].values())
    assert {"reason", "subject", "item"} == set(fallen[0])


def test_what_is_like_a_benchmark_is_dropped_or_reported(server, tmp_path):
    first = read_prompts(build_prompts(settings_for(server.url, tmp_path / "a")).path)[3].prompt
    known = tmp_path / "known.txt"
    known.write_text(f"{first}\n")
    reported = settings_for(server.url, tmp_path / "b", benchmarks=(str(known),), overlap="report")
    assert build_prompts(reported).summary["overlaps"] == [{"prompt": first, "benchmark": first}]
    dropped = build_prompts(reported.model_copy(update={"overlap": "drop"}))
    assert dropped.summary["overlaps"] == [] and dropped.summary["prompts"] == 20
    assert first not in {one.prompt for one in read_prompts(dropped.path)}


def test_a_set_of_which_nothing_came_out_right_says_why(server, tmp_path):
    with pytest.raises(LensError, match="too_long"):
        build_prompts(settings_for(server.url, tmp_path, min_words=1, max_words=5, count=3))
    assert not (tmp_path / "prompts.jsonl").exists()


def test_the_reason_that_is_left_out_stays_told_when_some_are_missing(server, tmp_path):
    summary = build_prompts(settings_for(server.url, tmp_path, spare=0.0, max_similarity=0.25)).summary
    assert summary["prompts"] + sum(summary["fallen"].values()) == summary["wanted"] == 20


def test_a_prompt_is_read_with_its_keypoints_and_its_writing():
    answer = '{"prompt": " A  fox\\nwaits. ", "keypoints": ["fox "], "text": "\\"OPEN\\""}'
    assert parse_generated_prompt(answer) == ("A fox waits.", ("fox",), "OPEN")
    assert parse_generated_prompt('{"prompt": "A fox.", "keypoints": []}').text is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("A fox waits.", "broken_json"),
        ('{"prompt": "", "keypoints": []}', "wrong_fields"),
        ('{"prompt": "A fox.", "keypoints": "fox"}', "wrong_fields"),
        ('{"prompt": "A fox.", "keypoints": [{"colour": "red"}]}', "wrong_fields"),
        ('{"prompt": "A fox.", "keypoints": [], "text": ["a"]}', "wrong_fields"),
        ('{"prompt": "A \\ud83d fox.", "keypoints": []}', "broken_json"),
    ],
)
def test_an_answer_of_another_form_is_refused(answer, reason):
    with pytest.raises(InvalidResponse) as refused:
        parse_generated_prompt(answer)
    assert refused.value.reason == reason


def test_the_recipe_that_ships_has_the_papers_numbers():
    path = Path(__file__).parents[4] / "recipes" / "rl" / "prompts.yaml"
    settings = parse_prompt_settings(read_recipe(path), str(path))
    assert isinstance(settings, TaxonomyPromptSetSettings)
    assert (settings.count, settings.categories) == (8406, CATEGORIES)
    assert (settings.min_words, settings.max_words, settings.max_criteria) == (30, 60, 10)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"categories": ("animal", "mineral")}, "categories"),
        ({"min_words": 70}, "min_words is 70"),
        ({"min_criteria": 11}, "min_criteria"),
        ({"taxonomy": "nowhere.yaml"}, "taxonomy"),
        ({"source": None}, "source"),
        ({"model": {"endpoint": {"url": "http://x", "model": "y"}, "request": {"messages": []}}}, "request"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused(tmp_path, change, told):
    model = {"endpoint": {"url": "http://127.0.0.1:9/v1", "model": "writer"}}
    values = {"source": "taxonomy", "out": tmp_path, "count": 1, "model": model}
    with pytest.raises(SettingError, match=told):
        parse_prompt_settings(values | change, "a recipe")
