"""The command encodes a prompt once: its other images need no text encoder, and have the same pixels."""

import shutil

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def model(tiny_model, tmp_path_factory):
    """A copy of the model as the hub stores it: the encoder's file is a link to one that its hash names."""
    folder = tmp_path_factory.mktemp("cached") / "tiny"
    shutil.copytree(tiny_model, folder)
    stored, weights = folder.parent / ("ab" * 32), folder / "text_encoder" / "model.safetensors"
    weights.rename(stored)
    weights.symlink_to(stored)
    return folder


@pytest.fixture
def drawn(lens, model, tmp_path, monkeypatch):
    """Return the pixels of an image that the command generates."""
    monkeypatch.setenv("LENS_CACHE", str(tmp_path / "cache"))

    def draw(prompt, seed=3, cache="on", negative="a box"):
        out = tmp_path / f"{seed}.png"
        image = ("--size", "64x64", "--steps", 1, "--cfg", 2, "--seed", seed, "--negative", negative)
        ran = lens("generate", prompt, "--model", model, *image, "--out", out, "--text-cache", cache)
        assert ran.status == 0, ran
        return np.asarray(Image.open(out))

    return draw


def forget_how_to_encode(model):
    """Write zeros in the place of the encoder's weights, whose hash stays that of its name."""
    from safetensors.torch import load_file, save_file

    path = (model / "text_encoder" / "model.safetensors").resolve()
    save_file({name: tensor * 0 for name, tensor in load_file(path).items()}, path, {"format": "pt"})


def test_cached_text_features_give_the_pixels_of_encoded_ones(drawn, tmp_path):
    plain, entries = drawn("a fox", cache="off"), tmp_path / "cache" / "text_features"
    assert not entries.exists()
    for _ in range(2):
        assert np.array_equal(drawn("a fox"), plain)
    assert len(list(entries.iterdir())) == 2
    assert not np.array_equal(drawn("a box", negative="a fox"), plain)
    assert len(list(entries.iterdir())) == 2, "either text is known"


def test_another_seed_of_an_encoded_prompt_does_not_encode(drawn, model):
    expected = [drawn("a fox", seed, cache="off") for seed in (3, 4)]
    drawn("a fox")
    forget_how_to_encode(model)
    assert all(np.array_equal(drawn("a fox", seed), expected[seed - 3]) for seed in (3, 4))
    assert not np.array_equal(drawn("a fox", cache="off"), expected[0])
