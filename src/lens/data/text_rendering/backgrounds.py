"""What lies behind the letters: flat colours, gradients, grain, clouds, stripes, or a picture.

A background is a few facts; pixels and the words of captions are made of them. Letters: H and W pixels.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lens.data.io.entry import Entry, read_bytes
from lens.data.io.image_decoding import Unreadable, decode
from lens.data.text_rendering.colors import Colour, Rgb, some_colour

Kind = Literal["flat", "gradient", "grain", "clouds", "stripes", "picture"]
KINDS: tuple[Kind, ...] = ("flat", "flat", "flat", "gradient", "gradient", "grain", "clouds", "stripes")
PICTURE_SHARE = 0.4
"""Of pictures behind the letters, where there are any."""
MIN_PICTURE_PX = 256
"""Shorter side below which a picture would be enlarged too much."""
TRIES = 8
GRAIN = 12
"""Standard deviation, in levels of 255."""
AREAS = {"flat": 1, "grain": 1, "gradient": 2, "clouds": 2, "stripes": 2, "picture": 0}


class Background(NamedTuple):
    """Facts of a background."""

    kind: Kind
    colours: tuple[Colour, ...]
    """One, or two where one turns into or takes turns with the other; none of a picture."""
    is_across: bool
    """A gradient goes from left to right, stripes stand upright; else from top to bottom, and level."""
    num_cells: int
    """Of clouds a side, or of stripes."""
    picture: Entry | None


def some_background(rng: np.random.Generator, pictures: Sequence[Entry]) -> Background:
    """Return any background; one of the pictures where there are some that can be used."""
    is_across, num_cells = bool(rng.random() < 0.5), int(rng.integers(4, 12))
    if pictures and rng.random() < PICTURE_SHARE:
        for number in rng.integers(len(pictures), size=TRIES):
            if is_usable(pictures[number]):
                return Background("picture", (), is_across, num_cells, pictures[number])
    kind = KINDS[rng.integers(len(KINDS))]
    colours: list[Colour] = []
    while len(colours) < AREAS[kind]:
        colours.append(some_colour(rng, [one.name for one in colours]))
    return Background(kind, tuple(colours), is_across, num_cells, None)


def shades(background: Background) -> list[Rgb]:
    """Return the colours that letters may meet, as few as bound them all; none of a picture."""
    colours = [np.array(colour.rgb, dtype=float) for colour in background.colours]
    if background.kind in ("gradient", "clouds"):
        # Between two colours the luminance may lie below both.
        colours = [colours[0] + share * (colours[1] - colours[0]) for share in np.linspace(0, 1, 5)]
    if background.kind == "grain":
        colours = [colours[0] + sign * 2 * GRAIN for sign in (-1, 0, 1)]
    levels = [np.clip(colour, 0, 255).round().astype(int).tolist() for colour in colours]
    return [(red, green, blue) for red, green, blue in levels]


def painted(background: Background, height: int, width: int, rng: np.random.Generator) -> Image.Image:
    """Return a background's pixels; only grain and clouds draw from the generator."""
    if background.picture is not None:
        image = decode(read_bytes(background.picture)).image
        return ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    first = np.array(background.colours[0].rgb, dtype=np.float32)
    if background.kind == "flat":
        return Image.new("RGB", (width, height), background.colours[0].rgb)
    if background.kind == "grain":
        levels = first + rng.normal(0, GRAIN, (height, width, 1)).clip(-2 * GRAIN, 2 * GRAIN)   # (H, W, 3)
    else:
        last = np.array(background.colours[1].rgb, dtype=np.float32)
        share = _share_of_second(background, height, width, rng)                                # (H, W)
        levels = first + share[..., None] * (last - first)                                      # (H, W, 3)
    return Image.fromarray(levels.clip(0, 255).round().astype(np.uint8))


@lru_cache(maxsize=4096)
def is_usable(picture: Entry) -> bool:
    """Return whether a picture can be decoded and is large enough."""
    try:
        return min(decode(read_bytes(picture)).image.size) >= MIN_PICTURE_PX
    except Unreadable:
        return False


def _share_of_second(
    background: Background, height: int, width: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    if background.kind == "clouds":
        cells = rng.random((background.num_cells, background.num_cells), dtype=np.float32)
        smooth = Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(smooth).clip(0, 1)                                    # (H, W)
    along = np.arange(width if background.is_across else height, dtype=np.float32)
    along /= max(1, len(along) - 1)
    if background.kind == "stripes":
        along = np.floor(along * background.num_cells * 0.999) % 2
    line = along[None, :] if background.is_across else along[:, None]
    return np.broadcast_to(line, (height, width))                               # (H, W)
