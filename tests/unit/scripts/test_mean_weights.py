"""The mean of several denoisers."""

import importlib.util
from pathlib import Path

import torch
from tiny_models import tiny_denoiser

SCRIPT = Path(__file__).parents[3] / "scripts" / "mean_weights.py"


def test_the_mean_lies_in_the_middle_of_all_weights(tmp_path):
    spec = importlib.util.spec_from_file_location("mean_weights", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for name, value in (("one", 1.0), ("two", 2.5), ("three", 4.0)):
        denoiser = tiny_denoiser()
        with torch.no_grad():
            for weight in denoiser.parameters():
                weight.fill_(value)
        denoiser.save_pretrained(tmp_path / name / "transformer")
    mean = script.mean_of([tmp_path / name for name in ("one", "two", "three")])
    assert all((weight == 2.5).all() and weight.dtype == torch.bfloat16 for weight in mean.parameters())
