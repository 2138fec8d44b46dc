"""Backgrounds of text: flat colours, gradients, grain, clouds, stripes, or an image.

A background is a few parameters, from which both its pixels and its caption are made.
Letters: H and W pixels.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lens.data.io.entry import Entry, read_entry
from lens.data.io.image_decoding import ImageError, decode_image
from lens.data.text_rendering.colors import Colour, Rgb, sample_colour

BackgroundKind = Literal["flat", "gradient", "grain", "clouds", "stripes", "image"]
PLAIN_KINDS: tuple[BackgroundKind, ...] = (
    "flat",
    "flat",
    "flat",
    "gradient",
    "gradient",
    "grain",
    "clouds",
    "stripes",
)
IMAGE_SHARE = 0.4
"""Share of image backgrounds, where there are images."""
MIN_IMAGE_PX = 256
"""Shorter side below which an image would be enlarged too much."""
MAX_IMAGE_ATTEMPTS = 8
GRAIN_STD = 12
"""Standard deviation, in levels of 255."""
NUM_COLOURS = {"flat": 1, "grain": 1, "gradient": 2, "clouds": 2, "stripes": 2, "image": 0}


class Background(NamedTuple):
    """Parameters of a background."""

    kind: BackgroundKind
    colours: tuple[Colour, ...]
    """One colour, or two that blend or alternate; none for an image."""
    varies_along_x: bool
    """A gradient runs from left to right and stripes are vertical; else top to bottom, and horizontal."""
    num_cells: int
    """Number of cells a side of clouds, or of stripes."""
    image_entry: Entry | None


def sample_background(rng: np.random.Generator, images: Sequence[Entry]) -> Background:
    """Return a random background, at times one of the usable images."""
    is_across, num_cells = bool(rng.random() < 0.5), int(rng.integers(4, 12))
    if images and rng.random() < IMAGE_SHARE:
        for number in rng.integers(len(images), size=MAX_IMAGE_ATTEMPTS):
            if is_usable_image(images[number]):
                return Background("image", (), is_across, num_cells, images[number])
    kind = PLAIN_KINDS[rng.integers(len(PLAIN_KINDS))]
    colours: list[Colour] = []
    while len(colours) < NUM_COLOURS[kind]:
        colours.append(sample_colour(rng, [one.name for one in colours]))
    return Background(kind, tuple(colours), is_across, num_cells, None)


def background_colours(background: Background) -> list[Rgb]:
    """Return colours that bound all colours behind the text; none for an image."""
    colours = [np.array(colour.rgb, dtype=float) for colour in background.colours]
    if background.kind in ("gradient", "clouds"):
        # Between two colours the luminance may lie below both.
        colours = [colours[0] + share * (colours[1] - colours[0]) for share in np.linspace(0, 1, 5)]
    if background.kind == "grain":
        colours = [colours[0] + sign * 2 * GRAIN_STD for sign in (-1, 0, 1)]
    levels = [np.clip(colour, 0, 255).round().astype(int).tolist() for colour in colours]
    return [(red, green, blue) for red, green, blue in levels]


def render_background(
    background: Background, height: int, width: int, rng: np.random.Generator
) -> Image.Image:
    """Return the pixels of a background; only grain and clouds use the generator."""
    if background.image_entry is not None:
        image = decode_image(read_entry(background.image_entry)).image
        return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    first = np.array(background.colours[0].rgb, dtype=np.float32)
    if background.kind == "flat":
        return Image.new("RGB", (width, height), background.colours[0].rgb)
    if background.kind == "grain":
        levels = first + rng.normal(0, GRAIN_STD, (height, width, 1)).clip(
            -2 * GRAIN_STD, 2 * GRAIN_STD
        )  # (H, W, 3)
    else:
        last = np.array(background.colours[1].rgb, dtype=np.float32)
        share = _blend_weight(background, height, width, rng)                                # (H, W)
        levels = first + share[..., None] * (last - first)                                      # (H, W, 3)
    return Image.fromarray(levels.clip(0, 255).round().astype(np.uint8))


@lru_cache(maxsize=4096)
def is_usable_image(entry: Entry) -> bool:
    """Return whether an image can be decoded and is large enough."""
    try:
        return min(decode_image(read_entry(entry)).image.size) >= MIN_IMAGE_PX
    except ImageError:
        return False


def _blend_weight(
    background: Background, height: int, width: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    if background.kind == "clouds":
        cells = rng.random((background.num_cells, background.num_cells), dtype=np.float32)
        smooth = Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(smooth).clip(0, 1)                                    # (H, W)
    along = np.arange(width if background.varies_along_x else height, dtype=np.float32)
    along /= max(1, len(along) - 1)
    if background.kind == "stripes":
        along = np.floor(along * background.num_cells * 0.999) % 2
    line = along[None, :] if background.varies_along_x else along[:, None]
    return np.broadcast_to(line, (height, width))                               # (H, W)
