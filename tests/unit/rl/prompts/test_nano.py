import json

import numpy as np
import pytest

from lens.errors import SettingError
from lens.nano.tasks import MICRO_WORLD, TASKS, task_prompts
from lens.nano.world.objects import FIRST_CLASSES
from lens.nano.world.phrases import TEST_PHRASES
from lens.nano.world.scenes import ObjectGroup, SceneSpec, held_out_combinations
from lens.rl.prompts.dataset import GLOBAL_CRITERION, RLPrompt, read_prompts, write_prompts
from lens.rl.prompts.nano import nano_prompts, nano_rubric, scene_spec_of, scene_spec_to_dict


def test_the_six_kinds_come_in_equal_shares_and_no_prompt_twice():
    prompts = nano_prompts(600, seed=3)
    kinds = [one.category for one in prompts]
    assert [kinds.count(task) for task in TASKS] == [100] * 6
    assert len({one.prompt for one in prompts}) == 600


def test_a_longer_list_begins_with_the_shorter_and_another_seed_gives_others():
    assert nano_prompts(60, seed=1)[:31] == nano_prompts(31, seed=1)
    assert nano_prompts(12, seed=1) != nano_prompts(12, seed=2)


def test_without_one_kind_the_others_are_what_they_were():
    some = [task for task in TASKS if task != "counting"]
    others = [one for one in nano_prompts(120) if one.category != "counting"]
    assert nano_prompts(100, kinds=some) == others


def test_nothing_that_tests_hold_out_is_asked_for():
    for one in nano_prompts(900, dense_share=0.3):
        expected = scene_spec_of(one)
        assert held_out_combinations(expected.groups, expected.background) == []


def test_no_test_prompt_and_no_test_opener_is_among_them():
    prompts = {one.prompt.lower() for one in nano_prompts(900, dense_share=0.0)}
    tests = {one.prompt.lower() for task in TASKS for one in task_prompts(task, 100)}
    openers = tuple(opener for opener in (*TEST_PHRASES.openers, *TEST_PHRASES.clause_openers) if opener)
    assert not prompts & tests
    assert [one for one in prompts if one.startswith(openers)] == []


def test_kinds_ask_for_what_their_tasks_ask_for():
    for one in nano_prompts(240, dense_share=0.0):
        spec = scene_spec_of(one)
        groups, background, relations = spec.groups, spec.background, spec.relations
        counts = [group.count for group in groups]
        assert len(groups) in {"two": (2,), "position": (2,), "combined": (2, 3)}.get(one.category, (1,))
        assert (background is not None) == (one.category in ("colour", "combined"))
        is_combined_pair = one.category == "combined" and len(groups) == 2
        assert bool(relations) == (one.category == "position" or is_combined_pair)
        assert (max(counts) > 1) == (one.category == "counting" or is_combined_pair)


def test_dense_prompts_are_judged_by_the_background_that_they_always_tell():
    prompts = nano_prompts(120, dense_share=1.0)
    assert all("background" in one.rubric and scene_spec_of(one).background for one in prompts)
    assert np.mean([len(one.prompt) for one in prompts]) > 60


def test_what_an_image_must_show_survives_a_file(tmp_path):
    prompts = nano_prompts(60)
    write_prompts(prompts, tmp_path / "prompts.jsonl")
    assert read_prompts(tmp_path / "prompts.jsonl") == prompts
    for one in prompts:
        expected = scene_spec_of(RLPrompt.of(json.loads(one.model_dump_json())))
        assert scene_spec_to_dict(expected) == one.expected
        assert nano_rubric(expected) == one.rubric


def test_a_rubric_has_one_criterion_for_each_fact_and_the_two_of_all():
    groups = ObjectGroup("fox", 1), ObjectGroup("lemon", 3)
    rubric = nano_rubric(SceneSpec(groups, "light blue", ((0, "left of", 1),)))
    assert rubric == {
        "count_0": "There is exactly one fox.",
        "count_1": "There are exactly three lemons.",
        "background": "The background is light blue.",
        "relation_0": "The fox is to the left of the lemons.",
        "nothing_else": "There is nothing on the plain background but foxes and lemons.",
        GLOBAL_CRITERION: "The whole image is structurally coherent and physically plausible.",
    }


@pytest.mark.parametrize("kinds", [[], ["single", "single"], ["several"]])
def test_kinds_that_are_none_are_refused(kinds):
    with pytest.raises(SettingError, match="kinds"):
        nano_prompts(6, kinds=kinds)


@pytest.mark.parametrize(
    "expected",
    [
        None,
        {"groups": [], "background": None, "relations": []},
        {"groups": [["mermaid", 1]], "background": None, "relations": []},
        {"groups": [["fox", 1]], "background": "chartreuse", "relations": []},
        {"groups": [["fox", 1]], "background": None, "relations": [[0, "above", 1]]},
        {"groups": [["fox", "many"]], "background": None, "relations": []},
        {"groups": [["fox", 1]]},
    ],
)
def test_damaged_facts_are_refused(expected):
    with pytest.raises(SettingError, match="expected"):
        scene_spec_of(RLPrompt(prompt="a fox", category="single", item="fox", expected=expected))


def test_own_words_ask_for_the_whole_world_with_a_criterion_for_each_fact():
    prompts = nano_prompts(300, seed=2, kinds=["own_words"])
    specs = [scene_spec_of(one) for one in prompts]
    assert {group.class_name for spec in specs for group in spec.groups} - set(FIRST_CLASSES)
    assert max(group.count or 1 for spec in specs for group in spec.groups) > 5
    assert any(spec.text for spec in specs) and any(len(spec.relations) == 2 for spec in specs)
    for one, spec in zip(prompts, specs, strict=True):
        assert {f"relation_{number}" for number in range(len(spec.relations))} <= set(one.rubric)
        assert ("text" in one.rubric) == ("text" in one.dimensions) == (spec.text is not None)
    assert len(nano_prompts(10, kinds=["own_words", "single"])) == 10


def test_prompts_of_the_micro_world_ask_for_its_things_and_backgrounds_alone():
    specs = [scene_spec_of(prompt) for prompt in nano_prompts(240, world=MICRO_WORLD)]
    assert {thing for spec in specs for thing, *_ in spec.groups} == set(MICRO_WORLD.class_names)
    assert {spec.background for spec in specs} - {None} == set(MICRO_WORLD.colours)
