"""Sprites of the objects of the nano world: Noto emoji, rendered at any size.

Knows nothing of scenes or captions. The SVG bodies are in sprites.json (scripts/make_nano_art.py); resvg
renders them.
"""

import functools
import io
import json
from importlib import resources

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lens.errors import MissingExtraError
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.recolouring import (
    COLOURABLE,
    MANY_COLOURED,
    MIN_AREA,
    MIN_DIFFERENCE,
    MIN_SHARE,
    NAMED_COLOURS,
    DominantHue,
    dominant_hue,
    natural_colour,
    recolour,
    smallest_difference,
)

_DRAWING_PX = 128
"""Side at which drawings are measured."""


@functools.cache
def sprite(class_name: str, size_px: int, colour: str | None = None) -> NDArray[np.float32]:
    """Return a sprite, (size_px, size_px, 4): red, green, blue and straight alpha in [0, 1]; read-only.

    `colour` is one of OBJECT_COLOURS, or None for the drawing as it is.
    Raises: KeyError for an object that is not in the world, or has no other colours.
    """
    if colour is not None and colour != COLOURABLE[class_name]:
        pixels = recolour(sprite(class_name, size_px), _dominant_hue(class_name), colour)
        pixels.setflags(write=False)
        return pixels
    icon = _icons()[OBJECT_CLASSES[class_name].icon]
    pixels = rasterize_svg(icon["body"], f"0 0 {icon['width']} {icon['height']}", size_px, size_px)
    pixels.setflags(write=False)
    return pixels


@functools.cache
def opaque_box(class_name: str) -> tuple[float, float, float, float]:
    """Return the visible part of a sprite: left, top, right and bottom as fractions of its side."""
    visible = sprite(class_name, 128)[..., 3] > 0.1
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    return columns[0] / 128, rows[0] / 128, (columns[-1] + 1) / 128, (rows[-1] + 1) / 128


def find_colourable() -> dict[str, str]:
    """Return the classes that can be re-coloured with the colours of their drawings; COLOURABLE holds it."""
    found = {}
    for name in OBJECT_CLASSES:
        drawing = sprite(name, _DRAWING_PX)
        dominant = dominant_hue(drawing)
        if dominant is None or name in (*NAMED_COLOURS, *MANY_COLOURED):
            continue
        has_hue = dominant.share >= MIN_SHARE and dominant.area >= MIN_AREA
        if has_hue and smallest_difference(drawing, dominant) >= MIN_DIFFERENCE:
            found[name] = natural_colour(dominant.rgb)
    return found


@functools.cache
def _dominant_hue(class_name: str) -> DominantHue:
    dominant = dominant_hue(sprite(class_name, _DRAWING_PX))
    assert dominant is not None, class_name
    return dominant


@functools.cache
def _icons() -> dict[str, dict]:
    return json.loads(resources.files("lens.nano.world").joinpath("sprites.json").read_text())["icons"]


def rasterize_svg(body: str, view_box: str, width_px: int, height_px: int) -> NDArray[np.float32]:
    """Return the image of SVG elements, (height, width, 4) in [0, 1] with straight alpha."""
    try:
        import resvg_py  # optional: drawing an image with the model does not need it
    except ImportError as error:
        raise MissingExtraError("Rendering the nano world", "resvg-py", "train") from error
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{width_px}" height="{height_px}" viewBox="{view_box}" preserveAspectRatio="none">'
        f"{body}</svg>"
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, width=width_px, height=height_px, skip_system_fonts=True)
    image = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    return np.asarray(image, dtype=np.float32) / np.float32(255)
