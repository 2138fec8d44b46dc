"""`lens generate --cache`: other pixels than without, recorded for --like, a warning where it is useless."""

from typing import get_args

import numpy as np
import pytest
from PIL import Image

from lens.cli.arguments import CacheName
from lens.models.step_cache import CACHES
from lens.sampling.image_metadata import read_image_metadata


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_the_names_of_the_option_are_those_of_the_caches():
    assert set(get_args(CacheName)) == {"none", *CACHES}


@pytest.mark.parametrize("name", CACHES)
def test_an_image_with_a_cache_is_found_again_and_its_cache_can_be_left_out(lens, tiny_model, tmp_path, name):
    request = ["a fox", "--model", tiny_model, "--steps", 12, "--cfg", 2, "--seed", 0]
    plain = pixels(lens("generate", *request, "--out", "plain.png").out.strip())
    first = lens("generate", *request, "--cache", name, "--out", "first.png")
    assert (first.status, first.err) == (0, "")
    assert read_image_metadata(tmp_path / "first.png").cache == name
    again = lens("generate", "--like", "first.png", "--out", "again.png")
    assert (pixels(again.out.strip()) == pixels("first.png")).all()
    without = lens("generate", "--like", "first.png", "--cache", "none", "--out", "without.png")
    assert (pixels(without.out.strip()) == plain).all()
    if name != "first-block":  # the first blocks of random weights change too much for it
        assert (pixels("first.png") != plain).any()


def test_few_steps_are_told_to_save_nothing(lens, tiny_model):
    ran = lens("generate", "a fox", "--model", tiny_model, "--steps", 4, "--cache", "taylorseer")
    assert ran.status == 0 and "--cache taylorseer saves next to nothing at 4 steps" in ran.err
