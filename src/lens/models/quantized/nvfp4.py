"""NVFP4: two 4-bit values in a byte, a float8 scale for 16 inputs, a float32 scale for each matrix.

Value = e2m1 * weight_scale * weight_scale_2. In a byte the HIGH four bits come first; in the MXFP4 of GPT-OSS
the low ones do. Scales are in blocked order. Spec: section 6.
Letters: E experts (or nothing, for a single matrix), O outputs, I inputs.
"""

import torch
from torch import Tensor

from lens.errors import CheckpointError
from lens.models.quantized.block_scales import E4M3_MAX, from_blocked, to_blocked
from lens.models.quantized.fp4 import round_to_e2m1
from lens.models.quantized.lookup import (
    BLOCK_VALUES,
    E2M1_MAX,
    dequantize_by_rows,
    scale_groups,
    unpack_e2m1,
    unpack_e4m3,
)

BLOCK_SIZE = 16


def dequantize(
    packed: Tensor, blocked_scale: Tensor, matrix_scale: Tensor, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return the values of one matrix or of a stack of experts, each computed in float32.

    Shapes: packed (O, I/2) or (E, O, I/2) uint8, blocked_scale float8 of each padded (O, I/16), matrix_scale
        one number or (E,) -> (O, I) or (E, O, I).
    Raises: CheckpointError for scales that do not fit.
    """
    if packed.ndim == 2:
        return _dequantize_matrix(packed, blocked_scale, matrix_scale.reshape(()), dtype)
    experts, outputs, half = packed.shape
    scales = blocked_scale.reshape(experts, -1)  # (E, padded)
    matrix_scales = matrix_scale.reshape(-1)  # (E,) or (1,)
    matrix_scales = matrix_scales.expand(experts) if len(matrix_scales) == 1 else matrix_scales
    if len(matrix_scales) != experts:
        raise CheckpointError(f"{len(matrix_scales)} matrix scales do not fit {experts} experts.")
    values = torch.empty(experts, outputs, 2 * half, dtype=dtype, device=packed.device)
    for expert in range(experts):
        values[expert] = _dequantize_matrix(packed[expert], scales[expert], matrix_scales[expert], dtype)
    return values


def _dequantize_matrix(
    packed: Tensor, blocked_scale: Tensor, matrix_scale: Tensor, dtype: torch.dtype
) -> Tensor:
    outputs, inputs = packed.shape[0], 2 * packed.shape[1]
    if inputs % BLOCK_SIZE:
        raise CheckpointError(f"NVFP4 needs a multiple of {BLOCK_SIZE} inputs, not ({outputs}, {inputs}).")
    scale = from_blocked(blocked_scale.view(torch.uint8), outputs, inputs // BLOCK_SIZE)  # (O, I/16)
    scale = unpack_e4m3(scale) * matrix_scale.float()
    return dequantize_by_rows((packed, scale), _dequantize_rows, (outputs, inputs), dtype)  # (O, I)


def _dequantize_rows(packed: Tensor, scale: Tensor) -> Tensor:
    return scale_groups(unpack_e2m1(packed, is_high_first=True), scale)


def quantize(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (packed, scales in blocked order, matrix scale) of one matrix.

    Shapes: (O, I) -> (O, I/2) uint8, float8 of the padded (O, I/16), one float32.
    """
    groups = values.float().unflatten(1, (-1, BLOCK_SIZE))  # (O, I/16, 16)
    largest = groups.abs().amax(dim=2)  # (O, I/16)
    matrix_scale = (largest.max() / (E2M1_MAX * E4M3_MAX)).clamp(min=torch.finfo(torch.float32).tiny)
    scale = (largest / E2M1_MAX / matrix_scale).clamp(max=E4M3_MAX).to(torch.float8_e4m3fn)
    divisor = scale.float() * matrix_scale  # (O, I/16)
    divisor.masked_fill_(divisor == 0, torch.inf)  # a group too small for a scale becomes zero
    packed = torch.empty(len(values), values.shape[1] // 2, dtype=torch.uint8, device=values.device)
    rows = max(1, BLOCK_VALUES // values.shape[1])
    for start in range(0, len(values), rows):
        block = slice(start, start + rows)
        codes = round_to_e2m1(groups[block] / divisor[block, :, None]).flatten(1)  # (rows, I)
        packed[block] = codes[:, 0::2] << 4 | codes[:, 1::2]
    # float8 is moved about as bytes: padding is not implemented for it everywhere.
    blocked = to_blocked(scale.view(torch.uint8)).view(torch.float8_e4m3fn)
    return packed, blocked, matrix_scale
