"""Quantization to llama.cpp's Q8_0 and Q4_0: the bytes that the `gguf` package gives, several times as fast.

Knows nothing of files.
Letters: O outputs, I inputs, N blocks of 32 inputs.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lens.models.quantized.lookup import BLOCK_VALUES

BLOCK_SIZE = 32


def quantize(matrix: Tensor, kind: str) -> Tensor:
    """Return the rows of a matrix in Q8_0 or Q4_0. Shapes: (O, I) -> (O, bytes of a row) uint8."""
    num_rows = max(1, BLOCK_VALUES // matrix.shape[1])
    rows = []
    for some in matrix.split(num_rows):
        blocks = some.float().reshape(-1, BLOCK_SIZE)  # (N, 32)
        rows.append(_BLOCKS[kind](blocks).reshape(len(some), -1))
    return torch.cat(rows)


def _q8_0(blocks: Tensor) -> Tensor:
    """Return a scale in float16 and 32 whole numbers to 127, rounded half away from zero."""
    scale = blocks.abs().amax(dim=1, keepdim=True) / 127  # (N, 1)
    steps = blocks * _inverse(scale)  # (N, 32)
    size = steps.abs()
    whole = size.floor()
    rounded = (whole + (2 * (size - whole)).floor_()).copysign_(steps).to(torch.int8)
    return torch.cat([_bytes(scale), rounded.view(torch.uint8)], dim=1)  # (N, 34)


def _q4_0(blocks: Tensor) -> Tensor:
    """Return a scale in float16, of which the number farthest from zero is -8, and 32 numbers of 4 bits."""
    low, high = blocks.amin(dim=1, keepdim=True), blocks.amax(dim=1, keepdim=True)  # (N, 1) each
    farthest = torch.where(high > -low, high, low)
    if bool((ties := (high == -low).flatten()).any()):  # the first of them counts
        tied = blocks[ties]
        farthest[ties] = tied.gather(1, tied.abs().argmax(dim=1, keepdim=True))
    scale = farthest / -8
    steps = (blocks * _inverse(scale) + 8.5).to(torch.uint8).clamp_(max=15)  # (N, 32)
    packed = steps[:, :16] | steps[:, 16:] << 4
    return torch.cat([_bytes(scale), packed], dim=1)  # (N, 18)


def _inverse(scale: Tensor) -> Tensor:
    return torch.where(scale == 0, 0, 1 / scale)


def _bytes(scale: Tensor) -> Tensor:
    return scale.half().view(torch.uint8)  # (N, 2)


_BLOCKS: dict[str, Callable[[Tensor], Tensor]] = {"Q8_0": _q8_0, "Q4_0": _q4_0}
