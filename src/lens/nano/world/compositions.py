"""Compositions of the grown world: few arrangements for each number of objects, on a grid, drawn at random.

A prompt leaves open what it does not state, and another seed then gives another composition. But there are
few for each number, and corners lie on latent patches, so that a small model can learn them. A composition
is lines of objects: lines lie "along" an axis, one after the other, and the objects of a line "across" it.
Knows numbers and lengths in pixels, nothing of classes or sentences; placement.py has the layouts of the six
tasks. Corners are upper left corners.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lens.nano.world.placement import Canvas, Placement
from lens.nano.world.scene_spec import Size

COMPOSITIONS: dict[int, tuple[tuple[int, ...], ...]] = {
    1: ((1,),),
    2: ((2,), (1, 1)),
    3: ((3,), (1, 1, 1), (1, 2), (2, 1)),
    4: ((2, 2), (1, 2, 1), (3, 1)),
    5: ((2, 1, 2), (3, 2), (2, 3)),
    6: ((3, 3), (2, 2, 2), (1, 2, 3)),
    7: ((2, 3, 2), (3, 1, 3), (2, 2, 3)),
    8: ((3, 2, 3), (2, 3, 3), (3, 3, 2)),
}
"""Numbers of objects in the rows or columns of an image, by the number of all."""
LINES: dict[int, tuple[int, ...]] = {
    1: (1,), 2: (2,), 3: (3,), 4: (2, 2), 5: (3, 2), 6: (3, 3), 7: (4, 3), 8: (4, 4),
}  # fmt: skip
"""Lines of one group that has a relation to another."""

LARGE_CENTRE_SHARE = 0.45
"""Share of single objects that are large and in the centre, where their captions state neither."""
DIAGONAL_SHARE = 0.35
"""Share of pairs that are a diagonal."""
MIXED_SHARE = 0.2
"""Share of two single objects of which one is large, where their captions do not state the sizes."""
_THIRD_MARGIN = 0.05
"""Smallest distance of a centre from the line between two thirds, as a fraction of the axis."""


class Footprint(NamedTuple):
    """The side of objects, the smallest gap between them, and the grid that their corners are on."""

    side_px: int
    gap_px: int
    grid_px: int


def footprints(canvas: Canvas) -> tuple[Footprint, Footprint, Footprint]:
    """Return those of large and small objects, and of small ones where these do not fit."""
    small_px, grid_px = canvas.small_px, canvas.grid_px
    dense = Footprint(small_px * 3 // 4, small_px // 8, small_px // 8)
    return Footprint(canvas.large_px, grid_px, grid_px), Footprint(small_px, grid_px, grid_px), dense


def place_alone(rng: np.random.Generator, canvas: Canvas, size: Size | None, has_place: bool) -> Placement:
    """Place a single object; without a stated size and place, the usual ones are frequent."""
    if size is None and not has_place and rng.random() < LARGE_CENTRE_SHARE:
        side_px, is_central = canvas.large_px, True
    else:
        is_small = size == "small" if size else bool(rng.random() < 0.5)
        side_px = canvas.small_px if is_small else canvas.large_px
        is_central = not has_place and bool(rng.random() < 0.3)
    centres = []
    for length_px in (canvas.width_px, canvas.height_px):
        # A side of more than two thirds of an axis leaves its centre too near the line between two thirds.
        third = 1 if is_central or side_px > 0.62 * length_px else int(rng.integers(3))
        centres.append(_corner_in_third(rng, canvas, length_px, side_px, third) + side_px // 2)
    return Placement(centres[0], centres[1], side_px)


def place_unrelated(rng: np.random.Generator, canvas: Canvas, counts: Sequence[int]) -> list[Placement]:
    """Return the placements of groups without a relation; they come one after the other in reading order."""
    order = [int(index) for index in rng.permutation(len(counts))]
    total = sum(counts)
    if total == 2 and len(counts) == 2 and rng.random() < MIXED_SHARE:
        return place_two_sizes(rng, canvas, (1, 1), None, int(rng.integers(2)))
    if total == 2 and rng.random() < DIAGONAL_SHARE:
        placements = _diagonal(rng, canvas)
    else:
        choices = list(COMPOSITIONS[total])
        if len(counts) > 1 and total > len(counts) and max(counts) <= 4:
            # A line for each group is what most pictures of several kinds have.
            choices += [tuple(counts[index] for index in order)] * 2
        is_level = total > 3 and bool(rng.random() < 0.5)
        fitting = [
            (lines, footprint) for lines in choices if (footprint := _largest(canvas, lines, is_level))
        ]
        regular = [pair for pair in fitting if pair[1].side_px >= canvas.small_px]
        # Objects of one size have fewer looks to learn, so smaller ones are for narrow images only.
        lines, footprint = _pick(rng, regular or fitting)
        placements = _place_lines(rng, canvas, lines, is_level, footprint)
    return _by_group(placements, counts, order)


def place_related(
    rng: np.random.Generator, canvas: Canvas, counts: Sequence[int], relation: str
) -> list[Placement]:
    """Return the placements of two groups, the first of which has a relation to the second."""
    if sum(counts) == 2 and rng.random() < MIXED_SHARE and has_two_sizes(canvas, (1, 1), relation):
        return place_two_sizes(rng, canvas, (1, 1), relation, int(rng.integers(2)))
    order, is_level = _direction(relation)
    lines = [line for index in order for line in LINES[counts[index]]]
    footprint = _largest(canvas, lines, is_level) or footprints(canvas)[2]
    return _by_group(_place_lines(rng, canvas, lines, is_level, footprint), counts, order)


def place_chain(
    rng: np.random.Generator, canvas: Canvas, order: Sequence[int], relation: str
) -> list[Placement]:
    """Return three objects in a line: `order[0]` has the relation to `order[1]`, and this to `order[2]`."""
    turned, is_level = _direction(relation)
    footprint = _largest(canvas, (1, 1, 1), is_level) or footprints(canvas)[2]
    placements = _place_lines(rng, canvas, (1, 1, 1), is_level, footprint)
    return _by_group(placements, (1, 1, 1), order if turned[0] == 0 else order[::-1])


def place_corner(
    rng: np.random.Generator, canvas: Canvas, relation: str, shared: int, third: str
) -> list[Placement]:
    """Return three objects at a right angle: 0 has `relation` to 1, and `shared` has `third` to 2."""
    footprint, style = footprints(canvas)[1], float(rng.random())
    xs, ys = (_line(length_px, 2, footprint, style) for length_px in (canvas.width_px, canvas.height_px))
    (first, _), is_level = _direction(relation)
    # Cells (column, row) of the three: the pair lies on the first axis, the third across it.
    axis = 0 if is_level else 1
    before = int(_direction(third)[0][0] == 0)
    cells = np.zeros((3, 2), int)
    cells[0, axis], cells[1, axis] = first, 1 - first
    cells[:2, 1 - axis] = 1 - before
    cells[2, axis], cells[2, 1 - axis] = cells[shared, axis], before
    return [_placement(xs[column], ys[row], footprint.side_px) for column, row in cells]


def has_two_sizes(canvas: Canvas, counts: Sequence[int], relation: str | None) -> bool:
    """Return whether a large object and a group of small ones fit, along the axis of a relation or any."""
    large, small, _ = footprints(canvas)
    axes = [_direction(relation)[1]] if relation else [True, False]
    return any(
        _along_across(canvas, is_level)[0] >= large.side_px + large.gap_px + small.side_px
        and _fits(_along_across(canvas, is_level)[1], max(counts), small)
        for is_level in axes
    )


def place_two_sizes(
    rng: np.random.Generator, canvas: Canvas, counts: Sequence[int], relation: str | None, large_group: int
) -> list[Placement]:
    """Return the placements of two groups, one of which is a large object and the other small ones."""
    relations = [relation] if relation else ["left of", "right of", "above", "below"]
    fitting = [one for one in relations if has_two_sizes(canvas, counts, one)]
    order, is_level = _direction(_pick(rng, fitting))
    large, small, _ = footprints(canvas)
    along_px, across_px = _along_across(canvas, is_level)
    sizes = [large if index == large_group else small for index in order]
    room_px = along_px - large.side_px - small.side_px - large.gap_px
    margin_px = canvas.grid_px * int(rng.integers(0, room_px // 2 // canvas.grid_px + 1))
    starts = margin_px, along_px - sizes[1].side_px - margin_px
    placements = [
        _placement(along, across, footprint.side_px, is_level)
        for index, along, footprint in zip(order, starts, sizes, strict=True)
        for across in _line(across_px, counts[index], footprint)
    ]
    return _by_group(placements, counts, order)


def is_clear_place(placement: Placement, canvas: Canvas) -> bool:
    """Return whether the centre of an object is clearly in one of the nine places."""
    shares = (placement.x_px / canvas.width_px, placement.y_px / canvas.height_px)
    return all(abs(share - line) > _THIRD_MARGIN for share in shares for line in (1 / 3, 2 / 3))


def _place_lines(
    rng: np.random.Generator, canvas: Canvas, lines: Sequence[int], is_level: bool, footprint: Footprint
) -> list[Placement]:
    """Return lines of objects, all pairs in one style; few single objects and lines leave the middle."""
    along_px, across_px = _along_across(canvas, is_level)
    style, total = float(rng.random()), sum(lines)
    if total > 2:
        style = 1.0 if total > 5 or style > 0.3 else 0.0
    # All leave the middle to one side, which keeps relations along the axis clear.
    shift_px = canvas.grid_px * round(canvas.base_px / 128) * int(rng.choice((-1, 1)))
    has_shifts = total <= 3 and footprint.side_px >= canvas.small_px
    shares = np.full(len(lines), 0.25 if has_shifts else 0.0)
    shifts = shift_px * (rng.random(len(lines) if len(lines) == 2 else 1) < shares)
    placements = []
    alongs = _line(along_px, len(lines), footprint, style)
    if len(lines) == 1:
        alongs = _shifted(alongs, int(shifts[0]), along_px, footprint)
    for along, count, shift in zip(alongs, lines, shifts, strict=True):
        acrosses = _line(across_px, count, footprint, style)
        if count == 1 and len(lines) > 1:
            acrosses = _shifted(acrosses, int(shift), across_px, footprint)
        placements += [_placement(along, across, footprint.side_px, is_level) for across in acrosses]
    return placements


def _shifted(corners: list[int], shift_px: int, length_px: int, footprint: Footprint) -> list[int]:
    """Return corners with a shift, if the objects stay inside."""
    moved = [corner + shift_px for corner in corners]
    return moved if min(moved) >= 0 and max(moved) <= length_px - footprint.side_px else corners


def _line(length_px: int, count: int, footprint: Footprint, style: float = 1.0) -> list[int]:
    """Return the corners of objects on an axis: in equal cells, or a pair at the ends or side by side.

    `style` is a random number in [0, 1]; a fifth of pairs are at the ends, and a fifth side by side.
    """
    side_px, gap_px, grid_px = footprint
    free_px, pair_px = length_px - side_px, side_px + gap_px
    if count == 1:
        return [grid_px * round(free_px / 2 / grid_px)]
    if count == 2 and style < 0.2:
        return [0, free_px]
    if count == 2 and style < 0.4:
        near = (free_px - pair_px) // 2 // grid_px * grid_px
        return [near, near + pair_px]
    cell_px = length_px / count
    offsets = [cell_px * (index + 0.5) - side_px / 2 for index in range((count + 1) // 2)]
    before = [max(0, grid_px * math.floor(offset / grid_px)) for offset in offsets]
    if count % 2:
        before[-1] = grid_px * round(free_px / 2 / grid_px)
    return before + [free_px - corner for corner in before[: count // 2][::-1]]


def _diagonal(rng: np.random.Generator, canvas: Canvas) -> list[Placement]:
    footprint, style = footprints(canvas)[1], float(rng.random())
    xs, ys = (_line(length_px, 2, footprint, style) for length_px in (canvas.width_px, canvas.height_px))
    xs = xs if rng.random() < 0.5 else xs[::-1]
    return [_placement(x, y, footprint.side_px) for x, y in zip(xs, ys, strict=True)]


def _largest(canvas: Canvas, lines: Sequence[int], is_level: bool) -> Footprint | None:
    """Return the footprint of the largest objects that fit; large ones for one or two objects alone."""
    along_px, across_px = _along_across(canvas, is_level)
    choices = footprints(canvas)[0 if sum(lines) <= 2 else 1 :]
    fitting = (
        one for one in choices if _fits(along_px, len(lines), one) and _fits(across_px, max(lines), one)
    )
    return next(fitting, None)


def _fits(length_px: int, count: int, footprint: Footprint) -> bool:
    return count * footprint.side_px + (count - 1) * footprint.gap_px <= length_px


def _corner_in_third(
    rng: np.random.Generator, canvas: Canvas, length_px: int, side_px: int, third: int
) -> int:
    """Return a corner on the grid whose centre is in a third: mostly the outermost one, or the middle."""
    usual = canvas.thirds(length_px, side_px)[third]
    if third == 1 or rng.random() < 0.6:
        return usual
    low, high = (third / 3 + _THIRD_MARGIN) * length_px, ((third + 1) / 3 - _THIRD_MARGIN) * length_px
    corners = range(0, length_px - side_px + 1, canvas.grid_px)
    return _pick(rng, [corner for corner in corners if low < corner + side_px / 2 < high] or [usual])


def _along_across(canvas: Canvas, is_level: bool) -> tuple[int, int]:
    width_px, height_px = canvas.width_px, canvas.height_px
    return (width_px, height_px) if is_level else (height_px, width_px)


def _direction(relation: str) -> tuple[tuple[int, int], bool]:
    """Return the order of two groups along the axis of a relation, and whether that axis is level."""
    return (0, 1) if relation in ("left of", "above") else (1, 0), relation in ("left of", "right of")


def _placement(along_px: int, across_px: int, side_px: int, is_level: bool = True) -> Placement:
    x_px, y_px = (along_px, across_px) if is_level else (across_px, along_px)
    return Placement(x_px + side_px // 2, y_px + side_px // 2, side_px)


def _by_group(
    placements: Sequence[Placement], counts: Sequence[int], order: Sequence[int]
) -> list[Placement]:
    """Return placements, which are in an order of the groups, group by group."""
    remaining = iter(placements)
    groups = {index: [next(remaining) for _ in range(counts[index])] for index in order}
    return [placement for index in range(len(counts)) for placement in groups[index]]


def _pick(rng: np.random.Generator, choices: Sequence):
    return choices[int(rng.integers(len(choices)))]
