"""Resolution buckets: the size that a sample is trained at, and how an image is fitted to it.

Knows nothing of files. Spec: section 2. Sizes are (height, width) in pixels.
"""

import functools
import math
from typing import NamedTuple

from PIL import Image

from lens.core.resolution import buckets_for

TRAINING_BASES = (512, 768, 1024)
"""Base resolutions of the 27 buckets that Lens is trained in."""
MAX_CUT = 1 / 3
"""Share of the area that may be cropped: a caption rarely describes an image that loses more."""
MAX_ENLARGEMENT = 1.02
"""An image may be enlarged by 2%, which nobody sees: it may lack a few pixels of the side of its bucket."""


class BucketFit(NamedTuple):
    """How an image fills its bucket."""

    base: int
    ratio: str
    height_px: int
    width_px: int
    scale: float
    """Scale of the image before the crop, up to MAX_ENLARGEMENT."""
    crop_fraction: float
    """Share of the area of the image that is cropped, in [0, 1)."""


@functools.lru_cache(maxsize=2**16)
def best_fit(height_px: int, width_px: int, bases: tuple[int, ...] = TRAINING_BASES) -> BucketFit | None:
    """Return the bucket that an image fills: the nearest ratio at the largest base that fits.

    The result is None for an image that every bucket would enlarge by more than MAX_ENLARGEMENT.
    """
    fits = [_bucket_fit(height_px, width_px, base, ratio) for base in bases for ratio in buckets_for(base)]
    fits = [fit for fit in fits if fit.scale <= MAX_ENLARGEMENT]
    if not fits:
        return None
    # By the name of the ratio, not by the crop: bases round their sides differently, and a large image would
    # land in a small bucket to crop a few columns less.
    own = math.log(width_px / height_px)
    nearest = min({fit.ratio for fit in fits}, key=lambda ratio: (abs(_log_ratio(ratio) - own), ratio))
    return max((fit for fit in fits if fit.ratio == nearest), key=lambda fit: fit.base)


def fit_drop_reason(fit: BucketFit | None, max_cut: float | None) -> str:
    """Return why an image is dropped for its bucket, one word for the ledger; empty where it is not."""
    if fit is None:
        return "no_bucket"
    return "cut_too_much" if max_cut is not None and fit.crop_fraction > max_cut else ""


def resize_and_crop(image: Image.Image, fit: BucketFit) -> Image.Image:
    """Return the image scaled to cover its bucket and cropped at its centre."""
    width, height = image.width * fit.scale, image.height * fit.scale
    # Not below zero by rounding: Pillow rejects a box that exceeds the image by any fraction of a pixel.
    left = max(0.0, (width - fit.width_px) / 2 / fit.scale)
    top = max(0.0, (height - fit.height_px) / 2 / fit.scale)
    box = (left, top, image.width - left, image.height - top)
    size = (fit.width_px, fit.height_px)
    return image.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)


def _bucket_fit(height_px: int, width_px: int, base: int, ratio: str) -> BucketFit:
    height, width = buckets_for(base)[ratio]
    scale = max(height / height_px, width / width_px)
    cropped = 1 - height * width / (height_px * width_px * scale**2)
    return BucketFit(base, ratio, height, width, scale, max(0.0, cropped))


def _log_ratio(ratio: str) -> float:
    width, _, height = ratio.partition(":")
    return math.log(int(width) / int(height))
