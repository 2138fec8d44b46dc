"""Random crops of objects and signs on backgrounds, the training images of the nano autoencoder.

A crop shows more of an object than a whole scene, most of which is background.
"""

import numpy as np
from numpy.typing import NDArray

from lens.nano.world.colours import COLOURS, OBJECT_COLOURS
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.placement import Canvas
from lens.nano.world.recolouring import COLOURABLE
from lens.nano.world.scene_spec import MAX_TEXT_LENGTH, SIGN_CHARACTERS
from lens.nano.world.signs import draw_sign, sign_board
from lens.nano.world.sprites import opaque_box, sprite

CLASS_NAMES = tuple(OBJECT_CLASSES)
SIZES_PX = tuple(range(24, 124, 4))
"""Sizes of objects; few sizes keep the cache of sprites small."""
COLOURED_SIZES_PX = (24, 32, 48, 64, 96)
"""Sizes of re-coloured objects."""
COLOURED_SHARE = 0.25
"""Share of objects that are re-coloured."""
SIGN_SHARE = 0.12
"""Share of crops with a sign."""
SIGN_BASES_PX = (96, 128, 192, 256)
"""Bases of the images that signs are as large as in."""


def random_crop(rng: np.random.Generator, side_px: int) -> NDArray[np.float32]:
    """Return (3, side, side) in [-1, 1]: objects on a flat colour, cut by the border, and some signs."""
    named = np.array(list(COLOURS.values())[rng.integers(len(COLOURS))]) + rng.uniform(-12, 12, 3)
    colour = named if rng.random() < 0.7 else rng.uniform(0, 255, 3)
    canvas = np.empty((side_px, side_px, 3), np.float32)
    canvas[:] = colour.clip(0, 255) / 255
    for _ in range(rng.choice((1, 1, 2, 3))):
        _paste(canvas, rng)
    if rng.random() < SIGN_SHARE:
        _paste_sign(canvas, rng)
    return canvas.transpose(2, 0, 1) * 2 - 1


def _sample_size_index(rng: np.random.Generator) -> int:
    """Return an index into SIZES_PX; small objects are harder, so they are sampled more often."""
    return int(len(SIZES_PX) * rng.random() ** 1.7)


def _paste(canvas: NDArray[np.float32], rng: np.random.Generator) -> None:
    side, colour = canvas.shape[0], None
    class_name, size_px = CLASS_NAMES[rng.integers(len(CLASS_NAMES))], SIZES_PX[_sample_size_index(rng)]
    if class_name in COLOURABLE and rng.random() < COLOURED_SHARE:
        colour = str(rng.choice(list(OBJECT_COLOURS)))
        size_px = int(rng.choice(COLOURED_SIZES_PX))
    art = sprite(class_name, size_px, colour)
    left, top, right, bottom = (edge * size_px for edge in opaque_box(class_name))
    x = round(rng.uniform(-0.25, 1.25) * side - (left + right) / 2)
    y = round(rng.uniform(-0.25, 1.25) * side - (top + bottom) / 2)
    rows, columns = slice(max(0, y), min(side, y + size_px)), slice(max(0, x), min(side, x + size_px))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    part = art[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
    canvas[rows, columns] += part[..., 3:] * (part[..., :3] - canvas[rows, columns])


def _paste_sign(canvas: NDArray[np.float32], rng: np.random.Generator) -> None:
    """Draw a sign somewhere; a large image around it holds what the border cuts."""
    base_px, side = int(rng.choice(SIGN_BASES_PX)), canvas.shape[0]
    letters = rng.choice(list(SIGN_CHARACTERS), int(rng.integers(1, MAX_TEXT_LENGTH + 1)))
    sign = sign_board("".join(letters), Canvas(base_px, base_px))
    margin = max(sign.width_px, sign.height_px)
    around = np.pad(canvas, ((margin, margin), (margin, margin), (0, 0)))
    x, y = (int(margin + rng.integers(side + 1)) for _ in range(2))
    draw_sign(around, sign._replace(x_px=x, y_px=y))
    canvas[:] = around[margin : margin + side, margin : margin + side]
