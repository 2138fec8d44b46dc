"""Fonts: the faces in a folder, the characters that each has glyphs for, and the style in its name.

Characters are read from the cmap table (OpenType 1.9, formats 4 and 12). Some tables list glyphs that are
blank, or the box of a missing glyph, so the glyphs of a face are also rasterized before a text uses them.
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
"""Platform and encoding of Unicode cmap tables, the largest first."""
SAMPLE_PX = 32
MIN_INK_LEVEL = 200
"""Level, of 255, that a quarter of the inked pixels reach in light faces, but not in hairline faces."""
MISSING_CHARACTER = "\uffff"
"""Not a character, in no font."""
WEIGHTS = {
    "bold": "bold", "black": "heavy", "heavy": "heavy", "thin": "thin", "hairline": "thin", "light": "thin",
}  # fmt: skip
SLANTS = {"italic": "italic", "oblique": "slanted", "slanted": "slanted"}
FACE_CLASSES = {"mono": "monospaced", "coding": "monospaced", "sans": "sans-serif", "serif": "serif"}


class FontFace(NamedTuple):
    """One face of a font file."""

    path: Path
    index: int
    """Index of the face in its file; only collections have more than one."""
    family: str
    style: str
    characters: frozenset[int]
    """Code points with a glyph."""

    def covers(self, text: str) -> bool:
        """Return whether the face lists a glyph for every character; spaces need none."""
        return all(ord(character) in self.characters for character in text if not character.isspace())

    def renders(self, text: str) -> bool:
        """Return whether every character has a glyph that is neither blank nor the box of a missing glyph."""
        visible = (character for character in text if not character.isspace())
        return self.covers(text) and all(_has_glyph(self.path, self.index, one) for one in visible)

    @property
    def style_words(self) -> tuple[str, ...]:
        """Return the words for weight, slant and class in the name of the face."""
        name = f"{self.family} {self.style}".lower()
        found = (_first_match(name, words) for words in (WEIGHTS, SLANTS, FACE_CLASSES))
        return tuple(word for word in found if word)


def can_shape() -> bool:
    """Return whether this machine can lay out joined and reordered scripts, by Raqm with FriBidi."""
    return bool(features.check("raqm"))


def load_faces(folder: Path) -> tuple[FontFace, ...]:
    """Return the faces of all fonts at any depth, in the byte order of their paths.

    Damaged files are skipped, as are faces without a Unicode table or with strokes too thin to read.
    Raises: SourceError where no usable font is left.
    """
    paths = (Path(root) / name for root, _, names in os.walk(folder) for name in names)
    fonts = sorted((path for path in paths if path.suffix.lower() in FONT_EXTENSIONS), key=os.fsencode)
    faces = tuple(face for path in fonts for face in _read_faces(path))
    if not faces:
        known = ", ".join(FONT_EXTENSIONS)
        fix = f"Set it to a folder with fonts ({known}); scripts/fetch_pictures.py downloads some."
        raise SourceError(f"source.fonts is {str(folder)!r}, which holds no usable font. {fix}")
    return faces


@lru_cache(maxsize=512)
def load_font(path: Path, index: int, size_px: int) -> ImageFont.FreeTypeFont:
    """Return a face at a size, with the best layout engine of this machine."""
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
    """Return the offset of the table directory of each face."""
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
                # Offsets count from their own position in the table.
                where = bases[3] + 2 * number + offset + 2 * (character - start)
                (glyph,) = struct.unpack_from(">H", content, where)
            # Glyph 0 is the box; a stored 0 means the box for any delta.
            if (glyph or not offset) and (glyph + delta) & 0xFFFF:
                found.add(character)
    return found


def _read_cmap_format_12(content: bytes, at: int) -> set[int]:
    """Return the characters of a cmap of format 12."""
    (count,) = struct.unpack_from(">I", content, at + 12)
    found: set[int] = set()
    for number in range(count):
        start, end, glyph = struct.unpack_from(">3I", content, at + 16 + 12 * number)
        # A damaged table may claim four billion characters.
        found.update(range(start if glyph else start + 1, min(end, sys.maxunicode) + 1))
    return found


CMAP_READERS = {4: _read_cmap_format_4, 12: _read_cmap_format_12}
"""Readers by the format of the table."""
