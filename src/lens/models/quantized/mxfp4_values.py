"""MXFP4 values: 4-bit numbers with one power-of-two scale for every 32 inputs, two numbers in a byte.

Value = e2m1 * 2^(scale - 127), with the scale a uint8 (an E8M0 exponent). In a byte of GPT-OSS the LOW four
bits come first, in one of NVFP4 the high ones. Spec: section 6.
Letters: O outputs, I inputs, G groups of 32 inputs.
"""

import torch
from torch import Tensor

from lens.models.quantized.lookup import dequantize_by_rows, scale_groups, unpack_e2m1
from lens.models.quantized.mxfp8 import e8m0_scale

BLOCK_SIZE = 32


def dequantize(blocks: Tensor, scales: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the values of one matrix as GPT-OSS stores it, computed in float32.

    Shapes: blocks (O, G, 16) uint8, scales (O, G) uint8 -> (O, I).
    Raises: CheckpointError for scales that are not numbers (255).
    """
    shape = blocks.shape[0], blocks.shape[1] * BLOCK_SIZE
    return dequantize_by_rows((blocks.flatten(1), e8m0_scale(scales)), _dequantize_rows, shape, dtype)


def _dequantize_rows(packed: Tensor, scale: Tensor) -> Tensor:
    return scale_groups(unpack_e2m1(packed, is_high_first=False), scale)
