"""The data engine, training, the command, the pipeline and the API see the same pixels in a file."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image, ImageCms
from png_files import DISPLAY_P3, with_colour_codes

from lens.data.image_text_dataset import ImageTextSettings, image_text_samples
from lens.data.io.image_decoding import ImageError, decode_image
from lens.errors import LensError
from lens.sampling.image_metadata import open_mask, open_source_image
from lens.sampling.image_processor import load_images, load_mask_images
from lens.serve.api.uploads import store_source_images
from lens.serve.storage.server_state import UploadStore

SIDE = 64


def odd_profile() -> bytes:
    """Return a profile that no RGB image can have."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()


def picture(kind: str) -> tuple[Image.Image, dict]:
    """Return an image of a kind that readers used to see in different ways, and how it is saved."""
    levels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "rotated": (Image.fromarray(levels[..., :3]), {"exif": exif}),
        "alpha": (Image.fromarray(levels), {}),
        "one clear colour": (Image.fromarray(levels[..., :3] // 128 * 255), {"transparency": (0, 0, 0)}),
        "dark 16 bits": (Image.fromarray(levels[..., 0].astype(np.uint16)), {}),
        "clear 16 bits": (Image.fromarray(levels[..., 0] // 64 * np.uint16(9000)), {"transparency": 0}),
        "odd profile": (Image.fromarray(levels[..., :3]), {"icc_profile": odd_profile()}),
        "colour codes": (Image.fromarray(levels[..., :3]), {}),
    }[kind]


KINDS = (
    "rotated", "alpha", "one clear colour", "dark 16 bits", "clear 16 bits", "odd profile", "colour codes",
)  # fmt: skip


@pytest.fixture(params=KINDS)
def file(request, tmp_path) -> Path:
    image, options = picture(request.param)
    path = tmp_path / "images" / "a.png"
    path.parent.mkdir()
    image.save(path, **options)
    if request.param == "colour codes":
        path.write_bytes(with_colour_codes(path.read_bytes(), DISPLAY_P3))
    path.with_suffix(".txt").write_text("a square")
    return path


def test_all_readers_see_the_same_pixels(file, tmp_path):
    uploads = UploadStore(tmp_path)
    stored = store_source_images(uploads, file.read_bytes(), None, 10**6, 64).image
    assert stored is not None
    (sample,) = image_text_samples(ImageTextSettings.of({"folder": file.parent, "bases": [SIDE]}))
    seen = {
        "data engine": decode_image(file.read_bytes()).image,
        "training": sample.image,
        "command": open_source_image(file),
        "pipeline, a path": load_images(file)[0],
        "pipeline, an image": load_images(Image.open(io.BytesIO(file.read_bytes())))[0],
        "API": Image.open(stored),
    }
    first = np.asarray(seen["data engine"])
    assert first.shape == (SIDE, SIDE, 3)
    for reader, image in seen.items():
        assert image.mode == "RGB", reader
        np.testing.assert_array_equal(np.asarray(image), first, err_msg=reader)


def test_the_transparent_colour_of_a_mask_is_drawn_anew_in_each_of_its_forms(tmp_path):
    image = Image.new("RGB", (4, 4), "green")
    halves = np.zeros((4, 4), np.uint8)
    halves[:, 2:] = 9
    layered = np.dstack([np.zeros((4, 4, 3), np.uint8), np.where(halves == 9, 0, 255).astype(np.uint8)])
    forms = [
        (Image.fromarray(layered), {}),
        (Image.fromarray(halves), {"transparency": 9}),
        (Image.fromarray(np.dstack([halves] * 3)), {"transparency": (9, 9, 9)}),
        (Image.fromarray(halves.astype(np.uint16)), {"transparency": 9}),
        (Image.fromarray((halves > 0).astype(np.uint16) * np.uint16(65535)), {}),
        (Image.fromarray(np.dstack([(halves > 0) * 255, np.full_like(halves, 254)]).astype(np.uint8)), {}),
    ]
    for mask, options in forms:
        files = saved(image), saved(mask, **options)
        (tmp_path / "mask.png").write_bytes(files[1])
        stored = store_source_images(UploadStore(tmp_path), *files, 10**6, 64).mask
        assert stored is not None
        seen = {
            "API": Image.open(stored),
            "command": open_mask(tmp_path / "mask.png"),
            "pipeline, a path": load_mask_images(tmp_path / "mask.png")[0],
            "pipeline, an image": load_mask_images(Image.open(tmp_path / "mask.png"))[0],
        }
        for reader, kept in seen.items():
            assert [kept.getpixel((x, 1)) for x in range(4)] == [0, 0, 255, 255], (reader, mask.mode)


def test_arrays_with_an_alpha_channel_are_read_as_files_are():
    layered = np.dstack([np.zeros((4, 6, 3), np.uint8), np.full((4, 6), 255, np.uint8)])
    layered[:, 3:, 3] = 0
    for form in (layered, layered / 255, torch.from_numpy(layered).permute(2, 0, 1)):
        (image,) = load_images(form)
        assert [image.getpixel((x, 1)) for x in (2, 3)] == [(0, 0, 0), (255, 255, 255)]
    for form in (layered, layered / 255):
        (mask,) = load_mask_images(form)
        assert [mask.getpixel((x, 1)) for x in (2, 3)] == [0, 255]


def saved(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def test_no_reader_runs_the_program_that_an_eps_file_is(tmp_path, monkeypatch):
    path, has_run = tmp_path / "a.png", []
    Image.new("RGB", (SIDE, SIDE)).save(path, "EPS")
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *values, **options: has_run.append(values))
    for read in (open_source_image, load_images):
        with pytest.raises(LensError, match="EPS is a program"):
            read(path)
    with pytest.raises(ImageError, match="unknown_type"):
        decode_image(path.read_bytes())
    assert not has_run
