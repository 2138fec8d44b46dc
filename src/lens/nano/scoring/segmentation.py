"""The parts of a picture that stand out from its background, and how they group into things.

A part may be a piece of a thing (a hat apart from its head), one thing, or several that touch. Candidates are
the parts, near parts joined, and parts cut in two; the grouping that leaves the least unexplained wins.
Knows nothing of scenes, captions or expectations.
Letters: H, W the picture.
"""

import functools
from collections.abc import Iterator
from functools import reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lens.nano.scoring.template_matching import (
    VISIBLE,
    Box,
    Floats,
    Gallery,
    Match,
    Region,
    best_match,
    region_of,
    rough_similarities,
)

Mask = NDArray[np.bool_]

_BORDER_PX = 3
_MAX_PARTS = 12
_MAX_JOINED = 4
_REACH = 0.3
"""Parts join when the gap between them is at most this fraction of the larger one's longer side."""
_CLUSTER_GAPS_PX = (3, 6, 10)
"""All parts that are linked by gaps of at most so much are tried as one thing, however many they are."""
_PRICE = 4.0
"""What a thing costs in a grouping, as unexplained squared difference: few things are likelier than many."""
_SPECK = 0.0006
"""Parts below this fraction of the picture are never looked at."""
_CONVINCING = 0.87
"""A part this much like one thing is not cut."""
_CUT_GAIN = 0.75
"""A cut must leave less than this fraction of what the whole part left unexplained."""
_HOPEFUL = 1.5
"""A join is looked at closely when it may leave less than this multiple of what its pieces leave."""
_MAX_CUTS = 5
_MIN_PIECE_PX = 8


class Look(NamedTuple):
    """A picture as its difference from the background, and all things as they look on that background."""

    difference: Floats
    """(H, W, 3), softened."""
    gallery: Gallery
    smallest_px: float
    """No thing is smaller."""


class Group(NamedTuple):
    """Pixels taken for one thing, and the thing that explains them best."""

    region: Region
    match: Match

    @property
    def mask(self) -> Mask:
        """Return the pixels."""
        return self.region.mask


def background_of(pixels: Floats) -> tuple[float, float, float]:
    """Return the median colour of the border, each channel in [0, 1]: (H, W, 3) in [0, 1]."""
    rim = _BORDER_PX
    strips = (pixels[:rim], pixels[-rim:], pixels[:, :rim], pixels[:, -rim:])
    middle = np.median(np.concatenate([strip.reshape(-1, 3) for strip in strips]), axis=0)
    return float(middle[0]), float(middle[1]), float(middle[2])


def softened(pixels: Floats) -> Floats:
    """Return a picture under the 3 x 3 binomial filter, edges repeated."""
    rows = np.pad(pixels, ((1, 1), (0, 0), (0, 0)), mode="edge")
    rows = (rows[:-2] + 2 * rows[1:-1] + rows[2:]) / 4
    columns = np.pad(rows, ((0, 0), (1, 1), (0, 0)), mode="edge")
    return (columns[:, :-2] + 2 * columns[:, 1:-1] + columns[:, 2:]) / 4


def groups_in(look: Look) -> list[Group]:
    """Return what stands out from the background, one group a thing."""
    outline = _without_single_pixels(np.abs(look.difference).max(-1) > VISIBLE)
    speck_px = max(6.0, _SPECK * outline.size)
    parts = [part for part in connected_parts(outline) if part.sum() >= speck_px]
    parts = sorted(parts, key=lambda part: -int(part.sum()))[:_MAX_PARTS]
    groups = _best_grouping([_explained(region_of(look.difference, part), look) for part in parts], look)
    pieces = [piece for group in groups for piece in _cut(group, look, _MAX_CUTS)]
    if len(pieces) == len(groups):
        return groups
    return _best_grouping(sorted(pieces, key=lambda group: -group.region.energy)[:_MAX_PARTS], look)


def connected_parts(mask: Mask) -> list[Mask]:
    """Return the 8-connected parts of a mask, by joining runs of neighbouring rows."""
    runs: list[tuple[int, int, int]] = []  # row, start, end
    owner: list[int] = []

    def root(index: int) -> int:
        while owner[index] != index:
            owner[index] = owner[owner[index]]
            index = owner[index]
        return index

    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    above: list[int] = []
    for row in range(len(mask)):
        starts, ends = np.flatnonzero(edges[row] == 1), np.flatnonzero(edges[row] == -1)
        current = []
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            index = len(runs)
            runs.append((row, start, end))
            owner.append(index)
            current.append(index)
            for other in above:
                if runs[other][1] <= end and start <= runs[other][2]:
                    owner[root(other)] = root(index)
        above = current
    parts: dict[int, Mask] = {}
    for index, (row, start, end) in enumerate(runs):
        part = parts.setdefault(root(index), np.zeros_like(mask))
        part[row, start:end] = True
    return list(parts.values())


def _without_single_pixels(mask: Mask) -> Mask:
    """Drop pixels with fewer than two neighbours that stand out."""
    padded = np.pad(mask, 1).astype(np.int8)
    height, width = mask.shape
    around = sum(padded[y : y + height, x : x + width] for y in range(3) for x in range(3))
    return mask & (around >= 3)


def _explained(region: Region, look: Look) -> Group:
    return Group(region, best_match(region, look.gallery, look.smallest_px))


def _cut(whole: Group, look: Look, cuts_left: int) -> list[Group]:
    """Cut a part that is not convincingly one thing along the line that explains it best, again and again."""
    if cuts_left == 0 or whole.match.similarity >= _CONVINCING:
        return [whole]
    best, halves = np.inf, ()
    for pair in _halves(whole):
        regions = [region_of(look.difference, half) for half in pair]
        unexplained = sum(_roughly_unexplained(region, look) for region in regions)
        if unexplained < best:
            best, halves = unexplained, regions
    pieces = [piece for half in halves for piece in _cut(_explained(half, look), look, cuts_left - 1)]
    if pieces and sum(map(_cost, pieces)) < _CUT_GAIN * _cost(whole):
        return pieces
    return [whole]


def _halves(whole: Group) -> Iterator[tuple[Mask, Mask]]:
    """Yield a part cut in two at every other row and column that leaves two pieces of some size."""
    left, top, right, bottom = whole.region.box
    for axis, (start, end) in enumerate(((top, bottom), (left, right))):
        for line in range(start + _MIN_PIECE_PX, end - _MIN_PIECE_PX + 1, 2):
            before = np.arange(whole.mask.shape[axis]) < line
            before = before[:, None] if axis == 0 else before[None]
            first, second = whole.mask & before, whole.mask & ~before
            if min(first.sum(), second.sum()) >= _MIN_PIECE_PX**2 // 2:
                yield first, second


def _best_grouping(pieces: list[Group], look: Look) -> list[Group]:
    """Return the partition of pieces into joined groups that leaves the least energy unexplained."""
    options: dict[int, Group] = {1 << index: piece for index, piece in enumerate(pieces)}
    boxes = [piece.region.box for piece in pieces]
    for members in {*_near_subsets(boxes), *_clusters(boxes)}:
        region = region_of(look.difference, reduce(np.logical_or, (pieces[index].mask for index in members)))
        if _roughly_unexplained(region, look) < _HOPEFUL * sum(_cost(pieces[index]) for index in members):
            options[sum(1 << index for index in members)] = _explained(region, look)

    @functools.cache
    def cheapest(left: int) -> tuple[float, tuple[Group, ...]]:
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


def _roughly_unexplained(region: Region, look: Look) -> float:
    likeness = float(rough_similarities(region, look.gallery).max())
    return (1 - max(0.0, likeness)) * region.energy


def _cost(group: Group) -> float:
    return _PRICE + min(group.match.energy, group.region.energy)


def _near_subsets(boxes: list[Box]) -> Iterator[tuple[int, ...]]:
    """Yield every set of two to four pieces that are linked by small gaps."""
    near = [
        {j for j, other in enumerate(boxes) if i != j and _is_near(one, other)} for i, one in enumerate(boxes)
    ]
    seen = {frozenset((i,)) for i in range(len(boxes))}
    growing = list(seen)
    for _ in range(_MAX_JOINED - 1):
        growing = list({group | {j} for group in growing for i in group for j in near[i] - group} - seen)
        seen.update(growing)
        yield from (tuple(sorted(group)) for group in growing)


def _clusters(boxes: list[Box]) -> Iterator[tuple[int, ...]]:
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


def _is_near(one: Box, other: Box) -> bool:
    return _gap(one, other) <= _REACH * max(_longer(one), _longer(other))


def _gap(one: Box, other: Box) -> int:
    across = max(one[0], other[0]) - min(one[2], other[2])
    down = max(one[1], other[1]) - min(one[3], other[3])
    return max(across, down)


def _longer(box: Box) -> int:
    return max(box[2] - box[0], box[3] - box[1])
