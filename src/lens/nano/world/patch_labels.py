"""Labels of the latent patches of a scene: the object that each shows, its part and colour, and the letter.

The loss losses/patch_classification.py uses them. Knows nothing of models. Letters: h and w latent patches.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lens.core.resolution import SIDE_STEP_PX
from lens.nano.world.colours import OBJECT_COLOURS
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.recolouring import COLOURABLE
from lens.nano.world.scene_spec import SIGN_CHARACTERS
from lens.nano.world.scenes import Scene

NUM_PARTS_PER_SIDE = 4

NUM_CLASS_LABELS = 2 + len(OBJECT_CLASSES)
"""Classes of objects; 0 is the background, and the last one a sign."""
NUM_PART_LABELS = 2 + 2 * NUM_PARTS_PER_SIDE**2
"""Classes of parts: the background, then sixteenths of a small object, of a large one, and a sign."""
NUM_COLOUR_LABELS = 1 + len(OBJECT_COLOURS)
"""Colours of objects; 0 is the drawing as it is, and all that is no object."""
NUM_LETTER_LABELS = 1 + len(SIGN_CHARACTERS)
"""Letters of a sign; 0 is none."""
NUM_LABELS = (NUM_CLASS_LABELS, NUM_PART_LABELS, NUM_COLOUR_LABELS, NUM_LETTER_LABELS)
"""Numbers of classes of each kind, in the order of `PatchLabels`."""

_CLASS_INDEX = {name: index for index, name in enumerate(OBJECT_CLASSES, start=1)}
_COLOUR_INDEX = {name: index for index, name in enumerate(OBJECT_COLOURS, start=1)}
_LETTER_INDEX = {letter: index for index, letter in enumerate(SIGN_CHARACTERS, start=1)}


class PatchLabels(NamedTuple):
    """Labels of each patch, arrays (h, w)."""

    things: NDArray[np.int64]
    parts: NDArray[np.int64]
    colours: NDArray[np.int64]
    letters: NDArray[np.int64]


def patch_labels(scene: Scene) -> PatchLabels:
    """Return the labels of what is at the centre of each patch."""
    shape = scene.height_px // SIDE_STEP_PX, scene.width_px // SIDE_STEP_PX
    labels = PatchLabels(*(np.zeros(shape, np.int64) for _ in NUM_LABELS))
    rows, columns = (np.arange(count) * SIDE_STEP_PX + SIDE_STEP_PX / 2 for count in shape)
    for index, thing in enumerate(scene.objects):
        row = np.floor(NUM_PARTS_PER_SIDE * (rows - thing.y_px + thing.size_px / 2) / thing.size_px)
        column = np.floor(NUM_PARTS_PER_SIDE * (columns - thing.x_px + thing.size_px / 2) / thing.size_px)
        inside = np.outer(
            (row >= 0) & (row < NUM_PARTS_PER_SIDE), (column >= 0) & (column < NUM_PARTS_PER_SIDE)
        )
        first = 1 + NUM_PARTS_PER_SIDE**2 * (scene.size(index) == "large")
        labels.things[inside] = _CLASS_INDEX[thing.class_name]
        labels.parts[inside] = (first + NUM_PARTS_PER_SIDE * row[:, None] + column)[inside]
        is_drawn = thing.colour is None or thing.colour == COLOURABLE[thing.class_name]
        labels.colours[inside] = 0 if is_drawn else _COLOUR_INDEX[thing.colour or ""]
    _label_sign(scene, labels, rows, columns)
    return labels


def _label_sign(
    scene: Scene, labels: PatchLabels, rows: NDArray[np.floating], columns: NDArray[np.floating]
) -> None:
    if scene.sign is None:
        return
    sign = scene.sign
    in_rows = (rows >= sign.top_px) & (rows < sign.top_px + sign.height_px)
    cells = np.floor((columns - sign.left_px) / sign.cell_px).astype(int)
    in_columns = (cells >= 0) & (cells < len(sign.text))
    board = np.outer(in_rows, in_columns)
    letters = np.array([_LETTER_INDEX[letter] for letter in sign.text])
    labels.things[board], labels.parts[board] = NUM_CLASS_LABELS - 1, NUM_PART_LABELS - 1
    labels.letters[board] = np.broadcast_to(letters[cells.clip(0, len(letters) - 1)], board.shape)[board]
