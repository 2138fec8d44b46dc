"""Scenes fit their image, say the truth about their layout, and keep the held-out combinations out."""

import numpy as np
import pytest

from lens.core.resolution import buckets_for
from lens.nano.world.colours import COLOURS
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.placement import GRID_PX
from lens.nano.world.scenes import (
    OPPOSITE,
    PLACES,
    RELATIONS,
    SCENE_KINDS,
    ObjectGroup,
    Scene,
    SceneObject,
    SceneSpec,
    arrange_scene,
    clear_relation,
    draw_scene,
    held_out_combinations,
    is_held_out,
    random_scene,
    scene_kind,
)

SIZES = [size for base in (128, 192, 256) for size in sorted(set(buckets_for(base).values()))]


def scenes(
    count: int, height_px: int = 128, width_px: int = 128, kind: str | None = None, seed: int = 0
) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [random_scene(rng, height_px, width_px, kind) for _ in range(count)]


def gap_between(one: SceneObject, other: SceneObject) -> float:
    """The widest strip, upright or level, that keeps two boxes apart; negative when they overlap."""
    (left, top, right, bottom), (left2, top2, right2, bottom2) = one.box, other.box
    return max(left2 - right, left - right2, top2 - bottom, top - bottom2)


@pytest.mark.parametrize(("height_px", "width_px"), SIZES)
def test_objects_lie_inside_the_image_and_apart_at_every_size(height_px, width_px):
    scale = (height_px * width_px) ** 0.5 / 128
    for scene in scenes(120, height_px, width_px):
        assert draw_scene(scene).shape == (3, height_px, width_px)
        for index, thing in enumerate(scene.objects):
            left, top, right, bottom = thing.box
            assert left >= 0 and top >= 0 and right <= width_px and bottom <= height_px
            assert thing.size_px >= 26 * scale
            assert all(gap_between(thing, other) >= 3.75 * scale for other in scene.objects[:index])


@pytest.mark.parametrize("kind", SCENE_KINDS)
def test_a_scene_of_a_kind_has_what_the_kind_says(kind):
    for scene in scenes(60, kind=kind):
        assert scene.kind == kind == scene_kind(scene.groups, scene.relation)
        assert len({thing for thing, *_ in scene.groups}) == len(scene.groups)
        assert [thing.class_name for thing in scene.objects] == [
            thing for thing, count, *_ in scene.groups for _ in range(count)
        ]
        assert len(scene.objects) <= 5
        assert (scene.relation is not None) == kind.startswith("position")


def test_a_relation_holds_between_the_boxes_of_all_objects_on_either_side():
    seen = set()
    for scene in scenes(300, kind="position_counted"):
        axis, is_first = {
            "left of": (0, True),
            "right of": (0, False),
            "above": (1, True),
            "below": (1, False),
        }[scene.relation]
        before, after = (scene.group_objects(0), scene.group_objects(1))[:: 1 if is_first else -1]
        assert max(thing.box[axis + 2] for thing in before) <= min(thing.box[axis] for thing in after)
        seen.add(scene.relation)
    assert seen == set(RELATIONS)


def test_a_relation_is_clear_only_when_one_axis_leads():
    fox = SceneObject("fox", 30, 30, 30)
    assert clear_relation([fox], [SceneObject("bee", 90, 40, 30)]) == "left of"
    assert clear_relation([SceneObject("bee", 90, 40, 30)], [fox]) == "right of"
    assert clear_relation([fox], [SceneObject("bee", 20, 90, 30)]) == "above"
    assert clear_relation([fox], [SceneObject("bee", 90, 90, 30)]) is None
    assert clear_relation([fox], [SceneObject("bee", 44, 30, 30)]) is None
    assert all(OPPOSITE[OPPOSITE[relation]] == relation for relation in RELATIONS)


def test_places_are_thirds_and_objects_alone_keep_clear_of_the_lines_between():
    def alone(x_px: int, y_px: int) -> Scene:
        spec = SceneSpec((ObjectGroup("fox"),), "red")
        return Scene("single", "red", (255, 0, 0), (SceneObject("fox", x_px, y_px, 30),), 176, 96, spec)

    assert [alone(x, 48).place() for x in (20, 88, 150)] == ["left", "centre", "right"]
    assert [alone(20, y).place() for y in (20, 48, 80)] == ["top left", "left", "bottom left"]
    found = set()
    for scene in scenes(300, 128, 128, "single"):
        found.add(scene.place())
        for fraction in (scene.objects[0].x_px / 128, scene.objects[0].y_px / 128):
            assert min(abs(fraction - 1 / 3), abs(fraction - 2 / 3)) > 0.015
    assert found == set(PLACES)


@pytest.mark.parametrize(("height", "width"), [(128, 128), (176, 96), (112, 160)])
def test_objects_are_small_or_large_and_lie_on_whole_latent_cells(height, width):
    sides: dict[str, set[int]] = {"small": set(), "large": set()}
    for scene in scenes(300, height, width):
        for index, thing in enumerate(scene.objects):
            sides[scene.size(index)].add(thing.size_px)
            corner = thing.x_px - thing.size_px // 2, thing.y_px - thing.size_px // 2
            assert corner[0] % GRID_PX == corner[1] % GRID_PX == 0
    assert sides == {"small": {32}, "large": {64}}


def test_an_image_shows_the_shade_behind_and_the_object_in_front():
    scene = arrange_scene(np.random.default_rng(0), (("sun", 1),), "blue", None, 96, 176)
    pixels = draw_scene(scene)
    assert pixels.dtype == np.float32 and pixels.min() >= -1 and pixels.max() <= 1
    np.testing.assert_allclose((pixels[:, 0, 0] + 1) * 127.5, scene.background_rgb, atol=1e-3)
    np.testing.assert_allclose(scene.background_rgb, COLOURS["blue"], atol=8)
    centre = pixels[:, scene.objects[0].y_px, scene.objects[0].x_px]
    assert centre[0] > 0.5 and centre[2] < 0  # yellow: much red, little blue


def test_the_same_generator_seed_draws_the_same_scenes():
    assert scenes(20, seed=3) == scenes(20, seed=3)
    assert scenes(20, seed=3) != scenes(20, seed=4)


def test_training_scenes_never_show_a_held_out_combination():
    for scene in scenes(2000):
        assert held_out_combinations(scene.groups, scene.background) == []


def test_about_a_tenth_of_all_combinations_is_held_out_in_either_order():
    names = list(OBJECT_CLASSES)
    pairs = [(one, other) for index, one in enumerate(names) for other in names[:index]]
    assert 0.07 < np.mean([is_held_out(*pair) for pair in pairs]) < 0.13
    assert all(is_held_out(one, other) == is_held_out(other, one) for one, other in pairs)
    counted = [(name, count) for name in names for count in range(2, 6)]
    assert 0.05 < np.mean([is_held_out(*combination) for combination in counted]) < 0.15


def test_a_scene_expects_its_groups_background_and_relation():
    scene = arrange_scene(np.random.default_rng(0), (("fox", 2), ("bee", 1)), "pink", "below", 128, 128)
    assert scene.kind == "position_counted"
    groups = ObjectGroup("fox", 2), ObjectGroup("bee", 1)
    assert scene.spec == SceneSpec(groups, "pink", ((0, "below", 1),))
    assert (scene.groups, scene.relation) == (groups, "below")
