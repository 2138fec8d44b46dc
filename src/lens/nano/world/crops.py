"""Random crops of objects on backgrounds, the training images of the nano autoencoder.

A crop shows more of an object than a whole scene, most of which is background.
"""

import numpy as np
from numpy.typing import NDArray

from lens.nano.world.colours import COLOURS
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.sprites import opaque_box, sprite

CLASS_NAMES = tuple(OBJECT_CLASSES)
SIZES_PX = tuple(range(24, 124, 4))
"""Sizes of objects; few sizes keep the cache of sprites small."""


def random_crop(rng: np.random.Generator, side_px: int) -> NDArray[np.float32]:
    """Return (3, side, side) in [-1, 1]: one to three objects on a flat colour, cut by the border."""
    named = np.array(list(COLOURS.values())[rng.integers(len(COLOURS))]) + rng.uniform(-12, 12, 3)
    colour = named if rng.random() < 0.7 else rng.uniform(0, 255, 3)
    canvas = np.empty((side_px, side_px, 3), np.float32)
    canvas[:] = colour.clip(0, 255) / 255
    for _ in range(rng.choice((1, 1, 2, 3))):
        _paste(canvas, CLASS_NAMES[rng.integers(len(CLASS_NAMES))], SIZES_PX[_sample_size_index(rng)], rng)
    return canvas.transpose(2, 0, 1) * 2 - 1


def _sample_size_index(rng: np.random.Generator) -> int:
    """Return an index into SIZES_PX; small objects are harder, so they are sampled more often."""
    return int(len(SIZES_PX) * rng.random() ** 1.7)


def _paste(canvas: NDArray[np.float32], class_name: str, size_px: int, rng: np.random.Generator) -> None:
    side = canvas.shape[0]
    art = sprite(class_name, size_px)
    left, top, right, bottom = (edge * size_px for edge in opaque_box(class_name))
    x = round(rng.uniform(-0.25, 1.25) * side - (left + right) / 2)
    y = round(rng.uniform(-0.25, 1.25) * side - (top + bottom) / 2)
    rows, columns = slice(max(0, y), min(side, y + size_px)), slice(max(0, x), min(side, x + size_px))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    part = art[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
    canvas[rows, columns] += part[..., 3:] * (part[..., :3] - canvas[rows, columns])
