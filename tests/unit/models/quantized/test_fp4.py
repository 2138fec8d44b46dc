"""Quantization to 4 bits against definitions written out: nearest numbers, powers of two, order of bytes."""

import math

import pytest
import torch
from comparisons import normal

from lens.models.quantized import nvfp4
from lens.models.quantized.fp4 import (
    mxfp4_from_gguf,
    mxfp4_to_gguf,
    mxfp4_to_nvfp4,
    quantize_mxfp4,
    round_to_e2m1,
)

E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def inputs_of(blocks: torch.Tensor) -> torch.Tensor:
    """Return the codes of transformers' blocks, low half first: (..., 16) -> (..., 32)."""
    return torch.stack([blocks & 15, blocks >> 4], dim=-1).flatten(-2)


def values_of(blocks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Return the values (O, I) of MXFP4 blocks as transformers stores them."""
    return (E2M1[inputs_of(blocks).long()] * 2.0 ** (scales.double() - 127)[..., None]).flatten(1).float()


def random_blocks(outputs: int, groups: int, scales: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(outputs)
    blocks = torch.randint(0, 256, (outputs, groups, 16), generator=generator, dtype=torch.uint8)
    return blocks, torch.randint(*scales, (outputs, groups), generator=generator, dtype=torch.uint8)


def test_every_number_becomes_the_nearest_and_a_midpoint_the_smaller():
    midpoints = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
    above, below = (torch.nextafter(midpoints, torch.tensor(end)) for end in (9.0, 0.0))
    values = torch.cat([8 * normal(3000, seed=1), midpoints, above, below, E2M1, torch.tensor([7.9, 1e3])])
    values = torch.cat([values, -values])
    distance = (values.double()[:, None] - E2M1.double()).abs()
    assert torch.equal(E2M1[round_to_e2m1(values).long()], E2M1[distance.argmin(1)] * 1.0)


def test_zeros_of_both_signs_are_zero():
    assert round_to_e2m1(torch.tensor([0.0, -0.0, 1e-45, -1e-45])).tolist() == [0, 0, 0, 8]


@pytest.mark.parametrize("largest", [4.0, 6.0, 6.9, 7.0])
def test_a_block_keeps_the_scale_up_to_seven_and_doubles_it_above(largest):
    values = torch.linspace(-1, 1, 32)[None] * largest * 2.0**-3
    assert quantize_mxfp4(values)[1].item() == 127 - 3
    assert quantize_mxfp4(values * (7.1 / largest))[1].item() == 127 - 2


def test_each_number_of_a_block_is_the_nearest_that_its_scale_allows():
    values = normal(5, 3 * 32, seed=2) * torch.logspace(-3, 3, 5)[:, None]
    blocks, scales = quantize_mxfp4(values)
    assert blocks.shape == (5, 3, 16) and scales.shape == (5, 3)
    for row in range(5):
        for group in range(3):
            block = values[row, 32 * group : 32 * group + 32]
            scale = 2.0 ** (int(scales[row, group]) - 127)
            assert 3.5 * scale < block.abs().max() <= 7 * scale
            nearest = E2M1[(block[:, None] / scale - E2M1).abs().argmin(1)] * scale
            assert torch.equal(values_of(blocks, scales)[row, 32 * group : 32 * group + 32], nearest)


def test_values_that_were_in_mxfp4_keep_their_values():
    blocks, scales = random_blocks(7, 4, (90, 140))
    again = quantize_mxfp4(values_of(blocks, scales))
    assert torch.equal(values_of(*again), values_of(blocks, scales))


@pytest.mark.parametrize("magnitude", [0.0, 1e-38, 2e38])
def test_the_smallest_and_largest_numbers_have_scales(magnitude):
    values = torch.full((1, 32), magnitude)
    blocks, scales = quantize_mxfp4(values)
    assert int(scales) <= 254
    assert values_of(blocks, scales) == pytest.approx(values, rel=0.25)


def test_llama_cpps_blocks_have_the_scale_first_and_inputs_16_apart_in_a_byte():
    blocks, scales = random_blocks(3, 2, (0, 255))
    gguf = mxfp4_to_gguf(blocks, scales)
    codes = inputs_of(blocks)
    assert torch.equal(gguf[..., 0], scales)
    assert torch.equal(gguf[..., 1:] & 15, codes[..., :16]) and torch.equal(
        gguf[..., 1:] >> 4, codes[..., 16:]
    )
    again = mxfp4_from_gguf(gguf)
    assert torch.equal(again[0], blocks) and torch.equal(again[1], scales)


def test_llama_cpps_own_package_reads_the_same_values():
    gguf = pytest.importorskip("gguf")
    blocks, scales = random_blocks(3, 2, (100, 150))
    stored = mxfp4_to_gguf(blocks, scales).flatten(1).numpy()
    read = gguf.dequantize(stored, gguf.GGMLQuantizationType.MXFP4)
    assert torch.equal(torch.from_numpy(read), values_of(blocks, scales))


def test_nvfp4_has_the_same_values_where_scales_lie_within_17_powers():
    blocks, scales = random_blocks(6, 3, (103, 121))
    blocks[2, 1] = 0  # a block of zeros may have any scale
    scales[2, 1] = 3
    converted = mxfp4_to_nvfp4(blocks, scales)
    assert converted is not None
    packed, blocked, matrix_scale = converted
    assert packed.shape == (6, 48) and blocked.dtype == torch.float8_e4m3fn and matrix_scale.shape == ()
    assert torch.equal(nvfp4.dequantize(packed, blocked, matrix_scale), values_of(blocks, scales))


def test_scales_that_float8_cannot_hold_are_left_to_quantization():
    blocks, scales = random_blocks(2, 2, (100, 101))
    scales[0, 0] = 118
    assert mxfp4_to_nvfp4(blocks, scales) is None
    scales[0, 0] = 117
    assert mxfp4_to_nvfp4(blocks, scales) is not None
    assert mxfp4_to_nvfp4(blocks, torch.full_like(scales, 4)) is None
    assert math.isclose(float(mxfp4_to_nvfp4(blocks, torch.full_like(scales, 9))[2]), 2.0**-126)  # type: ignore[index]
