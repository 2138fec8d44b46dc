"""Sizes: the published buckets, the rule for others, and what each kind of request means or is told."""

import subprocess
import sys

import pytest

from lens.core.resolution import ASPECT_RATIOS, RESOLUTION_BUCKETS, SizeWords, buckets_for, resolve_resolution
from lens.errors import SettingError

PUBLISHED = {
    1024: [(1472, 736), (1376, 768), (1248, 832), (1152, 864), (1024, 1024),
           (864, 1152), (832, 1248), (768, 1376), (736, 1472)],
    1440: [(2080, 1040), (1936, 1088), (1760, 1168), (1616, 1216), (1440, 1440),
           (1216, 1616), (1168, 1760), (1088, 1936), (1040, 2080)],
    512: [(704, 352), (672, 384), (640, 416), (608, 448), (512, 512),
          (448, 608), (416, 640), (384, 672), (352, 704)],
    768: [(1088, 544), (1024, 576), (960, 640), (896, 672), (768, 768),
          (672, 896), (640, 960), (576, 1024), (544, 1088)],
}  # fmt: skip
RATIOS = ["1:2", "9:16", "2:3", "3:4", "1:1", "4:3", "3:2", "16:9", "2:1"]


def test_the_buckets_are_the_published_ones():
    assert list(ASPECT_RATIOS) == RATIOS
    assert {base: list(sizes.values()) for base, sizes in RESOLUTION_BUCKETS.items()} == PUBLISHED
    assert all(list(sizes) == RATIOS for sizes in RESOLUTION_BUCKETS.values())


def test_the_nano_bases_follow_the_rule():
    assert buckets_for(128) == {
        "1:2": (176, 96), "9:16": (176, 96), "2:3": (160, 112), "3:4": (144, 112), "1:1": (128, 128),
        "4:3": (112, 144), "3:2": (112, 160), "16:9": (96, 176), "2:1": (96, 176),
    }  # fmt: skip
    assert buckets_for(192)["2:1"] == (128, 272)
    assert buckets_for(256)["1:1"] == (256, 256)


def test_changing_a_returned_table_does_not_change_the_published_one():
    buckets_for(1024)["1:1"] = (16, 16)
    assert buckets_for(1024)["1:1"] == (1024, 1024)


def test_requests_mean_what_they_say():
    assert resolve_resolution() == (1024, 1024)
    assert resolve_resolution(default_base=128) == (128, 128)
    assert resolve_resolution(aspect_ratio="16:9") == (768, 1376)
    assert resolve_resolution(base_resolution=1440, aspect_ratio="1:2") == (2080, 1040)
    assert resolve_resolution(base_resolution=192) == (192, 192)
    assert resolve_resolution(height=640, width=1008) == (640, 1008)
    assert resolve_resolution(768, 1376, 1024, "16:9") == (768, 1376)


def test_every_named_size_can_also_be_given_as_height_and_width():
    for base in (128, 192, 256, 512, 768, 1024, 1440):
        for height, width in buckets_for(base).values():
            assert resolve_resolution(height, width) == (height, width)


def message_of(**request) -> str:
    with pytest.raises(SettingError) as caught:
        resolve_resolution(**request)
    return str(caught.value)


def test_a_side_that_is_not_a_multiple_of_16_is_refused_with_the_nearest_valid_ones():
    assert message_of(height=1000, width=512) == (
        "height is 1000, but it needs a positive multiple of 16. The nearest valid height is 992 or 1008."
    )
    assert message_of(height=512, width=7).endswith("The nearest valid width is 16.")
    assert message_of(height=-16, width=512).endswith("The nearest valid height is 16.")


def test_a_ratio_beyond_2_to_1_is_refused_with_the_limits_and_how_to_override_them():
    message = message_of(height=512, width=1040)
    assert message.startswith("size is '1040x512', but it needs an aspect ratio from 1:2 to 2:1.")
    assert message.endswith("To generate it anyway, pass allow_extreme=True; expect poorer images.")
    assert resolve_resolution(height=512, width=1040, allow_extreme=True) == (512, 1040)


def test_an_area_beyond_1440_squared_is_refused_with_the_limit_and_how_to_override_it():
    message = message_of(height=1456, width=1440)
    assert "an area of at most 1440 x 1440" in message and "allow_extreme=True" in message
    assert resolve_resolution(height=1456, width=1440, allow_extreme=True) == (1456, 1440)
    assert "an area of at most" in message_of(base_resolution=2048)


def test_the_error_of_an_unknown_ratio_lists_all_nine():
    assert message_of(aspect_ratio="5:4").startswith(
        "aspect_ratio is '5:4', but it needs one of 1:2, 9:16, 2:3, 3:4, 1:1, 4:3, 3:2, 16:9, 2:1."
    )


def test_half_a_size_and_a_contradiction_are_refused():
    assert message_of(width=512) == (
        "height is None, but it needs a number, as width 512 is given. Give both or neither."
    )
    assert "it needs to be 1376x768" in message_of(height=512, width=512, aspect_ratio="16:9")


@pytest.mark.parametrize(
    "values",
    [{"height": 100, "width": 96}, {"height": 96, "width": 8}, {"aspect_ratio": "21:9"},
     {"base_resolution": 9}, {"height": 64, "width": 640}, {"height": 1456, "width": 1456},
     {"height": 64, "width": 64, "aspect_ratio": "2:1"}],
)  # fmt: skip
def test_errors_speak_only_in_the_words_of_their_surface(values):
    words = SizeWords("", "", "--size", "--base", "--ratio", "give --size WIDTHxHEIGHT", "")
    message = message_of(**values, words=words)
    assert message.startswith(("--size is", "--base is", "--ratio is"))
    assert not any(name in message for name in ("allow", "aspect_ratio", "base_resolution", "give height"))


@pytest.mark.parametrize("base", [0, -16, 1000])
def test_a_base_that_fits_no_patch_is_refused(base):
    assert "a positive multiple of 16" in message_of(base_resolution=base)


def test_resolutions_need_no_torch():
    code = "import sys, lens.core.resolution; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
