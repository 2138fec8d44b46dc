"""The scorer: ground truth passes, as drawn and as a VAE would soften it; wrong images fail."""

from dataclasses import replace

import numpy as np
import pytest

from lens.core.resolution import buckets_for
from lens.errors import ShapeError
from lens.nano.scoring.components import mask_components
from lens.nano.scoring.scorer import (
    DetectedObject,
    Detections,
    colour_name,
    detect,
    score_detections,
)
from lens.nano.scoring.scorer_pool import detect_all
from lens.nano.scoring.template_matching import UNKNOWN
from lens.nano.tasks import TASKS, TaskPrompt, task_prompts, task_scene
from lens.nano.world.colours import COLOURS
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scenes import OPPOSITE, Scene, SceneObject, SceneSpec, draw_scene

SIZES = list(buckets_for(128).values())
PER_TASK = len(SIZES)
NUM_TRUE = PER_TASK * len(TASKS)


def picture_of(scene: Scene) -> np.ndarray:
    return np.round((draw_scene(scene).transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8)


def truth(task: str, seed: int = 0) -> list[tuple[np.ndarray, TaskPrompt]]:
    rng = np.random.default_rng(seed)
    return [
        (picture_of(task_scene(prompt, rng, *SIZES[index % len(SIZES)])), prompt)
        for index, prompt in enumerate(task_prompts(task, PER_TASK, seed=seed))
    ]


def softened(picture: np.ndarray, seed: int) -> np.ndarray:
    """Blur by 0.7 px, shift the colours by a few levels, add noise: about 27 dB."""
    rng = np.random.default_rng(seed)
    kernel = np.exp(-0.5 * np.square(np.arange(-2, 3) / 0.7))
    kernel /= kernel.sum()
    blurred = picture.astype(np.float64)
    for axis in (0, 1):
        blurred = np.apply_along_axis(
            lambda line: np.convolve(np.pad(line, 2, mode="edge"), kernel, "valid"), axis, blurred
        )
    shifted = blurred * (1 + rng.normal(0, 0.02, 3)) + rng.normal(0, 3, 3)
    return np.clip(np.round(shifted + rng.normal(0, 7, picture.shape)), 0, 255).astype(np.uint8)


def altered(expected: SceneSpec, how: str, rng: np.random.Generator) -> SceneSpec:
    """Return what a wrong image shows instead: another object, one off, mirrored, another colour."""
    first, *rest = expected.groups
    others = [name for name in OBJECT_CLASSES if name not in [group.class_name for group in expected.groups]]
    if how == "thing":
        return replace(expected, groups=(first._replace(class_name=str(rng.choice(others))), *rest))
    if how == "count":
        assert first.count
        count = first.count - 1 if first.count > 2 else first.count + 1
        return replace(expected, groups=(first._replace(count=count), *rest))
    if how == "background":
        colours = [name for name in COLOURS if name != expected.background]
        return replace(expected, background=str(rng.choice(colours)))
    relations = tuple((first, OPPOSITE[relation], second) for first, relation, second in expected.relations)
    return replace(expected, relations=relations)


def misses(is_soft: bool) -> list[tuple[str, tuple[str, ...]]]:
    pictures = [(task, *pair) for task in TASKS for pair in truth(task)]
    verdicts = [
        (task, score_detections(detect(softened(picture, seed) if is_soft else picture), prompt.spec))
        for seed, (task, picture, prompt) in enumerate(pictures)
    ]
    return [(task, verdict.reasons) for task, verdict in verdicts if not verdict.passed]


def test_rendered_ground_truth_passes():
    assert len(failed := misses(is_soft=False)) <= 0.03 * NUM_TRUE, failed


def test_ground_truth_as_soft_as_a_vae_leaves_it_passes():
    assert len(failed := misses(is_soft=True)) <= 0.05 * NUM_TRUE, failed


@pytest.mark.parametrize(
    ("task", "how"),
    [("single", "thing"), ("two", "thing"), ("counting", "count"), ("two", "count"), ("colour", "background"),
     ("position", "relation"), ("combined", "thing"), ("combined", "count"), ("combined", "background")],
)  # fmt: skip
def test_wrong_images_fail(task, how):
    rng = np.random.default_rng(1)
    passed = 0
    for index, prompt in enumerate(task_prompts(task, PER_TASK)):
        wrong = TaskPrompt("", altered(prompt.spec, how, rng))
        picture = picture_of(task_scene(wrong, rng, *SIZES[index % len(SIZES)]))
        passed += score_detections(detect(picture), prompt.spec).passed
    assert passed <= 0.05 * PER_TASK


def scene_of(
    placed: list[SceneObject], background: str = "blue", height: int = 112, width: int = 144
) -> Scene:
    return Scene("two", background, COLOURS[background], tuple(placed), width, height, None, ())


def test_objects_are_found_where_and_as_large_as_they_were_drawn():
    placed = [
        SceneObject("fox", 30, 40, 36),
        SceneObject("star", 104, 36, 48),
        SceneObject("cactus", 90, 86, 40),
    ]
    found = {thing.class_name: thing for thing in detect(picture_of(scene_of(placed))).objects}
    assert set(found) == {"fox", "star", "cactus"}
    for thing in placed:
        here = found[thing.class_name]
        assert abs(here.x_px - thing.x_px) <= 1 and abs(here.y_px - thing.y_px) <= 1
        assert abs(here.size_px / thing.size_px - 1) <= 0.05
        assert here.similarity > 0.95


def test_two_objects_that_touch_are_told_apart():
    placed = [SceneObject("orange", 40, 56, 44), SceneObject("panda", 80, 58, 44)]
    assert sorted(thing.class_name for thing in detect(picture_of(scene_of(placed))).objects) == [
        "orange",
        "panda",
    ]


def test_one_object_in_several_pieces_is_one_object():
    placed = [SceneObject("crown", 50, 56, 60)]
    picture = picture_of(scene_of(placed))
    picture[54:57] = picture[0, 0]  # a gap of three rows through the middle
    assert [thing.class_name for thing in detect(picture).objects] == ["crown"]


def test_what_is_like_no_object_is_unknown_and_spoils_the_count():
    picture = picture_of(scene_of([SceneObject("fox", 30, 40, 36)]))
    picture[60:100:2, 80:130:3] = 255
    picture[60:100:3, 80:130:2] = 0
    verdict = score_detections(detect(picture), SceneSpec((("fox", 1),), "blue", ()))
    assert not verdict.passed
    assert UNKNOWN in verdict.reasons[0]


def test_specks_of_dirt_are_no_objects():
    picture = picture_of(scene_of([SceneObject("fox", 30, 40, 36)]))
    picture[90:93, 100:103] = 255
    assert [thing.class_name for thing in detect(picture).objects] == ["fox"]


@pytest.mark.parametrize("background", COLOURS)
def test_an_empty_image_has_its_background_and_no_objects(background):
    detections = detect(picture_of(scene_of([], background)))
    assert (detections.background, detections.background_rgb) == (background, COLOURS[background])
    assert detections.objects == ()


def test_relations_need_order_for_every_pair_and_the_leading_axis():
    def verdict(relation: str, *places: tuple[str, int, int]) -> bool:
        found = tuple(DetectedObject(thing, x, y, 30, 0.99) for thing, x, y in places)
        groups = tuple((name, sum(thing == name for thing, _, _ in places)) for name in ("fox", "cat"))
        return score_detections(
            Detections("blue", (0, 0, 0), found), SceneSpec(groups, None, ((0, relation, 1),))
        ).passed

    assert verdict("left of", ("fox", 20, 50), ("cat", 70, 60))
    assert not verdict("right of", ("fox", 20, 50), ("cat", 70, 60))
    assert not verdict("left of", ("fox", 64, 50), ("cat", 69, 50)), "closer than the margin"
    assert not verdict("left of", ("fox", 20, 20), ("cat", 40, 90)), "mostly above"
    assert verdict("above", ("fox", 20, 20), ("cat", 40, 90))
    assert not verdict("left of", ("fox", 20, 50), ("fox", 90, 50), ("cat", 70, 50)), "one fox is not"


def test_reasons_name_what_is_wrong():
    found = (DetectedObject("fox", 20, 50, 30, 0.99), DetectedObject("cat", 70, 50, 30, 0.99))
    expected = SceneSpec((("fox", 2), ("cat", 1)), "red", ((0, "above", 1),))
    assert score_detections(Detections("blue", (0, 0, 0), found), expected).reasons == (
        "1 x fox found, 2 expected",
        "fox is not above cat",
        "the background is blue, not red",
    )


def test_shades_of_a_colour_keep_its_name():
    for name, rgb in COLOURS.items():
        for shift in (-8, 8):
            assert colour_name(tuple(min(255, max(0, channel + shift)) for channel in rgb)) == name


def test_connected_parts_join_over_corners_and_around_bends():
    mask = np.array([[1, 0, 1, 0, 0], [1, 0, 1, 0, 1], [0, 1, 0, 0, 1], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0]]) > 0
    parts = mask_components(mask)
    assert sorted(int(part.sum()) for part in parts) == [2, 2, 5]
    assert np.array_equal(np.logical_or.reduce(parts), mask)


def test_only_8_bit_colour_images_are_read():
    with pytest.raises(ShapeError, match=r"uint8 \(height, width, 3\), not float32"):
        detect(np.zeros((64, 64, 3), np.float32))


def test_processes_see_in_images_what_this_one_sees():
    pictures = [picture for picture, _ in truth("combined")[:3]]
    assert (
        detect_all(pictures, num_processes=1)
        == detect_all(pictures)
        == [detect(picture) for picture in pictures]
    )
