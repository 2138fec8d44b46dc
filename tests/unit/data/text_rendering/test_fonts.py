"""A font is used only for text that it has real glyphs for."""

import struct
from pathlib import Path

import pytest

from lens.data.text_rendering import fonts
from lens.data.text_rendering.fonts import load_faces


def test_a_font_is_used_for_texts_alone_that_it_has_all_glyphs_for(font_folder):
    (face,) = load_faces(font_folder)
    assert (face.family, face.style) == ("Aileron", "Regular")
    assert face.renders("Fresh bread 7:30")
    assert not face.covers("\u0441\u0430\u0434") and not face.covers("a\u65e5")
    claims_more = face._replace(characters=face.characters | {0x65E5})
    assert claims_more.covers("a\u65e5") and not claims_more.renders("a\u65e5"), "the box is no glyph"
    font = face.path.read_bytes()
    by_table = fonts._read_characters(font, 0)
    with_box = bytes(fonts.load_font(face.path, 0, 32).getmask("\uffff"))
    others = [one for one in range(33, 0x2100) if chr(one).isalnum() and one not in by_table]
    assert all(
        bytes(fonts.load_font(face.path, 0, 32).getmask(chr(one))) == with_box for one in others[::40]
    )


def test_tables_of_wide_characters_are_read_and_a_lie_in_one_ends_at_unicodes_end():
    table = struct.pack(">HHIII", 12, 0, 0, 0, 2)
    groups = struct.pack(">3I", 0x1F600, 0x1F602, 0) + struct.pack(">3I", 0x10FFFE, 0xFFFFFFFF, 9)
    assert fonts._read_cmap_format_12(table + groups, 0) == {0x1F601, 0x1F602, 0x10FFFE, 0x10FFFF}


@pytest.mark.parametrize(
    ("family", "style", "words"),
    [
        ("Lato", "Semibold Italic", ("bold", "italic")),
        ("DejaVu Sans Mono", "Oblique", ("slanted", "monospaced")),
        ("DejaVu Serif", "Book", ("serif",)),
        ("Liberation Sans Narrow", "Black", ("heavy", "sans-serif")),
        ("Vollkorn", "Regular", ()),
    ],
)
def test_style_words_are_those_of_the_fonts_name(family, style, words):
    assert fonts.FontFace(Path("x"), 0, family, style, frozenset()).style_words == words


def test_a_glyph_that_is_blank_is_none(font_folder):
    (face,) = load_faces(font_folder)
    zero_width = "\u200b"
    claims_more = face._replace(characters=face.characters | {ord(zero_width)})
    assert claims_more.covers(f"a{zero_width}") and not claims_more.renders(f"a{zero_width}")
