"""What each latent cell of a scene shows: which thing, and which part of it.

The labels of the layout loss (losses/patch_classification.py); nothing of models. Letters: h and w latent cells.
"""

import numpy as np
from numpy.typing import NDArray

from lens.nano.world.objects import THINGS
from lens.nano.world.scenes import Scene

CELL_PX = 16
"""Side of a latent cell: 8 px of the autoencoder, packed two by two."""
PARTS_A_SIDE = 4

NUM_THINGS = 1 + len(THINGS)
"""Classes of `things`; 0 is the background."""
NUM_PARTS = 1 + 2 * PARTS_A_SIDE**2
"""Classes of `parts`: the background, then sixteenths of a small thing, then of a large one."""

_INDEX = {name: index for index, name in enumerate(THINGS, start=1)}


def cell_labels(scene: Scene) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the thing and the part at the middle of each cell, two arrays (h, w)."""
    shape = scene.height_px // CELL_PX, scene.width_px // CELL_PX
    things, parts = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    rows, columns = (np.arange(count) * CELL_PX + CELL_PX / 2 for count in shape)
    for index, thing in enumerate(scene.placed):
        row = np.floor(PARTS_A_SIDE * (rows - thing.y_px + thing.size_px / 2) / thing.size_px)
        column = np.floor(PARTS_A_SIDE * (columns - thing.x_px + thing.size_px / 2) / thing.size_px)
        inside = np.outer((row >= 0) & (row < PARTS_A_SIDE), (column >= 0) & (column < PARTS_A_SIDE))
        first = 1 + PARTS_A_SIDE**2 * (scene.size(index) == "large")
        things[inside] = _INDEX[thing.thing]
        parts[inside] = (first + PARTS_A_SIDE * row[:, None] + column)[inside]
    return things, parts
