"""Sample grids and probes of a run: what is not finite is shown and counted as such, and the run goes on."""

import logging

import numpy as np
import pytest
import torch
from tiny_models import TEXT_WIDTH, tiny_pipeline

from lens.nano.tasks import TASKS
from lens.train.sample_grid import image_grid, render_previews
from lens.train.stages.nano_eval import NanoEval

MAGENTA = (255, 0, 255)


@pytest.fixture
def broken():
    """A pipeline whose autoencoder computes no numbers."""
    pipeline = tiny_pipeline()
    torch.nn.init.constant_(pipeline.vae.decoder.conv_out.bias, torch.nan)
    return pipeline


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_only_an_image_that_is_not_finite_is_magenta(value):
    pixels = torch.full((3, 3, 5, 7), 0.2)
    pixels[1, 2, 4, 3] = value
    grid = np.asarray(image_grid(pixels, columns=2, gap_px=1))
    assert (grid[:5, 8:15] == MAGENTA).all()
    assert (grid[:5, :7] == 153).all() and (grid[6:11, :7] == 153).all()


def test_a_preview_that_is_not_finite_is_logged_and_magenta(broken, caplog):
    features = [torch.zeros(4, 5, TEXT_WIDTH)] * 2
    with caplog.at_level(logging.WARNING, "lens"):
        grid = render_previews(broken, features, 32, 0, "float32", num_inference_steps=1)
    assert (np.asarray(grid)[:32, :32] == MAGENTA).all() and len(caplog.records) == 2
    assert "100% of the pixels are not finite" in caplog.text


def test_samples_that_are_not_finite_count_as_failed(broken, caplog):
    nano_eval = NanoEval(1, [(32, 48)], torch.device("cpu"), "float32")
    with caplog.at_level(logging.WARNING, "lens"):
        metrics = nano_eval.evaluate(broken, num_inference_steps=1)
    assert metrics == dict.fromkeys([*TASKS, "mean"], 0.0)
    assert "The images of 1 prompts count as failed. 100% of the pixels" in caplog.text
    assert (np.asarray(nano_eval.sample_grid())[:32, :48] == MAGENTA).all()
