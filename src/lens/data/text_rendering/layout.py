"""Layout of texts: each in a region of its own, in lines that do not touch, at times rotated.

Knows the metrics of fonts, nothing of colours or pixels. Sizes are (width, height), as fonts have them.
"""

import math
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

import numpy as np

from lens.data.text_rendering.corpus import TextCorpus, script_of, wrap_text
from lens.data.text_rendering.fonts import FontFace, load_font

Align = Literal["left", "centre", "right"]
ALIGNS: tuple[Align, ...] = get_args(Align)
Box = tuple[int, int, int, int]
"""Left, top, right, bottom."""

GRIDS = ((1, 1), (1, 1), (1, 1), (2, 1), (2, 1), (1, 2), (3, 1), (2, 2))
"""Rows and columns of regions."""
MARGIN_SHARE = 0.03
"""Margin around every region, as a share of the shorter side."""
MAX_LINES = 3
MAX_SIZE_SHARE = 0.3
"""Largest font size, as a share of the shorter side."""
DENSE_SCRIPT_SCALE = 1.4
"""Factor on the smallest font size for scripts with many strokes."""
MAX_PLACEMENT_ATTEMPTS = 12


class LineLayout(NamedTuple):
    """Lines of one text, measured from the top left corner of their ink."""

    texts: tuple[str, ...]
    origins: tuple[tuple[int, int], ...]
    """Left end of the baseline of each line."""
    width: int
    height: int


class TextPlacement(NamedTuple):
    """A text with its face, size and bounding box."""

    text: str
    lines: tuple[str, ...]
    face: FontFace
    size_px: int
    align: Align
    angle: int
    """Degrees, counter-clockwise."""
    pad_px: int
    """Padding around the ink, rotated with it, for a panel, an outline, or blur."""
    box: Box


def place_texts(
    texts: TextCorpus, height: int, width: int, min_text_px: int, rng: np.random.Generator
) -> tuple[TextPlacement, ...]:
    """Return one to four texts with their positions; none where no text fits.

    The texts of an image are mostly in one script.
    """
    rows, columns = GRIDS[rng.integers(len(GRIDS))]
    script = str(rng.choice(texts.scripts)) if texts.scripts and rng.random() < 0.8 else None
    found = []
    for region in _regions(rows, columns, height, width, rng):
        for _ in range(MAX_PLACEMENT_ATTEMPTS):
            place = _place_text(texts, script, region, min(height, width), min_text_px, rng)
            if place is not None and all(place.text != other.text for other in found):
                found.append(place)
                break
    return tuple(found)


def arrange_lines(lines: tuple[str, ...], face: FontFace, size_px: int, align: Align) -> LineLayout:
    """Return the layout of the lines of a text; the ink of two lines never overlaps."""
    font = load_font(face.path, face.index, size_px)
    boxes = [font.getbbox(line, anchor="ls") for line in lines]         # around the left end of the baseline
    ascent, descent = font.getmetrics()
    gap = math.ceil(size_px * 0.12)
    bases = [0]
    for above, below in pairwise(boxes):
        advance = max(ascent + descent, math.ceil(above[3] - below[1]) + gap)
        bases.append(bases[-1] + advance)
    widths = [math.ceil(box[2] - box[0]) for box in boxes]
    width = max(widths)
    free = {"left": 0.0, "centre": 0.5, "right": 1.0}[align]
    top = min(math.floor(box[1]) + base for box, base in zip(boxes, bases, strict=True))
    bottom = max(math.ceil(box[3]) + base for box, base in zip(boxes, bases, strict=True))
    origins = tuple(
        (round((width - own) * free) - math.floor(box[0]), base - top)
        for own, box, base in zip(widths, boxes, bases, strict=True)
    )
    return LineLayout(lines, origins, width, bottom - top)


def rotated_size(width: float, height: float, angle: int) -> tuple[int, int]:
    """Return the size of the smallest upright box around a rotated one, with a margin of a pixel."""
    cosine, sine = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    return math.ceil(width * cosine + height * sine) + 2, math.ceil(width * sine + height * cosine) + 2


def _regions(rows: int, columns: int, height: int, width: int, rng: np.random.Generator) -> list[Box]:
    """Return boxes that do not touch, in reading order; the first of three rows may be larger."""
    margin = max(4, round(MARGIN_SHARE * min(height, width)))
    weights = np.array([2.0, 1.0, 1.0]) if rows == 3 and rng.random() < 0.6 else np.ones(rows)
    ends = np.concatenate([[0.0], np.cumsum(weights) / weights.sum()]) * height
    sides = np.linspace(0, width, columns + 1)
    return [
        (int(left) + margin, int(top) + margin, int(right) - margin, int(bottom) - margin)
        for top, bottom in pairwise(ends)
        for left, right in pairwise(sides)
    ]


def _place_text(
    texts: TextCorpus, script: str | None, region: Box, short_side: int, min_px: int, rng: np.random.Generator
) -> TextPlacement | None:
    text, face = texts.sample(rng, script)
    if script_of(text) in ("han", "kana", "hangul", "devanagari"):
        min_px = round(min_px * DENSE_SCRIPT_SCALE)
    angle, align = _sample_angle(rng), ALIGNS[rng.integers(len(ALIGNS))]
    largest = max(min_px, MAX_SIZE_SHARE * short_side)
    size_px = math.exp(rng.uniform(math.log(min_px), math.log(largest)))
    num_lines = int(rng.integers(1, MAX_LINES + 1)) if rng.random() < 0.3 else 1
    room = (region[2] - region[0], region[3] - region[1])
    while round(size_px) >= min_px:
        # The sampled number of lines first, then as many as fit.
        for count in (num_lines, *range(1, MAX_LINES + 1)):
            lines = wrap_text(text, count)
            if lines is None:
                continue
            pad_px = max(3, round(size_px * 0.25))
            ink = arrange_lines(lines, face, round(size_px), align)
            if ink.width <= 0 or ink.height <= 0:  # blank glyphs
                return None
            box = rotated_size(ink.width + 2 * pad_px, ink.height + 2 * pad_px, angle)
            if box[0] <= room[0] and box[1] <= room[1]:
                left = region[0] + int(rng.integers(room[0] - box[0] + 1))
                top = region[1] + int(rng.integers(room[1] - box[1] + 1))
                where = (left, top, left + box[0], top + box[1])
                return TextPlacement(text, lines, face, round(size_px), align, angle, pad_px, where)
        size_px *= 0.85
    return None


def _sample_angle(rng: np.random.Generator) -> int:
    kind, sign = rng.random(), 1 if rng.random() < 0.5 else -1
    if kind < 0.55:
        return 0
    if kind < 0.8:
        return sign * int(rng.integers(4, 13))
    return sign * (int(rng.integers(18, 41)) if kind < 0.92 else 90)
