"""Placement of the objects of an image: few layouts, by the number of objects and their relation.

A single object is in the centre unless its caption says otherwise; several objects have two layouts for each
number, and related objects have one. A model then learns one choice for a whole image instead of one for each
object: with random places, two CPU cores never learned counts (docs/log.md). Knows numbers and lengths in
pixels, nothing of classes or sentences. "Along" is the axis of a line of objects, "across" the other axis;
corners are upper left corners.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lens.core.resolution import SIDE_STEP_PX

GRID_PX = SIDE_STEP_PX
"""Step of corners and sides from base 96 on: a latent patch, so that an object has few looks in latents."""

DEFAULT_PLACEMENT_SHARE = 0.5
"""Share of single objects that are large and in the centre, the meaning of captions that state neither."""


class Placement(NamedTuple):
    """The square of one object, by its centre."""

    x_px: int
    y_px: int
    size_px: int


class Canvas(NamedTuple):
    """An image to fill."""

    height_px: int
    width_px: int

    @property
    def base_px(self) -> float:
        """Return the side of the square of the same area."""
        return math.sqrt(self.height_px * self.width_px)

    @property
    def grid_px(self) -> int:
        """Return the step of corners and sides; tiny images have no room for whole patches."""
        return GRID_PX if self.base_px > 90 else 2

    @property
    def small_px(self) -> int:
        """Return the side of a small object: a quarter of the base."""
        return self.grid_px * round(self.base_px / 4 / self.grid_px)

    @property
    def large_px(self) -> int:
        """Return the side of a large object: half of the base."""
        return self.grid_px * round(self.base_px / 2 / self.grid_px)

    def middle(self, length_px: int, side_px: int) -> int:
        """Return the corner of an object at the middle of an axis."""
        return self.grid_px * round((length_px - side_px) / 2 / self.grid_px)

    def halves(self, length_px: int, side_px: int) -> tuple[int, int]:
        """Return the corners of two objects on an axis, each in its half; negative if they do not fit."""
        first = self.grid_px * math.floor((length_px / 4 - side_px / 2) / self.grid_px)
        return first, length_px - side_px - first

    def thirds(self, length_px: int, side_px: int) -> tuple[int, int, int]:
        """Return the corners of three objects on an axis: at both ends and in the middle."""
        return 0, self.middle(length_px, side_px), length_px - side_px

    def has_thirds(self, length_px: int) -> bool:
        """Return whether three small objects fit on an axis with gaps."""
        return length_px >= 3 * self.small_px + 2 * self.grid_px


def place_objects(
    rng: np.random.Generator, counts: Sequence[int], relation: str | None, height_px: int, width_px: int
) -> list[Placement]:
    """Return a placement for each object, group by group.

    Objects without a relation are in reading order: the first ones left, or above.
    """
    canvas = Canvas(height_px, width_px)
    if relation:
        is_level = relation in ("left of", "right of")
        order = 1 if relation in ("left of", "above") else -1
        corners, side_px = _place_related(canvas, counts, is_level, order)
    elif sum(counts) == 1:
        is_level = True
        corners, side_px = _place_single(rng, canvas)
    else:
        is_level = width_px >= height_px
        along_px, across_px = (width_px, height_px) if is_level else (height_px, width_px)
        corners, side_px = _place_unrelated(
            canvas, sum(counts), along_px, across_px, bool(rng.random() < 0.5)
        )
    half_px = side_px // 2
    placements = [Placement(along + half_px, across + half_px, side_px) for along, across in corners]
    return placements if is_level else [Placement(y_px, x_px, size_px) for x_px, y_px, size_px in placements]


Corners = list[tuple[int, int]]
"""(along, across) of each object."""


def _place_single(rng: np.random.Generator, canvas: Canvas) -> tuple[Corners, int]:
    lengths_px = canvas.width_px, canvas.height_px
    if rng.random() < DEFAULT_PLACEMENT_SHARE:
        side_px, thirds = canvas.large_px, (1, 1)
    else:
        side_px = (canvas.small_px, canvas.large_px)[int(rng.integers(2))]
        # A side of more than two thirds of an axis leaves its centre too near the line between two thirds.
        has_choice = [side_px <= 0.62 * length_px for length_px in lengths_px]
        thirds = tuple(int(rng.integers(3)) if choice else 1 for choice in has_choice)
    x, y = (
        canvas.thirds(length_px, side_px)[third] for length_px, third in zip(lengths_px, thirds, strict=True)
    )
    return [(x, y)], side_px


def _place_unrelated(
    canvas: Canvas, num_objects: int, along_px: int, across_px: int, is_first: bool
) -> tuple[Corners, int]:
    """Return one of the two layouts of a number of objects."""
    side_px = canvas.small_px
    start, middle, end = canvas.thirds(along_px, side_px)
    top, level, bottom = canvas.thirds(across_px, side_px)
    near, far = canvas.halves(along_px, side_px)
    upper, lower = canvas.halves(across_px, side_px)
    if num_objects == 2 and is_first:
        side_px = _pair_side_px(canvas, along_px)
        level = canvas.middle(across_px, side_px)
        return [(along, level) for along in canvas.halves(along_px, side_px)], side_px
    compositions: dict[tuple[int, bool], Corners] = {
        (2, False): [(near, upper), (far, lower)],
        (3, True): [(start, level), (middle, level), (end, level)],
        (3, False): [(middle, top), (start, bottom), (end, bottom)],
        (4, True): [(near, upper), (far, upper), (near, lower), (far, lower)],
        (4, False): [(middle, top), (start, level), (end, level), (middle, bottom)],
        (5, True): [(start, top), (end, top), (middle, level), (start, bottom), (end, bottom)],
        (5, False): [(start, upper), (middle, upper), (end, upper), (near, lower), (far, lower)],
    }
    return compositions[num_objects, is_first], side_px


def _place_related(canvas: Canvas, counts: Sequence[int], is_level: bool, order: int) -> tuple[Corners, int]:
    """Return both groups, each in its half; the first one comes before the second if `order` is 1."""
    lengths_px = canvas.width_px, canvas.height_px
    along_px, across_px = lengths_px if is_level else lengths_px[::-1]
    side_px = _pair_side_px(canvas, along_px) if sum(counts) == 2 else canvas.small_px
    corners: Corners = []
    for count, half in zip(counts, (0, 1)[::order], strict=True):
        along = canvas.halves(along_px, side_px)[half]
        if count == 3 and not canvas.has_thirds(across_px):
            # Two at the edge and one further in, as three do not fit side by side.
            outer, step_px = (0, along_px - side_px)[half], (1 - 2 * half) * (side_px + canvas.grid_px)
            start, middle, end = canvas.thirds(across_px, side_px)
            corners += [(outer, start), (outer + step_px, middle), (outer, end)]
            continue
        acrosses = {
            1: (canvas.middle(across_px, side_px),),
            2: canvas.halves(across_px, side_px),
            3: canvas.thirds(across_px, side_px),
        }[count]
        corners += [(along, across) for across in acrosses]
    return corners, side_px


def _pair_side_px(canvas: Canvas, along_px: int) -> int:
    """Return the side of two objects on an axis: large if both fit with a gap."""
    near, far = canvas.halves(along_px, canvas.large_px)
    return (
        canvas.large_px if near >= 0 and far - near >= canvas.large_px + canvas.grid_px else canvas.small_px
    )
