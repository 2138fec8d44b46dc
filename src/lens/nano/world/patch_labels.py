"""What each latent cell of a scene shows: which thing, and which part of it.

The labels of the layout loss (losses/patch_classification.py); nothing of models. Letters: h and w latent
cells.
"""

import numpy as np
from numpy.typing import NDArray

from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scenes import Scene

LABEL_PATCH_PX = 16
"""Side of a latent cell: 8 px of the autoencoder, packed two by two."""
NUM_PARTS_PER_SIDE = 4

NUM_CLASS_LABELS = 1 + len(OBJECT_CLASSES)
"""Classes of `things`; 0 is the background."""
NUM_PART_LABELS = 1 + 2 * NUM_PARTS_PER_SIDE**2
"""Classes of `parts`: the background, then sixteenths of a small thing, then of a large one."""

_CLASS_INDEX = {name: index for index, name in enumerate(OBJECT_CLASSES, start=1)}


def patch_labels(scene: Scene) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the thing and the part at the middle of each cell, two arrays (h, w)."""
    shape = scene.height_px // LABEL_PATCH_PX, scene.width_px // LABEL_PATCH_PX
    things, parts = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    rows, columns = (np.arange(count) * LABEL_PATCH_PX + LABEL_PATCH_PX / 2 for count in shape)
    for index, thing in enumerate(scene.objects):
        row = np.floor(NUM_PARTS_PER_SIDE * (rows - thing.y_px + thing.size_px / 2) / thing.size_px)
        column = np.floor(NUM_PARTS_PER_SIDE * (columns - thing.x_px + thing.size_px / 2) / thing.size_px)
        inside = np.outer(
            (row >= 0) & (row < NUM_PARTS_PER_SIDE), (column >= 0) & (column < NUM_PARTS_PER_SIDE)
        )
        first = 1 + NUM_PARTS_PER_SIDE**2 * (scene.size(index) == "large")
        things[inside] = _CLASS_INDEX[thing.class_name]
        parts[inside] = (first + NUM_PARTS_PER_SIDE * row[:, None] + column)[inside]
    return things, parts
