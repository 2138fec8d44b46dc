"""Images fill the bucket of the nearest ratio, enlarged by 2% at most, and the crop is measured."""

import numpy as np
import pytest
from PIL import Image

from lens.core.resolution import buckets_for
from lens.data.buckets import TRAINING_BASES, best_fit, resize_and_crop


@pytest.mark.parametrize("base", TRAINING_BASES)
def test_an_image_of_the_size_of_a_bucket_fills_it(base):
    for ratio, (height, width) in buckets_for(base).items():
        fit = best_fit(height, width)
        assert (fit.base, fit.ratio, fit.scale, fit.crop_fraction) == (base, ratio, 1.0, 0.0)


def test_a_large_image_goes_to_the_largest_base_and_a_small_one_to_the_largest_it_fills():
    assert best_fit(4000, 6000)[:2] == (1024, "3:2")
    assert best_fit(900, 1000)[:2] == (768, "1:1")
    assert best_fit(520, 530)[:2] == (512, "1:1")
    assert best_fit(384, 384) is None


def test_an_image_that_lacks_a_few_pixels_fills_its_bucket_and_one_that_lacks_more_does_not():
    assert best_fit(511, 512)[:2] == (512, "1:1")
    assert best_fit(1023, 1024)[:2] == (1024, "1:1")
    assert best_fit(502, 502)[:2] == (512, "1:1")  # by 1.992%
    assert best_fit(501, 501) is None  # by 2.196%
    small = Image.fromarray(np.full((511, 512, 3), 90, np.uint8))
    assert np.asarray(resize_and_crop(small, best_fit(511, 512))).shape == (512, 512, 3)


def test_nothing_is_enlarged_by_more_and_the_share_that_is_cut_is_right():
    rng = np.random.default_rng(0)
    for height, width in rng.integers(300, 3000, (200, 2)).tolist():
        fit = best_fit(height, width)
        if fit is None:
            continue
        assert fit.scale <= 1.02
        kept = fit.height_px * fit.width_px / fit.scale**2
        assert fit.crop_fraction == pytest.approx(1 - kept / (height * width), abs=1e-9)
        assert 0 <= fit.crop_fraction < 1


def test_images_are_cropped_at_their_centre():
    stripes = np.zeros((600, 1400, 3), np.uint8)
    stripes[:, 500:900] = 255
    fit = best_fit(600, 1400)
    pixels = np.asarray(resize_and_crop(Image.fromarray(stripes), fit))
    assert pixels.shape == (fit.height_px, fit.width_px, 3)
    columns = np.flatnonzero(pixels[fit.height_px // 2, :, 0] > 127)
    assert columns.mean() == pytest.approx((fit.width_px - 1) / 2, abs=0.5)
    assert len(columns) == pytest.approx(400 * fit.scale, abs=1)


def test_sizes_whose_box_would_stick_out_by_rounding_are_filled_all_the_same():
    for height in range(277, 290):
        fit = best_fit(height, 365, (256,))
        assert resize_and_crop(Image.new("RGB", (365, height)), fit).size == (fit.width_px, fit.height_px)
