"""What the command tells of a request that it draws all the same, and of prompts that it refuses at once."""

import numpy as np
import pytest
from PIL import Image
from png_files import HDR, with_colour_codes

NOT_A_MODEL = ("--model", "nowhere")
"""A model that cannot be loaded: what is refused with it is refused before anything is loaded."""


@pytest.fixture
def told(lens, tiny_model, tmp_path):
    """Return the lines on stderr of a call that draws an image in one step."""
    Image.new("RGB", (96, 64), "red").save(tmp_path / "wide.png")
    for name, level in (("black", 0), ("white", 255)):
        Image.new("L", (96, 64), level).save(tmp_path / f"{name}.png")
    half = np.zeros((64, 96), np.uint8)
    half[:, 48:] = 255
    Image.fromarray(half).save(tmp_path / "half.png")
    Image.fromarray(half.T).save(tmp_path / "tall.png")
    (tmp_path / "hdr.png").write_bytes(with_colour_codes((tmp_path / "wide.png").read_bytes(), HDR))

    def call(*arguments):
        fixed = ("--model", tiny_model, "--seed", 0, "--steps", 1, "--cfg", 2)
        ran = lens("generate", "a fox", *fixed, *arguments)
        assert (ran.status, ran.out.count("\n")) == (0, 1), ran.err
        return ran.err.splitlines()

    return call


WIDE = ("--init-image", "wide.png")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--negative", "fog", "--cfg", 1), "The negative prompt has no effect at guidance 1."),
        (("--strength", 0.5), "The strength has no effect without a source image."),
        (("--upscale-strength", 0.5), "The upscale strength has no effect without upscaling."),
        (("--solver", "ab2"), "The solver ab2 has no effect on one step"),
        ((*WIDE, "--strength", 1), "At strength 1 the source image decides the size alone."),
        ((*WIDE, "--size", "64x64"), "33% of its width is cut off"),
        ((*WIDE, "--aspect-ratio", "1:1"), "33% of its width is cut off"),
        (("--init-image", "hdr.png"), "The source image has colours of HDR, or others"),
        ((*WIDE, "--mask", "white.png"), "The mask keeps nothing"),
        ((*WIDE, "--mask", "black.png"), "The mask redraws nothing"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_what_has_no_effect_or_is_cut_is_one_line_and_the_image_is_drawn(told, arguments, words):
    (line,) = told(*arguments)
    assert line.startswith("lens: ") and words in line


@pytest.mark.parametrize("arguments", [(), WIDE, (*WIDE, "--mask", "half.png")])
def test_an_image_takes_the_shape_of_its_source_and_what_acts_is_not_told(told, arguments):
    assert told(*arguments) == []


def test_a_mask_of_another_shape_than_its_image_is_refused(lens, tiny_model, told):
    ran = lens("generate", "a fox", "--model", tiny_model, *WIDE, "--mask", "tall.png")
    assert "--mask is '64x96', but it needs the shape of the image, 96x64" in ran.error_line


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a \udcff fox", "text in UTF-8"),
        ("a \ud83d fox", "text in UTF-8"),
        ("a fox\0", "text without NUL characters"),
        ("a fox " * 6000, "at most 32000 characters"),
    ],
    ids=["bytes", "half a pair", "NUL", "long"],
)
def test_a_prompt_that_no_model_reads_is_refused_before_anything_is_loaded(lens, tmp_path, prompt, words):
    as_prompt = lens("generate", prompt, *NOT_A_MODEL).error_line
    assert as_prompt.startswith("lens: the prompt is ") and words in as_prompt
    as_negative = lens("generate", "a fox", "--negative", prompt, *NOT_A_MODEL).error_line
    assert as_negative.startswith("lens: --negative is ") and words in as_negative
    assert "nowhere" not in lens("generate", *NOT_A_MODEL, stdin=f"a cat\n{prompt}\n").error_line
    assert len(as_prompt) < 400


def test_bytes_that_are_not_utf_8_end_a_process_without_a_traceback(process):
    assert "text in UTF-8" in process("generate", "a \udcff fox", *NOT_A_MODEL).error_line
