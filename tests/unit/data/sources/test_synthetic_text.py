"""Images of text are legible, complete and reproducible, and their captions quote the text."""

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
    render_image,
    render_png,
    scene_at,
)
from lens.data.text_rendering import corpus, fonts
from lens.data.text_rendering.backgrounds import Background, background_colours
from lens.data.text_rendering.colors import (
    COLOURS,
    MIN_CONTRAST,
    Colour,
    contrast_ratio,
    relative_luminance,
)
from lens.data.text_rendering.corpus import SCRIPTS, built_in_texts, script_of
from lens.data.text_rendering.renderer import render_text_scene
from lens.errors import SettingError

OPEN = {"max_nsfw": None, "min_aesthetics": None, "max_watermark": None}
COUNT = 40
SYSTEM_FONTS = Path("/usr/share/fonts")


@pytest.fixture(scope="module")
def source(font_folder) -> SyntheticTextSource:
    return SyntheticTextSource(
        fonts=font_folder, count=COUNT, seed=3, bases=(256, 512), ratios=("1:2", "1:1", "16:9")
    )


def flat(one, colour="white"):
    """Return a scene on a flat background, with whatever else stays."""
    return one._replace(background=Background("flat", (Colour(colour, COLOURS[colour]),), False, 1, None))


def test_the_same_settings_and_index_give_the_same_bytes_in_any_order_and_process(source):
    forwards = [render_png(source, index) for index in range(6)]
    synthetic_text._load_assets.cache_clear()
    fonts.load_font.cache_clear()
    assert [render_png(source, index) for index in reversed(range(6))] == forwards[::-1]
    assert len(set(forwards)) == 6
    script = (
        "import hashlib, sys; from lens.data.sources.synthetic_text import SyntheticTextSource, render_png;"
        "source = SyntheticTextSource.model_validate_json(sys.argv[1]);"
        "print(hashlib.sha256(render_png(source, 5)).hexdigest())"
    )
    command = [sys.executable, "-c", script, source.model_dump_json()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(forwards[5]).hexdigest()


def test_another_seed_gives_other_images_and_a_larger_count_the_same_ones_and_more(source):
    assert render_png(source.model_copy(update={"seed": 4}), 0) != render_png(source, 0)
    more = source.model_copy(update={"count": 99})
    assert list(more.entries())[:COUNT] == list(source.entries())


def test_entries_name_every_image_by_its_index_and_are_read_by_it(source, tmp_path):
    found = list(source.model_copy(update={"licence": "CC0-1.0"}).entries())
    assert [one.address for one in found[:2]] == ["text:000000", "text:000001"] and len(found) == COUNT
    assert [one.path for one in found] == [one.address for one in found]
    assert [source.read(found[index], tmp_path) for index in (7, 0)] == [
        render_png(source, index) for index in (7, 0)
    ]  # fmt: skip
    assert {(one.num_bytes, one.licence) for one in found} == {(UNKNOWN_SIZE, "CC0-1.0")}


def test_an_image_has_the_size_of_a_bucket(source):
    sizes = {Image.open(io.BytesIO(render_png(source, index))).size for index in range(12)}
    assert sizes <= {(width, height) for height, width in source.sizes} and len(sizes) > 2


def test_captions_quote_what_is_drawn_letter_by_letter_and_nothing_else(source):
    for index, entry in enumerate(source.entries()):
        blocks = scene_at(source, index).blocks
        assert re.findall(r'"([^"]*)"', entry.caption) == [block.place.text for block in blocks]
        for block in blocks:
            assert "".join(block.place.lines).replace(" ", "") == block.place.text.replace(" ", "")


def test_captions_say_what_is_to_be_seen_and_nothing_that_is_not(source):
    for index, entry in enumerate(source.entries()):
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
    openings = [re.sub(r'"[^"]*"', "", one.caption)[:14] for one in source.entries()]
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


def has_fonts(folder: Path) -> bool:
    return any(path.suffix in fonts.FONT_EXTENSIONS for path in folder.rglob("*"))


def can_be_set(folder: Path, script: str) -> bool:
    """Whether some font draws every letter of some built-in text, each unlike its box for what is missing."""
    if script in corpus.COMPLEX_SCRIPTS and not features.check("raqm"):
        return False
    wanted = {text for kind in built_in_texts()[script].values() for text in kind}
    for path in (path for path in folder.rglob("*") if path.suffix in fonts.FONT_EXTENSIONS):
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
def test_every_script_that_the_fonts_cover_gives_images_of_itself_and_no_other_is_offered(
    script, font_folder
):
    folder = font_folder if script == "latin" or not has_fonts(SYSTEM_FONTS) else SYSTEM_FONTS
    source = SyntheticTextSource(fonts=folder, scripts=(script,), count=4, bases=(256,))
    if not can_be_set(folder, script):
        with pytest.raises(SettingError, match=rf"source\.scripts is '{script}'"):
            list(source.entries())
        return
    for index, entry in enumerate(source.entries()):
        blocks = scene_at(source, index).blocks
        assert {script_of(block.place.text) for block in blocks} <= {script, "", "han"}
        assert np.asarray(render_image(source, index)).std() > 0 and entry.caption


def test_a_file_of_texts_is_drawn_from_as_it_is(font_folder, tmp_path):
    (tmp_path / "lines.txt").write_text("\ufeffRoom  7\n\n\u0441\u0430\u0434\nMole & Rat\n", encoding="utf-8")
    source = SyntheticTextSource(fonts=font_folder, texts=tmp_path / "lines.txt", count=12, bases=(256,))
    found = {block.place.text for index in range(12) for block in scene_at(source, index).blocks}
    assert found == {"Room 7", "Mole & Rat"}, "the line that no font has glyphs for is left out"


def test_background_images_are_behind_the_text_and_their_captions_in_the_caption(font_folder, tmp_path):
    Image.new("RGB", (300, 260), (10, 200, 10)).save(tmp_path / "green.png")
    Image.new("RGB", (30, 20)).save(tmp_path / "tiny.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "green.txt").write_text("A meadow.\nde=Eine Wiese.\n")
    source = SyntheticTextSource(fonts=font_folder, backgrounds=tmp_path, count=20, bases=(256,))
    scenes = [scene_at(source, index) for index in range(20)]
    behind = [index for index, one in enumerate(scenes) if one.background.kind == "image"]
    assert 2 < len(behind) < 20
    said = [entry.caption for entry in source.entries()]
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
        ({"texts": "blank.txt"}, SourceError, r"has no line with a text. Write one text a line"),
        ({"texts": "greek.txt"}, SourceError, "No font has the glyphs of any text of .*greek.txt"),
        ({"scripts": ("greek",)}, SettingError, "source.scripts is 'greek', but it needs a font with its"),
        ({"backgrounds": "empty"}, SourceError, r"source\.backgrounds is '.*empty', which holds no image"),
        ({"min_text_px": 200, "bases": (128,)}, SettingError, r"source\.min_text_px is 200, but it needs"),
    ],
)
def test_unusable_inputs_are_named_with_the_remedy(changes, error, says, font_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "latin1.txt").write_bytes(b"caf\xe9")
    (tmp_path / "blank.txt").write_text("\n  \n")
    (tmp_path / "greek.txt").write_text("\u03c6\u03c9\u03c2", encoding="utf-8")
    paths = {name: tmp_path / value for name, value in changes.items() if isinstance(value, str)}
    with pytest.raises(error, match=says):
        list(SyntheticTextSource(**({"fonts": font_folder, "count": 1} | changes | paths)).entries())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"bases": [100]}, "positive multiple of 16"),
        ({"ratios": ["5:1"]}, "one of 1:2"),
        ({"scripts": ["runes"]}, "scripts"),
        ({"colour": "red"}, "a known name"),
    ],
)
def test_invalid_settings_are_errors(changes, says):
    with pytest.raises(SettingError, match=says):
        SyntheticTextSource.of({"fonts": "fonts"} | changes)


def test_a_build_scores_images_of_text_as_it_scores_files(font_folder, tmp_path):
    source = {"kind": "text", "fonts": str(font_folder), "count": 5, "bases": [96]}
    settings = BuildSettings.of({"out": str(tmp_path), "source": source, "filters": OPEN, "part_size": 3})
    inventory = take_inventory(settings)
    reader = EntryReader(settings.all_sources, tmp_path / "downloads")
    assert [score_part(inventory, part, tmp_path / "scores", reader) for part in range(2)] == [3, 2]
    rows = read_parts(tmp_path / "scores" / PIXEL_SCORES_FOLDER, 2).to_pylist()
    source = settings.all_sources[0]
    assert [row["id"] for row in rows] == [sample_id(render_png(source, index)) for index in range(5)]
    assert {row["unreadable"] for row in rows} == {""}
