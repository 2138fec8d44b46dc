"""Bytes are decoded to images or rejected with the reason; every conversion is noted."""

import io

import numpy as np
import pytest
from PIL import Image

from lens.core import images
from lens.data.io import image_decoding
from lens.data.io.image_decoding import ImageError, decode_image, decode_thumbnail, sample_id


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(height: int = 30, width: int = 40, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def test_a_sample_is_named_by_its_bytes():
    # The first example of FIPS 180-2.
    assert sample_id(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_images_decode_to_the_same_pixels(kind):
    picture = decode_image(encoded(Image.fromarray(noise()), kind))
    np.testing.assert_array_equal(np.asarray(picture.image), noise())
    assert (picture.format, picture.notes) == (kind, ())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"<html>404</html>", "unknown_type"),
        (encoded(Image.fromarray(noise(300, 400)), "JPEG")[:-2000], "corrupt"),
        (encoded(Image.fromarray(noise(300, 400)))[:5000], "corrupt"),
        (encoded(Image.new("1", (5000, 4000))), "bomb"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "unknown_type"),
    ],
    ids=["nothing", "a page", "half a jpeg", "half a png", "a bomb", "a program"],
)
def test_bytes_that_are_not_an_image_are_rejected_with_the_reason(content, reason):
    with pytest.raises(ImageError) as refused:
        decode_image(content, max_pixels=10_000_000)
    assert refused.value.reason == reason


def test_an_image_rotated_by_its_camera_is_upright():
    upright = Image.fromarray(noise())
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter, clockwise
    picture = decode_image(encoded(upright.transpose(Image.Transpose.ROTATE_90), exif=exif))
    assert picture.notes == ("rotated",)
    np.testing.assert_array_equal(np.asarray(picture.image), noise())


def test_transparency_lies_on_white_and_an_opaque_alpha_channel_is_no_transparency():
    layered = np.dstack([noise(), np.full((30, 40), 255, np.uint8)])
    assert decode_image(encoded(Image.fromarray(layered))).notes == ()
    layered[:10, :, 3] = 0
    picture = decode_image(encoded(Image.fromarray(layered)))
    assert picture.notes == ("alpha",)
    pixels = np.asarray(picture.image)
    assert (pixels[:10] == 255).all()
    np.testing.assert_array_equal(pixels[10:], noise()[10:])


def on_white(layered: Image.Image) -> np.ndarray:
    """Each pixel blended alone: colour times alpha, white for the rest."""
    pixels = np.asarray(layered.convert("RGBA")).astype(np.float64)
    alpha = pixels[..., 3:] / 255
    return pixels[..., :3] * alpha + 255 * (1 - alpha)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "P with one clear colour", "L with one clear shade"])
def test_every_kind_of_transparency_is_blended_pixel_by_pixel_across_strips(mode, monkeypatch):
    monkeypatch.setattr(images, "STRIP_PIXELS", 7 * 40)
    colours, clear = noise(channels=1)[..., 0] % 5, {"transparency": 3}
    if mode in ("RGBA", "LA"):
        image, options = Image.fromarray(noise(channels=len(mode))), {}
    elif mode.startswith("P"):
        image = Image.fromarray(colours, "P")
        image.putpalette([9, 8, 7, 60, 200, 90, 0, 0, 255, 250, 3, 120, 31, 32, 33])
        options = {"transparency": bytes([255, 0, 130])} if mode == "P" else clear
    else:
        image, options = Image.fromarray(colours), clear
    content = encoded(image, **options)
    picture = decode_image(content)
    assert picture.notes == ("alpha",)
    with Image.open(io.BytesIO(content)) as opened:
        np.testing.assert_allclose(np.asarray(picture.image), on_white(opened), atol=1)


def test_a_palette_whose_clear_colour_is_not_used_is_opaque():
    image = Image.fromarray(noise(channels=1)[..., 0] % 2, "P")
    image.putpalette([9, 8, 7, 60, 200, 90, 0, 0, 255])
    assert decode_image(encoded(image, transparency=2)).notes == ("palette",)


def test_sixteen_bits_are_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)
    picture = decode_image(encoded(Image.fromarray(np.tile(ramp, (4, 1)))))
    assert picture.notes == ("deep", "grey")
    np.testing.assert_array_equal(np.asarray(picture.image)[0, :, 0], np.arange(256))


def test_a_thumbnail_has_the_colours_of_its_image_and_a_jpeg_is_decoded_at_an_eighth(monkeypatch):
    large = Image.fromarray(noise(16, 24)).resize((2400, 1600), Image.Resampling.BICUBIC)
    expected = np.asarray(large.resize((96, 64), Image.Resampling.BOX)).astype(int)
    decoded = []

    def recorded(image: Image.Image) -> images.SrgbImage:
        decoded.append(image.size)
        return images.to_srgb(image)

    monkeypatch.setattr(image_decoding, "to_srgb", recorded)
    for kind in ("JPEG", "PNG"):
        small = decode_thumbnail(encoded(large, kind), 96)
        assert small.size == (96, 64)
        assert np.abs(np.asarray(small) - expected).mean() < 4
    assert decoded == [(300, 200), (2400, 1600)]


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue", "green")]
    picture = decode_image(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert "animated" in picture.notes
    assert picture.image.getpixel((3, 3)) == (255, 0, 0)


@pytest.mark.parametrize(("mode", "note"), [("CMYK", "cmyk"), ("L", "grey"), ("P", "palette")])
def test_other_modes_become_rgb_and_are_noted(mode, note):
    kind = "TIFF" if mode == "CMYK" else "PNG"
    picture = decode_image(encoded(Image.new("RGB", (7, 5), (200, 100, 50)).convert(mode), kind))
    assert picture.image.mode == "RGB" and picture.notes == (note,)
