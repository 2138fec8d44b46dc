"""All facts of one picture of text, drawn from a generator before a single pixel is: captions read them too.

Letters: H and W pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from lens.data.io.entry import Entry
from lens.data.text_rendering.backgrounds import Background, painted, shades, some_background
from lens.data.text_rendering.colors import Colour, legible_on, some_colour, varied
from lens.data.text_rendering.corpus import Texts
from lens.data.text_rendering.fonts import opened
from lens.data.text_rendering.layout import Place, arranged, places

BLUR_SHARE, OUTLINE_SHARE, PANEL_SHARE = 0.2, 0.12, 0.12
BLUR = (0.02, 0.035)
"""Standard deviation, to the size of the letters: to be seen, and still read."""
MIN_BLUR_PX = 0.8
OUTLINE = 0.06
"""Width, to the size of the letters."""
MIN_OUTLINED_PX = 26
"""Letters below are eaten by an outline."""


class Block(NamedTuple):
    """One text as it is drawn."""

    place: Place
    colour: Colour
    outline: Colour | None
    panel: Colour | None
    """Of a rectangle behind the text, turned with it."""
    blur_px: float
    """Standard deviation; 0 for sharp letters."""


class Scene(NamedTuple):
    """Everything that is to be seen."""

    height: int
    width: int
    background: Background
    blocks: tuple[Block, ...]


def some_scene(
    texts: Texts, pictures: Sequence[Entry], size: tuple[int, int], min_text_px: int, rng: np.random.Generator
) -> Scene | None:
    """Return a scene of a size (height, width); None where the texts do not fit in it."""
    background = some_background(rng, pictures)
    found = places(texts, *size, min_text_px, rng)
    if not found:
        return None
    return Scene(*size, background, tuple(_coloured(place, background, rng) for place in found))


def drawn(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """Return a scene's pixels; the generator is for the background's grain."""
    picture = painted(scene.background, scene.height, scene.width, rng)
    for block in scene.blocks:
        for colour, mask in _layers(block):
            left, top, right, bottom = block.place.box
            turned = _turned(mask, block.place.angle)
            corner = (left + (right - left - turned.width) // 2, top + (bottom - top - turned.height) // 2)
            picture.paste(colour.rgb, corner, turned)
    return picture


def _coloured(place: Place, background: Background, rng: np.random.Generator) -> Block:
    """Return a text in a colour that can be read: on the background if it lets one, else with help."""
    known = shades(background)
    is_thin = "thin" in place.face.style_words
    blur_px = place.size_px * rng.uniform(*BLUR)
    if is_thin or blur_px < MIN_BLUR_PX or rng.random() > BLUR_SHARE:
        blur_px = 0.0
    wish = rng.random()
    colour = legible_on(known, rng) if known else None
    if colour is not None and wish > OUTLINE_SHARE + PANEL_SHARE:
        return Block(place, colour, None, None, blur_px)
    can_have_outline = not is_thin and not blur_px and place.size_px >= MIN_OUTLINED_PX
    if can_have_outline and rng.random() < OUTLINE_SHARE / (OUTLINE_SHARE + PANEL_SHARE):
        edge = varied("black" if rng.random() < 0.5 else "white", rng)
        inside = legible_on([edge.rgb], rng)
        return Block(place, inside, edge, None, 0.0)  # type: ignore[arg-type]  # black and white have both
    while True:
        panel = some_colour(rng, [one.name for one in background.colours])
        colour = legible_on([panel.rgb], rng)
        if colour is not None:
            return Block(place, colour, None, panel, blur_px)


def _layers(block: Block) -> list[tuple[Colour, Image.Image]]:
    """Return what is painted for a text, from back to front: a colour and where it goes, not turned yet."""
    place = block.place
    ink = arranged(place.lines, place.face, place.size_px, place.align)
    size = (ink.width + 2 * place.pad_px, ink.height + 2 * place.pad_px)
    layers = []
    if block.panel:
        layers.append((block.panel, Image.new("L", size, 255)))
    if block.outline:
        layers.append((block.outline, _letters(block, size, stroke_px=round(place.size_px * OUTLINE))))
    letters = _letters(block, size)
    if block.blur_px:
        letters = letters.filter(ImageFilter.GaussianBlur(block.blur_px))
    return [*layers, (block.colour, letters)]


def _letters(block: Block, size: tuple[int, int], stroke_px: int = 0) -> Image.Image:
    place = block.place
    font = opened(place.face.path, place.face.index, place.size_px)
    mask = Image.new("L", size, 0)
    pen = ImageDraw.Draw(mask)
    ink = arranged(place.lines, place.face, place.size_px, place.align)
    for line, (x, y) in zip(ink.texts, ink.origins, strict=True):
        pen.text((x + place.pad_px, y + place.pad_px), line, 255, font, anchor="ls", stroke_width=stroke_px)
    return mask


def _turned(mask: Image.Image, angle: int) -> Image.Image:
    return mask.rotate(angle, Image.Resampling.BICUBIC, expand=True) if angle else mask
