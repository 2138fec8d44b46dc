"""Task prompts are fixed by their seed, held out from training, and drawn truly by their scenes."""

import numpy as np
import pytest

from lens.errors import SettingError
from lens.nano.scenes import held_out_combinations
from lens.nano.tasks import TASKS, task_prompts, task_scene, training_example


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


def test_each_task_asks_for_its_own_kind_of_thing():
    def shapes(task: str) -> set[tuple[int, bool, bool, bool]]:
        return {
            (len(groups), any(count > 1 for _, count in groups), background is not None, bool(relations))
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
        expected = task_prompt.expected
        assert scene.expected.groups == expected.groups
        assert scene.expected.relations == expected.relations
        assert expected.background in (None, scene.background)


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


def test_an_unknown_task_names_the_known_ones():
    with pytest.raises(SettingError, match="single, two, counting, colour, position, combined"):
        task_prompts("colors", 3)
