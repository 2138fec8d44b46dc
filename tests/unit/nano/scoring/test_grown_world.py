"""The scorer in the grown world: truth of every kind passes, and what an image must not show is told."""

from dataclasses import replace

import numpy as np
import pytest

from lens.core.resolution import buckets_for
from lens.nano.scoring.detections import DetectedObject, Detections
from lens.nano.scoring.scorer import detect, score_detections, score_image
from lens.nano.world.colours import COLOURS, OBJECT_COLOURS
from lens.nano.world.full_scenes import FULL_SCENE_KINDS, random_full_scene
from lens.nano.world.recolouring import COLOURABLE
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec
from lens.nano.world.scenes import Scene, SceneObject, draw_scene
from lens.nano.world.signs import Sign

NUM_SCENES = 27
SIZES = list(buckets_for(128).values())
KINDS_WITHOUT_TEXT = [kind for kind in FULL_SCENE_KINDS if "sign" not in kind]


def picture_of(scene: Scene) -> np.ndarray:
    return np.round((draw_scene(scene).transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8)


def misses(kind: str, sizes: list[tuple[int, int]], num_scenes: int) -> list[tuple[str, ...]]:
    reasons = []
    for index in range(num_scenes):
        rng = np.random.default_rng([20, index])
        scene = random_full_scene(rng, *sizes[index % len(sizes)], kind=kind)
        reasons.append(score_image(picture_of(scene), scene.spec).reasons)
    return [wrong for wrong in reasons if wrong]


@pytest.mark.parametrize("kind", KINDS_WITHOUT_TEXT)
def test_rendered_truth_of_every_kind_passes_in_all_ratios(kind):
    assert len(failed := misses(kind, SIZES, NUM_SCENES)) <= 0.05 * NUM_SCENES, failed


@pytest.mark.parametrize("kind", ["sign", "sign_with_thing"])
def test_rendered_signs_are_read(kind):
    pytest.importorskip("rapidocr")
    assert len(failed := misses(kind, SIZES, NUM_SCENES)) <= 0.05 * NUM_SCENES, failed


@pytest.mark.parametrize("side_px", [192, 256])
def test_larger_images_are_measured_in_their_own_pixels(side_px):
    for kind in ("counting", "coloured", "two_sizes"):
        assert not misses(kind, [(side_px, side_px)], 4)
    thing = SceneObject("fox", side_px // 4, side_px // 2, side_px // 2)
    found = detect(picture_of(scene_of([thing], side_px=side_px))).objects
    assert [one.class_name for one in found] == ["fox"]
    assert abs(found[0].x_px - thing.x_px) <= 2 and abs(found[0].size_px / thing.size_px - 1) <= 0.05


def scene_of(
    things: list[SceneObject], background: str = "white", sign: Sign | None = None, side_px: int = 128
) -> Scene:
    rgb = COLOURS[background]
    return Scene("any", background, rgb, tuple(things), side_px, side_px, SceneSpec(), sign)


@pytest.mark.parametrize("colour", OBJECT_COLOURS)
def test_a_colour_is_found_on_art_and_no_other_passes(colour):
    names = [name for name in COLOURABLE if name not in ("sun", "lemon", "tomato")][::16]
    for name in names:
        detections = detect(picture_of(scene_of([SceneObject(name, 64, 64, 64, colour)])))
        asked_for = SceneSpec((ObjectGroup(name, 1, colour),))
        assert score_detections(detections, asked_for).passed, detections.objects
        others = [other for other in OBJECT_COLOURS if other != colour]
        wrong = [replace(asked_for, groups=(ObjectGroup(name, 1, other),)) for other in others]
        assert not any(score_detections(detections, spec).passed for spec in wrong)


def test_art_as_drawn_has_its_natural_colour():
    detections = detect(picture_of(scene_of([SceneObject("frog", 64, 64, 64)])))
    assert detections.objects[0].colour is None
    verdict = score_detections(detections, SceneSpec((ObjectGroup("frog", 1, "green"),)))
    assert verdict.passed
    assert score_detections(detections, SceneSpec((ObjectGroup("frog", 1, "red"),))).reasons == (
        "frog is green, not red",
    )


def detections_of(*things: tuple[str, int, int, float, str | None]) -> Detections:
    found = tuple(DetectedObject(name, x, y, size, 0.99, colour) for name, x, y, size, colour in things)
    return Detections("blue", (0, 0, 0), found)


def passes(detections: Detections, *groups: ObjectGroup, relation: str | None = None) -> bool:
    return score_detections(
        detections, SceneSpec(groups, None, ((0, relation, 1),) if relation else ())
    ).passed


def test_groups_of_one_class_differ_in_colour():
    found = detections_of(("car", 30, 64, 40, "green"), ("car", 90, 64, 40, None))
    green, red = ObjectGroup("car", 1, "green"), ObjectGroup("car", 1, "red")
    assert passes(found, green, red) and passes(found, red, green)
    assert passes(found, green, red, relation="left of") and not passes(found, red, green, relation="left of")
    assert passes(found, ObjectGroup("car", 2)), "any colour"
    assert not passes(found, green, green) and not passes(found, green, ObjectGroup("car", 1, "blue"))


def test_a_count_of_none_is_any_number_from_one():
    for count in (1, 2, 5):
        found = detections_of(*(("fox", 10 + 25 * index, 64, 20, None) for index in range(count)))
        assert passes(found, ObjectGroup("fox", None))
    assert not passes(detections_of(), ObjectGroup("fox", None))
    assert score_detections(detections_of(), SceneSpec((ObjectGroup("fox", None),))).reasons == (
        "0 x fox found, 1 or more expected",
    )


def test_sizes_are_of_the_base_and_of_each_other():
    large, small = ("fox", 30, 64, 64, None), ("cat", 90, 64, 32, None)
    both = ObjectGroup("fox", 1, size="large"), ObjectGroup("cat", 1, size="small")
    assert passes(detections_of(large, small), *both)
    assert not passes(detections_of(large, ("cat", 90, 64, 60, None)), *both)
    almost = ("fox", 30, 64, 48, None), ("cat", 90, 64, 45, None)
    assert not passes(detections_of(*almost), *both), "no larger than the small one"
    verdict = score_detections(detections_of(small), SceneSpec((ObjectGroup("cat", 1, size="large"),)))
    assert verdict.reasons == ("cat is not large",)


def test_two_relations_hold_together():
    found = detections_of(("fox", 20, 20, 30, None), ("cat", 60, 20, 30, None), ("dog", 60, 80, 30, None))
    groups = (ObjectGroup("fox"), ObjectGroup("cat"), ObjectGroup("dog"))
    spec = SceneSpec(groups, None, ((0, "left of", 1), (2, "below", 1)))
    assert score_detections(found, spec).passed
    wrong = replace(spec, relations=((0, "left of", 1), (2, "above", 1)))
    assert score_detections(found, wrong).reasons == ("dog is not above cat",)


def test_a_sign_is_no_object_and_one_that_was_not_asked_for_fails():
    sign = Sign("OPEN", 64, 24, 128, 48)
    picture = picture_of(scene_of([SceneObject("fox", 64, 92, 64)], "green", sign))
    detections = detect(picture)
    assert [thing.class_name for thing in detections.objects] == ["fox"] and len(detections.signs) == 1
    fox = SceneSpec((ObjectGroup("fox"),))
    assert score_detections(detections, fox).reasons == ("1 x sign found, 0 expected",)
    without = detect(picture_of(scene_of([SceneObject("fox", 64, 64, 64)], "green")))
    assert score_detections(without, SceneSpec((ObjectGroup("fox"),), text="OPEN")).reasons == (
        "0 x sign found, 1 expected",
    )


def test_a_sign_must_say_exactly_what_was_asked_for():
    pytest.importorskip("rapidocr")
    for text, other in (("OPEN", "OPEM"), ("10", "1O"), ("O0O", "000"), ("A1B2", "A1B")):
        board = Sign(text, 64, 64, 32 * len(text), 48)
        detections = detect(picture_of(scene_of([], "orange", board)))
        assert score_detections(detections, SceneSpec(text=text)).passed
        assert score_detections(detections, SceneSpec(text=other)).reasons == (
            f"the sign says {text!r}, not {other!r}",
        )


@pytest.mark.parametrize("background", COLOURS)
def test_white_things_with_edges_are_no_signs(background):
    for name in ("envelope", "die", "phone", "laptop", "panda", "book", "door", "television"):
        assert not detect(picture_of(scene_of([SceneObject(name, 64, 64, 96)], background))).signs
