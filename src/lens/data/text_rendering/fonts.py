"""Fonts: the faces below a folder, the characters each has glyphs for, and what its name says of its style.

Characters are read from the cmap table (OpenType 1.9, formats 4 and 12). Some tables promise glyphs that turn
out to be blank, or the box for what is missing, so a face's glyphs are also looked at before a text is set.
"""

import os
import struct
import sys
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFont, features

from lens.data.io.entry import SourceError

FONT_EXTENSIONS = (".ttf", ".otf", ".ttc")
UNICODE_TABLES = ((3, 10), (0, 6), (0, 4), (3, 1), (0, 3), (0, 2), (0, 1), (0, 0))
"""Platform and encoding of cmap tables that speak Unicode, the widest first."""
SAMPLE_PX = 32
MIN_INK_LEVEL = 200
"""Level of 255 that a quarter of a sample's inked pixels reach; hairline faces do not, light ones do."""
MISSING_CHARACTER = "\uffff"
"""No character, in no font."""
WEIGHTS = {
    "bold": "bold", "black": "heavy", "heavy": "heavy", "thin": "thin", "hairline": "thin", "light": "thin",
}  # fmt: skip
SLANTS = {"italic": "italic", "oblique": "slanted", "slanted": "slanted"}
FACE_CLASSES = {"mono": "monospaced", "coding": "monospaced", "sans": "sans-serif", "serif": "serif"}


class FontFace(NamedTuple):
    """One face of a font file."""

    path: Path
    index: int
    """Of the face in its file; only collections have more than one."""
    family: str
    style: str
    characters: frozenset[int]
    """Code points that it has glyphs for."""

    def covers(self, text: str) -> bool:
        """Return whether the face claims a glyph for every character; blanks need none."""
        return all(ord(character) in self.characters for character in text if not character.isspace())

    def renders(self, text: str) -> bool:
        """Return whether every character has a glyph, and none is blank or the box for what is missing."""
        visible = (character for character in text if not character.isspace())
        return self.covers(text) and all(_has_glyph(self.path, self.index, one) for one in visible)

    @property
    def style_words(self) -> tuple[str, ...]:
        """Return what the face's name says in plain words: weight, slant, class; not all of them do."""
        name = f"{self.family} {self.style}".lower()
        found = (_first_match(name, words) for words in (WEIGHTS, SLANTS, FACE_CLASSES))
        return tuple(word for word in found if word)


def can_shape() -> bool:
    """Return whether joined and reordered scripts can be set here: Pillow's Raqm layout with FriBidi."""
    return bool(features.check("raqm"))


def load_faces(folder: Path) -> tuple[FontFace, ...]:
    """Return the faces of all fonts at any depth, in the order of their paths' bytes.

    Damaged files are left out, and so are faces without a Unicode table or with lines too fine to read.
    Raises: SourceError where no usable font is left.
    """
    paths = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    fonts = sorted((path for path in paths if path.suffix.lower() in FONT_EXTENSIONS), key=os.fsencode)
    faces = tuple(face for path in fonts for face in _read_faces(path))
    if not faces:
        known = ", ".join(FONT_EXTENSIONS)
        fix = f"Name a folder with fonts in it ({known}); scripts/fetch_pictures.py fetches some."
        raise SourceError(f"source.fonts is {str(folder)!r}, which holds no usable font. {fix}")
    return faces


@lru_cache(maxsize=512)
def load_font(path: Path, index: int, size_px: int) -> ImageFont.FreeTypeFont:
    """Return a face at a size, laid out by the best engine that is here."""
    engine = ImageFont.Layout.RAQM if can_shape() else ImageFont.Layout.BASIC
    return ImageFont.truetype(str(path), size_px, index=index, layout_engine=engine)


@lru_cache(maxsize=65536)
def _has_glyph(path: Path, index: int, character: str) -> bool:
    levels = _rasterize(path, index, character)
    return bool(levels.any()) and not np.array_equal(levels, _rasterize(path, index, MISSING_CHARACTER))


def _is_hairline(path: Path, index: int, characters: frozenset[int]) -> bool:
    letters = [chr(code) for code in sorted(characters) if chr(code).isalpha()] or [chr(min(characters))]
    sample = "".join(letters[:: max(1, len(letters) // 8)][:8])
    levels = _rasterize(path, index, sample)
    inked = levels[levels > 0]
    return not len(inked) or bool(np.percentile(inked, 75) < MIN_INK_LEVEL)


def _rasterize(path: Path, index: int, text: str) -> NDArray[np.int64]:
    """Return the pixels of a sample, row by row, from 0 to 255."""
    return np.array(load_font(path, index, SAMPLE_PX).getmask(text), dtype=np.int64)


def _first_match(name: str, words: dict[str, str]) -> str:
    return next((plain for word, plain in words.items() if word in name), "")


def _read_faces(path: Path) -> list[FontFace]:
    faces = []
    try:
        content = path.read_bytes()
        for index, start in enumerate(_face_offsets(content)):
            characters = _read_characters(content, start)
            family, style = ImageFont.truetype(str(path), 16, index=index).getname()
            if characters and not _is_hairline(path, index, characters):
                faces.append(FontFace(path, index, family or path.stem, style or "", characters))
    except (OSError, struct.error, ValueError):
        return faces
    return faces


def _face_offsets(content: bytes) -> tuple[int, ...]:
    """Return where the table directory of each face begins."""
    if content[:4] != b"ttcf":
        return (0,)
    (count,) = struct.unpack_from(">I", content, 8)
    return struct.unpack_from(f">{count}I", content, 12)


def _read_characters(content: bytes, start: int) -> frozenset[int]:
    (num_tables,) = struct.unpack_from(">H", content, start + 4)
    records = (struct.unpack_from(">4s3I", content, start + 12 + 16 * number) for number in range(num_tables))
    table = next((offset for tag, _, offset, _ in records if tag == b"cmap"), None)
    if table is None:
        return frozenset()
    (count,) = struct.unpack_from(">H", content, table + 2)
    found = (struct.unpack_from(">HHI", content, table + 4 + 8 * number) for number in range(count))
    offsets = {(platform, encoding): table + offset for platform, encoding, offset in found}
    for key in UNICODE_TABLES:
        if key in offsets:
            (form,) = struct.unpack_from(">H", content, offsets[key])
            if form in CMAP_READERS:
                return frozenset(CMAP_READERS[form](content, offsets[key]))
    return frozenset()


def _read_cmap_format_4(content: bytes, at: int) -> set[int]:
    """Return the characters of a cmap of format 4."""
    (twice,) = struct.unpack_from(">H", content, at + 6)
    layout = f">{twice // 2}H"
    bases = [at + 14, at + 16 + twice, at + 16 + 2 * twice, at + 16 + 3 * twice]
    ends, starts, deltas, offsets = (struct.unpack_from(layout, content, base) for base in bases)
    found = set()
    for number, (start, end, delta, offset) in enumerate(zip(starts, ends, deltas, offsets, strict=True)):
        for character in range(start, min(end, 0xFFFE) + 1):
            glyph = character
            if offset:
                # Offsets count from their own place in the table.
                where = bases[3] + 2 * number + offset + 2 * (character - start)
                (glyph,) = struct.unpack_from(">H", content, where)
            # Glyph 0 is the box; a stored 0 means it whatever the delta.
            if (glyph or not offset) and (glyph + delta) & 0xFFFF:
                found.add(character)
    return found


def _read_cmap_format_12(content: bytes, at: int) -> set[int]:
    """Return the characters of a cmap of format 12."""
    (count,) = struct.unpack_from(">I", content, at + 12)
    found: set[int] = set()
    for number in range(count):
        start, end, glyph = struct.unpack_from(">3I", content, at + 16 + 12 * number)
        # A damaged table may claim four thousand million characters.
        found.update(range(start if glyph else start + 1, min(end, sys.maxunicode) + 1))
    return found


CMAP_READERS = {4: _read_cmap_format_4, 12: _read_cmap_format_12}
"""By the format of the table."""
