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


@functools.cache
def sprite(class_name: str, size_px: int, colour: str | None = None) -> NDArray[np.float32]:
    """Return a sprite, (size_px, size_px, 4): red, green, blue and straight alpha in [0, 1]; read-only.

    Raises: KeyError for an object that is not in the world.
    """
    pixels = np.asarray(_rasterize(OBJECT_CLASSES[class_name].icon, size_px), dtype=np.float32) / np.float32(
        255
    )
    pixels.setflags(write=False)
    return pixels


@functools.cache
def opaque_box(class_name: str) -> tuple[float, float, float, float]:
    """Return the visible part of a sprite: left, top, right and bottom as fractions of its side."""
    visible = sprite(class_name, 128)[..., 3] > 0.1
    rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    return columns[0] / 128, rows[0] / 128, (columns[-1] + 1) / 128, (rows[-1] + 1) / 128


@functools.cache
def _icons() -> dict[str, dict]:
    return json.loads(resources.files("lens.nano.world").joinpath("sprites.json").read_text())["icons"]


def _rasterize(icon: str, size_px: int) -> Image.Image:
    try:
        import resvg_py  # optional: drawing an image with the model does not need it
    except ImportError as error:
        raise MissingExtraError("Rendering the nano world", "resvg-py", "train") from error
    body = _icons()[icon]
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {body["width"]} {body["height"]}">{body["body"]}</svg>'
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size_px, height=size_px, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")
