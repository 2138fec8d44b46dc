"""Whether the text in a picture is a watermark, a credit line, or part of what is shown.

Pure rules on lines that were read; knows nothing of pictures or of how they are read. They judge where text
stands and what it says: a poster's title, a sign or a page of text is no watermark.
"""

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

VERSION = "1"
"""Whoever changes what a score means changes this."""

SURE, CREDIT, STAMP, DOUBTFUL, ORDINARY = 1.0, 0.8, 0.7, 0.4, 0.1

AGENCIES = (
    "shutterstock", "gettyimages", "istockphoto", "dreamstime", "depositphotos", "adobestock",
    "canstockphoto",
)  # fmt: skip
AGENCY = re.compile(
    "|".join(f"{name[:n]}.{{0,2}}{name[n + 1 :]}" for name in AGENCIES for n in range(len(name)))
)
"""Long names, looked for in the letters of a line without its spaces: readers lose or add those, and read one
letter wrong, not at all or as two."""
SHORT_AGENCY = re.compile(r"\b(?:alamy|123rf|i ?stock|bigstock|freepik|fotolia|vecteezy)\b")
"""Short ones, which other words may hold: whole words only."""
CLAIM = re.compile(
    r"\N{COPYRIGHT SIGN}|\(c\)|\bcopyright|all rights reserved"
    r"|\b(?:photo(?:s|graph|graphy)?|image|picture) ?by\b"
    r"|\b(?:photo|image|picture) ?(?:credit|courtesy)|@ ?(?:19|20)\d\d\b"
)
"""Says whose the picture is. Readers take the copyright sign for an @, which a year gives away."""
ADDRESS = re.compile(r"\bwww ?\.|[a-z0-9-]{2,}\.(?:com|net|org|co\.[a-z]{2})\b|https?:")
STAMPS = {"preview", "sample", "watermark", "proof", "donotcopy", "donotuse", "samplephoto"}
"""What a picture says that is not yet paid for; the whole line must say it."""

MAX_CREDIT_THICKNESS = 0.07
"""Height of a credit line at most, as a share of the picture's short side."""
BORDER_SHARE = 0.12
"""A credit line lies within this share of the picture's height or width from an edge."""
MAX_OTHER_LINES = 2
"""With more lines beside it, an address or a stamp is one part of a design."""
MIN_TILES = 4
"""A word that is seen so often, over this share of both sides, and that is so much of all words, is tiled."""
MIN_TILES_SPAN = 0.4
MIN_TILES_SHARE = 1 / 3
MIN_TILE_CHARS = 4
MAX_TILE_CANDIDATES = 8
"""Words that are looked at, the most frequent first: comparing all with all takes seconds on a full page."""
MIN_WORD_SIMILARITY = 0.75
"""Similarity from which two readings are of one word: faint text is read with errors."""


class TextLine(NamedTuple):
    text: str
    left: float
    top: float
    right: float
    bottom: float
    """The box's bounds as shares of the picture's width and height."""
    thickness: float
    """Height of the letters as a share of the picture's short side, whatever way the line runs."""

    @classmethod
    def of(cls, text: str, corners: NDArray[np.floating], aspect: float) -> "TextLine":
        """Return a line from its box, corners in shares of width and height; `aspect` is width / height.

        Shapes: corners (4, 2), x first, around the box from where the text begins.
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
    """Return how sure it is that text was laid over the picture to claim it.

    1.0 an agency's name, or one text tiled over the picture; 0.8 words that claim the picture, in a thin line
    at a border or with little else to read, or a web address for which both hold; 0.7 a lone stamp such as
    "preview"; 0.4 claims and addresses elsewhere; 0.1 other text; 0 no text.
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
    """Return whether one word is repeated over much of the picture and is much of what there is to read."""
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
    """Return the words of a line that are long enough for a tile, each with the place of its middle."""
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
