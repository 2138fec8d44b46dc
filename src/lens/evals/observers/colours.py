"""Colours of objects by their pixels: a stand-in for the CLIP classifier of GenEval, which needs weights."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lens.evals.observers.base import DetectedBox, ObserverInfo

REFERENCE = {
    "red": (200, 30, 35), "orange": (240, 140, 30), "yellow": (245, 215, 50), "green": (50, 150, 60),
    "blue": (40, 90, 190), "purple": (125, 60, 160), "pink": (240, 150, 185), "brown": (115, 75, 45),
    "black": (25, 25, 25), "white": (240, 240, 240),
}  # fmt: skip
"""A typical value of each colour in sRGB."""
INNER_SHARE = 0.6
"""Share of a box's sides that is looked at: its border is mostly background."""
TO_LMS = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929],
     [0.2119034982, 0.6806995451, 0.1073969566],
     [0.0883024619, 0.2817188376, 0.6299787005]]
)  # fmt: skip
TO_OKLAB = np.array(
    [[0.2104542553, 0.7936177850, -0.0040720468],
     [1.9779984951, -2.4285922050, 0.4505937099],
     [0.0259040371, 0.7827717662, -0.8086757660]]
)  # fmt: skip
"""Matrices of Oklab (Ottosson 2020), a space in which distances are those that people see."""
NOTE = "colours by pixels: not comparable with published numbers"


class PixelColours:
    """Scores a colour by the share of pixels in the middle of a box that are nearest to it."""

    def __init__(self) -> None:
        decides = repr((REFERENCE, INNER_SHARE))
        self.info = ObserverInfo("pixel-colours", hashlib.sha256(decides.encode()).hexdigest(), NOTE)

    def scores(self, image: Image.Image, found: DetectedBox, colours: Sequence[str]) -> dict[str, float]:
        pixels = np.asarray(image.convert("RGB").crop(_inner_box(found.box))).reshape(-1, 3)  # (P, 3)
        swatches = np.array([REFERENCE[colour] for colour in colours])                       # (C, 3)
        distances = np.linalg.norm(to_oklab(pixels)[:, None] - to_oklab(swatches)[None], axis=2)  # (P, C)
        counts = np.bincount(distances.argmin(1), minlength=len(colours))
        return {colour: float(count) / len(pixels) for colour, count in zip(colours, counts, strict=True)}


def to_oklab(rgb: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return 8-bit sRGB values (N, 3) in Oklab (N, 3)."""
    share = rgb / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ TO_LMS.T) @ TO_OKLAB.T


def _inner_box(box: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
    """Return the middle of a box in whole pixels, at least one of them."""
    x0, y0, x1, y1 = box
    margin_x, margin_y = (1 - INNER_SHARE) / 2 * (x1 - x0), (1 - INNER_SHARE) / 2 * (y1 - y0)
    left, top = round(x0 + margin_x), round(y0 + margin_y)
    return left, top, max(round(x1 - margin_x), left + 1), max(round(y1 - margin_y), top + 1)
