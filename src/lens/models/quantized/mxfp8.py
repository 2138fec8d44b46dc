"""MXFP8 single files: float8 weights with one power of two for every 32 inputs.

Each linear layer is `weight` (float8 E4M3), `weight_scale` (uint8, an E8M0 exponent, in blocked order) and
`comfy_quant` (JSON as bytes). Value = weight * 2^(scale - 127). Other tensors are plain. Spec: section 6.
Letters: O outputs, I inputs.
"""

import json
from collections.abc import Mapping

import torch
from torch import Tensor

from lens.errors import CheckpointError
from lens.models.checkpoints.reader import LazyTensor
from lens.models.quantized.block_scales import from_blocked, to_blocked

BLOCK_SIZE = 32
E8M0_BIAS, E8M0_NAN = 127, 255
E4M3_MAX = 448.0
E8M0_DTYPES = ("U8", "F8_E8M0")
FORMAT = "mxfp8"


def is_mxfp8(tensors: Mapping[str, LazyTensor]) -> bool:
    """Return whether any layer carries scales."""
    return any(name.endswith(".weight_scale") for name in tensors)


def dequantize_mxfp8_layers(tensors: Mapping[str, LazyTensor], *, source: object) -> dict[str, LazyTensor]:
    """Return the same tensors with each quantised layer as one weight that is dequantised when read."""
    plain = dict(tensors)
    for scale_name in [name for name in tensors if name.endswith(".weight_scale")]:
        layer = scale_name.removesuffix(".weight_scale")
        scale = plain.pop(scale_name)
        weight = plain.get(f"{layer}.weight")
        is_matrix = weight is not None and weight.dtype == "F8_E4M3" and len(weight.shape) == 2
        if weight is None or not is_matrix or scale.dtype not in E8M0_DTYPES:
            got = f"{weight.dtype} weight with {scale.dtype} scales" if weight else "scales without a weight"
            needs = "a float8 E4M3 matrix with E8M0 scales"
            raise CheckpointError(f"{layer} in {source} is not MXFP8: {got}, but it needs {needs}.")
        settings = plain.pop(f"{layer}.comfy_quant", None)
        if settings is not None:
            check_quantization_format(settings.read(), FORMAT, layer, source)
        plain[f"{layer}.weight"] = LazyTensor(weight.shape, "F32", _lazy_reader(weight, scale))
    return plain


def _lazy_reader(weight: LazyTensor, scale: LazyTensor):
    return lambda: dequantize(weight.read(), scale.read().view(torch.uint8))


def check_quantization_format(settings: Tensor, expected: str, layer: str, source: object) -> None:
    """Raise a CheckpointError unless the JSON beside a layer names the format that its tensors have."""
    try:
        values = json.loads(bytes(settings.tolist()))
        found = values["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{layer}.comfy_quant in {source} is not JSON with a format.") from error
    if expected not in str(found).lower():
        raise CheckpointError(f"{layer} in {source} is stored as {found!r}, but {expected} is read here.")


def dequantize(weight: Tensor, blocked_scale: Tensor) -> Tensor:
    """Return the float32 values of an MXFP8 matrix.

    Shapes: weight (O, I) float8, blocked_scale uint8 of the padded (O, I/32) -> (O, I).
    Raises: CheckpointError for scales that do not fit, or that are not numbers (255).
    """
    outputs, inputs = weight.shape
    if inputs % BLOCK_SIZE:
        raise CheckpointError(f"MXFP8 needs a multiple of {BLOCK_SIZE} inputs, not ({outputs}, {inputs}).")
    exponents = from_blocked(blocked_scale, outputs, inputs // BLOCK_SIZE)             # (O, I/32)
    if bool((exponents == E8M0_NAN).any()):
        raise CheckpointError("MXFP8 scales hold 255, which is not a number: the file is damaged.")
    scale = power_of_two(exponents.to(torch.int32) - E8M0_BIAS)                   # (O, I/32)
    return (weight.float().unflatten(1, (-1, BLOCK_SIZE)) * scale[..., None]).flatten(1)  # (O, I)


def quantize(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return (float8 weight, scales in blocked order): the smallest powers of two by which all fit.

    Shapes: (O, I) -> (O, I) float8 E4M3 and uint8 of the padded (O, I/32).
    """
    groups = values.float().unflatten(1, (-1, BLOCK_SIZE))                             # (O, I/32, 32)
    largest = groups.abs().amax(dim=2)                                            # (O, I/32)
    mantissa, exponent = torch.frexp(largest / E4M3_MAX)                          # mantissa in [0.5, 1)
    exponent = (exponent - (mantissa == 0.5).int()).clamp(-E8M0_BIAS, E8M0_BIAS)
    scaled = groups / power_of_two(exponent)[..., None]
    weight = scaled.clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn).flatten(1)  # (O, I)
    return weight, to_blocked((exponent + E8M0_BIAS).to(torch.uint8))


def power_of_two(exponent: Tensor) -> Tensor:
    """Return 2^exponent in float32, exact from -149 to 127."""
    return torch.ldexp(torch.ones_like(exponent, dtype=torch.float32), exponent)
