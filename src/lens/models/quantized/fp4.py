"""Quantization to 4 bits: rounding to E2M1, MXFP4 blocks, and their bytes in the order of other layouts.

An MXFP4 block is 32 inputs under one power of two (an E8M0 exponent): value = e2m1 * 2^(scale - 127).
transformers stores input 2j in the low half of byte j and input 2j + 1 in its high half; llama.cpp stores
inputs j and j + 16 there, behind the scale. NVFP4 has a scale for 16 inputs, and the high half first.
Letters: O outputs, I inputs.
"""

from functools import cache

import torch
from torch import Tensor

from lens.models.quantized.block_scales import to_blocked
from lens.models.quantized.lookup import power_of_two

BLOCK_SIZE, BLOCK_BYTES = 32, 16
GGUF_BLOCK_BYTES = 1 + BLOCK_BYTES
MAX_SCALE = 254  # 255 is not a number
E2M1_MAX_EXPONENT = 2
"""The exponent of 6, the largest number of E2M1."""
MIDPOINTS = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)
"""Halves of the way between neighbours of E2M1."""
E4M3_EXPONENTS = (-9, 8)
"""Exponents of the smallest and largest power of two in float8 E4M3."""


def round_to_e2m1(values: Tensor) -> Tensor:
    """Return the four bits of the nearest E2M1 numbers; of two that are as near, the smaller.

    Numbers beyond 6 become 6, those that are not numbers 0: callers check that values are finite.
    Shapes: any of float32 -> the same of uint8.
    """
    # Midpoints have zeros in their lower 16 bits. Minus one, the upper 16 bits decide alone.
    upper = ((values.contiguous().view(torch.int32) - 1) >> 16).bitwise_and_(0xFFFF)
    # index_select takes a quarter of the time of indexing
    return torch.index_select(_e2m1_table(values.device), 0, upper.flatten()).reshape(values.shape)


@cache
def _e2m1_table(device: torch.device) -> Tensor:
    """Return the E2M1 bits for the upper half of (the bits of a float32, minus one)."""
    bits = (torch.arange(2**16, dtype=torch.int64) << 16) + 2**15
    values = bits.to(torch.int32).view(torch.float32)  # one for each half, none a midpoint
    magnitude = (values.abs()[:, None] > torch.tensor(MIDPOINTS)).sum(1)
    codes = magnitude + 8 * (values < 0)
    codes[values.isnan()] = 0  # zero, less one, has the bits of NaN
    return codes.to(torch.uint8).to(device)


def quantize_mxfp4(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return (blocks, scales) of a matrix as transformers stores them.

    The scale is the power of two at which the largest number of a block, rounded to two bits, is at most 6.
    Shapes: (O, I) -> (O, I/32, 16) uint8 and (O, I/32) uint8.
    """
    groups = values.float().unflatten(1, (-1, BLOCK_SIZE))  # (O, I/32, 32)
    largest = groups.abs().amax(dim=2)  # (O, I/32)
    # Rounding up from above 7 moves the largest number into the next power of two.
    exponent = (largest.view(torch.int32) + 0x1FFFFF) >> 23  # biased, as E8M0 is
    scales = (exponent - E2M1_MAX_EXPONENT).clamp_(0, MAX_SCALE)  # (O, I/32)
    divided = groups * power_of_two(127 - scales)[..., None]  # (O, I/32, 32)
    codes = round_to_e2m1(divided)  # (O, I/32, 32)
    return codes[..., 0::2] | codes[..., 1::2] << 4, scales.to(torch.uint8)


def mxfp4_to_gguf(blocks: Tensor, scales: Tensor) -> Tensor:
    """Return MXFP4 blocks in the order of llama.cpp. Shapes: (..., 16) and (...) -> (..., 17)."""
    first, second = blocks.split(BLOCK_BYTES // 2, dim=-1)  # (..., 8) each
    gguf = blocks.new_empty(*scales.shape, GGUF_BLOCK_BYTES)  # (..., 17)
    gguf[..., 0] = scales
    gguf[..., 1::2] = first & 0x0F | second << 4
    gguf[..., 2::2] = first >> 4 | second & 0xF0
    return gguf


def mxfp4_from_gguf(gguf: Tensor) -> tuple[Tensor, Tensor]:
    """Return (blocks, scales) of transformers. Shapes: (..., 17) -> (..., 16) and (...)."""
    even, odd = gguf[..., 1::2], gguf[..., 2::2]  # (..., 8)
    first, second = even & 0x0F | odd << 4, even >> 4 | odd & 0xF0
    return torch.cat([first, second], dim=-1), gguf[..., 0].contiguous()


def mxfp4_to_nvfp4(blocks: Tensor, scales: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return (packed, scales in blocked order, matrix scale) of NVFP4 with the same values.

    None where the scales of the matrix lie too far apart for float8.
    Shapes: (O, I/32, 16) and (O, I/32) -> (O, I/2) uint8, float8 of the padded (O, I/16), one float32.
    """
    is_used = (blocks & 0x77 != 0).any(dim=2)  # (O, I/32) not all zero
    used = scales[is_used].int()
    smallest, largest = (int(end) for end in used.aminmax()) if len(used) else (0, 0)
    low, high = E4M3_EXPONENTS
    if largest - smallest > high - low:
        return None
    matrix_exponent = largest - high - 127
    if not -126 <= matrix_exponent <= 127:
        return None
    exponent = scales.int() - 127 - matrix_exponent  # (O, I/32)
    scale = power_of_two(exponent).where(is_used, 0).to(torch.float8_e4m3fn)
    halves = scale.view(torch.uint8).repeat_interleave(2, dim=1)  # (O, I/16)
    packed = (blocks << 4 | blocks >> 4).flatten(1)  # (O, I/2)
    return packed, to_blocked(halves).view(torch.float8_e4m3fn), torch.tensor(2.0**matrix_exponent)
