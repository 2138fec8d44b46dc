"""Task prompts are fixed by their seed, held out from training, and drawn truly by their scenes."""

import hashlib
import re
from itertools import combinations

import numpy as np
import pytest

from lens.errors import SettingError
from lens.nano.scoring.scorer import score_image
from lens.nano.tasks import MICRO_WORLD, TASKS, WorldConfig, task_prompts, task_scene, training_example
from lens.nano.world.scenes import draw_scene, held_out_combinations, is_held_out


@pytest.mark.parametrize("task", TASKS)
def test_prompts_are_distinct_and_fixed_by_the_seed(task):
    prompts = task_prompts(task, 60, seed=5)
    assert len({prompt for prompt, _ in prompts}) == 60
    assert prompts == task_prompts(task, 60, seed=5)
    assert prompts[:20] == task_prompts(task, 20, seed=5)
    assert prompts != task_prompts(task, 60, seed=6)


@pytest.mark.parametrize("task", [task for task in TASKS if task != "single"])
def test_every_prompt_asks_for_a_held_out_combination(task):
    for _, expected in task_prompts(task, 60):
        assert held_out_combinations(expected.groups, expected.background)


def test_each_task_asks_for_its_own_kind_of_object():
    def shapes(task: str) -> set[tuple[int, bool, bool, bool]]:
        return {
            (len(groups), any(count > 1 for _, count, *_ in groups), background is not None, bool(relations))
            for _, (groups, background, relations) in (
                (prompt, (expected.groups, expected.background, expected.relations))
                for prompt, expected in task_prompts(task, 60)
            )
        }

    assert shapes("single") == {(1, False, False, False)}
    assert shapes("two") == {(2, False, False, False)}
    assert shapes("counting") == {(1, True, False, False)}
    assert shapes("colour") == {(1, False, True, False)}
    assert shapes("position") == {(2, False, False, True)}
    assert shapes("combined") == {(2, True, True, True), (3, False, True, False)}


@pytest.mark.parametrize("task", TASKS)
def test_the_scene_of_a_prompt_shows_what_is_expected(task):
    rng = np.random.default_rng(0)
    for task_prompt in task_prompts(task, 20):
        scene = task_scene(task_prompt, rng, 96, 176)
        expected = task_prompt.spec
        assert scene.spec.groups == expected.groups
        assert scene.spec.relations == expected.relations
        assert expected.background in (None, scene.background)


def test_the_prompts_stay_as_they_were_before_the_world_grew():
    prompts = [
        prompt
        for task in TASKS
        for style in ("brief", "dense")
        for prompt, _ in task_prompts(task, 100, style=style)
    ]
    assert hashlib.blake2b("\n".join(prompts).encode(), digest_size=8).hexdigest() == "0315ad668727a1e4"


def test_no_test_prompt_is_a_training_caption():
    prompts = {prompt.lower().strip(".") for task in TASKS for prompt, _ in task_prompts(task, 100)}
    captions = {training_example(0, index, 128, 128)[1].lower().strip(".") for index in range(4000)}
    assert not prompts & captions


def test_training_examples_are_the_same_in_any_order_of_asking():
    forward = [training_example(3, index, 128, 128) for index in range(10)]
    backward = [training_example(3, index, 128, 128) for index in reversed(range(10))]
    assert forward == backward[::-1]
    assert forward != [training_example(4, index, 128, 128) for index in range(10)]
    assert len({caption for _, caption in forward}) == 10


def test_the_micro_world_trains_and_asks_for_its_own_objects_and_backgrounds_alone():
    scenes = [training_example(0, index, 64, 64, MICRO_WORLD)[0] for index in range(99)]
    specs = [spec for task in TASKS for _, spec in task_prompts(task, 30, world=MICRO_WORLD)]
    for found in ([scene.spec for scene in scenes], specs):
        assert {thing for spec in found for thing, *_ in spec.groups} == set(MICRO_WORLD.class_names)
        assert {spec.background for spec in found} - {None} == set(MICRO_WORLD.colours)
    assert len(MICRO_WORLD.class_names) == 8 and len(MICRO_WORLD.colours) == 4


@pytest.mark.parametrize("task", TASKS)
def test_rendered_truth_of_the_micro_world_passes_at_64_pixels(task):
    prompts = task_prompts(task, 40, 1, MICRO_WORLD)
    passed = [
        score_image(
            np.round((draw_scene(task_scene(one, np.random.default_rng(seed), 64, 64)) + 1) * 127.5)
            .astype(np.uint8)
            .transpose(1, 2, 0),
            one.spec,
        ).passed
        for seed, one in enumerate(prompts)
    ]
    assert np.mean(passed) >= 0.97


def test_many_combinations_of_the_micro_world_are_held_out():
    names = MICRO_WORLD.class_names
    assert sum(is_held_out(*pair) for pair in combinations(names, 2)) == 8
    assert sum(is_held_out(name, count) for name in names for count in range(2, 6)) == 4
    assert sum(is_held_out(name, f"on {colour}") for name in names for colour in MICRO_WORLD.colours) == 5


def test_captions_and_prompts_of_another_language_are_in_it_and_of_the_same_scenes():
    german = WorldConfig.of("micro", 0.0, "de", 1.0)
    pairs = [training_example(0, index, 64, 64, german) for index in range(40)]
    english = [training_example(0, index, 64, 64, WorldConfig.of("micro", 0.0)) for index in range(40)]
    assert [scene for scene, _ in pairs] == [scene for scene, _ in english]
    nouns = "Pinguin|Fisch|Sonnenblume|Croissant|H.{1,2}rnchen|Schnecke|Fr.{1,2}sch|Frosch|K.{1,2}ken|Birne"
    asked = [prompt for task in TASKS for prompt, _ in task_prompts(task, 8, world=MICRO_WORLD, style="de")]
    for text in [*(caption for _, caption in pairs), *asked]:
        assert re.search(nouns, text, re.IGNORECASE), text


def test_the_share_of_dense_captions_changes_what_is_said_of_scenes_and_not_the_scenes():
    brief, dense, usual = (
        [training_example(0, index, 128, 96, WorldConfig.of("tasks", share)) for index in range(60)]
        for share in (0, 1, 0.3)
    )
    assert [scene for scene, _ in brief] == [scene for scene, _ in dense] == [scene for scene, _ in usual]
    lengths = [np.mean([len(caption) for _, caption in told]) for told in (brief, usual, dense)]
    assert lengths[0] < lengths[1] < lengths[2] and lengths[2] > 1.8 * lengths[0]
    assert usual == [training_example(0, index, 128, 96) for index in range(60)]


def test_dense_prompts_ask_for_the_same_as_brief_ones_and_tell_more():
    brief, dense = (task_prompts("two", 20, seed=3, style=style) for style in ("brief", "dense"))
    assert dense[0].spec == brief[0].spec
    assert len(" ".join(prompt for prompt, _ in dense)) > 1.8 * len(" ".join(prompt for prompt, _ in brief))


@pytest.mark.parametrize(
    "values, message",
    [
        (("tiny", 0.3), "world is 'tiny', but it needs one of tasks, micro"),
        (("micro", 0.3, "tlh", 0.5), "language is 'tlh', but it needs one of de, fr"),
    ],
)
def test_unknown_worlds_and_languages_are_refused(values, message):
    with pytest.raises(SettingError, match=message):
        WorldConfig.of(*values)


def test_an_unknown_style_of_prompts_is_refused():
    with pytest.raises(SettingError, match="style is 'long', but it needs one of brief, dense, de"):
        task_prompts("two", 3, style="long")


def test_a_world_in_which_nothing_is_held_out_is_refused(monkeypatch):
    monkeypatch.setattr("lens.nano.tasks.held_out_combinations", lambda *_: [])
    with pytest.raises(SettingError, match=r"world is .penguin, .*more than 8 objects, or fewer prompts"):
        task_prompts("two", 3, world=MICRO_WORLD)


def test_an_unknown_task_names_the_known_ones():
    with pytest.raises(SettingError, match="single, two, counting, colour, position, combined"):
        task_prompts("colors", 3)
