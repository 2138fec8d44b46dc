"""Drawings with one dominant hue get other colours; the rest of a drawing stays as it is."""

from itertools import combinations

import numpy as np
import pytest

from lens.nano.world.colours import OBJECT_COLOURS
from lens.nano.world.recolouring import COLOURABLE, dominant_hue, natural_colour
from lens.nano.world.sprites import find_colourable, sprite


def mean_rgb(class_name: str, colour: str | None) -> np.ndarray:
    pixels = sprite(class_name, 32, colour)
    return 255 * pixels[..., :3][pixels[..., 3] > 0.5].mean(0)


def test_the_table_of_colourable_classes_is_what_their_drawings_say():
    assert find_colourable() == COLOURABLE
    assert len(COLOURABLE) >= 60 and set(COLOURABLE.values()) <= set(OBJECT_COLOURS)


def test_the_eight_colours_of_each_class_differ_at_the_size_of_a_small_object():
    for name in COLOURABLE:
        means = [mean_rgb(name, colour) for colour in OBJECT_COLOURS]
        assert min(np.linalg.norm(a - b) for a, b in combinations(means, 2)) > 28, name


def test_the_natural_colour_is_the_drawing_as_it_is():
    for name, colour in COLOURABLE.items():
        np.testing.assert_array_equal(sprite(name, 24, colour), sprite(name, 24))


@pytest.mark.parametrize("colour", OBJECT_COLOURS)
def test_a_re_coloured_car_has_the_colour_and_keeps_its_wheels_and_its_outline(colour):
    drawing, painted = sprite("car", 64), sprite("car", 64, colour)
    np.testing.assert_array_equal(painted[..., 3], drawing[..., 3])
    red = (drawing[..., 0] > drawing[..., 1:3].max(-1) + 0.35) & (drawing[..., 3] > 0.9)
    grey = (np.ptp(drawing[..., :3], axis=-1) < 0.05) & (drawing[..., 3] > 0.9)
    assert red.sum() > 300 and grey.sum() > 60
    assert np.mean(np.abs(painted - drawing)[grey].max(-1) < 0.02) > 0.95
    if colour != "red":
        target = np.array(OBJECT_COLOURS[colour]) / 255
        np.testing.assert_allclose(np.median(painted[red][:, :3], axis=0), target, atol=0.12)


def test_light_and_shade_keep_their_order():
    drawing, painted = sprite("balloon", 64), sprite("balloon", 64, "blue")
    opaque = drawing[..., 3] > 0.9
    before, after = (pixels[..., :3][opaque] @ np.array([0.3, 0.59, 0.11]) for pixels in (drawing, painted))
    assert np.corrcoef(before, after)[0, 1] > 0.9


def test_a_class_that_is_not_colourable_has_no_colours():
    with pytest.raises(KeyError):
        sprite("panda", 32, "green")
    assert dominant_hue(sprite("cloud", 64)) is None


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((0.9, 0.15, 0.1), "red"), ((1, 0.55, 0.1), "orange"), ((1, 0.85, 0.2), "yellow"),
        ((0.4, 0.7, 0.2), "green"), ((0.1, 0.4, 0.9), "blue"), ((0.5, 0.2, 0.7), "purple"),
        ((0.96, 0.5, 0.7), "pink"), ((0.5, 0.33, 0.2), "brown"),
    ],
)  # fmt: skip
def test_colours_have_the_names_that_people_give_them(rgb, name):
    assert natural_colour(np.array(rgb, np.float32)) == name
