"""Damaged files are judged by the pixels that are left, and their reason is true."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from lens.data.io.image_decoding import PLUGINS, ImageError, decode_image
from lens.data.io.image_repair import drop_bad_chunks
from lens.data.io.image_types import image_type

SIDE = 640


def photograph() -> Image.Image:
    """Blurred noise, which fills every part of a file with data."""
    noise = np.random.default_rng(0).integers(0, 256, (SIDE // 16, SIDE // 16, 3), np.uint8)
    return Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def reason_of(content: bytes) -> str:
    with pytest.raises(ImageError) as refused:
        decode_image(content)
    return refused.value.reason


JPEGS = {
    "baseline": encoded(photograph()), "progressive": encoded(photograph(), progressive=True),
    "optimized": encoded(photograph(), optimize=True, subsampling=0),
    "restarts": encoded(photograph(), restart_marker_rows=2),
}  # fmt: skip


@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_without_its_end_mark_has_all_its_pixels(name):
    whole, cut = decode_image(JPEGS[name]), decode_image(JPEGS[name][:-2])
    assert cut.notes == whole.notes == ()
    np.testing.assert_array_equal(np.asarray(cut.image), np.asarray(whole.image))


@pytest.mark.parametrize("name", ["baseline", "optimized", "restarts"])
def test_of_a_jpeg_that_lacks_little_the_rows_that_are_there_are_kept_and_no_others(name):
    whole, cut = decode_image(JPEGS[name]), decode_image(JPEGS[name][: -len(JPEGS[name]) // 100])
    assert cut.notes == ("cut_off",) and SIDE * 0.95 <= cut.image.height < SIDE
    np.testing.assert_array_equal(np.asarray(cut.image), np.asarray(whole.image)[: cut.image.height])


@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize("damage", ["half", "half with an end mark", "zeros inside", "a foreign marker"])
def test_a_jpeg_of_which_half_is_lost_is_corrupt(name, damage):
    content = JPEGS[name]
    middle = len(content) // 2
    damaged = {
        "half": content[:middle], "half with an end mark": content[:middle] + b"\xff\xd9",
        "zeros inside": content[:middle] + bytes(512) + content[middle + 512 :],
        "a foreign marker": content[:middle] + b"\xff\x77" + content[middle + 2 :],
    }[damage]  # fmt: skip
    assert reason_of(damaged) == "corrupt"


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}], ids=str)
@pytest.mark.parametrize("colour", ["white", "black", "teal"])
def test_flat_jpegs_whose_data_is_zeros_are_whole(colour, options):
    picture = decode_image(encoded(Image.new("RGB", (600, 500), colour), **options))
    assert picture.image.size == (600, 500) and picture.notes == ()


def test_a_cut_that_the_camera_turned_is_at_the_side_where_it_is():
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(photograph(), exif=exif)
    cut = decode_image(content[: -len(content) // 100])
    assert cut.image.height == SIDE and cut.image.width < SIDE
    assert set(cut.notes) == {"cut_off", "rotated"}


def chunk(name: bytes, body: bytes, checksum: int | None = None) -> bytes:
    own = zlib.crc32(name + body) if checksum is None else checksum
    return len(body).to_bytes(4) + name + body + own.to_bytes(4)


def test_a_png_is_read_without_the_ancillary_chunk_whose_checksum_is_wrong():
    content = encoded(photograph(), "PNG")
    header, rest = content[:33], content[33:]
    odd = header + chunk(b"pHYs", bytes(9), checksum=1) + chunk(b"gAMA", (45455).to_bytes(4)) + rest
    np.testing.assert_array_equal(np.asarray(decode_image(odd).image), np.asarray(photograph()))
    assert reason_of(content[:29] + b"\0\0\0\0" + rest) == "corrupt", "the header is needed"


ZEROS = zlib.compress(bytes(80 * 2**20))
LARGE_CHUNKS = {
    "a text": [chunk(b"tEXt", b"workflow\0" + bytes(65 * 2**20))],
    "many texts": [chunk(b"tEXt", b"workflow\0" + bytes(2**20))] * 65,
    "a packed text": [chunk(b"zTXt", b"workflow\0\0" + ZEROS)],
    "a packed text of a language": [chunk(b"iTXt", b"workflow\0\x01\0en\0Ablauf\0" + ZEROS)],
    "a profile": [chunk(b"iCCP", b"large\0\0" + ZEROS)],
}  # fmt: skip


@pytest.mark.parametrize("place", ["before the pixels", "behind them"])
@pytest.mark.parametrize("kind", LARGE_CHUNKS)
def test_a_png_is_read_without_the_texts_that_are_too_large_for_its_reader(kind, place):
    content = encoded(photograph(), "PNG")
    start = 33 if place == "before the pixels" else len(content) - 12
    odd = b"".join((content[:start], *LARGE_CHUNKS[kind], content[start:]))
    with pytest.raises(ValueError, match=r"too large|Too much"):
        Image.open(io.BytesIO(odd)).load()
    np.testing.assert_array_equal(np.asarray(decode_image(odd).image), np.asarray(photograph()))


def test_texts_that_a_png_is_read_with_stay():
    content = encoded(photograph(), "PNG")
    packed = zlib.compress(bytes(2**20))
    texts = (
        chunk(b"tEXt", b"a\0b"), chunk(b"zTXt", b"a\0\0" + packed), chunk(b"zTXt", b"a\0\0no zlib"),
        chunk(b"iTXt", b"a\0\x01\0\0\0" + packed), chunk(b"iTXt", b"a\0\0\0\0\0" + packed),
        chunk(b"tEXt", b""), chunk(b"iTXt", b"a"),
    )  # fmt: skip
    odd = b"".join((content[:33], *texts, content[33:]))
    assert drop_bad_chunks(odd) is odd


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "GIF", "WEBP", "BMP", "AVIF"])
@pytest.mark.parametrize("num_bytes", [24, 300])
def test_the_beginning_of_an_image_is_a_damaged_image_of_its_type(kind, num_bytes):
    content = encoded(photograph(), kind)
    assert image_type(content) == kind
    assert reason_of(content[:num_bytes]) == "corrupt"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50), "unsupported_type"),
        (b"8BPS" + bytes(50), "unsupported_type"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(50), "unsupported_type"),
        (b"P6 3 2 255 " + bytes(18), "unsupported_type"),
        (b"<!DOCTYPE html>", "unknown_type"), (b"BM, the car maker", "unknown_type"), (b"", "empty"),
    ],
    ids=["JPEG 2000", "Photoshop", "camera raw", "PPM", "a page", "a text", "nothing"],
)  # fmt: skip
def test_other_types_are_told_from_what_is_no_image(content, reason):
    assert reason_of(content) == reason


def test_the_preview_in_a_camera_raw_file_is_not_the_image():
    assert reason_of(encoded(photograph(), "TIFF", tiffinfo={254: 1})) == "unsupported_type"


@pytest.mark.parametrize("kind", PLUGINS)
def test_further_types_are_decoded_by_plugins_and_damaged_ones_are_corrupt(kind):
    import pillow_heif
    import pillow_jxl  # noqa: F401 - registers itself

    pillow_heif.register_heif_opener()
    content = encoded(photograph(), kind)
    picture = decode_image(content)
    assert picture.format == kind
    assert np.abs(np.asarray(picture.image, float) - np.asarray(photograph(), float)).mean() < 8
    assert reason_of(content[: len(content) // 2]) == "corrupt"


def test_a_container_is_told_by_its_compatible_brands_where_its_main_one_is_general_or_damaged():
    assert image_type(b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf") == "AVIF"
    assert image_type(b"\0\0\0\x1cft??heXc\0\0\0\0mif1heicmiaf") == "HEIF"
    assert image_type(b"how to convert heic and avif to jpeg") == ""
