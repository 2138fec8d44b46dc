"""Texts are in the script that they are filed under, and break where their script allows it."""

import pytest

from lens.data.text_rendering import corpus, fonts
from lens.data.text_rendering.captions import SCRIPT_NAMES
from lens.data.text_rendering.corpus import SCRIPTS, built_in_texts, needs_shaping, script_of, wrap_text
from lens.data.text_rendering.fonts import load_faces
from lens.errors import SettingError


@pytest.mark.parametrize(
    ("words", "count", "lines"),
    [
        ("one two three four", 2, ("one two", "three four")),
        ("a bee sees", 3, ("a", "bee", "sees")),
        ("word", 2, None),
        ("\u65b0\u9c9c\u9762\u5305", 2, ("\u65b0\u9c9c", "\u9762\u5305")),
        ("\u30bb\u30fc\u30eb", 2, ("\u30bb\u30fc", "\u30eb")),
    ],
)
def test_texts_break_at_blanks_and_between_letters_of_unspaced_scripts(words, count, lines):
    assert wrap_text(words, count) == lines


def test_built_in_texts_are_in_the_script_that_they_stand_under():
    assert set(built_in_texts()) == set(SCRIPTS) == {"latin", *SCRIPT_NAMES}
    for script, known in built_in_texts().items():
        all_texts = known["phrases"] + known["words"]
        assert {script_of(one) for one in all_texts} <= {script, "", "han" if script == "kana" else script}
        assert all(one.isprintable() and '"' not in one and one == one.strip() for one in all_texts)
        assert any(needs_shaping(one) for one in all_texts) == (script in corpus.COMPLEX_SCRIPTS)


def test_without_a_layout_engine_scripts_that_need_one_are_not_offered(font_folder, monkeypatch, tmp_path):
    monkeypatch.setattr(corpus, "can_shape", lambda: False)
    (face,) = load_faces(font_folder)
    able = face._replace(characters=frozenset(range(0x20, 0x3000)))
    monkeypatch.setattr(fonts, "_has_glyph", lambda *_: True)
    assert set(corpus.load_corpus([able], None, None).scripts) == {"latin", "cyrillic", "greek"}
    with pytest.raises(SettingError, match="a layout engine that joins letters"):
        corpus.load_corpus([able], None, ("arabic",))
    (tmp_path / "lines.txt").write_text("bread\n\u0646\u0647\u0631\n", encoding="utf-8")
    assert corpus.load_corpus([able], tmp_path / "lines.txt", None).lines == ("bread",)
