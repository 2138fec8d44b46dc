"""Pixel scores of images with known answers."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from lens.data.build.dedup import pairs_by_detail
from lens.data.scorers.pixel_stats import (
    SHORT_SIDE_PX,
    clarity,
    entropy,
    luminance,
    perceptual_hash,
    pixel_scores,
    resize_to_common_scale,
)
from lens.nano.world.scenes import draw_scene, random_scene


def scene(seed: int, height: int = 128, width: int = 176) -> Image.Image:
    pixels = draw_scene(random_scene(np.random.default_rng(seed), height, width)).transpose(1, 2, 0)
    return Image.fromarray(((pixels + 1) * 127.5).round().astype(np.uint8))


def bits_apart(one: Image.Image, other: Image.Image) -> int:
    return (perceptual_hash(one) ^ perceptual_hash(other)).bit_count()


def test_clarity_is_the_variance_of_the_laplacian():
    grey = np.random.default_rng(0).integers(0, 256, (7, 9), dtype=np.uint8)
    padded = grey.astype(float)
    slow = [
        padded[y - 1, x] + padded[y + 1, x] + padded[y, x - 1] + padded[y, x + 1] - 4 * padded[y, x]
        for y in range(1, 6)
        for x in range(1, 8)
    ]
    assert clarity(grey) == pytest.approx(np.var(slow))
    assert clarity(np.full((2, 50), 7, np.uint8)) == 0


def test_the_more_an_image_is_blurred_the_lower_is_its_clarity():
    sharp = scene(0, 384, 512)
    found = [
        pixel_scores(sharp.filter(ImageFilter.GaussianBlur(radius))).clarity for radius in (0, 1, 2, 4, 8)
    ]
    assert found == sorted(found, reverse=True)
    assert found[0] > 20 * found[-1]


def test_clarity_does_not_depend_on_how_large_an_image_is():
    large = scene(1, 1152, 1536)
    small = large.resize((512, 384), Image.Resampling.BOX)
    assert pixel_scores(large).clarity == pytest.approx(pixel_scores(small).clarity, rel=0.05)


def test_entropy_counts_bits():
    two, all_shades = np.array([[0, 255], [255, 0]], np.uint8), np.arange(256, dtype=np.uint8).reshape(8, 32)
    assert entropy(Image.new("L", (5, 7), 90)) == 0
    assert entropy(Image.fromarray(two)) == pytest.approx(1)
    assert entropy(Image.fromarray(all_shades)) == pytest.approx(8)


@pytest.mark.parametrize(
    ("colour", "value"), [((0, 0, 0), 0.0), ((255, 255, 255), 1.0), ((255, 0, 0), 1.0), ((51, 102, 25), 0.4)]
)
def test_luminance_is_the_mean_of_the_brightest_channel(colour, value):
    assert luminance(Image.new("RGB", (5, 3), colour)) == pytest.approx(value)


def test_copies_share_their_hash_and_other_images_do_not():
    for seed in range(12):
        picture, buffer = scene(seed), io.BytesIO()
        picture.save(buffer, "JPEG", quality=40)
        copies = [Image.open(buffer), picture.resize((88, 64)), picture.resize((500, 400))]
        assert max(bits_apart(picture, copy.convert("RGB")) for copy in copies) <= 6
    others = [bits_apart(scene(one), scene(other)) for one in range(12) for other in range(one)]
    assert np.median(others) > 20


def test_the_small_version_has_one_scale_and_nothing_is_enlarged():
    assert resize_to_common_scale(Image.new("L", (1000, 500))).size == (2 * SHORT_SIDE_PX, SHORT_SIDE_PX)
    assert resize_to_common_scale(Image.new("L", (20, 40))).size == (20, 40), "nothing is enlarged"
    assert resize_to_common_scale(Image.new("L", (30000, 2))).size == (30000, 2)


def test_the_detail_hash_survives_scaling_and_compression_and_tells_layouts_apart():
    def like(one: Image.Image, other: Image.Image) -> bool:
        pair = np.frombuffer(pixel_scores(one).detail_hash + pixel_scores(other).detail_hash, np.uint64)
        same, details = np.zeros(2, np.uint64), pair.reshape(2, 16, -1)
        return len(pairs_by_detail(same, details, 0)) == 1

    for seed in range(4):
        image, buffer = scene(seed, 384, 512), io.BytesIO()
        image.resize((256, 192), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=40)
        assert like(image, Image.open(buffer).convert("RGB"))
        assert not like(image, scene(seed + 10, 384, 512))
    assert like(Image.new("RGB", (64, 64), "red"), Image.new("RGB", (64, 64), "blue"))  # no detail at all
