"""Images in and out: bytes survive the way through, bad input is named."""

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image

from lens.errors import SettingError
from lens.sampling import image_processor

OUTPUT = VaeImageProcessor()
"""What the pipeline makes images of pixels with."""


def speckled(width, height, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def test_bytes_round_trip_through_pixels():
    image = speckled(48, 32)
    (back,) = OUTPUT.postprocess(image_processor.to_pixels([image]), "pil")
    assert np.array_equal(np.asarray(back), np.asarray(image))


def test_every_byte_value_survives():
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (2, 1, 3)))
    (back,) = OUTPUT.postprocess(image_processor.to_pixels([ramp]), "pil")
    assert np.array_equal(np.asarray(back), np.asarray(ramp))


def test_output_types_agree():
    pixels = image_processor.to_pixels([speckled(48, 32), speckled(48, 32, seed=1)])
    as_np, as_pt = OUTPUT.postprocess(pixels, "np"), OUTPUT.postprocess(pixels, "pt")
    assert as_np.shape == (2, 32, 48, 3) and as_pt.shape == (2, 3, 32, 48)
    assert np.array_equal(as_np, as_pt.permute(0, 2, 3, 1).numpy())
    assert as_np.min() >= 0 and as_np.max() <= 1


def test_paths_arrays_and_tensors_load_as_the_same_image(tmp_path):
    image = speckled(7, 5)
    array = np.asarray(image)
    image.save(tmp_path / "it.png")
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    same = [tmp_path / "it.png", str(tmp_path / "it.png"), image, array, array / 255, tensor, tensor / 255]
    for form in same:
        (loaded,) = image_processor.load_images(form)
        assert np.array_equal(np.asarray(loaded), array), type(form)
    assert len(image_processor.load_images(np.stack([array, array]))) == 2


def test_an_array_of_16_bits_is_scaled_and_does_not_wrap():
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    (loaded,) = image_processor.load_images(ramp)
    np.testing.assert_array_equal(np.asarray(loaded)[..., 0], ramp // 257)


def test_transparency_is_composed_on_white():
    clear = Image.new("RGBA", (4, 3), (255, 0, 0, 0))
    (loaded,) = image_processor.load_images(clear)
    assert loaded.mode == "RGB" and loaded.getpixel((1, 1)) == (255, 255, 255)


def test_the_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    speckled(8, 4).save(tmp_path / "turned.jpg", exif=exif)
    (loaded,) = image_processor.load_images(tmp_path / "turned.jpg")
    assert loaded.size == (4, 8)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("nowhere.png", "nowhere.png', but it needs a readable image"),
        (np.full((4, 4, 3), 2.0), "values in \\[0, 1\\]"),
        (np.full((4, 4, 3), np.nan), "values in \\[0, 1\\]"),
        (np.zeros((4, 4, 7)), "the shape \\(height, width, 3\\)"),
        (np.full((4, 4, 3), 300), "int64 from 300 to 300', but it needs values in 0..255"),
        (np.full((4, 4, 3), -1, np.int8), "values in 0..255"),
        ([], "at least one image"),
        (object(), "a path, a PIL image, an array or a tensor"),
    ],
)
def test_input_that_is_not_an_image_is_refused(image, message):
    with pytest.raises(SettingError, match=message):
        image_processor.load_images(image)


def test_a_file_that_is_not_an_image_is_refused_by_name(tmp_path):
    (tmp_path / "note.png").write_text("not an image")
    with pytest.raises(SettingError, match=r"note\.png"):
        image_processor.load_images(tmp_path / "note.png")


def test_a_truncated_file_is_refused(tmp_path):
    speckled(64, 64).save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SettingError, match=r"cut\.png"):
        image_processor.load_images(tmp_path / "cut.png")


@pytest.mark.parametrize(
    ("size", "base", "expected"),
    [
        ((1024, 768), 1024, (768, 1024)),
        ((1030, 777), 1024, (768, 1024)),
        ((4000, 3000), 1024, (880, 1168)),
        ((128, 128), 128, (128, 128)),
        ((1024, 1024), 128, (128, 128)),
        ((900, 100), 1024, (96, 192)),
        ((5, 5), 1024, (16, 16)),
        ((1024, 768), 128, (112, 144)),
        ((600, 400), 128, (96, 144)),
    ],
)
def test_a_source_image_sets_the_size_within_the_range_of_the_model(size, base, expected):
    assert image_processor.size_from_image(speckled(*size), base) == expected


def test_resizing_covers_the_size_and_leaves_an_image_of_that_size_unchanged():
    image = speckled(64, 48)
    assert image_processor.resize_to_cover(image, 48, 64) is image
    assert image_processor.resize_to_cover(image, 32, 32).size == (32, 32)


def test_a_cell_is_redrawn_if_the_mask_touches_one_pixel_of_it():
    mask = torch.zeros(1, 1, 32, 48)
    mask[0, 0, 16, 47] = 0.01
    assert image_processor.latent_mask(mask, 2, 3).flatten().tolist() == [False] * 5 + [True]


def test_white_is_redrawn_in_every_input_type_of_a_mask():
    half = np.zeros((32, 48), dtype=np.uint8)
    half[:, 24:] = 255
    expected = torch.from_numpy(half / 255).float()
    for form in (Image.fromarray(half), half, half / 255, half > 0, torch.from_numpy(half)[None]):
        masks = image_processor.mask_pixels(image_processor.load_mask_images(form))
        assert masks.shape == (1, 1, 32, 48)
        torch.testing.assert_close(masks[0, 0], expected)
