"""MXFP8 values, worked out by hand."""

import pytest
import torch

from lens.errors import CheckpointError
from lens.models.quantized.block_scales import to_blocked
from lens.models.quantized.mxfp8 import dequantize, power_of_two, quantize

# E4M3 by its bits: sign, 4 of exponent (bias 7), 3 of mantissa.
HAND = {0x00: 0.0, 0x01: 2.0**-9, 0x38: 1.0, 0x3C: 1.5, 0xC0: -2.0, 0x7E: 448.0}


def test_values_are_the_hand_computed_ones():
    bits = torch.zeros(3, 64, dtype=torch.uint8)
    for column, code in enumerate(HAND):
        bits[1, column] = bits[1, 32 + column] = bits[2, column] = code
    scales = torch.tensor([[127, 127], [128, 124], [120, 127]], dtype=torch.uint8)
    values = dequantize(bits.view(torch.float8_e4m3fn), to_blocked(scales))
    expected = torch.tensor(list(HAND.values()))
    assert values[1, :6].equal(expected * 2), "128 is 2^1"
    assert values[1, 32:38].equal(expected / 8), "124 is 2^-3"
    assert values[2, :6].equal(expected / 128), "120 is 2^-7"
    assert values[0].abs().sum() == 0 and values.dtype == torch.float32


def test_quantising_keeps_powers_of_two_and_stays_within_half_a_step():
    exact = torch.tensor([1.0, -0.5, 448.0, 2.0**-6, 0, 3.0, 240.0, -7.0] * 8).reshape(2, 32)
    assert dequantize(*quantize(exact)).equal(exact)
    values = (
        torch.randn(5, 96, generator=torch.Generator().manual_seed(0)) * torch.logspace(-6, 6, 5)[:, None]
    )
    error = (dequantize(*quantize(values)) - values).abs()
    # Three bits of mantissa: half a step is 1/16 of the value; the smallest values of a group lose more.
    largest = values.abs().unflatten(1, (-1, 32)).amax(-1, keepdim=True).expand(-1, -1, 32).flatten(1)
    assert (error <= torch.maximum(values.abs() / 16, largest * 2.0**-8)).all()


def test_powers_of_two_are_exact_over_the_whole_range_of_scales():
    exponents = torch.arange(-127, 128)
    assert power_of_two(exponents).tolist() == [2.0**k for k in range(-127, 128)]


def test_a_group_of_zeros_and_tiny_numbers_survive():
    values = torch.zeros(2, 64)
    values[1, 40] = 1e-38
    again = dequantize(*quantize(values))
    assert again[0].abs().sum() == 0 and again[1, 40] == pytest.approx(1e-38, rel=0.1)


def test_scales_that_are_no_numbers_are_refused():
    scales = to_blocked(torch.tensor([[255]], dtype=torch.uint8))
    with pytest.raises(CheckpointError, match=r"255"):
        dequantize(torch.zeros(1, 32).to(torch.float8_e4m3fn), scales)
