"""The exact judge: what was drawn as asked gets everything, and each fault takes away its own criterion."""

import dataclasses

import numpy as np
import pytest

from lens.errors import LensError
from lens.nano.scoring.scorer import DetectedObject, Detections
from lens.nano.scoring.template_matching import UNKNOWN
from lens.nano.tasks import TASKS
from lens.nano.world.colours import COLOURS
from lens.nano.world.scenes import ObjectGroup, SceneSpec, arrange_scene, draw_scene
from lens.rl.prompts.dataset import RLPrompt
from lens.rl.prompts.nano import nano_prompts, nano_rubric, scene_spec_of, scene_spec_to_dict
from lens.rl.rewards.nano import MultiprocessNanoReward, NanoReward, criterion_results
from lens.rl.rewards.pool import RewardExecutor, gather_scores


def groups(**counts: int) -> tuple[ObjectGroup, ...]:
    return tuple(ObjectGroup(name, count) for name, count in counts.items())


COMBINED = SceneSpec(groups(lemon=3, fox=1), "purple", ((0, "left of", 1),))
UNRELATED = dataclasses.replace(COMBINED, relations=())


def prompt_for(asked: SceneSpec, **changes) -> RLPrompt:
    fields = {"prompt": "as the facts say", "category": "combined", "item": "test"}
    facts = {"expected": scene_spec_to_dict(asked), "rubric": nano_rubric(asked)}
    return RLPrompt.of(fields | facts | changes)


def picture_of(expected: SceneSpec, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    relation = expected.relations[0][1] if expected.relations else None
    background = expected.background or str(rng.choice(list(COLOURS)))
    scene = arrange_scene(rng, expected.groups, background, relation, 144, 112)
    return np.round((draw_scene(scene).transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8)


@pytest.mark.parametrize("task", TASKS)
def test_an_image_drawn_as_its_prompt_asks_gets_everything(task):
    for seed, prompt in enumerate(nano_prompts(4, seed=5, kinds=[task])):
        score = NanoReward().score(picture_of(scene_spec_of(prompt), seed), prompt)
        assert score.value == 1.0, (prompt.prompt, score)
        assert set(score.parts) == {*prompt.rubric, "passed"} and set(score.parts.values()) == {1.0}


FAULTS = {
    "one of the first too few": (COMBINED, dict(groups=groups(lemon=2, fox=1)), {"count_0"}),
    "one of the second too many": (COMBINED, dict(groups=groups(lemon=3, fox=2)), {"count_1"}),
    "another background": (COMBINED, dict(background="green"), {"background"}),
    "the other way round": (COMBINED, dict(relations=((0, "right of", 1),)), {"relation_0"}),
    "one more thing": (UNRELATED, dict(groups=groups(lemon=3, fox=1, star=1)), {"nothing_else"}),
    "another thing instead": (
        COMBINED, dict(groups=groups(lemon=3, star=1)), {"count_1", "nothing_else", "relation_0"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_lowers_its_own_criterion_and_no_other(fault):
    asked, changes, lowered = FAULTS[fault]
    score = NanoReward().score(picture_of(dataclasses.replace(asked, **changes)), prompt_for(asked))
    assert {name for name, part in score.parts.items() if part == 0.0} == {*lowered, "passed"}
    num_criteria = len(score.parts) - 1
    assert score.value == pytest.approx(0.5 * (num_criteria - len(lowered)) / num_criteria)


def test_a_broken_object_is_something_else_and_not_coherent():
    asked = SceneSpec((ObjectGroup("lemon", 1),), None, ())
    picture = np.full((96, 128, 3), COLOURS["blue"], np.uint8)
    picture[30:70:2, 70:120:3], picture[30:70:3, 70:120:2] = 255, 0
    score = NanoReward(exact_weight=0).score(picture, prompt_for(asked))
    assert score.parts == {"count_0": 0.0, "nothing_else": 0.0, "coherent": 0.0, "passed": 0.0}
    found = Detections(
        "red", (0, 0, 0), tuple(DetectedObject(name, 9, 9, 9, 1) for name in ("lemon", UNKNOWN))
    )
    assert criterion_results(found, asked) == {"count_0": True, "nothing_else": False, "coherent": False}
    other = Detections("red", (0, 0, 0), tuple(DetectedObject(name, 9, 9, 9, 1) for name in ("lemon", "fox")))
    assert criterion_results(other, asked) == {"count_0": True, "nothing_else": False, "coherent": True}


@pytest.mark.parametrize(("weight", "value"), [(0.0, 5 / 6), (0.3, 0.7 * 5 / 6), (1.0, 0.0)])
def test_the_whole_test_is_mixed_in_by_its_weight(weight, value):
    wrong = picture_of(dataclasses.replace(COMBINED, background="green"))
    assert NanoReward(weight).score(wrong, prompt_for(COMBINED)).value == pytest.approx(value)
    assert NanoReward(weight).version != NanoReward(0.7).version


def test_processes_score_as_this_one_does_and_a_prompt_that_cannot_be_judged_is_one_failure():
    prompts = [*nano_prompts(11, seed=2), prompt_for(COMBINED, rubric={})]
    pictures = [picture_of(COMBINED, seed) for seed in range(len(prompts))]
    found = gather_scores(
        RewardExecutor(MultiprocessNanoReward(0.3, num_processes=1)).submit(pictures, prompts)
    )
    assert found[:-1] == [NanoReward(0.3).score(*pair) for pair in zip(pictures[:-1], prompts, strict=False)]
    assert found[-1].value is None and "no rubric" in found[-1].failure


def test_one_score_of_several_processes_is_that_of_this_one():
    (prompt,) = nano_prompts(1, seed=3)
    image = picture_of(COMBINED, 0)
    assert MultiprocessNanoReward(0.3, num_processes=1).score(image, prompt) == NanoReward(0.3).score(
        image, prompt
    )


def test_a_relation_between_objects_that_are_not_there_does_not_hold():
    blank = np.full((96, 128, 3), 200, np.uint8)
    parts = NanoReward().score(blank, prompt_for(COMBINED)).parts
    assert parts["relation_0"] == parts["count_0"] == parts["count_1"] == 0.0
    assert parts["nothing_else"] == parts["coherent"] == 1.0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"expected": None}, "as in prompts of the nano world"),
        ({"rubric": {}}, "has no rubric"),
        ({"rubric": {"mood": "It is cheerful."}}, "criteria mood"),
    ],
)
def test_what_cannot_be_judged_exactly_is_an_error(changes, says):
    with pytest.raises(LensError, match=says):
        NanoReward().score(np.zeros((32, 32, 3), np.uint8), prompt_for(COMBINED, **changes))
