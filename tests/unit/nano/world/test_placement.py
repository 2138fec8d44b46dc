"""Compositions: objects on whole cells, apart, in reading order, and few enough to be learned."""

import numpy as np
import pytest

from lens.core.resolution import buckets_for
from lens.nano.world.placement import GRID_PX, Canvas, place_objects

SIZES = sorted(set(buckets_for(128).values()))
RELATED = [(1, 1), (2, 1), (1, 2), (2, 2), (3, 1), (1, 3), (3, 2), (2, 3)]
AXIS = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "below": (1, -1)}


def compositions(counts, relation, height_px, width_px, draws=40):
    """The set of all layouts that come up."""
    rng = np.random.default_rng(3)
    return {tuple(place_objects(rng, counts, relation, height_px, width_px)) for _ in range(draws)}


def assert_fit(spots, height_px, width_px):
    for index, (x, y, size) in enumerate(spots):
        assert size // 2 <= x <= width_px - size // 2 and size // 2 <= y <= height_px - size // 2
        assert (x - size // 2) % GRID_PX == (y - size // 2) % GRID_PX == 0
        for x2, y2, size2 in spots[:index]:
            assert max(abs(x - x2), abs(y - y2)) >= (size + size2) / 2
    assert len({size for _, _, size in spots}) == 1


@pytest.mark.parametrize(("height_px", "width_px"), SIZES)
@pytest.mark.parametrize("num_things", range(2, 6))
def test_objects_in_company_have_two_compositions_of_any_number(num_things, height_px, width_px):
    one_kind = compositions((num_things,), None, height_px, width_px)
    assert len(one_kind) == 2
    for spots in one_kind:
        assert len(spots) == num_things
        assert_fit(spots, height_px, width_px)
    assert compositions((1,) * num_things, None, height_px, width_px) == one_kind


@pytest.mark.parametrize(("height_px", "width_px"), SIZES)
@pytest.mark.parametrize("relation", AXIS)
@pytest.mark.parametrize("counts", RELATED)
def test_related_groups_have_one_composition_on_either_side_of_the_middle(
    counts, relation, height_px, width_px
):
    (spots,) = compositions(counts, relation, height_px, width_px)
    assert_fit(spots, height_px, width_px)
    axis, order = AXIS[relation]
    first, second = ([spot[axis] for spot in part] for part in (spots[: counts[0]], spots[counts[0] :]))
    side_px = spots[0].size_px
    assert (len(first), len(second)) == counts
    before, after = (first, second)[::order]
    assert max(before) + side_px <= min(after)


@pytest.mark.parametrize(("height_px", "width_px"), SIZES)
def test_half_of_the_objects_alone_are_large_and_in_the_centre(height_px, width_px):
    rng = np.random.default_rng(5)
    spots = [place_objects(rng, (1,), None, height_px, width_px)[0] for _ in range(600)]
    plain = [
        abs(x - width_px / 2) <= GRID_PX / 2 and abs(y - height_px / 2) <= GRID_PX / 2 and size == 64
        for x, y, size in spots
    ]
    assert 0.45 < np.mean(plain) < 0.66
    assert len({(x, y) for x, y, size in spots if size == 32}) == 9
    for spot in spots:
        assert_fit([spot], height_px, width_px)


def test_two_objects_are_large_where_both_have_room():
    assert {spots[0].size_px for spots in compositions((1, 1), "left of", 112, 144)} == {64}
    assert {spots[0].size_px for spots in compositions((1, 1), "above", 112, 144)} == {32}
    assert {spots[0].size_px for spots in compositions((1, 1), "left of", 128, 128)} == {32}


def test_objects_in_no_relation_stand_in_reading_order():
    for spots in compositions((1, 1, 1), None, 96, 176):
        assert [spot[:2] for spot in spots] == sorted([spot[:2] for spot in spots]) or spots[0].y_px < min(
            spot.y_px for spot in spots[1:]
        )
    for spots in compositions((1, 1), None, 176, 96):
        assert spots[0].y_px < spots[1].y_px


def test_sides_follow_the_base_and_stamps_have_a_finer_grid():
    assert (Canvas(96, 176).small_px, Canvas(96, 176).large_px) == (32, 64)
    assert (Canvas(192, 192).small_px, Canvas(256, 256).large_px) == (48, 128)
    assert (Canvas(48, 80).grid_px, Canvas(48, 80).small_px) == (2, 16)
