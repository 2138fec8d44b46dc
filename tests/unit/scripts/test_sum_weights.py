"""Weighted sums of denoisers."""

import importlib.util
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_denoiser

SCRIPT = Path(__file__).parents[3] / "scripts" / "sum_weights.py"


@pytest.mark.parametrize(("factors", "value"), [((0.5, 0.25, 0.25), 2.125), ((1, 1, -1), -0.5)])
def test_every_weight_is_the_sum(tmp_path, factors, value):
    spec = importlib.util.spec_from_file_location("sum_weights", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for folder, filled in zip(folders, (1.0, 2.5, 4.0), strict=True):
        denoiser = tiny_denoiser()
        with torch.no_grad():
            for weight in denoiser.parameters():
                weight.fill_(filled)
        denoiser.save_pretrained(folder / "transformer")
    total = script.summed(list(zip(factors, folders, strict=True)))
    assert all((weight == value).all() and weight.dtype == torch.bfloat16 for weight in total.parameters())
