"""NVFP4 values, worked out by hand."""

import math

import pytest
import torch

from lens.errors import CheckpointError
from lens.models.quantized.block_scales import padded_size, to_blocked
from lens.models.quantized.lookup import unpack_e2m1
from lens.models.quantized.nvfp4 import dequantize, quantize

EVERY_CODE = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0]


def blocked_float8(values):
    return to_blocked(torch.tensor(values).to(torch.float8_e4m3fn).view(torch.uint8)).view(
        torch.float8_e4m3fn
    )


def test_the_high_half_of_a_byte_comes_first():
    packed = torch.tensor([0x27, 0xF1], dtype=torch.uint8)
    assert unpack_e2m1(packed, is_high_first=True).tolist() == [1.0, 6.0, -6.0, 0.5]
    assert unpack_e2m1(packed, is_high_first=False).tolist() == [6.0, 1.0, 0.5, -6.0]


def test_the_sixteen_codes_are_those_of_e2m1():
    packed = torch.tensor([16 * code + (code + 1) for code in range(0, 16, 2)], dtype=torch.uint8)
    assert unpack_e2m1(packed, is_high_first=True).tolist() == EVERY_CODE


def test_values_are_the_hand_computed_ones():
    packed = torch.tensor([16 * code + (code + 1) for code in range(0, 16, 2)], dtype=torch.uint8)
    packed = torch.stack([packed.repeat(2), packed.repeat(2).flip(0)])[None].repeat(
        3, 1, 1
    )  # (E 3, O 2, I/2 16)
    scales = torch.cat([blocked_float8([[1.0, 2.0], [0.5, 448.0]]) for _ in range(3)])
    values = dequantize(packed, scales, torch.tensor([1.0, 0.25, 8.0]), torch.float32)
    every = torch.tensor(EVERY_CODE)
    assert values.shape == (3, 2, 32)
    assert values[0, 0, :16].equal(every) and values[0, 0, 16:].equal(2 * every)
    assert values[1, 0, :16].equal(every / 4) and values[2, 0, 16:].equal(16 * every)
    assert values[0, 1, 0] == 0.5 * -4.0 and values[0, 1, 1] == 0.5 * -6.0, "0xEF is (-4, -6)"
    assert values[2, 1, 16] == 448 * -4.0 * 8


def test_quantising_stays_within_half_the_widest_step():
    values = torch.randn(7, 48, generator=torch.Generator().manual_seed(0))
    packed, scale, matrix_scale = quantize(values)
    assert packed.shape == (7, 24) and scale.numel() == math.prod(padded_size(7, 48 // 16)) == 128 * 4
    largest = values.abs().unflatten(1, (-1, 16)).amax(-1, keepdim=True).expand(-1, -1, 16).flatten(1)
    error = (dequantize(packed, scale, matrix_scale, torch.float32) - values).abs()
    assert (error <= largest * (1 / 6 + 0.07)).all(), "half of the step from 4 to 6, and a rounded scale"


def test_scales_that_do_not_fit_are_refused():
    packed, scale, matrix_scale = quantize(torch.ones(3, 32))
    with pytest.raises(CheckpointError, match=r"2 matrix scales do not fit 3 experts"):
        dequantize(packed[None].repeat(3, 1, 1), scale.repeat(3, 1), torch.ones(2), torch.float32)
    with pytest.raises(CheckpointError, match=r"Block scales hold"):
        dequantize(packed, scale[:64], matrix_scale, torch.float32)
