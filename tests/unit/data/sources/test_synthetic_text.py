"""Pictures of text are legible, whole, the same every time, and their captions quote what is drawn."""

import hashlib
import io
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFont, features

from lens.data.build.inventory import take_inventory
from lens.data.build.reader import EntryReader
from lens.data.build.scoring import PIXEL_SCORES_FOLDER, score_part
from lens.data.build.settings import BuildSettings
from lens.data.io.entry import UNKNOWN_SIZE, SourceError
from lens.data.io.image_decoding import sample_id
from lens.data.io.parquet import read_parts
from lens.data.sources import synthetic_text
from lens.data.sources.synthetic_text import (
    SyntheticTextSource,
    index_from_path,
    is_rendered,
    render_image,
    render_png,
    scene_at,
    synthetic_text_entries,
)
from lens.data.text_rendering import corpus
from lens.data.text_rendering import fonts as fonts_module
from lens.data.text_rendering.backgrounds import Background, background_colours
from lens.data.text_rendering.captions import SCRIPT_NAMES
from lens.data.text_rendering.colors import (
    COLOURS,
    MIN_CONTRAST,
    Colour,
    contrast_ratio,
    relative_luminance,
    sample_legible_colour,
)
from lens.data.text_rendering.corpus import SCRIPTS, built_in_texts, needs_shaping, script_of, wrap_text
from lens.data.text_rendering.fonts import load_faces
from lens.data.text_rendering.layout import arrange_lines, rotated_size
from lens.data.text_rendering.renderer import render_text_scene
from lens.errors import SettingError

OPEN = {"max_nsfw": None, "min_aesthetics": None, "max_watermark": None}
COUNT = 40
SYSTEM_FONTS = Path("/usr/share/fonts")


@pytest.fixture(scope="module")
def fonts(tmp_path_factory) -> Path:
    """A folder with the font that Pillow carries: Latin, and nothing else."""
    folder = tmp_path_factory.mktemp("fonts")
    (folder / "deep").mkdir()
    (folder / "deep" / "carried.ttf").write_bytes(ImageFont.load_default(12).font_bytes)
    (folder / "broken.otf").write_bytes(b"\x00\x01\x00\x00 no font")
    return folder


@pytest.fixture(scope="module")
def source(fonts) -> SyntheticTextSource:
    return SyntheticTextSource(
        fonts=fonts, count=COUNT, seed=3, bases=(256, 512), ratios=("1:2", "1:1", "16:9")
    )


def flat(one, colour="white"):
    """Return a scene on a flat background, with whatever else stays."""
    return one._replace(background=Background("flat", (Colour(colour, COLOURS[colour]),), False, 1, None))


def test_the_same_settings_and_index_give_the_same_bytes_in_any_order_and_process(source):
    forwards = [render_png(source, index) for index in range(6)]
    synthetic_text._load_assets.cache_clear()
    fonts_module.opened.cache_clear()
    assert [render_png(source, index) for index in reversed(range(6))] == forwards[::-1]
    assert len(set(forwards)) == 6
    script = (
        "import hashlib, sys; from lens.data.sources.synthetic_text import SyntheticTextSource, render_png;"
        "print(hashlib.sha256(render_png(SyntheticTextSource.model_validate_json(sys.argv[1]), 5)).hexdigest())"
    )
    command = [sys.executable, "-c", script, source.model_dump_json()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(forwards[5]).hexdigest()


def test_another_seed_gives_other_pictures_and_a_larger_count_the_same_ones_and_more(source):
    assert render_png(source.model_copy(update={"seed": 4}), 0) != render_png(source, 0)
    more = source.model_copy(update={"count": 99})
    assert list(synthetic_text_entries(more))[:COUNT] == list(synthetic_text_entries(source))


def test_entries_name_every_picture_by_its_index(source):
    found = list(synthetic_text_entries(source.model_copy(update={"licence": "CC0-1.0"})))
    assert [one.address for one in found[:2]] == ["text:000000", "text:000001"] and len(found) == COUNT
    assert all(one.path == one.address and is_rendered(one.path) for one in found)
    assert not is_rendered("folder/text.png")
    assert [index_from_path(one.path) for one in found] == list(range(COUNT))
    assert {(one.num_bytes, one.licence) for one in found} == {(UNKNOWN_SIZE, "CC0-1.0")}


def test_a_picture_has_one_of_the_sizes_that_the_buckets_name(source):
    sizes = {Image.open(io.BytesIO(render_png(source, index))).size for index in range(12)}
    assert sizes <= {(width, height) for height, width in source.sizes} and len(sizes) > 2


def test_captions_quote_what_is_drawn_letter_by_letter_and_nothing_else(source):
    for index, entry in enumerate(synthetic_text_entries(source)):
        blocks = scene_at(source, index).blocks
        assert re.findall(r'"([^"]*)"', entry.caption) == [block.place.text for block in blocks]
        for block in blocks:
            assert "".join(block.place.lines).replace(" ", "") == block.place.text.replace(" ", "")


def test_captions_say_what_is_to_be_seen_and_nothing_that_is_not(source):
    for index, entry in enumerate(synthetic_text_entries(source)):
        one = scene_at(source, index)
        said = re.sub(r'"[^"]*"', "", entry.caption).lower()
        assert "\n" not in said and said.endswith(".")
        colours = {block.colour.name for block in one.blocks} | {c.name for c in one.background.colours}
        assert all(name in said for name in colours)
        turned = any(block.place.angle for block in one.blocks)
        assert turned == bool(re.search(r"clockwise|to the right,|to the right\.", said)), entry.caption
        assert any(block.blur_px for block in one.blocks) == bool(re.search("blurred|out of focus", said))
        assert any(block.outline for block in one.blocks) == bool(re.search("outline|edged", said))
        assert any(block.panel for block in one.blocks) == bool(re.search("panel|rectangle|label", said))


def test_captions_are_not_monotonous(source):
    openings = [re.sub(r'"[^"]*"', "", one.caption)[:14] for one in synthetic_text_entries(source)]
    assert len(set(openings)) > 12 and max(openings.count(one) for one in openings) < COUNT / 4


@pytest.mark.parametrize("angle", [0, 9, -33, 90])
def test_texts_say_where_they_stand(source, angle):
    from lens.data.text_rendering.captions import _grid_position

    block = scene_at(source, 0).blocks[0]
    for box, cell in [((0, 0, 20, 20), ("top", "left")), ((40, 140, 60, 160), ("middle", "centre"))]:
        there = block._replace(place=block.place._replace(box=box, angle=angle))
        assert _grid_position(there, scene_at(source, 0)._replace(height=300, width=100)) == cell


def test_everything_that_is_drawn_lies_in_the_boxes_of_the_texts_and_no_two_boxes_meet(source):
    for index in range(COUNT):
        one = flat(scene_at(source, index), "white")
        levels = np.asarray(render_text_scene(one, np.random.default_rng(0))).astype(int)       # (H, W, 3)
        is_ink = np.abs(levels - np.array(COLOURS["white"])).max(axis=2) > 0         # (H, W)
        for left, top, right, bottom in (block.place.box for block in one.blocks):
            assert 0 < left < right < one.width and 0 < top < bottom < one.height
            is_ink[top:bottom, left:right] = False
        assert not is_ink.any()
        for (l1, t1, r1, b1), (l2, t2, r2, b2) in combinations([block.place.box for block in one.blocks], 2):
            assert r1 <= l2 or r2 <= l1 or b1 <= t2 or b2 <= t1


def test_letters_stand_out_from_whatever_touches_them(source):
    for index in range(COUNT):
        one = scene_at(source, index)
        for block in one.blocks:
            beside = block.outline or block.panel
            around = [beside.rgb] if beside else background_colours(one.background)
            assert around and min(contrast_ratio(block.colour.rgb, shade) for shade in around) >= MIN_CONTRAST


def test_pixels_have_the_contrast_that_was_planned(source):
    one = next(
        one for one in (scene_at(source, index) for index in range(COUNT))
        if one.background.kind == "flat" and not one.blocks[0].place.angle and not one.blocks[0].blur_px
    )  # fmt: skip
    left, top, right, bottom = one.blocks[0].place.box
    levels = np.asarray(render_text_scene(one, np.random.default_rng(0)))[top:bottom, left:right].reshape(
        -1, 3
    )
    lights = sorted(relative_luminance((int(r), int(g), int(b))) for r, g, b in np.unique(levels, axis=0))
    assert (lights[-1] + 0.05) / (lights[0] + 0.05) >= MIN_CONTRAST


def test_every_flat_colour_has_a_colour_that_can_be_read_on_it():
    rng = np.random.default_rng(0)
    assert all(sample_legible_colour([rgb], rng) for rgb in COLOURS.values())
    assert sample_legible_colour([COLOURS["black"], COLOURS["white"], COLOURS["grey"]], rng) is None


def test_lines_of_a_text_never_touch(fonts):
    (face,) = load_faces(fonts)
    ink = arrange_lines(("gjpqy", "\u00c5\u00c9bdfh", "gjpqy"), face, 40, "centre")
    rows = np.zeros(ink.height + 10, dtype=int)
    font = fonts_module.opened(face.path, face.index, 40)
    for line, (_, base) in zip(ink.texts, ink.origins, strict=True):
        _, top, _, bottom = font.getbbox(line, anchor="ls")
        rows[int(top) + base : int(bottom) + base] += 1
    assert rows.max() == 1 and rows[0] == 1 and rows[ink.height - 1] == 1


def test_the_box_around_a_turned_text_holds_it():
    assert rotated_size(100, 20, 0) == (102, 22)
    assert rotated_size(100, 20, 90) == (23, 102), "a pixel more where the cosine is not quite 0"
    assert rotated_size(100, 100, 45) == (144, 144)


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


def test_a_font_is_used_for_texts_alone_that_it_has_all_glyphs_for(fonts):
    (face,) = load_faces(fonts)
    assert (face.family, face.style) == ("Aileron", "Regular")
    assert face.renders("Fresh bread 7:30")
    assert not face.covers("\u0441\u0430\u0434") and not face.covers("a\u65e5")
    claims_more = face._replace(characters=face.characters | {0x65E5})
    assert claims_more.covers("a\u65e5") and not claims_more.renders("a\u65e5"), "the box is no glyph"
    font = face.path.read_bytes()
    by_table = fonts._characters(font, 0)
    with_box = bytes(fonts_module.opened(face.path, 0, 32).getmask("\uffff"))
    others = [one for one in range(33, 0x2100) if chr(one).isalnum() and one not in by_table]
    assert all(
        bytes(fonts_module.opened(face.path, 0, 32).getmask(chr(one))) == with_box for one in others[::40]
    )


def test_tables_of_wide_characters_are_read_and_a_lie_in_one_ends_at_unicodes_end():
    import struct

    table = struct.pack(">HHIII", 12, 0, 0, 0, 2)
    groups = struct.pack(">3I", 0x1F600, 0x1F602, 0) + struct.pack(">3I", 0x10FFFE, 0xFFFFFFFF, 9)
    assert fonts._groups(table + groups, 0) == {0x1F601, 0x1F602, 0x10FFFE, 0x10FFFF}


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
    assert fonts.Face(Path("x"), 0, family, style, frozenset()).style_words == words


def test_built_in_texts_are_in_the_script_that_they_stand_under():
    assert set(built_in_texts()) == set(SCRIPTS) == {"latin", *SCRIPT_NAMES}
    for script, known in built_in_texts().items():
        all_texts = known["phrases"] + known["words"]
        assert {script_of(one) for one in all_texts} <= {script, "", "han" if script == "kana" else script}
        assert all(one.isprintable() and '"' not in one and one == one.strip() for one in all_texts)
        assert any(needs_shaping(one) for one in all_texts) == (script in corpus.COMPLEX_SCRIPTS)


def has_fonts(folder: Path) -> bool:
    return any(path.suffix in fonts.EXTENSIONS for path in folder.rglob("*"))


def can_be_set(folder: Path, script: str) -> bool:
    """Whether some font draws every letter of some built-in text, each unlike its box for what is missing."""
    if script in corpus.COMPLEX_SCRIPTS and not features.check("raqm"):
        return False
    wanted = {text for kind in built_in_texts()[script].values() for text in kind}
    for path in (path for path in folder.rglob("*") if path.suffix in fonts.EXTENSIONS):
        try:
            font = ImageFont.truetype(path, 32)
        except OSError:
            continue
        looks = {one: bytes(font.getmask(one)) for one in {*"".join(wanted)} | {"\uffff"}}
        missing = {b"", looks["\uffff"]}
        if any(not missing & {looks[one] for one in text if one != " "} for text in wanted):
            return True
    return False


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_that_the_fonts_cover_gives_pictures_of_itself_and_no_other_is_offered(script, fonts):
    folder = fonts if script == "latin" or not has_fonts(SYSTEM_FONTS) else SYSTEM_FONTS
    source = SyntheticTextSource(fonts=folder, scripts=(script,), count=4, bases=(256,))
    if not can_be_set(folder, script):
        with pytest.raises(SettingError, match=rf"source\.scripts is '{script}'"):
            list(synthetic_text_entries(source))
        return
    for index, entry in enumerate(synthetic_text_entries(source)):
        blocks = scene_at(source, index).blocks
        assert {script_of(block.place.text) for block in blocks} <= {script, "", "han"}
        assert np.asarray(render_image(source, index)).std() > 0 and entry.caption


def test_without_a_layout_engine_scripts_that_need_one_are_not_offered(fonts, monkeypatch, tmp_path):
    monkeypatch.setattr(corpus, "can_shape", lambda: False)
    (face,) = load_faces(fonts)
    able = face._replace(characters=frozenset(range(0x20, 0x3000)))
    monkeypatch.setattr(fonts_module, "_has_glyph", lambda *_: True)
    assert set(corpus.load_corpus([able], None, None).scripts) == {"latin", "cyrillic", "greek"}
    with pytest.raises(SettingError, match="a layout engine that joins letters"):
        corpus.load_corpus([able], None, ("arabic",))
    (tmp_path / "lines.txt").write_text("bread\n\u0646\u0647\u0631\n", encoding="utf-8")
    assert corpus.load_corpus([able], tmp_path / "lines.txt", None).lines == ("bread",)


def test_a_file_of_texts_is_drawn_from_as_it_is(fonts, tmp_path):
    (tmp_path / "lines.txt").write_text("\ufeffRoom  7\n\n\u0441\u0430\u0434\nMole & Rat\n", encoding="utf-8")
    source = SyntheticTextSource(fonts=fonts, texts=tmp_path / "lines.txt", count=12, bases=(256,))
    found = {block.place.text for index in range(12) for block in scene_at(source, index).blocks}
    assert found == {"Room 7", "Mole & Rat"}, "the line that no font has glyphs for is left out"


def test_pictures_lie_behind_the_letters_and_their_captions_in_the_caption(fonts, tmp_path):
    Image.new("RGB", (300, 260), (10, 200, 10)).save(tmp_path / "green.png")
    Image.new("RGB", (30, 20)).save(tmp_path / "tiny.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "green.txt").write_text("A meadow.\nde=Eine Wiese.\n")
    source = SyntheticTextSource(fonts=fonts, backgrounds=tmp_path, count=20, bases=(256,))
    scenes = [scene_at(source, index) for index in range(20)]
    behind = [index for index, one in enumerate(scenes) if one.background.kind == "picture"]
    assert 2 < len(behind) < 20
    said = [entry.caption for entry in synthetic_text_entries(source)]
    assert all("That picture shows: A meadow." in said[index] for index in behind)
    assert not any("Wiese" in one for one in said)
    pixels = np.asarray(render_image(source, behind[0]))
    assert (pixels == (10, 200, 10)).all(axis=2).mean() > 0.3
    assert all(block.outline or block.panel for index in behind for block in scenes[index].blocks)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"fonts": "gone"}, SettingError, r"source\.fonts is '.*gone', but it needs a folder with fonts"),
        ({"fonts": "empty"}, SourceError, r"source\.fonts is '.*empty', which holds no usable font"),
        ({"texts": "gone.txt"}, SettingError, r"source\.texts is '.*', but it needs a UTF-8 file"),
        ({"texts": "latin1.txt"}, SettingError, r"source\.texts is '.*', but it needs a UTF-8 file"),
        ({"texts": "blank.txt"}, SourceError, r"has no line with a text. Write a text a line"),
        ({"texts": "greek.txt"}, SourceError, "No font has the glyphs of any text of .*greek.txt"),
        ({"scripts": ("greek",)}, SettingError, "source.scripts is 'greek', but it needs a font with its"),
        ({"backgrounds": "empty"}, SourceError, r"source\.backgrounds is '.*empty', which holds no picture"),
        ({"min_text_px": 200, "bases": (128,)}, SettingError, r"source\.min_text_px is 200, but it needs"),
    ],
)
def test_what_cannot_be_used_is_named_with_what_to_do(changes, error, says, fonts, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "latin1.txt").write_bytes(b"caf\xe9")
    (tmp_path / "blank.txt").write_text("\n  \n")
    (tmp_path / "greek.txt").write_text("\u03c6\u03c9\u03c2", encoding="utf-8")
    paths = {name: tmp_path / value for name, value in changes.items() if isinstance(value, str)}
    with pytest.raises(error, match=says):
        list(synthetic_text_entries(SyntheticTextSource(**({"fonts": fonts, "count": 1} | changes | paths))))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bases": [100]}, "positive multiple of 16"),
        ({"ratios": ["5:1"]}, "one of 1:2"),
        ({"scripts": ["runes"]}, "scripts"),
        ({"colour": "red"}, "a known name"),
    ],
)
def test_settings_that_no_picture_can_have_are_refused(changes, says):
    with pytest.raises(SettingError, match=says):
        SyntheticTextSource.of({"fonts": "fonts"} | changes)


def test_a_glyph_that_is_blank_is_none(fonts):
    (face,) = load_faces(fonts)
    zero_width = "\u200b"
    claims_more = face._replace(characters=face.characters | {ord(zero_width)})
    assert claims_more.covers(f"a{zero_width}") and not claims_more.renders(f"a{zero_width}")


def test_a_build_measures_pictures_of_text_as_it_measures_files(fonts, tmp_path):
    source = {"kind": "text", "fonts": str(fonts), "count": 5, "bases": [96]}
    settings = BuildSettings.of({"out": str(tmp_path), "source": source, "filters": OPEN, "part_size": 3})
    inventory = take_inventory(settings)
    reader = EntryReader(settings.all_sources, tmp_path / "downloads")
    assert [score_part(inventory, part, tmp_path / "scores", reader) for part in range(2)] == [3, 2]
    rows = read_parts(tmp_path / "scores" / PIXEL_SCORES_FOLDER, 2).to_pylist()
    source = settings.all_sources[0]
    assert [row["id"] for row in rows] == [sample_id(render_png(source, index)) for index in range(5)]
    assert {row["unreadable"] for row in rows} == {""}
