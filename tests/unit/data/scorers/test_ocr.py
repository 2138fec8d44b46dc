"""OCR of images with known text, and which of it counts as a watermark."""

import time

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from lens.data.scorers.base import load_scorer
from lens.data.scorers.ocr import OcrScorer, OcrSettings
from lens.data.scorers.watermark_rules import TextLine, is_tiled, watermark_score
from lens.nano.world.scenes import draw_scene, random_scene

HEIGHT, WIDTH = 300, 416
LIMIT = 0.5
"""The default of `filters.max_watermark`."""


@pytest.fixture(scope="module")
def ocr() -> OcrScorer:
    """One reader for all tests: loading takes a second."""
    reader = load_scorer(OcrSettings(max_side_px=480))
    assert isinstance(reader, OcrScorer)
    return reader


def scene(seed: int = 3) -> Image.Image:
    pixels = draw_scene(random_scene(np.random.default_rng(seed), HEIGHT, WIDTH)).transpose(1, 2, 0)
    return Image.fromarray(((pixels + 1) * 127.5).round().astype(np.uint8))


def written(
    image: Image.Image, text: str, x: int, y: int, size: int, alpha: int = 255, angle: float = 0
) -> Image.Image:
    """Return the picture with white text around a point."""
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    font = ImageFont.load_default(size)
    ImageDraw.Draw(layer).text((x, y), text, fill=(255, 255, 255, alpha), font=font, anchor="mm")
    layer = layer.rotate(angle, Image.Resampling.BICUBIC, center=(x, y))
    return Image.alpha_composite(image.convert("RGBA"), layer).convert("RGB")


def tiled(image: Image.Image, text: str, angle: float) -> Image.Image:
    for x, y in ((80, 60), (210, 60), (340, 60), (80, 240), (210, 240), (340, 240)):
        image = written(image, text, x, y, 24, alpha=150, angle=angle)
    return image


def line(text: str, left=0.4, top=0.5, right=0.6, bottom=0.55, thickness=0.05) -> TextLine:
    return TextLine(text, left, top, right, bottom, thickness)


def poster() -> Image.Image:
    image = written(Image.new("RGB", (WIDTH, HEIGHT), (20, 60, 120)), "SUMMER", 208, 100, 80)
    return written(image, "FESTIVAL", 208, 200, 60)


def test_plain_images_have_no_words_and_no_watermark(ocr):
    rows = ocr.score([scene(), Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 160))])
    assert rows == [{"read_words": [], "watermark": 0.0}] * 2


def test_a_posters_title_is_read_and_is_no_watermark(ocr):
    assert ocr.score([poster()]) == [{"read_words": ["SUMMER", "FESTIVAL"], "watermark": 0.1}]


def test_a_sign_at_the_border_of_the_image_is_no_watermark(ocr):
    [row] = ocr.score([written(scene(), "BAKERY OPEN", 100, 285, 20)])
    assert row == {"read_words": ["BAKERY", "OPEN"], "watermark": 0.1}


@pytest.mark.parametrize("angle", [0, 30])
def test_faint_text_tiled_over_an_image_is_certainly_a_watermark(ocr, angle):
    assert ocr.score([tiled(scene(), "photobank", angle)])[0]["watermark"] == 1.0


def test_the_name_of_an_agency_across_the_image_is_certainly_a_watermark(ocr):
    assert ocr.score([written(scene(), "shutterstock", 208, 150, 50, 130, 20)])[0]["watermark"] == 1.0


@pytest.mark.parametrize("text", ["\N{COPYRIGHT SIGN} Jane Doe 2019", "photo by Jane Doe", "www.example.com"])
def test_a_credit_line_in_a_corner_is_a_watermark(ocr, text):
    assert ocr.score([written(scene(), text, 320, 286, 16)])[0]["watermark"] == 0.8


def test_a_row_does_not_depend_on_the_other_images(ocr):
    pictures = [poster(), scene(), written(scene(1), "photo by Jane Doe", 320, 286, 16)]
    assert ocr.score(pictures) == [row for one in pictures for row in ocr.score([one])]


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (5000, 7), (3, 4000), (3000, 60)])
def test_images_of_extreme_shapes_have_no_words_and_take_no_time(ocr, size):
    started_at = time.monotonic()
    assert ocr.score([Image.new("RGB", size, (9, 200, 30))])[0]["read_words"] == []
    assert time.monotonic() - started_at < 2


def test_boxes_are_shares_of_the_image_whatever_its_size(ocr):
    [found] = ocr.lines(written(Image.new("RGB", (960, 640)), "LANTERN", 240, 480, 64))
    assert found.text == "LANTERN"
    assert (found.left + found.right) / 2 == pytest.approx(0.25, abs=0.02)
    assert (found.top + found.bottom) / 2 == pytest.approx(0.75, abs=0.02)
    assert found.thickness == pytest.approx(64 / 640, abs=0.04)


def test_a_recipe_can_leave_the_watermark_column_to_a_classifier(ocr):
    settings = OcrSettings(max_side_px=480, judges_watermarks=False)
    assert settings.columns == {"read_words": "list"}
    assert OcrScorer(settings)._row([line("HOTEL")]) == {"read_words": ["HOTEL"]}


def test_the_version_knows_what_changes_what_is_read_and_not_how_fast():
    version = OcrScorer(OcrSettings()).version
    assert OcrScorer(OcrSettings(num_threads=2)).version == version
    assert OcrScorer(OcrSettings(min_confidence=0.7)).version != version
    assert OcrScorer(OcrSettings(max_side_px=640)).version != version


@pytest.mark.parametrize(
    "text",
    [
        "gettyimages",
        "Getty Images",
        "shuiterstock",
        "shutersto ck.com",
        "stock photo ID Alamy",
        "iStock",
        "123RF",
        "dreamstirne",
        "Adobe Stock | #123",
    ],
)
def test_agencies_are_known_in_spite_of_a_letter_read_wrong(text):
    assert watermark_score([line("HOTEL"), line(text)]) == 1.0


@pytest.mark.parametrize(
    "text", ["SHUTTERS", "Balamy", "Getty Museum", "images", "rolling stock", "sampler", "a preview of"]
)
def test_other_words_that_are_like_agencies_or_stamps_are_ordinary(text):
    assert watermark_score([line(text)]) == 0.1


@pytest.mark.parametrize("text", ["PREVIEW", "Sample", "do not copy"])
def test_a_stamp_counts_alone_and_not_among_other_text(text):
    assert watermark_score([line(text)]) == 0.7 > LIMIT
    assert watermark_score([line(text), *(line(word) for word in ("Monday", "Garden", "Tea"))]) < LIMIT


def test_an_address_on_a_design_is_below_the_limit_and_a_claim_at_its_border_above():
    design = [line(word) for word in ("Harvest", "Market", "Every Sunday")]
    address = line("www.market.org", top=0.93, bottom=0.97)
    claim = line("all rights reserved", left=0.9, right=0.95)
    assert watermark_score([address]) == 0.8
    assert watermark_score([*design, address]) == 0.4 < LIMIT
    assert watermark_score([*design, claim]) == 0.8
    assert watermark_score([*design, claim._replace(left=0.5)]) == 0.4
    assert watermark_score([*design, claim._replace(thickness=0.2)]) == 0.4


def test_a_repeated_word_is_tiled_only_over_both_sides_and_as_much_of_the_text():
    places = [(x, y) for x in (0.1, 0.5, 0.8) for y in (0.1, 0.8)]
    tiles = [line("borrowed", x, y, x + 0.1, y + 0.05) for x, y in places]
    assert is_tiled(tiles)
    assert not is_tiled(tiles[:3]), "too few"
    assert not is_tiled([one._replace(top=0.5, bottom=0.55) for one in tiles]), "one row"
    page = [line(letter * 9) for letter in "abcdefghijklmnopqrstuvwxyz"]
    assert not is_tiled([*tiles, *page]), "a page of other words"
    assert not is_tiled([one._replace(text="2019") for one in tiles]), "numbers, as in a table"


def test_tiles_that_were_read_as_one_long_line_count_each():
    rows = [line("our photos our photos our photos", 0.0, y, 0.9, y + 0.05) for y in (0.1, 0.5, 0.9)]
    assert is_tiled(rows)


def test_the_thickness_of_a_line_is_that_of_its_letters_whatever_way_it_runs():
    width, height = 400, 200
    level = np.array([[40, 20], [240, 20], [240, 40], [40, 40]]) / (width, height)
    upright = np.array([[40, 180], [40, 20], [60, 20], [60, 180]]) / (width, height)
    assert TextLine.of("level", level, width / height).thickness == pytest.approx(0.1)
    assert TextLine.of("upright", upright, width / height).thickness == pytest.approx(0.1)
    assert TextLine.of("level", level, 2.0)[1:5] == pytest.approx((0.1, 0.1, 0.6, 0.2))
