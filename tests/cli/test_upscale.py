"""`lens generate --upscale` draws an image again at a larger size, from its own latents."""

import json

import numpy as np
import pytest
from PIL import Image

from lens.sampling.image_metadata import read_image_metadata

REQUEST = ["a fox", "--size", "48x32", "--seed", 3, "--steps", 4, "--cfg", 2]


def pixels(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def draw(lens, tiny_model):
    """Draw with the tiny model; return the pixels."""

    def run(name, *options):
        ran = lens("generate", *REQUEST, "--model", tiny_model, *options, "--out", name)
        assert (ran.status, ran.err) == (0, ""), ran
        return pixels(name)

    return run


def test_an_upscaled_image_is_larger_and_found_again(draw, lens, tiny_model, tmp_path):
    drawn = draw("larger.png", "--upscale", 2)
    assert drawn.shape == (64, 96, 3)
    metadata = read_image_metadata(tmp_path / "larger.png")
    assert (metadata.width, metadata.height, metadata.upscale, metadata.upscale_strength) == (96, 64, 2, 0.5)
    assert "Size: 48x32" in metadata.parameters() and "Hires upscale: 2" in metadata.parameters()
    assert lens("generate", "--like", "larger.png", "--out", "again.png").status == 0
    assert (pixels("again.png") == drawn).all()
    row = lens("generate", *REQUEST, "--model", tiny_model, "--upscale", 2, "--json").out
    (tmp_path / "row.jsonl").write_text(row)
    ran = lens("generate", "--from-file", "row.jsonl", "--json")
    assert (pixels(json.loads(ran.out)["path"]) == drawn).all()


def test_with_little_noise_it_is_the_image_of_the_resized_latents_and_the_strength_decides(draw, tiny_model):
    import torch

    from lens import LensPipeline
    from lens.core.latents import pack_latents, unpack_latents
    from lens.models.vae import resize_latents

    pipeline = LensPipeline.from_pretrained(tiny_model, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    latents = pipeline(
        "a fox", width=48, height=32, num_inference_steps=4, guidance_scale=2.0, generator=generator,
        output_type="latent",
    ).images  # fmt: skip
    larger = resize_latents(pipeline.vae, unpack_latents(latents, 2, 3), 4, 6)
    expected = (pipeline.decode(pack_latents(larger), 64, 96)[0].permute(1, 2, 0).numpy() + 1) * 127.5
    drawn = {
        strength: draw("x.png", "--upscale", 2, "--upscale-strength", strength) for strength in (1e-4, 1)
    }
    far = {strength: np.abs(image - expected).mean() for strength, image in drawn.items()}
    assert far[1e-4] < 2 < far[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--upscale", 1], "--upscale is 1.0"),
        (["--upscale", 5], "--upscale is 5.0"),
        (["--upscale-strength", 2], "--upscale-strength is 2.0"),
        (["--upscale", 2, "--upscale-strength", 0], "--upscale-strength is 0.0"),
        (["--upscale", 2, "--size", "1024x1024"], "an area of at most 1440 x 1440"),
    ],
)
def test_what_cannot_be_upscaled_is_refused(lens, tiny_model, options, message):
    assert message in lens("generate", *REQUEST, "--model", tiny_model, *options).error_line
