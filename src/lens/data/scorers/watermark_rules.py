"""Watermark rules: whether text in an image is a watermark, a credit line, or part of the content.

Pure rules on lines of OCR, by the position of text and its words: the title of a poster, a sign or a page of
text is not a watermark. Knows nothing of images or of OCR.
"""

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

VERSION = "1"
"""Change it with the meaning of the score."""

SURE, CREDIT, STAMP, DOUBTFUL, ORDINARY = 1.0, 0.8, 0.7, 0.4, 0.1

AGENCIES = (
    "shutterstock", "gettyimages", "istockphoto", "dreamstime", "depositphotos", "adobestock",
    "canstockphoto",
)  # fmt: skip
AGENCY = re.compile(
    "|".join(f"{name[:n]}.{{0,2}}{name[n + 1 :]}" for name in AGENCIES for n in range(len(name)))
)
"""Long names, searched in the letters of a line without its spaces: OCR loses or adds spaces, and reads a
letter wrong, not at all or as two."""
SHORT_AGENCY = re.compile(r"\b(?:alamy|123rf|i ?stock|bigstock|freepik|fotolia|vecteezy)\b")
"""Short names, which other words may contain: whole words only."""
CLAIM = re.compile(
    r"\N{COPYRIGHT SIGN}|\(c\)|\bcopyright|all rights reserved"
    r"|\b(?:photo(?:s|graph|graphy)?|image|picture) ?by\b"
    r"|\b(?:photo|image|picture) ?(?:credit|courtesy)|@ ?(?:19|20)\d\d\b"
)
"""Claims of authorship. OCR reads the copyright sign as an @; a year after it identifies it."""
ADDRESS = re.compile(r"\bwww ?\.|[a-z0-9-]{2,}\.(?:com|net|org|co\.[a-z]{2})\b|https?:")
STAMPS = {"preview", "sample", "watermark", "proof", "donotcopy", "donotuse", "samplephoto"}
"""Stamps of preview images; the whole line has to be one."""

MAX_CREDIT_THICKNESS = 0.07
"""Largest height of a credit line, as a share of the short side of the image."""
BORDER_SHARE = 0.12
"""A credit line lies within this share of the height or width from an edge of the image."""
MAX_OTHER_LINES = 2
"""With more other lines, a web address or a stamp is part of a design."""
MIN_TILES = 4
"""Least count of a tiled word; it also spans MIN_TILES_SPAN of both sides and has a share of all words."""
MIN_TILES_SPAN = 0.4
MIN_TILES_SHARE = 1 / 3
MIN_TILE_CHARS = 4
MAX_TILE_CANDIDATES = 8
"""Words that are examined, the most frequent first: all pairs take seconds on a full page."""
MIN_WORD_SIMILARITY = 0.75
"""Similarity from which two readings are one word: OCR reads faint text with errors."""


class TextLine(NamedTuple):
    """A line of text that OCR read."""

    text: str
    left: float
    top: float
    right: float
    bottom: float
    """Bounds of the box, as shares of the width and height of the image."""
    thickness: float
    """Height of the letters as a share of the short side of the image, in any direction of the line."""

    @classmethod
    def of(cls, text: str, corners: NDArray[np.floating], aspect: float) -> "TextLine":
        """Return a line from the corners of its box, in shares of both sides; `aspect` is width / height.

        Shapes: corners (4, 2), x first, around the box from the start of the text.
        """
        (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
        scale = np.array([max(aspect, 1.0), max(1 / aspect, 1.0)])           # to units of the short side
        along = (corners[[1, 2]] - corners[[0, 3]]) * scale                  # (2, 2), upper and lower edge
        across = (corners[[3, 2]] - corners[[0, 1]]) * scale                 # (2, 2), both ends
        thickness = min(np.linalg.norm(along, axis=1).max(), np.linalg.norm(across, axis=1).max())
        return cls(text, *(float(x) for x in (left, top, right, bottom, thickness)))

    @property
    def is_at_a_border(self) -> bool:
        """Whether the whole line lies near one edge."""
        return (
            self.bottom < BORDER_SHARE
            or self.top > 1 - BORDER_SHARE
            or self.right < BORDER_SHARE
            or self.left > 1 - BORDER_SHARE
        )


def watermark_score(lines: Sequence[TextLine]) -> float:
    """Return the confidence that text was laid over the image to claim it.

    1.0: the name of an agency, or text tiled over the image. 0.8: a claim of authorship in a thin line at a
    border or with little other text, or a web address with both. 0.7: a lone stamp such as "preview". 0.4:
    claims and web addresses elsewhere. 0.1: other text. 0: no text.
    """
    if not lines:
        return 0.0
    return SURE if is_tiled(lines) else max(_line_score(line, len(lines) - 1) for line in lines)


def _line_score(line: TextLine, num_others: int) -> float:
    text = line.text.lower()
    if AGENCY.search(_alphanumerics(text)) or SHORT_AGENCY.search(text):
        return SURE
    is_credit_line, is_alone = (
        line.thickness <= MAX_CREDIT_THICKNESS and line.is_at_a_border,
        num_others <= MAX_OTHER_LINES,
    )
    if CLAIM.search(text):
        return CREDIT if is_credit_line or is_alone else DOUBTFUL
    if ADDRESS.search(text):
        return CREDIT if is_credit_line and is_alone else DOUBTFUL
    if _alphanumerics(text) in STAMPS and is_alone:
        return STAMP
    return ORDINARY


def is_tiled(lines: Sequence[TextLine]) -> bool:
    """Return whether one word is repeated over much of the image and is much of its text."""
    places = [place for line in lines for place in _word_positions(line)]
    often = Counter(word for word, _, _ in places).most_common(MAX_TILE_CANDIDATES)
    for word, _ in often:
        alike = np.array([(x, y) for other, x, y in places if _is_same(word, other)])  # (places, 2)
        if (
            len(alike) >= max(MIN_TILES, MIN_TILES_SHARE * len(places))
            and np.ptp(alike, axis=0).min() >= MIN_TILES_SPAN
        ):
            return True
    return False


def _word_positions(line: TextLine) -> list[tuple[str, float, float]]:
    """Return the words of a line that are long enough for a tile, each with the position of its centre."""
    found = []
    for match in re.finditer(r"\S+", line.text.lower()):
        word = _alphanumerics(match.group())
        if len(word) >= MIN_TILE_CHARS and not word.isdigit():
            share = (match.start() + match.end()) / 2 / len(line.text)
            x = line.left + (line.right - line.left) * share
            found.append((word, x, (line.top + line.bottom) / 2))
    return found


def _is_same(word: str, other: str) -> bool:
    return word == other or difflib.SequenceMatcher(None, word, other).ratio() >= MIN_WORD_SIMILARITY


def _alphanumerics(text: str) -> str:
    return "".join(letter for letter in text if letter.isalnum())
