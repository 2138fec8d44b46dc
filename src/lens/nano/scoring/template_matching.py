"""Template matching: which object of the nano world a region shows, by comparison with all rendered sprites.

Regions and sprites are compared as differences from the background, so that the background does not count.
Two stages: small stretched patches of all objects, then the best few at true scale and small shifts.
Knows nothing of scenes, captions or how regions are found.
Letters: N objects, M side of the stored art, P side of a patch, H and W image.
Units: colours are differences in [-1, 1]; positions and sizes are pixels of the image.
"""

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.sprites import sprite

Floats = NDArray[np.floating]
PixelBox = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels, the last two exclusive."""

SPRITE_PX = 48
PATCH_PX = 18
UNKNOWN = "unknown"
"""Class name of a region that shows no object of the world."""
VISIBLE_THRESHOLD = 0.07
"""Differences from the background, in the largest channel, above this are visible."""
_ASPECT_TOLERANCE = 0.22
_NUM_CANDIDATES = 8
_NUM_REFINED = 3
_SCALES = (0.93, 1.0, 1.07)
_SHIFT_PX = 1
_REACH = 2.0
_MAX_REFINE_STEPS = 4
_SOFTNESS_PX = 1.9
# Half-width of the triangle filter that blurs a sprite as much as the smoothed, antialiased image.


class TemplateBank(NamedTuple):
    """Sprites of all objects on one background colour."""

    differences: Floats
    """Sprite minus background, (N, M, M, 3)."""
    extents: Floats
    """Extent of the difference, in pixels of the sprite: centre x and y, reach x and y: (N, 4)."""
    patches: Floats
    """Extents stretched to squares of unit norm: (N, P * P * 3)."""


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
    return Region(box, mask, own, float(energy.sum()), _extents(energy[None])[0])


def build_template_bank(background_rgb: tuple[float, float, float]) -> TemplateBank:
    """Return the sprites of all objects on a background colour, channels in [0, 1]."""
    background = np.asarray(background_rgb, dtype=np.float32)
    premultiplied, alpha = _sprite_bank()
    differences = premultiplied - alpha * background  # (N, M, M, 3)
    extents = _extents(np.square(differences).sum(-1))  # (N, 4)
    columns, rows = (_stretch_weights(extents[:, axis], extents[:, axis + 2], SPRITE_PX) for axis in (0, 1))
    patches = rows @ differences.reshape(len(extents), SPRITE_PX, SPRITE_PX * 3)  # (N, P, M * 3)
    patches = patches.reshape(len(extents), PATCH_PX, SPRITE_PX, 3).transpose(0, 1, 3, 2)
    patches = patches @ columns.transpose(0, 2, 1)[:, None]  # (N, P, 3, P)
    return TemplateBank(differences, extents, _normalize(patches.reshape(len(extents), -1)))


def coarse_similarity(region: Region, templates: TemplateBank) -> Floats:
    """Return the similarity of a region to every object, both stretched to squares; less for other aspects.

    Shapes: -> (N,), 1 for equal.
    """
    extent = region.extent
    rows = _stretch_weights(extent[1:2], extent[3:4], region.difference.shape[0])[0]  # (P, H)
    columns = _stretch_weights(extent[:1], extent[2:3], region.difference.shape[1])[0]  # (P, W)
    left, top, right, bottom = region.box
    inside = region.difference[top:bottom, left:right]
    patch = np.einsum("ph,hwc,qw->pcq", rows[:, top:bottom], inside, columns[:, left:right], optimize=True)
    similarity = templates.patches @ _normalize(patch.reshape(1, -1))[0]  # (N,)
    aspects = np.log(templates.extents[:, 2] / templates.extents[:, 3])  # (N,)
    stretch = np.log(extent[2] / extent[3]) - aspects
    return similarity * np.exp(-0.5 * np.square(stretch / _ASPECT_TOLERANCE)).astype(np.float32)


def best_match(region: Region, templates: TemplateBank, min_object_px: float) -> Match:
    """Return the object, scale and place that leave the least of a region unexplained.

    A region that would need an object below smallest_px is explained by none: similarity 0.
    """
    similarity = coarse_similarity(region, templates)
    starts = [
        _initial_match(region, templates, int(index)) for index in np.argsort(-similarity)[:_NUM_CANDIDATES]
    ]
    placed = sorted((_match_nearby(region, templates, start, 1.0) for start in starts), key=_match_energy)
    fitted = [_refine(region, templates, start) for start in placed[:_NUM_REFINED]]
    candidates = [match for match in fitted if match.size_px >= min_object_px]
    if candidates:
        return min(candidates, key=_match_energy)
    left, top, right, bottom = region.box
    size = float(max(right - left, bottom - top))
    return Match(UNKNOWN, (left + right) / 2, (top + bottom) / 2, size, 0.0, region.energy)


def _initial_match(region: Region, templates: TemplateBank, index: int) -> Match:
    """Return one object at the scale and place where the extents agree, not yet compared."""
    seen, frame = region.extent, templates.extents[index]
    size = SPRITE_PX * float(np.sqrt(seen[2] * seen[3] / (frame[2] * frame[3])))
    x = float(seen[0]) + size * (0.5 - float(frame[0]) / SPRITE_PX)
    y = float(seen[1]) + size * (0.5 - float(frame[1]) / SPRITE_PX)
    return Match(list(OBJECT_CLASSES)[index], x, y, size, 0.0, np.inf)


def _refine(region: Region, templates: TemplateBank, best: Match) -> Match:
    """Follow lower energy in scale and place until it stops falling."""
    for _ in range(_MAX_REFINE_STEPS):
        lowest = min((_match_nearby(region, templates, best, scale) for scale in _SCALES), key=_match_energy)
        if lowest.energy >= best.energy:
            break
        best = lowest
    return best


def _match_energy(match: Match) -> float:
    return match.energy


def _match_nearby(region: Region, templates: TemplateBank, start: Match, scale: float) -> Match:
    """Return the best match within a pixel of another, at a multiple of its size."""
    size = start.size_px * scale
    art = templates.differences[_class_index(start.class_name)]
    drawn = _render_template(art, start.x_px, start.y_px, size, region.difference.shape)
    if drawn is None:
        return start
    energy, similarity, dx, dy = _best_shift(region, *drawn)
    return Match(start.class_name, start.x_px + dx, start.y_px + dy, size, similarity, energy)


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
    columns = _resampling_weights(
        (left - (x - size / 2)) * step, step, left_end - left, SPRITE_PX, _SOFTNESS_PX
    )
    rows = _resampling_weights((top - (y - size / 2)) * step, step, top_end - top, SPRITE_PX, _SOFTNESS_PX)
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


@functools.cache
def _class_index(class_name: str) -> int:
    return list(OBJECT_CLASSES).index(class_name)


@functools.cache
def _sprite_bank() -> tuple[Floats, Floats]:
    """Return every object's colour times alpha, (N, M, M, 3), and alpha, (N, M, M, 1)."""
    art = np.stack([sprite(name, SPRITE_PX) for name in OBJECT_CLASSES])
    return art[..., :3] * art[..., 3:], art[..., 3:]


def _extents(energy: Floats) -> Floats:
    """Return the centres of energy and twice its spread around them, in pixels: (N, h, w) -> (N, 4)."""
    total = energy.sum((1, 2)) + 1e-9
    found = []
    for axis in (2, 1):
        profile = energy.sum(3 - axis) / total[:, None]  # (N, w or h)
        at = np.arange(energy.shape[axis]) + 0.5
        centre = profile @ at
        spread = np.sqrt(np.maximum((profile * np.square(at - centre[:, None])).sum(1), 0.25))
        found.append((centre, _REACH * spread))
    (x, reach_x), (y, reach_y) = found
    return np.stack([x, y, reach_x, reach_y], axis=1).astype(np.float32)


def _resampling_weights(start: float, step: float, count: int, source: int, softness: float = 1.0) -> Floats:
    """Return (count, source) weights that resample a line, output i centred at start + (i + 0.5) * step."""
    centres = start + (np.arange(count) + 0.5) * step
    width = softness * max(step, 1.0)
    distance = np.abs(centres[:, None] - (np.arange(source) + 0.5))
    return (np.maximum(0.0, 1 - distance / width) / width).astype(np.float32)


def _stretch_weights(centre: Floats, reach: Floats, source: int) -> Floats:
    """Return (N, P, source) weights that stretch what lies within reach of each centre to P pixels."""
    lines = zip(centre - reach, 2 * reach / PATCH_PX, strict=True)
    return np.stack([_resampling_weights(start, step, PATCH_PX, source) for start, step in lines])


def _normalize(rows: Floats) -> Floats:
    return rows / (np.linalg.norm(rows, axis=-1, keepdims=True) + 1e-6)
