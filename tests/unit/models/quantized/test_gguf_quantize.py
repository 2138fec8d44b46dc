"""Q8_0 and Q4_0 in torch have the bytes that llama.cpp's own package gives."""

import gguf
import numpy as np
import pytest
import torch
from comparisons import normal

from lens.models.quantized import gguf_quantize


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
@pytest.mark.parametrize("magnitude", [1e-9, 0.02, 1.0, 3e4])
def test_every_byte_is_that_of_llama_cpps_package(monkeypatch, kind, magnitude):
    monkeypatch.setattr(gguf_quantize, "BLOCK_VALUES", 5 * 96)  # blocks of five rows, the last of two
    values = magnitude * normal(17, 96, seed=3)
    values[2, 32:64] = 0
    values[3] = magnitude * torch.linspace(-1, 1, 96)
    values[4, :32] = magnitude * (torch.arange(32) - 15.5) / 15.5  # halves of a step
    ours = gguf_quantize.quantize(values, kind).numpy()
    with np.errstate(all="ignore"):
        theirs = gguf.quantize(values.numpy(), gguf.GGMLQuantizationType[kind])
    assert ours.dtype == np.uint8 and np.array_equal(ours, theirs)


def test_values_in_bfloat16_are_quantized_as_their_float32():
    values = normal(3, 64, seed=4).bfloat16()
    assert torch.equal(gguf_quantize.quantize(values, "Q8_0"), gguf_quantize.quantize(values.float(), "Q8_0"))
