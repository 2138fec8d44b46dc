"""Templates of the scorer: the sprites of all objects on one background, as drawn and re-coloured.

All drawings are compared with a region; re-coloured ones only in the colours that an image has much of, and
from smaller art. Knows nothing of regions or matching.
Letters: N templates, V templates of one colour, M side of art, P side of a patch.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from lens.nano.world.colours import OBJECT_COLOURS
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.recolouring import COLOURABLE
from lens.nano.world.sprites import sprite

Floats = NDArray[np.floating]

SPRITE_PX = 48
PATCH_PX = 18
_SHRINK = 2
"""Re-coloured art is that much smaller where it is compared roughly."""
_COLOUR_DISTANCE = 0.22
"""Pixels this near to a tint or shade of a colour, in RGB from 0 to 1, have that colour."""
_TINTS = (0.62, 0.82, 1.0)
"""Shades of a colour in re-coloured art."""
_LIGHT = 0.3
"""Share of white in its highlights."""


class Template(NamedTuple):
    """A class, and the colour of its art; None for the colours of the drawing."""

    class_name: str
    colour: str | None = None


class Art(NamedTuple):
    """Sprites, and what their energy on any background follows from."""

    premultiplied: Floats
    """Colour times alpha, (N, M, M, 3)."""
    alpha: Floats
    """(N, M, M, 1)."""
    colour_squares: tuple[Floats, Floats]
    """Sums of squared premultiplied colours over the columns and over the rows: (N, M) each."""
    products: tuple[Floats, Floats]
    """Sums of premultiplied colours times alpha: (N, M, 3) each."""
    alpha_squares: tuple[Floats, Floats]
    """Sums of squared alpha: (N, M) each."""

    @classmethod
    def of(cls, premultiplied: Floats, alpha: Floats) -> Self:
        """Return art with its sums."""
        squares, products = np.square(premultiplied).sum(-1), premultiplied * alpha
        alpha_squares = np.square(alpha[..., 0])
        sums = [(values.sum(1), values.sum(2)) for values in (squares, products, alpha_squares)]
        return cls(premultiplied, alpha, *sums)

    def difference(self, background: Floats) -> Floats:
        """Return the art minus a background, (N, M, M, 3)."""
        return self.premultiplied - self.alpha * background

    def extents(self, background: Floats) -> Floats:
        """Return the extents of the difference from a background: (N, 4)."""
        square = float(background @ background)
        sums = zip(self.colour_squares, self.products, self.alpha_squares, strict=True)
        return _extents_of_profiles(*(a - 2 * (b @ background) + square * c for a, b, c in sums))


class TemplateBank(NamedTuple):
    """Sprites of all objects on one background colour."""

    templates: tuple[Template, ...]
    """All drawings in the order of OBJECT_CLASSES, then re-coloured ones."""
    background: Floats
    differences: Floats
    """Drawing minus background, (number of drawings, M, M, 3)."""
    extents: Floats
    """Extent of the difference, in pixels of the sprite: centre x and y, reach x and y: (N, 4)."""
    patches: Floats
    """Extents stretched to squares of unit norm: (N, P * P * 3)."""
    recoloured: dict[Template, Floats]
    """Differences of re-coloured art that were asked for, (M, M, 3) each."""

    def difference(self, template: Template) -> Floats:
        """Return the sprite minus the background, (M, M, 3)."""
        number = _class_numbers()[template.class_name]
        if template.colour is None:
            return self.differences[number]
        if template not in self.recoloured:
            names, art = _recoloured_art(template.colour)
            alpha = _drawings().alpha[number]
            self.recoloured[template] = art[names.index(template.class_name)] - alpha * self.background
        return self.recoloured[template]


def build_template_bank(
    background_rgb: tuple[float, float, float], colours: Sequence[str] = ()
) -> TemplateBank:
    """Return the sprites of all objects, also in the given colours, on a background; channels in [0, 1]."""
    background = np.asarray(background_rgb, dtype=np.float32)
    differences = _drawings().difference(background)  # (drawings, M, M, 3)
    templates = [Template(name) for name in OBJECT_CLASSES]
    banks = [_stretched(differences, _drawings().extents(background))]
    for colour in colours:
        art = _small_recoloured_art(colour)
        banks.append(_stretched(art.difference(background), art.extents(background)))
    extents, patches = zip(*banks, strict=True)
    for colour in colours:
        templates += [Template(name, colour) for name in _recoloured_art(colour)[0]]
    return TemplateBank(
        tuple(templates), background, differences, np.concatenate(extents), np.concatenate(patches), {}
    )


def frequent_colours(pixels: Floats, is_visible: NDArray[np.bool_], min_pixels: float) -> list[str]:
    """Return the colours of OBJECT_COLOURS that many visible pixels have: (H, W, 3) in [0, 1], (H, W)."""
    seen = pixels[::2, ::2][is_visible[::2, ::2]]  # a quarter is enough
    return [
        name
        for name, near in _colour_ramps().items()
        if 4 * _count_near(seen, near) >= min_pixels
    ]


def extents_of(energy: Floats) -> Floats:
    """Return the centres of energy and twice its spread around them, in pixels: (N, h, w) -> (N, 4)."""
    return _extents_of_profiles(energy.sum(1), energy.sum(2))


def _extents_of_profiles(level: Floats, upright: Floats) -> Floats:
    """Return extents from the sums of energy over columns and over rows: (N, w), (N, h) -> (N, 4)."""
    found = []
    for sums in (level, upright):
        profile = sums / (sums.sum(1, keepdims=True) + 1e-9)
        at = np.arange(sums.shape[1]) + 0.5
        centre = profile @ at
        spread = np.sqrt(np.maximum((profile * np.square(at - centre[:, None])).sum(1), 0.25))
        found.append((centre, _REACH * spread))
    (x, reach_x), (y, reach_y) = found
    return np.stack([x, y, reach_x, reach_y], axis=1).astype(np.float32)


def resampling_weights(start: float, step: float, count: int, source: int, softness: float = 1.0) -> Floats:
    """Return (count, source) weights that resample a line, output i centred at start + (i + 0.5) * step."""
    centres = start + (np.arange(count) + 0.5) * step
    width = softness * max(step, 1.0)
    distance = np.abs(centres[:, None] - (np.arange(source) + 0.5))
    return (np.maximum(0.0, 1 - distance / width) / width).astype(np.float32)


def stretch_weights(centre: Floats, reach: Floats, source: int) -> Floats:
    """Return (N, P, source) weights that stretch what lies within reach of each centre to P pixels."""
    step = (2 * reach / PATCH_PX)[:, None]  # (N, 1)
    centres = (centre - reach)[:, None] + (np.arange(PATCH_PX, dtype=np.float32) + 0.5) * step  # (N, P)
    width = np.maximum(step, 1.0)[..., None]  # (N, 1, 1)
    weights = np.abs(centres[..., None] - (np.arange(source, dtype=np.float32) + 0.5))  # (N, P, source)
    np.subtract(1, weights / width, out=weights)
    return np.maximum(weights, 0, out=weights) / width


def normalize(rows: Floats) -> Floats:
    """Return rows of unit norm."""
    return rows / (np.linalg.norm(rows, axis=-1, keepdims=True) + 1e-6)


_REACH = 2.0


def _stretched(differences: Floats, extents: Floats) -> tuple[Floats, Floats]:
    """Return extents in pixels of the sprite, and patches: (N, m, m, 3), (N, 4) -> (N, 4), (N, P * P * 3)."""
    count, side_px = differences.shape[:2]
    columns, rows = (stretch_weights(extents[:, axis], extents[:, axis + 2], side_px) for axis in (0, 1))
    patches = rows @ differences.reshape(count, side_px, side_px * 3)  # (N, P, m * 3)
    patches = patches.reshape(count, PATCH_PX, side_px, 3).transpose(0, 1, 3, 2)
    patches = patches @ columns.transpose(0, 2, 1)[:, None]  # (N, P, 3, P)
    return extents * (SPRITE_PX / side_px), normalize(patches.reshape(count, -1))


@functools.cache
def _class_numbers() -> dict[str, int]:
    return {name: number for number, name in enumerate(OBJECT_CLASSES)}


@functools.cache
def _drawings() -> Art:
    """Return every drawing."""
    art = np.stack([sprite(name, SPRITE_PX) for name in OBJECT_CLASSES])
    return Art.of(art[..., :3] * art[..., 3:], art[..., 3:])


@functools.cache
def _recoloured_art(colour: str) -> tuple[list[str], Floats]:
    """Return the classes that can have a colour beside their own, and colour times alpha, (V, M, M, 3)."""
    names = [name for name in OBJECT_CLASSES if COLOURABLE.get(name, colour) != colour]
    art = np.stack([sprite(name, SPRITE_PX, colour) for name in names])
    return names, art[..., :3] * art[..., 3:]


@functools.cache
def _small_recoloured_art(colour: str) -> Art:
    """Return small art in a colour."""
    names, art = _recoloured_art(colour)
    numbers = [_class_numbers()[name] for name in names]
    return Art.of(_shrink(art), _shrink(_drawings().alpha[numbers]))


def _shrink(art: Floats) -> Floats:
    """Return art of a fraction of the size, by means of squares: (V, M, M, C) -> (V, m, m, C)."""
    count, side_px, _, channels = art.shape
    small_px = side_px // _SHRINK
    return art.reshape(count, small_px, _SHRINK, small_px, _SHRINK, channels).mean((2, 4))


@functools.cache
def _colour_ramps() -> dict[str, Floats]:
    """Return tints and shades of every colour, (number, 3) in [0, 1]."""
    ramps = {}
    for name, rgb in OBJECT_COLOURS.items():
        target = np.array(rgb, np.float32) / 255
        ramps[name] = np.stack([*(share * target for share in _TINTS), target + _LIGHT * (1 - target)])
    return ramps


def _count_near(pixels: Floats, ramp: Floats) -> int:
    distance = np.square(pixels[:, None] - ramp).sum(-1).min(-1, initial=9)
    return int((distance < _COLOUR_DISTANCE**2).sum())
