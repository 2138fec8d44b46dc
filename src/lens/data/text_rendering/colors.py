"""Colours with plain English names, and the contrast between two of them.

Knows nothing of texts or images. Contrast: WCAG 2, from relative luminance.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Rgb = tuple[int, int, int]

MIN_CONTRAST = 4.0
"""Contrast of text with whatever touches it. Black or white has 4.6 with any colour, before the jitter."""
JITTER = 7
"""Largest difference of a channel from the named colour, in levels."""

COLOURS: dict[str, Rgb] = {
    "black": (16, 16, 16), "dark grey": (72, 72, 72), "grey": (130, 130, 130), "light grey": (206, 206, 206),
    "white": (248, 248, 248), "cream": (248, 240, 208), "beige": (226, 206, 170), "brown": (112, 68, 34),
    "red": (212, 32, 32), "dark red": (126, 16, 22), "orange": (242, 132, 22), "yellow": (248, 220, 42),
    "light green": (164, 222, 152), "green": (38, 148, 58), "dark green": (16, 78, 40),
    "turquoise": (42, 182, 172), "light blue": (152, 202, 242), "blue": (34, 82, 206),
    "dark blue": (16, 34, 104), "purple": (120, 48, 162), "pink": (246, 142, 182),
}  # fmt: skip


class Colour(NamedTuple):
    """A colour close enough to a named one to have its name."""

    name: str
    rgb: Rgb


def jitter_colour(name: str, rng: np.random.Generator) -> Colour:
    """Return a named colour with each channel changed slightly."""
    channels = np.clip(np.array(COLOURS[name]) + rng.integers(-JITTER, JITTER + 1, 3), 0, 255)
    return Colour(name, (int(channels[0]), int(channels[1]), int(channels[2])))


def sample_colour(rng: np.random.Generator, excluded_names: Sequence[str] = ()) -> Colour:
    """Return a random colour other than the excluded ones."""
    return jitter_colour(str(rng.choice([name for name in COLOURS if name not in excluded_names])), rng)


def sample_legible_colour(shades: Sequence[Rgb], rng: np.random.Generator) -> Colour | None:
    """Return a colour that is legible on each shade; None where there is none."""
    for name in rng.permutation(list(COLOURS)):
        colour = jitter_colour(str(name), rng)
        if min(contrast_ratio(colour.rgb, shade) for shade in shades) >= MIN_CONTRAST:
            return colour
    return None


def contrast_ratio(one: Rgb, other: Rgb) -> float:
    """Return the contrast ratio of two colours, from 1 (the same luminance) to 21 (black and white)."""
    low, high = sorted((relative_luminance(one), relative_luminance(other)))
    return (high + 0.05) / (low + 0.05)


def relative_luminance(rgb: Rgb) -> float:
    """Return the relative luminance of an sRGB colour, from 0 to 1."""
    levels = [level / 255 for level in rgb]
    linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
