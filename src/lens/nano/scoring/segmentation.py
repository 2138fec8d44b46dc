"""Segmentation of an image into objects: the parts that differ from its background, grouped.

A part may be a piece of an object (a hat apart from its head), one object, or several that touch. Candidates
are the parts, near parts joined, and parts cut in two; the grouping that leaves the least unexplained energy
wins.
Knows nothing of scenes, captions or expectations.
Letters: H, W the image.
"""

import functools
from collections.abc import Iterator
from functools import reduce
from typing import NamedTuple

import numpy as np

from lens.nano.scoring.components import Mask, mask_components
from lens.nano.scoring.template_bank import Floats, TemplateBank
from lens.nano.scoring.template_matching import (
    VISIBLE_THRESHOLD,
    Match,
    PixelBox,
    Region,
    best_match,
    coarse_similarity,
    extract_region,
)

_BORDER_PX = 3
_MAX_PARTS = 20
_MAX_JOINED_PARTS = 4
_JOIN_REACH = 0.3
"""Parts join if their gap is at most this fraction of the longer side of the larger part."""
_CLUSTER_GAPS_PX = (3, 6, 10)
"""Any number of parts that gaps up to this length link are tried as one object."""
_OBJECT_COST = 4.0
"""Cost of an object in a grouping, as unexplained squared difference; it favours few objects."""
_MIN_PART_SHARE = 0.0006
"""Parts below this fraction of the image are ignored."""
_CONVINCING_SIMILARITY = 0.87
"""A part that is this similar to one object is not cut."""
_CUT_GAIN = 0.75
"""A cut must leave less than this fraction of the unexplained energy of the whole part."""
_JOIN_MARGIN = 1.5
"""A join is matched in detail if it may leave less than this multiple of the energy of its pieces."""
_MAX_CUTS = 5
_MIN_PIECE_PX = 8


class Foreground(NamedTuple):
    """The difference of an image from its background, and the sprites of all objects on that background."""

    difference: Floats
    """(H, W, 3), softened."""
    templates: TemplateBank
    min_object_px: float
    """No object is smaller."""


class Segment(NamedTuple):
    """Pixels of one object, and the object class that explains them best."""

    region: Region
    match: Match

    @property
    def mask(self) -> Mask:
        """Return the pixels."""
        return self.region.mask


def estimate_background(pixels: Floats) -> tuple[float, float, float]:
    """Return the median colour of the border, each channel in [0, 1]: (H, W, 3) in [0, 1]."""
    rim = _BORDER_PX
    strips = (pixels[:rim], pixels[-rim:], pixels[:, :rim], pixels[:, -rim:])
    middle = np.median(np.concatenate([strip.reshape(-1, 3) for strip in strips]), axis=0)
    return float(middle[0]), float(middle[1]), float(middle[2])


def smooth(pixels: Floats) -> Floats:
    """Return an image after a 3 x 3 binomial filter, with repeated edges."""
    rows = np.pad(pixels, ((1, 1), (0, 0), (0, 0)), mode="edge")
    rows = (rows[:-2] + 2 * rows[1:-1] + rows[2:]) / 4
    columns = np.pad(rows, ((0, 0), (1, 1), (0, 0)), mode="edge")
    return (columns[:, :-2] + 2 * columns[:, 1:-1] + columns[:, 2:]) / 4


def segment_objects(foreground: Foreground) -> list[Segment]:
    """Return the parts that differ from the background, one segment an object."""
    outline = _remove_isolated_pixels(np.abs(foreground.difference).max(-1) > VISIBLE_THRESHOLD)
    speck_px = max(6.0, _MIN_PART_SHARE * outline.size)
    parts = [part for part in mask_components(outline) if part.sum() >= speck_px]
    parts = sorted(parts, key=lambda part: -int(part.sum()))[:_MAX_PARTS]
    segments = _best_grouping(
        [_explain(extract_region(foreground.difference, part), foreground) for part in parts], foreground
    )
    pieces = [piece for group in segments for piece in _split(group, foreground, _MAX_CUTS)]
    if len(pieces) == len(segments):
        return segments
    return _best_grouping(sorted(pieces, key=lambda group: -group.region.energy)[:_MAX_PARTS], foreground)


def _remove_isolated_pixels(mask: Mask) -> Mask:
    """Remove visible pixels with fewer than two visible neighbours."""
    padded = np.pad(mask, 1).astype(np.int8)
    height, width = mask.shape
    around = sum(padded[y : y + height, x : x + width] for y in range(3) for x in range(3))
    return mask & (around >= 3)


def _explain(region: Region, foreground: Foreground) -> Segment:
    return Segment(region, best_match(region, foreground.templates, foreground.min_object_px))


def _split(segment: Segment, foreground: Foreground, cuts_left: int) -> list[Segment]:
    """Cut a part that resembles no single object along the line that explains it best, and repeat."""
    if cuts_left == 0 or segment.match.similarity >= _CONVINCING_SIMILARITY:
        return [segment]
    best, halves = np.inf, ()
    for pair in _halves(segment):
        regions = [extract_region(foreground.difference, half) for half in pair]
        unexplained = sum(_coarse_residual(region, foreground) for region in regions)
        if unexplained < best:
            best, halves = unexplained, regions
    pieces = [
        piece for half in halves for piece in _split(_explain(half, foreground), foreground, cuts_left - 1)
    ]
    if pieces and sum(map(_cost, pieces)) < _CUT_GAIN * _cost(segment):
        return pieces
    return [segment]


def _halves(segment: Segment) -> Iterator[tuple[Mask, Mask]]:
    """Yield a part cut in two at every other row and column that leaves two pieces of some size."""
    left, top, right, bottom = segment.region.box
    for axis, (start, end) in enumerate(((top, bottom), (left, right))):
        for line in range(start + _MIN_PIECE_PX, end - _MIN_PIECE_PX + 1, 2):
            before = np.arange(segment.mask.shape[axis]) < line
            before = before[:, None] if axis == 0 else before[None]
            first, second = segment.mask & before, segment.mask & ~before
            if min(first.sum(), second.sum()) >= _MIN_PIECE_PX**2 // 2:
                yield first, second


def _best_grouping(pieces: list[Segment], foreground: Foreground) -> list[Segment]:
    """Return the partition of pieces into joined groups that leaves the least energy unexplained."""
    options: dict[int, Segment] = {1 << index: piece for index, piece in enumerate(pieces)}
    boxes = [piece.region.box for piece in pieces]
    for members in {*_near_subsets(boxes), *_clusters(boxes)}:
        region = extract_region(
            foreground.difference, reduce(np.logical_or, (pieces[index].mask for index in members))
        )
        if _coarse_residual(region, foreground) < _JOIN_MARGIN * sum(
            _cost(pieces[index]) for index in members
        ):
            options[sum(1 << index for index in members)] = _explain(region, foreground)

    @functools.cache
    def cheapest(left: int) -> tuple[float, tuple[Segment, ...]]:
        if not left:
            return 0.0, ()
        lowest = left & -left
        ways = []
        for bits, group in options.items():
            if bits & lowest and bits & left == bits:
                cost, rest = cheapest(left & ~bits)
                ways.append((cost + _cost(group), (group, *rest)))
        return min(ways, key=lambda way: way[0])

    return list(cheapest((1 << len(pieces)) - 1)[1])


def _coarse_residual(region: Region, foreground: Foreground) -> float:
    similarity = float(coarse_similarity(region, foreground.templates).max())
    return (1 - max(0.0, similarity)) * region.energy


def _cost(group: Segment) -> float:
    return _OBJECT_COST + min(group.match.energy, group.region.energy)


def _near_subsets(boxes: list[PixelBox]) -> Iterator[tuple[int, ...]]:
    """Yield every set of two to four pieces that are linked by small gaps."""
    near = [
        {j for j, other in enumerate(boxes) if i != j and _is_near(one, other)} for i, one in enumerate(boxes)
    ]
    seen = {frozenset((i,)) for i in range(len(boxes))}
    growing = list(seen)
    for _ in range(_MAX_JOINED_PARTS - 1):
        growing = list({group | {j} for group in growing for i in group for j in near[i] - group} - seen)
        seen.update(growing)
        yield from (tuple(sorted(group)) for group in growing)


def _clusters(boxes: list[PixelBox]) -> Iterator[tuple[int, ...]]:
    """Yield the sets of pieces that gaps up to each of a few lengths link."""
    for gap in _CLUSTER_GAPS_PX:
        left = set(range(len(boxes)))
        while left:
            cluster, edge = set(), {left.pop()}
            while edge:
                cluster |= edge
                edge = {j for j in left for i in edge if _gap(boxes[i], boxes[j]) <= gap}
                left -= edge
            if len(cluster) > 1:
                yield tuple(sorted(cluster))


def _is_near(one: PixelBox, other: PixelBox) -> bool:
    return _gap(one, other) <= _JOIN_REACH * max(_longer_side(one), _longer_side(other))


def _gap(one: PixelBox, other: PixelBox) -> int:
    across = max(one[0], other[0]) - min(one[2], other[2])
    down = max(one[1], other[1]) - min(one[3], other[3])
    return max(across, down)


def _longer_side(box: PixelBox) -> int:
    return max(box[2] - box[0], box[3] - box[1])
