"""Pixel scores, which need no model: clarity, entropy, luminance, and a perceptual hash.

All use reduced versions of the image, so together they cost little compared with decoding.
Paper: Lens report, data section (cleaning stages 6 to 9). Letters: H and W pixels.
"""

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

VERSION = "5"
"""Part of the name of the stored scores; change it with the meaning of a score."""
SHORT_SIDE_PX = 384
"""Images are compared at one scale: an image that is sharp at 384 px may be blurred at full size."""
LUMINANCE_SIDE_PX = 128
"""Pixels a side for the mean: its error is 0.002 where the standard deviation is a quarter."""
STRIP_ROWS = 128
"""Rows whose clarity is computed at a time: they fit into the cache of the processor."""
HASH_INPUT_PX = 32
HASH_SIDE = 8
DETAIL_SIDE = 32
"""Cells a side of the detail hash: letters of a twelfth of the image are two to three cells high."""


class PixelScores(NamedTuple):
    """The pixel scores of one image."""

    clarity: float
    """Variance of the Laplacian of the reduced grey image, grey in [0, 255]; near 0 for a blurred image."""
    entropy: float
    """Shannon entropy of the 256-bin grey histogram: bits in [0, 8]."""
    luminance: float
    """Mean V of HSV, in [0, 1]."""
    perceptual_hash: int
    """64 bits, of which few differ between copies that were resized or compressed again."""
    detail_hash: bytes
    """512 bytes, which tell images of one layout apart, such as signs that differ in their words."""


def pixel_scores(image: Image.Image) -> PixelScores:
    """Return all pixel scores of an RGB image."""
    image = reduce_to_short_side(image)
    grey = image.convert("L")
    small = resize_to_common_scale(grey)
    hashes = perceptual_hash(small), detail_hash(small)
    return PixelScores(clarity(np.asarray(small)), entropy(grey), luminance(image), *hashes)


def reduce_to_short_side(image: Image.Image) -> Image.Image:
    """Return an image reduced by the largest whole factor that leaves SHORT_SIDE_PX on its short side.

    Many times faster than a resize that weights every pixel, and as good for this purpose.
    """
    factor = min(image.size) // SHORT_SIDE_PX
    return image.reduce(factor) if factor > 1 else image


def resize_to_common_scale(grey: Image.Image) -> Image.Image:
    """Return an image with a short side of at most SHORT_SIDE_PX; smaller images are unchanged."""
    scale = SHORT_SIDE_PX / min(grey.size)
    if scale >= 1:
        return grey
    width, height = (max(1, round(side * scale)) for side in grey.size)
    return grey.resize((width, height), Image.Resampling.BOX)


def clarity(grey: NDArray[np.uint8]) -> float:
    """Return the variance of the four-neighbour Laplacian; 0 for images below 3 x 3.

    Shapes: (H, W).
    """
    if min(grey.shape) < 3:
        return 0.0
    total, squares = 0.0, 0.0
    for top in range(0, grey.shape[0] - 2, STRIP_ROWS):
        wide = grey[top : top + STRIP_ROWS + 2].astype(np.int16)
        sides = wide[:-2, 1:-1] + wide[2:, 1:-1]                            # (rows, W-2)
        sides += wide[1:-1, :-2]
        sides += wide[1:-1, 2:]
        sides -= 4 * wide[1:-1, 1:-1]
        # Sums of whole numbers are exact in float64, so neither strips nor machines change the score.
        exact = sides.ravel().astype(np.float64)
        total, squares = total + exact.sum(), squares + exact @ exact
    count = (grey.shape[0] - 2) * (grey.shape[1] - 2)
    return float(squares / count - (total / count) ** 2)


def entropy(grey: Image.Image) -> float:
    """Return the entropy of the histogram: 0 for one shade, 8 for a uniform histogram.

    Units: bits.
    """
    counts = np.array(grey.histogram())
    shares = counts / counts.sum()
    present = shares[shares > 0]
    return float(-(present * np.log2(present)).sum() + 0.0)


def luminance(image: Image.Image) -> float:
    """Return the mean of the brightest channel, which is V of HSV, over evenly spread pixels."""
    side = (min(LUMINANCE_SIDE_PX, image.width), min(LUMINANCE_SIDE_PX, image.height))
    red, green, blue = image.resize(side, Image.Resampling.NEAREST).split()
    # From 256 counts, not all pixels: many times faster than a maximum over the last axis of an array.
    counts = ImageChops.lighter(ImageChops.lighter(red, green), blue).histogram()
    return float(np.dot(counts, np.arange(256)) / (255 * sum(counts)))


def perceptual_hash(image: Image.Image) -> int:
    """Return 64 bits: which low frequencies of the cosine transform lie above their median."""
    side = (HASH_INPUT_PX, HASH_INPUT_PX)
    grey = np.asarray(image.convert("L").resize(side, Image.Resampling.BOX), dtype=np.float64)
    low = _dct_matrix() @ grey @ _dct_matrix().T                                  # (8, 8)
    above = low.ravel() > np.median(low.ravel()[1:])  # the first entry is the mean, far from all others
    return int(np.packbits(above).view(">u8")[0])


def detail_hash(image: Image.Image) -> bytes:
    """Return the cells where grey clearly rises or falls, to the right or downwards, by blocks of 8 x 8.

    Clearly means by more than the root of the mean square, so flat ground and the contrast do not count.
    """
    side = (DETAIL_SIDE + 1, DETAIL_SIDE + 1)
    grey = np.asarray(image.convert("L").resize(side, Image.Resampling.BOX), dtype=np.float64)
    steps = np.stack([grey[:-1, 1:], grey[1:, :-1]]) - grey[:-1, :-1]              # (2, 32, 32)
    least = max(1.0, float(np.sqrt(np.square(steps).mean())))
    marks = np.concatenate([steps > least, steps < -least])                        # (4, 32, 32)
    blocks = marks.reshape(4, 4, 8, 4, 8).transpose(1, 3, 0, 2, 4)                 # (4, 4, 4, 8, 8)
    return np.packbits(blocks).tobytes()


@functools.cache
def _dct_matrix() -> NDArray[np.float64]:
    """Return the lowest rows of the cosine transform, (8, 32)."""
    frequency, place = np.ogrid[:HASH_SIDE, :HASH_INPUT_PX]
    return np.cos(np.pi * frequency * (2 * place + 1) / (2 * HASH_INPUT_PX))
