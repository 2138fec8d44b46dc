"""Lines of a text do not touch, and the box of a rotated text holds it."""

import numpy as np

from lens.data.text_rendering import fonts
from lens.data.text_rendering.fonts import load_faces
from lens.data.text_rendering.layout import arrange_lines, rotated_size


def test_lines_of_a_text_never_touch(font_folder):
    (face,) = load_faces(font_folder)
    ink = arrange_lines(("gjpqy", "\u00c5\u00c9bdfh", "gjpqy"), face, 40, "centre")
    rows = np.zeros(ink.height + 10, dtype=int)
    font = fonts.load_font(face.path, face.index, 40)
    for line, (_, base) in zip(ink.texts, ink.origins, strict=True):
        _, top, _, bottom = font.getbbox(line, anchor="ls")
        rows[int(top) + base : int(bottom) + base] += 1
    assert rows.max() == 1 and rows[0] == 1 and rows[ink.height - 1] == 1


def test_the_box_around_a_turned_text_holds_it():
    assert rotated_size(100, 20, 0) == (102, 22)
    assert rotated_size(100, 20, 90) == (23, 102), "a pixel more where the cosine is not quite 0"
    assert rotated_size(100, 100, 45) == (144, 144)
