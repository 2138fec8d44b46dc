"""Scenes of the grown world show what their specs state, at every size, and vary in the rest."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from lens.core.resolution import buckets_for
from lens.nano.world.colours import COLOURS, FIRST_COLOURS, OBJECT_COLOURS
from lens.nano.world.compositions import COMPOSITIONS, LINES, place_alone, place_related, place_unrelated
from lens.nano.world.full_scenes import FULL_SCENE_KINDS, complete_spec, random_full_scene, stated_spec
from lens.nano.world.objects import FIRST_CLASSES, OBJECT_CLASSES
from lens.nano.world.placement import GRID_PX, Canvas
from lens.nano.world.recolouring import COLOURABLE
from lens.nano.world.scene_spec import PLACES, SIGN_CHARACTERS
from lens.nano.world.scenes import Scene, SceneObject, draw_scene, held_out_combinations

SIZES = [size for base in (128, 192, 256, 320) for size in sorted(set(buckets_for(base).values()))]


def scenes(count: int, kind: str | None = None, height_px: int = 128, width_px: int = 128) -> list[Scene]:
    rng = np.random.default_rng(0)
    return [random_full_scene(rng, height_px, width_px, kind=kind) for _ in range(count)]


def squares(scene: Scene) -> list[tuple[int, int, int, int]]:
    """The left, top, width and height of all that a scene shows."""
    found = [
        (thing.x_px - thing.size_px // 2, thing.y_px - thing.size_px // 2, thing.size_px, thing.size_px)
        for thing in scene.objects
    ]
    sign = scene.sign
    return found + ([(sign.left_px, sign.top_px, sign.width_px, sign.height_px)] if sign else [])


def centre(things: tuple[SceneObject, ...]) -> np.ndarray:
    return np.mean([(thing.x_px, thing.y_px) for thing in things], axis=0)


@pytest.mark.parametrize(("height_px", "width_px"), SIZES)
def test_everything_lies_inside_the_image_and_apart_at_every_size(height_px, width_px):
    base_px = (height_px * width_px) ** 0.5
    for scene in scenes(150, None, height_px, width_px):
        found = squares(scene)
        for index, (x, y, width, height) in enumerate(found):
            assert min(x, y) >= 0 and x + width <= width_px and y + height <= height_px
            for left, top, wide, high in found[:index]:
                assert x >= left + wide or left >= x + width or y >= top + high or top >= y + height
        assert all(thing.size_px >= 0.17 * base_px for thing in scene.objects)


@pytest.mark.parametrize(("height_px", "width_px"), [(128, 128), (176, 96), (96, 176), (256, 256)])
def test_what_a_spec_states_is_what_the_scene_shows(height_px, width_px):
    for scene in scenes(700, None, height_px, width_px):
        spec = scene.spec
        assert (spec.background, spec.text) == (scene.background, scene.sign.text if scene.sign else None)
        assert len(scene.objects) == sum(group.count or 0 for group in spec.groups)
        position = 0
        for index, group in enumerate(spec.groups):
            for thing in scene.group_objects(index):
                assert (thing.class_name, thing.colour) == (group.class_name, group.colour)
                assert group.size in (None, scene.size(position))
                assert group.place in (None, scene.place(position))
                position += 1


@pytest.mark.parametrize(("height_px", "width_px"), SIZES[:9])
def test_relations_hold_for_all_objects_and_mostly_along_their_axis(height_px, width_px):
    for kind in ("related", "related_counted", "three_related", "two_sizes", "coloured"):
        for scene in scenes(60, kind, height_px, width_px):
            for first, relation, second in scene.spec.relations:
                is_before = relation in ("left of", "above")
                pair = scene.group_objects(first), scene.group_objects(second)
                before, after = pair if is_before else pair[::-1]
                axis = 0 if relation in ("left of", "right of") else 1
                assert max(one.box[axis + 2] for one in before) <= min(one.box[axis] for one in after)
                apart = np.abs(centre(before) - centre(after))
                assert apart[1 - axis] <= 0.8 * apart[axis]


def test_three_related_things_have_two_relations_that_are_a_line_or_a_right_angle():
    seen = Counter()
    for scene in scenes(300, "three_related"):
        relations = scene.spec.relations
        assert len(scene.groups) == 3 and len(relations) == 2
        seen[len({relation in ("above", "below") for _, relation, _ in relations})] += 1
        assert {end for a, _, b in relations for end in (a, b)} == {0, 1, 2}
    assert min(seen[1], seen[2]) > 60


@pytest.mark.parametrize("kind", FULL_SCENE_KINDS)
def test_a_scene_of_a_kind_has_what_the_kind_says(kind):
    for scene in scenes(60, kind):
        spec, counts = scene.spec, [group.count for group in scene.groups]
        assert scene.kind == kind
        num_groups = {
            "single": 1, "counting": 1, "three": 3, "three_related": 3, "coloured": len(counts), "sign": 0,
            "sign_with_thing": 1, "empty": 0,
        }  # fmt: skip
        assert len(counts) == num_groups.get(kind, 2)
        assert (spec.text is not None) == kind.startswith("sign")
        assert any(group.colour for group in spec.groups) == (kind == "coloured")
        if kind == "counting":
            assert 2 <= counts[0] <= 8
        if kind == "two_sizes":
            assert sorted(group.size for group in spec.groups) == ["large", "small"]


def test_kinds_classes_counts_and_backgrounds_have_their_shares():
    found = scenes(5000)
    kinds = Counter(scene.kind for scene in found)
    assert all(abs(kinds[kind] / 5000 - share) < 0.02 for kind, share in FULL_SCENE_KINDS.items())
    assert sum(FULL_SCENE_KINDS.values()) == pytest.approx(1)
    assert {scene.background for scene in found} == set(COLOURS)
    counts = {scene.groups[0].count for scene in found if scene.kind == "counting"}
    assert counts == set(range(2, 9))
    names = Counter(group.class_name for scene in found for group in scene.groups if not group.colour)
    assert set(names) == set(OBJECT_CLASSES)
    first = np.mean([names[name] for name in FIRST_CLASSES])
    more = np.mean([names[name] for name in OBJECT_CLASSES if name not in FIRST_CLASSES])
    assert 1.7 < more / first < 2.6
    lengths = {len(scene.spec.text) for scene in found if scene.spec.text}
    assert lengths == set(range(1, 9))
    assert {letter for scene in found for letter in scene.spec.text or ""} == set(SIGN_CHARACTERS)


def test_coloured_things_are_colourable_and_differ_from_each_other_and_the_background():
    found = [scene for scene in scenes(400, "coloured")]
    for scene in found:
        groups = scene.groups
        assert all(group.class_name in COLOURABLE for group in groups if group.colour)
        assert len({(group.class_name, group.colour) for group in groups}) == len(groups)
        assert all(group.colour not in (scene.background,) for group in groups)
    num_twins = sum(len({group.class_name for group in scene.groups}) < len(scene.groups) for scene in found)
    assert 60 < num_twins < 200
    assert {group.colour for scene in found for group in scene.groups} - {None} == set(OBJECT_COLOURS)


def test_held_out_combinations_of_the_six_tasks_never_occur():
    for scene in scenes(3000):
        first = [group for group in scene.groups if group.class_name in FIRST_CLASSES]
        assert scene.background not in FIRST_COLOURS or not held_out_combinations(first, scene.background)


def test_a_world_of_chosen_classes_shows_these_alone():
    rng, classes = np.random.default_rng(0), ("fox", "car", "wolf", "train", "star")
    found = [random_full_scene(rng, 128, 128, classes) for _ in range(200)]
    assert {group.class_name for scene in found for group in scene.groups} == set(classes)


def test_captions_state_three_quarters_of_the_backgrounds_and_most_numbers():
    rng, found = np.random.default_rng(1), scenes(3000)
    specs = [stated_spec(scene, rng) for scene in found]
    shown = [(scene, spec) for scene, spec in zip(found, specs, strict=True) if scene.kind != "empty"]
    assert 0.72 < np.mean([spec.background is not None for _, spec in shown]) < 0.78
    assert all(spec.background in (None, scene.background) for scene, spec in shown)
    open_counts = [
        group.count
        for scene, spec in shown
        for group, told in zip(scene.groups, spec.groups, strict=True)
        if told.count is None
    ]
    assert open_counts and set(open_counts) <= {2, 3, 4, 5}
    assert all(spec.background for scene, spec in zip(found, specs, strict=True) if scene.kind == "empty")


def test_a_complete_spec_has_every_size_and_the_clear_places_of_single_objects():
    num_places = 0
    for scene in scenes(500, None, 176, 96):
        position = 0
        for index, group in enumerate(complete_spec(scene).groups):
            things = scene.group_objects(index)
            assert {scene.size(position + item) for item in range(len(things))} == {group.size}
            assert group.place is None or (len(things) == 1 and group.place == scene.place(position))
            assert scene.groups[index].place in (None, group.place)
            num_places += group.place is not None
            position += len(things)
    assert num_places > 250


def test_eight_seeds_of_one_prompt_differ_in_place_size_and_arrangement():
    canvas = Canvas(128, 128)

    def layouts(place) -> list:
        return [place(np.random.default_rng(seed)) for seed in range(8)]

    alone = layouts(lambda rng: place_alone(rng, canvas, None, False))
    assert len(set(alone)) >= 4 and len({one.size_px for one in alone}) == 2
    for count in range(2, 9):
        assert len(set(map(tuple, layouts(lambda rng: place_unrelated(rng, canvas, [count]))))) >= 3, count  # noqa: B023
    related = layouts(lambda rng: place_related(rng, canvas, [1, 1], "left of"))
    assert len(set(map(tuple, related))) >= 3


def test_a_stated_place_is_any_of_the_nine_and_half_of_the_open_ones_are_large_and_central():
    found = scenes(1500, "single")
    assert {scene.spec.groups[0].place for scene in found} - {None} == set(PLACES)
    usual = [
        scene.has_default_placement
        for scene in found if scene.groups[0].size is None and scene.groups[0].place is None
    ]  # fmt: skip
    assert 0.42 < np.mean(usual) < 0.68


def test_there_are_few_compositions_and_small_objects_lie_on_latent_patches():
    canvas = Canvas(128, 128)
    for count in range(2, 9):
        assert all(sum(rows) == count for rows in COMPOSITIONS[count]) and sum(LINES[count]) == count
        found = {tuple(place_unrelated(np.random.default_rng(seed), canvas, [count])) for seed in range(400)}
        assert 6 <= len(found) <= 40, count
        for x, y, side in (spot for layout in found for spot in layout):
            assert side in (24, 32, 64)
            assert side == 24 or ((x - side // 2) % GRID_PX == (y - side // 2) % GRID_PX == 0)


def test_groups_without_a_relation_are_one_after_the_other_in_reading_order():
    for scene in scenes(100, "three"):
        if len(scene.objects) > 3:
            continue
        order = sorted(scene.objects, key=lambda thing: (thing.y_px // 24, thing.x_px))
        assert all(a.x_px < b.x_px or a.y_px < b.y_px for a, b in pairwise(order))


def test_an_image_shows_colours_and_signs():
    scene = next(scene for scene in scenes(50, "sign_with_thing"))
    pixels = (draw_scene(scene).transpose(1, 2, 0) + 1) / 2
    sign = scene.sign
    assert sign is not None
    board = pixels[sign.top_px : sign.top_px + sign.height_px, sign.left_px : sign.left_px + sign.width_px]
    assert 0.1 < (board.mean(-1) < 0.3).mean() < 0.6


def test_scenes_depend_on_the_seed_alone():
    first, again = scenes(50), scenes(50)
    assert first == again
    np.testing.assert_array_equal(draw_scene(first[3]), draw_scene(again[3]))
