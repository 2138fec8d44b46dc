"""The renderer of text images: samples a scene, then renders its pixels; captions use the scene too.

Letters: H and W pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from lens.data.io.entry import Entry
from lens.data.text_rendering.backgrounds import (
    Background,
    background_colours,
    render_background,
    sample_background,
)
from lens.data.text_rendering.colors import Colour, jitter_colour, sample_colour, sample_legible_colour
from lens.data.text_rendering.corpus import TextCorpus
from lens.data.text_rendering.fonts import load_font
from lens.data.text_rendering.layout import TextPlacement, arrange_lines, place_texts

BLUR_SHARE, OUTLINE_SHARE, PANEL_SHARE = 0.2, 0.12, 0.12
BLUR_RANGE = (0.02, 0.035)
"""Standard deviation relative to the font size: visible, and still legible."""
MIN_BLUR_PX = 0.8
OUTLINE_WIDTH = 0.06
"""Width relative to the font size."""
MIN_OUTLINED_PX = 26
"""Font size below which an outline would cover the letters."""


class TextBlock(NamedTuple):
    """One text with its style."""

    place: TextPlacement
    colour: Colour
    outline: Colour | None
    panel: Colour | None
    """Colour of a rectangle behind the text, rotated with it."""
    blur_px: float
    """Standard deviation; 0 for sharp text."""


class TextScene(NamedTuple):
    """Everything in an image of text."""

    height: int
    width: int
    background: Background
    blocks: tuple[TextBlock, ...]


def sample_scene(
    texts: TextCorpus,
    images: Sequence[Entry],
    size: tuple[int, int],
    min_text_px: int,
    rng: np.random.Generator,
) -> TextScene | None:
    """Return a random scene of a size (height, width); None where the texts do not fit."""
    background = sample_background(rng, images)
    placements = place_texts(texts, *size, min_text_px, rng)
    if not placements:
        return None
    return TextScene(*size, background, tuple(_style_text(place, background, rng) for place in placements))


def render_text_scene(scene: TextScene, rng: np.random.Generator) -> Image.Image:
    """Return the pixels of a scene; the generator is for the grain of the background."""
    canvas = render_background(scene.background, scene.height, scene.width, rng)
    for block in scene.blocks:
        for colour, mask in _paint_layers(block):
            left, top, right, bottom = block.place.box
            rotated = _rotate(mask, block.place.angle)
            corner = (left + (right - left - rotated.width) // 2, top + (bottom - top - rotated.height) // 2)
            canvas.paste(colour.rgb, corner, rotated)
    return canvas


def _style_text(place: TextPlacement, background: Background, rng: np.random.Generator) -> TextBlock:
    """Return a text in a legible colour, with an outline or a panel where the background needs one."""
    known = background_colours(background)
    is_thin = "thin" in place.face.style_words
    blur_px = place.size_px * rng.uniform(*BLUR_RANGE)
    if is_thin or blur_px < MIN_BLUR_PX or rng.random() > BLUR_SHARE:
        blur_px = 0.0
    wish = rng.random()
    colour = sample_legible_colour(known, rng) if known else None
    if colour is not None and wish > OUTLINE_SHARE + PANEL_SHARE:
        return TextBlock(place, colour, None, None, blur_px)
    can_have_outline = not is_thin and not blur_px and place.size_px >= MIN_OUTLINED_PX
    if can_have_outline and rng.random() < OUTLINE_SHARE / (OUTLINE_SHARE + PANEL_SHARE):
        edge = jitter_colour("black" if rng.random() < 0.5 else "white", rng)
        inside = sample_legible_colour([edge.rgb], rng)
        return TextBlock(place, inside, edge, None, 0.0)  # type: ignore[arg-type]  # black and white have both
    while True:
        panel = sample_colour(rng, [one.name for one in background.colours])
        colour = sample_legible_colour([panel.rgb], rng)
        if colour is not None:
            return TextBlock(place, colour, None, panel, blur_px)


def _paint_layers(block: TextBlock) -> list[tuple[Colour, Image.Image]]:
    """Return the layers of a text from back to front: a colour and a mask, before the rotation."""
    place = block.place
    ink = arrange_lines(place.lines, place.face, place.size_px, place.align)
    size = (ink.width + 2 * place.pad_px, ink.height + 2 * place.pad_px)
    layers = []
    if block.panel:
        layers.append((block.panel, Image.new("L", size, 255)))
    if block.outline:
        layers.append(
            (block.outline, _letter_mask(block, size, stroke_px=round(place.size_px * OUTLINE_WIDTH)))
        )
    letters = _letter_mask(block, size)
    if block.blur_px:
        letters = letters.filter(ImageFilter.GaussianBlur(block.blur_px))
    return [*layers, (block.colour, letters)]


def _letter_mask(block: TextBlock, size: tuple[int, int], stroke_px: int = 0) -> Image.Image:
    place = block.place
    font = load_font(place.face.path, place.face.index, place.size_px)
    mask = Image.new("L", size, 0)
    pen = ImageDraw.Draw(mask)
    ink = arrange_lines(place.lines, place.face, place.size_px, place.align)
    for line, (x, y) in zip(ink.texts, ink.origins, strict=True):
        pen.text((x + place.pad_px, y + place.pad_px), line, 255, font, anchor="ls", stroke_width=stroke_px)
    return mask


def _rotate(mask: Image.Image, angle: int) -> Image.Image:
    return mask.rotate(angle, Image.Resampling.BICUBIC, expand=True) if angle else mask
