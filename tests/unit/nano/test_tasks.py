"""Task prompts are fixed by their seed, held out from training, and drawn truly by their scenes."""

import hashlib

import numpy as np
import pytest

from lens.errors import SettingError
from lens.nano.tasks import TASKS, WorldConfig, task_prompts, task_scene, training_example
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scenes import held_out_combinations


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


def test_a_smaller_world_trains_and_asks_for_its_own_objects_alone():
    world = WorldConfig.of(9, dense_share=0.3)
    assert len(set(world.class_names)) == 9 and set(world.class_names) < set(OBJECT_CLASSES)
    scenes = [training_example(0, index, 128, 96, world)[0] for index in range(99)]
    trained = {thing for scene in scenes for thing, *_ in scene.groups}
    asked = {
        thing for task in TASKS
        for _, expected in task_prompts(task, 20, world=world) for thing, *_ in expected.groups
    }  # fmt: skip
    assert trained == asked == set(world.class_names)


def test_the_share_of_dense_captions_changes_what_is_said_of_scenes_and_not_the_scenes():
    brief, dense, usual = (
        [training_example(0, index, 128, 96, WorldConfig.of(0, share)) for index in range(60)]
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


@pytest.mark.parametrize("count", [3, 4000])
def test_a_world_of_too_few_or_too_many_objects_is_refused(count):
    with pytest.raises(SettingError, match=f"num_things is {count}, but it needs 0, for all, or a number"):
        WorldConfig.of(count, 0.3)


def test_a_world_in_which_nothing_is_held_out_is_refused(monkeypatch):
    monkeypatch.setattr("lens.nano.tasks.held_out_combinations", lambda *_: [])
    with pytest.raises(SettingError, match="num_things is 5, but it needs more objects: too few"):
        task_prompts("two", 3, world=WorldConfig.of(5, 0.3))


def test_an_unknown_task_names_the_known_ones():
    with pytest.raises(SettingError, match="single, two, counting, colour, position, combined"):
        task_prompts("colors", 3)
