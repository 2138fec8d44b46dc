"""MXFP8: float8 values with one power-of-two scale for every 32 inputs.

Value = weight * 2^(scale - 127), with the weight in float8 E4M3 and the scale a uint8 (an E8M0 exponent) in
blocked order. Spec: section 6.
Letters: O outputs, I inputs.
"""

import torch
from torch import Tensor

from lens.errors import CheckpointError
from lens.models.quantized.block_scales import E4M3_MAX, from_blocked, to_blocked
from lens.models.quantized.lookup import dequantize_by_rows, power_of_two, scale_groups, unpack_e4m3

BLOCK_SIZE = 32
E8M0_BIAS, E8M0_NAN = 127, 255


def dequantize(weight: Tensor, blocked_scale: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the values of an MXFP8 matrix, computed in float32.

    Shapes: weight (O, I) float8, blocked_scale of the padded (O, I/32) in 8 bits -> (O, I).
    Raises: CheckpointError for scales that do not fit, or that are not numbers (255).
    """
    outputs, inputs = weight.shape
    if inputs % BLOCK_SIZE:
        raise CheckpointError(f"MXFP8 needs a multiple of {BLOCK_SIZE} inputs, not ({outputs}, {inputs}).")
    exponents = from_blocked(blocked_scale.view(torch.uint8), outputs, inputs // BLOCK_SIZE)  # (O, I/32)
    parts = weight.view(torch.uint8), e8m0_scale(exponents)
    return dequantize_by_rows(parts, _dequantize_rows, (outputs, inputs), dtype)


def _dequantize_rows(weight: Tensor, scale: Tensor) -> Tensor:
    return scale_groups(unpack_e4m3(weight), scale)


def e8m0_scale(exponents: Tensor) -> Tensor:
    """Return the scales of E8M0 exponents in float32.

    Raises: CheckpointError for 255, which is not a number; only on a CPU, as a GPU would have to wait.
    """
    if exponents.device.type == "cpu" and bool((exponents == E8M0_NAN).any()):
        raise CheckpointError("MXFP scales hold 255, which is not a number: the file is damaged.")
    return power_of_two(exponents.to(torch.int32) - E8M0_BIAS)


def quantize(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return (float8 weight, scales in blocked order) with the smallest powers of two that avoid overflow.

    Shapes: (O, I) -> (O, I) float8 E4M3 and uint8 of the padded (O, I/32).
    """
    groups = values.float().unflatten(1, (-1, BLOCK_SIZE))  # (O, I/32, 32)
    largest = groups.abs().amax(dim=2)  # (O, I/32)
    mantissa, exponent = torch.frexp(largest / E4M3_MAX)  # mantissa in [0.5, 1)
    exponent = (exponent - (mantissa == 0.5).int()).clamp(-E8M0_BIAS, E8M0_BIAS)
    scaled = groups / power_of_two(exponent)[..., None]
    weight = scaled.clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn).flatten(1)  # (O, I)
    return weight, to_blocked((exponent + E8M0_BIAS).to(torch.uint8))
