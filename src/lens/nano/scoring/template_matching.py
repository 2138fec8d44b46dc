"""Template matching: which object of the nano world a region shows, by comparison with all rendered sprites.

Regions and sprites are compared as differences from the background, so that the background does not count.
Two stages: small stretched patches of all objects, then the best few at true scale and small shifts.
Knows nothing of scenes, captions or how regions are found.
Letters: N objects, M side of the stored art, P side of a patch, H and W image.
Units: colours are differences in [-1, 1]; positions and sizes are pixels of the image.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lens.nano.scoring.template_bank import (
    SPRITE_PX,
    Floats,
    Template,
    TemplateBank,
    extents_of,
    normalize,
    resampling_weights,
    stretch_weights,
)

PixelBox = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels, the last two exclusive."""

UNKNOWN = "unknown"
"""Class name of a region that shows no object of the world."""
VISIBLE_THRESHOLD = 0.07
"""Differences from the background, in the largest channel, above this are visible."""
_ASPECT_TOLERANCE = 0.22
_NUM_CANDIDATES = 14
_NUM_RECOLOURED = 4
_RECOLOURED_MARGIN = 0.1
"""Re-coloured art is compared in detail if its rough similarity is that near to the best."""
_RECOLOURED_ENERGY = 1.1
"""Re-coloured art must leave less than one over this of the energy that drawings leave."""
_NUM_REFINED = 4
_PROMISING_ENERGY = 2.5
"""Matches that leave more than this multiple of the least energy are not fitted."""
_SCALES = (0.93, 1.0, 1.07)
_SHIFT_PX = 1
_MAX_REFINE_STEPS = 4
_SOFTNESS_PX = 1.9
# Half-width of the triangle filter that blurs a sprite as much as the smoothed, antialiased image.


class Match(NamedTuple):
    """The object that explains a region best, with its place and its similarity."""

    class_name: str
    x_px: float
    y_px: float
    size_px: float
    similarity: float
    """1 for equal, 0 for unrelated: twice the inner product over the sum of both energies."""
    energy: float
    """Squared difference that the object leaves unexplained."""
    colour: str | None = None
    """Of re-coloured art; None for the colours of the drawing."""


class Region(NamedTuple):
    """A part of an image that may show one object: its box and its difference from the background."""

    box: PixelBox
    mask: NDArray[np.bool_]
    difference: Floats
    """(H, W, 3) of the whole image, zero outside the region."""
    energy: float
    extent: Floats
    """Extent of the difference: centre x and y, reach x and y: (4,)."""


def extract_region(difference: Floats, mask: NDArray[np.bool_]) -> Region:
    """Return the region that a mask cuts out of an image's difference from its background.

    Shapes: difference (H, W, 3), mask (H, W) with at least one pixel set.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    own = difference * mask[..., None]
    energy = np.square(own).sum(-1)  # (H, W)
    return Region(box, mask, own, float(energy.sum()), extents_of(energy[None])[0])


def coarse_similarity(region: Region, templates: TemplateBank) -> Floats:
    """Return the similarity of a region to every object, both stretched to squares; less for other aspects.

    Shapes: -> (N,), 1 for equal.
    """
    extent = region.extent
    rows = stretch_weights(extent[1:2], extent[3:4], region.difference.shape[0])[0]  # (P, H)
    columns = stretch_weights(extent[:1], extent[2:3], region.difference.shape[1])[0]  # (P, W)
    left, top, right, bottom = region.box
    inside = region.difference[top:bottom, left:right]
    patch = np.einsum("ph,hwc,qw->pcq", rows[:, top:bottom], inside, columns[:, left:right], optimize=True)
    similarity = templates.patches @ normalize(patch.reshape(1, -1))[0]  # (N,)
    aspects = np.log(templates.extents[:, 2] / templates.extents[:, 3])  # (N,)
    stretch = np.log(extent[2] / extent[3]) - aspects
    return similarity * np.exp(-0.5 * np.square(stretch / _ASPECT_TOLERANCE)).astype(np.float32)


def best_match(region: Region, templates: TemplateBank, min_object_px: float) -> Match:
    """Return the object, scale and place that leave the least of a region unexplained.

    A region that would need an object below `min_object_px` is explained by none: similarity 0.
    """
    starts = [_initial_match(region, templates, index) for index in _candidates(region, templates)]
    placed = sorted((_match_nearby(region, templates, start, 1.0) for start in starts), key=_match_energy)
    promising = _PROMISING_ENERGY * _match_energy(placed[0])
    fitted = [
        _refine(region, templates, start)
        for start in placed[:_NUM_REFINED]
        if _match_energy(start) <= promising
    ]
    candidates = [match for match in fitted if match.size_px >= min_object_px]
    if candidates:
        return min(candidates, key=_match_energy)
    left, top, right, bottom = region.box
    size = float(max(right - left, bottom - top))
    return Match(UNKNOWN, (left + right) / 2, (top + bottom) / 2, size, 0.0, region.energy)


def _candidates(region: Region, templates: TemplateBank) -> list[int]:
    """Return the templates that are roughly most similar: drawings, and re-coloured art about as near."""
    similarity = coarse_similarity(region, templates)
    num_drawings = len(templates.differences)
    chosen = [int(index) for index in np.argsort(-similarity[:num_drawings])[:_NUM_CANDIDATES]]
    rest = similarity[num_drawings:]
    if not len(rest):
        return chosen
    near = similarity.max() - _RECOLOURED_MARGIN
    best = np.argsort(-rest)[:_NUM_RECOLOURED]
    return chosen + [num_drawings + int(index) for index in best if rest[index] >= near]


def _initial_match(region: Region, templates: TemplateBank, index: int) -> Match:
    """Return one object at the scale and place where the extents agree, not yet compared."""
    seen, frame = region.extent, templates.extents[index]
    size = SPRITE_PX * float(np.sqrt(seen[2] * seen[3] / (frame[2] * frame[3])))
    x = float(seen[0]) + size * (0.5 - float(frame[0]) / SPRITE_PX)
    y = float(seen[1]) + size * (0.5 - float(frame[1]) / SPRITE_PX)
    name, colour = templates.templates[index]
    return Match(name, x, y, size, 0.0, np.inf, colour)


def _refine(region: Region, templates: TemplateBank, best: Match) -> Match:
    """Follow lower energy in scale and place until it stops falling."""
    for _ in range(_MAX_REFINE_STEPS):
        lowest = min((_match_nearby(region, templates, best, scale) for scale in _SCALES), key=_match_energy)
        if lowest.energy >= best.energy:
            break
        best = lowest
    return best


def _match_energy(match: Match) -> float:
    return match.energy * (_RECOLOURED_ENERGY if match.colour else 1.0)


def _match_nearby(region: Region, templates: TemplateBank, start: Match, scale: float) -> Match:
    """Return the best match within a pixel of another, at a multiple of its size."""
    size = start.size_px * scale
    art = templates.difference(Template(start.class_name, start.colour))
    drawn = _render_template(art, start.x_px, start.y_px, size, region.difference.shape)
    if drawn is None:
        return start
    energy, similarity, dx, dy = _best_shift(region, *drawn)
    return Match(start.class_name, start.x_px + dx, start.y_px + dy, size, similarity, energy, start.colour)


def _render_template(
    art: Floats, x: float, y: float, size: float, shape: tuple[int, ...]
) -> tuple[Floats, int, int] | None:
    """Return a sprite rendered at a centre and size, with the left and top of the pixels that it covers."""
    step = SPRITE_PX / size
    left, top = int(np.floor(x - size / 2)) - 1, int(np.floor(y - size / 2)) - 1
    count = int(np.ceil(size)) + 3
    left_end, top_end = min(left + count, shape[1]), min(top + count, shape[0])
    left, top = max(left, 0), max(top, 0)
    if left_end <= left or top_end <= top:
        return None
    columns = resampling_weights(
        (left - (x - size / 2)) * step, step, left_end - left, SPRITE_PX, _SOFTNESS_PX
    )
    rows = resampling_weights((top - (y - size / 2)) * step, step, top_end - top, SPRITE_PX, _SOFTNESS_PX)
    half = (rows @ art.reshape(SPRITE_PX, -1)).reshape(len(rows), SPRITE_PX, 3)  # (h, M, 3)
    return np.matmul(columns, half), left, top  # (h, w, 3)


def _best_shift(region: Region, drawn: Floats, left: int, top: int) -> tuple[float, float, int, int]:
    """Return the lowest energy over small shifts of a rendered sprite, its similarity, and the shift."""
    reach = _SHIFT_PX
    height, width = drawn.shape[:2]
    window = np.zeros((height + 2 * reach, width + 2 * reach, 3), np.float32)
    total = region.difference.shape
    y0, y1 = max(top - reach, 0), min(top + height + reach, total[0])
    x0, x1 = max(left - reach, 0), min(left + width + reach, total[1])
    window[y0 - top + reach : y1 - top + reach, x0 - left + reach : x1 - left + reach] = region.difference[
        y0:y1, x0:x1
    ]
    own = float(np.square(drawn).sum()) + 1e-6
    best, dy, dx = -np.inf, 0, 0
    flat = drawn.ravel()
    for row in range(2 * reach + 1):
        for column in range(2 * reach + 1):
            product = float(flat @ window[row : row + height, column : column + width].ravel())
            if product > best:
                best, dy, dx = product, row - reach, column - reach
    return region.energy + own - 2 * best, 2 * best / (region.energy + own), dx, dy


