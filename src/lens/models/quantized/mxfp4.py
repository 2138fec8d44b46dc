"""How a GPT-OSS whose experts are stored in MXFP4 can be held here: as it is, dequantised, or not at all.

MXFP4 is 32 numbers of 4 bits under one scale of 8. Kernels for it exist for Hopper and newer; elsewhere the
experts become bfloat16 at load, four times as large. Spec: sections 4, 6 and 14.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from lens.errors import MemoryNeedError

logger = logging.getLogger(__name__)

MIN_CUDA_CAPABILITY = (9, 0)
KERNELS_REPOSITORY = "kernels-community/gpt-oss-triton-kernels"
MXFP4_BYTES_PER_VALUE = 17 / 32
GB = 1e9


class Mxfp4Plan(NamedTuple):
    """How to load, what it takes, and why."""

    is_native: bool
    """The experts stay in MXFP4; otherwise they are dequantised."""
    need_bytes: int
    """Memory of all weights, loaded that way."""
    message: str


def mxfp4_plan(
    config: Mapping[str, Any],
    *,
    device_type: str,
    capability: tuple[int, int] | None,
    missing: Sequence[str],
    free_bytes: int | None,
    bytes_per_value: int = 2,
) -> Mxfp4Plan:
    """Return how to hold the model of this configuration on a device.

    `missing` names what the kernels lack on this machine; `free_bytes` None means that nobody knows.

    Units: bytes_each is the size of a dequantised number.
    Raises: MemoryNeedError where the weights do not fit, with the reason for their size and what to do.
    """
    reason = _reason_to_dequantize(device_type, capability, missing)
    native = not reason
    need_bytes = weight_bytes(config, bytes_per_value, is_mxfp4=native)
    how = "in MXFP4" if native else f"dequantised to {8 * bytes_per_value} bits, as {reason}"
    message = f"The text encoder takes {need_bytes / GB:.1f} GB {how}."
    if free_bytes is not None and need_bytes > free_bytes:
        raise MemoryNeedError(
            f"{message} {device_type} has {free_bytes / GB:.1f} GB free. Load a smaller file of it (NVFP4 or "
            "GGUF), use a machine with more memory, or give features encoded elsewhere (prompt_embeds)."
        )
    return Mxfp4Plan(native, need_bytes, message)


def weight_bytes(config: Mapping[str, Any], bytes_per_value: int, *, is_mxfp4: bool) -> int:
    """Return the memory of all weights, the matrices of the experts in MXFP4 or as large as all others."""
    from lens.models.shapes import text_encoder_shapes

    total = 0.0
    for name, shape in text_encoder_shapes(config).items():
        is_packed = is_mxfp4 and name.endswith(("gate_up_proj", "down_proj"))
        total += math.prod(shape) * (MXFP4_BYTES_PER_VALUE if is_packed else bytes_per_value)
    return math.ceil(total)


def mxfp4_plan_for_device(
    config: Mapping[str, Any], device: torch.device | str | None = None, bytes_per_value: int = 2
) -> Mxfp4Plan:
    """Return the plan for a device; None is the GPU for MXFP4, the main memory for what is dequantised."""
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    is_cuda = target.type == "cuda"
    capability = torch.cuda.get_device_capability(target) if is_cuda else None
    missing = missing_kernels() if capability is not None and capability >= MIN_CUDA_CAPABILITY else []
    if device is None and _reason_to_dequantize(target.type, capability, missing):
        target = torch.device("cpu")
    free_bytes = free_memory(target)
    return mxfp4_plan(
        config,
        device_type=target.type,
        capability=capability,
        missing=missing,
        free_bytes=free_bytes,
        bytes_per_value=bytes_per_value,
    )


def missing_kernels() -> list[str]:
    """Return what this machine lacks to run MXFP4 natively, each by name; empty where it has all."""
    from transformers.utils.import_utils import is_kernels_available, is_triton_available

    missing = [] if is_triton_available("3.4.0") else ["the package triton (3.4 or later)"]
    if not is_kernels_available():
        return [*missing, "the package kernels"]
    try:
        from transformers.integrations.hub_kernels import get_kernel

        get_kernel(KERNELS_REPOSITORY, version=1)
    except Exception as error:  # whatever stops the kernels, the model still loads without them
        missing.append(f"{KERNELS_REPOSITORY} ({type(error).__name__})")
    return missing


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that a device still has; None where it does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    import psutil

    return psutil.virtual_memory().available


def _reason_to_dequantize(
    device_type: str, capability: tuple[int, int] | None, missing: Sequence[str]
) -> str:
    if device_type != "cuda" or capability is None:
        return f"the kernels need a CUDA device and this is {device_type}"
    if capability < MIN_CUDA_CAPABILITY:
        needs, got = (".".join(map(str, numbers)) for numbers in (MIN_CUDA_CAPABILITY, capability))
        return f"the kernels need compute capability {needs} and this device has {got}"
    return f"the kernels lack {' and '.join(missing)}" if missing else ""
