"""The models inside the package draw without a network, and again to the same pixels."""

import json

import numpy as np
import pytest
from PIL import Image

from lens.models.checkpoints.registry import KNOWN_MODELS

VARIANTS = [
    model for model in KNOWN_MODELS.values()
    if model.folder and model.folder.is_dir() and model.name != "lens-nano"
]  # fmt: skip

PROMPT = "two red apples to the left of a fox, on a blue background"


def test_the_embedded_model_generates_a_wide_image_and_another_process_reproduces_it(
    process, lens, no_progress_bars, tmp_path
):
    first = process("generate", PROMPT, "--aspect-ratio", "16:9", "--seed", 7, "--json")
    assert (first.status, first.err) == (0, "")
    row = json.loads(first.out)
    assert {
        name: row[name] for name in ("prompt", "seed", "width", "height", "steps", "guidance", "model")
    } == {
        "prompt": PROMPT,
        "seed": 7,
        "width": 176,
        "height": 96,
        "steps": 20,
        "guidance": 2.0,
        "model": "lens-nano",
    }
    again = lens("generate", "--like", tmp_path / row["path"], "--json")
    path = json.loads(again.out)["path"]
    assert path != row["path"]
    drawn, redrawn = (np.asarray(Image.open(tmp_path / name)) for name in (row["path"], path))
    assert drawn.shape == (96, 176, 3)
    assert (drawn == redrawn).all()
    blue_over_red = drawn[:4].astype(int)[..., 2] - drawn[:4].astype(int)[..., 0]
    assert blue_over_red.mean() > 40, "the upper border is the background, which was asked to be blue"


@pytest.mark.parametrize("model", VARIANTS, ids=lambda model: model.name)
def test_a_variant_uses_its_own_steps_and_guidance(lens, no_progress_bars, tmp_path, model):
    prompt = "three lemons on a purple background"
    ran = lens("generate", prompt, "--model", model.name, "--seed", 0, "--json")
    assert (ran.status, ran.err) == (0, "")
    row = json.loads(ran.out)
    own = (model.name, model.num_inference_steps, model.guidance_scale, 128, 128)
    assert tuple(row[name] for name in ("model", "steps", "guidance", "width", "height")) == own
    drawn = np.asarray(Image.open(tmp_path / row["path"]))
    assert drawn.shape == (128, 128, 3) and drawn.std() > 20
