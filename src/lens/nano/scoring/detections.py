"""What the scorer finds in an image: the background, objects and signs.

Units: positions and sizes are pixels, x right, y down; the place of an object is the centre of its sprite.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ImageArray = NDArray[np.uint8]
"""(H, W, 3)."""


class DetectedObject(NamedTuple):
    """One object in an image; its name is UNKNOWN if it is no object of the world."""

    class_name: str
    x_px: float
    y_px: float
    size_px: float
    similarity: float
    colour: str | None = None
    """Of re-coloured art, one of OBJECT_COLOURS; None for the drawing as it is."""


class DetectedSign(NamedTuple):
    """A sign in an image; its text is read where it is asked for."""

    x_px: float
    y_px: float
    width_px: int
    height_px: int
    board: ImageArray
    """The pixels within its border."""


class Detections(NamedTuple):
    """The background and all objects and signs of an image."""

    background: str
    background_rgb: tuple[int, int, int]
    objects: tuple[DetectedObject, ...]
    signs: tuple[DetectedSign, ...] = ()
    base_px: float = 128.0
    """Square root of the area of the image."""
