"""Labels of the latent patches of a scene: the object that each shows, and the part of it.

The loss losses/patch_classification.py uses them. Knows nothing of models. Letters: h and w latent patches.
"""

import numpy as np
from numpy.typing import NDArray

from lens.core.resolution import SIDE_STEP_PX
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scenes import Scene

NUM_PARTS_PER_SIDE = 4

NUM_CLASS_LABELS = 1 + len(OBJECT_CLASSES)
"""Classes of objects; 0 is the background."""
NUM_PART_LABELS = 1 + 2 * NUM_PARTS_PER_SIDE**2
"""Classes of parts: the background, then sixteenths of a small object, then of a large one."""

_CLASS_INDEX = {name: index for index, name in enumerate(OBJECT_CLASSES, start=1)}


def patch_labels(scene: Scene) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the labels of object and part at the centre of each patch, two arrays (h, w)."""
    shape = scene.height_px // SIDE_STEP_PX, scene.width_px // SIDE_STEP_PX
    things, parts = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    rows, columns = (np.arange(count) * SIDE_STEP_PX + SIDE_STEP_PX / 2 for count in shape)
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
