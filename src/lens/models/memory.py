"""Memory: what weights take, what a device has free, whether a load fits, and where a module computes.

Free of torch until a device is asked. Knows nothing of files. Spec: section 14.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lens.errors import MemoryNeedError, SettingError
from lens.models.quantized.mxfp4 import is_capable, kernel_obstacle, missing_kernels
from lens.models.quantized.torchao import is_quantizable
from lens.models.shapes import component_shapes, text_encoder_shapes

if TYPE_CHECKING:
    import torch

GB = 1e9
DTYPE_BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0, "int8": 1.0, "float8": 1.0}
MXFP4_BYTES_PER_VALUE = 17 / 32
"""32 values of 4 bits and one scale of 8."""


class Mxfp4Plan(NamedTuple):
    """How a GPT-OSS with experts in MXFP4 is loaded."""

    how: Literal["native", "packed", "dequantized"]
    """Experts in MXFP4 with kernels for it; in MXFP4, widened one at a time; all of them widened at load."""
    needed_bytes: int
    """The memory that the weights take."""
    message: str
    """One sentence with that memory, and the reason."""


def expected_memory(
    configs: Mapping[str, Mapping[str, Any]], dtype: str = "bfloat16", quantization: str | None = None
) -> dict[str, int]:
    """Return the bytes that the weights of each component take once loaded.

    `configs` holds the configurations of transformer, text_encoder and vae; any may be missing.
    Raises: SettingError for an unknown dtype or quantization.
    """
    for setting, value in (("dtype", dtype), ("quantize", quantization)):
        if value is not None and value not in DTYPE_BYTES:
            raise SettingError(setting, value, f"one of {', '.join(DTYPE_BYTES)}")
    memory = {}
    for component, config in configs.items():
        kind = quantization if component != "vae" else None
        shapes = component_shapes(component, config)
        total = sum(_weight_bytes(name, shape, dtype, kind) for name, shape in shapes.items())
        memory[component] = math.ceil(total)
    return memory


def _weight_bytes(name: str, shape: tuple[int, ...], dtype: str, quantization: str | None) -> float:
    plain = DTYPE_BYTES[dtype]
    is_linear = len(shape) == 2 and name.endswith(".weight")
    if quantization is None or not is_linear or not is_quantizable(name.removesuffix(".weight")):
        return math.prod(shape) * plain
    # One scale for each output, in the dtype of the activations.
    return math.prod(shape) * DTYPE_BYTES[quantization] + shape[0] * plain


def text_encoder_bytes(config: Mapping[str, Any], bytes_per_value: float, *, is_mxfp4: bool) -> int:
    """Return the bytes of all weights of a GPT-OSS; in MXFP4 the matrices of the experts are smaller."""
    total = 0.0
    for name, shape in text_encoder_shapes(config).items():
        is_packed = is_mxfp4 and name.endswith(("gate_up_proj", "down_proj"))
        total += math.prod(shape) * (MXFP4_BYTES_PER_VALUE if is_packed else bytes_per_value)
    return math.ceil(total)


def available_memory(device: "torch.device | str" = "cpu") -> int:
    """Return the bytes that are free: on a GPU, or for any other device in the machine and its container."""
    import torch

    device = torch.device(device)
    if device.type in ("cuda", "xpu"):
        return getattr(torch, device.type).mem_get_info(device)[0]
    import psutil

    return int(min(psutil.virtual_memory().available, _free_cgroup_bytes()))


def _free_cgroup_bytes() -> float:
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = (folder / "memory.max").read_text().strip(), (folder / "memory.current").read_text()
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        # The page cache of files that no process maps counts as used, but is freed on demand.
        return math.inf if limit == "max" else int(limit) - int(used) + int(stat.get("inactive_file", 0))
    except (OSError, ValueError):
        return math.inf


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out: torch.OutOfMemoryError, or the CPU allocator's plain RuntimeError."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    is_said = "out of memory" in str(error) or "DefaultCPUAllocator" in str(error)
    return isinstance(error, RuntimeError) and is_said


def mxfp4_plan(
    config: Mapping[str, Any],
    *,
    device_type: str,
    capability: tuple[int, int] | None,
    missing: Sequence[str],
    free_bytes: int | None,
    bytes_per_value: int = 2,
    is_dequantized: bool = False,
) -> Mxfp4Plan:
    """Return how to load a GPT-OSS with experts in MXFP4 on a device.

    Experts are dequantized only if asked. Otherwise they stay packed, and nothing is refused here: without
    kernels, or without the memory on the device, the weights are mapped from their file and used by layers.
    `missing` names what the kernels lack on this machine; `free_bytes` is None where it is unknown.

    Units: bytes_per_value is the size of a dequantized value.
    Raises: MemoryNeedError where dequantized weights do not fit, with both sizes and what to do.
    """
    needed_bytes = text_encoder_bytes(config, bytes_per_value, is_mxfp4=not is_dequantized)
    takes = f"The text encoder takes {needed_bytes / GB:.1f} GB"
    is_too_large = free_bytes is not None and needed_bytes > free_bytes
    free = "" if free_bytes is None else f"{device_type} has {free_bytes / GB:.1f} GB free"
    if is_dequantized:
        message = f"{takes} dequantized to {8 * bytes_per_value} bits, as asked."
        if is_too_large:
            raise MemoryNeedError(
                f"{message} {free}. Keep its experts packed, which is the default, or pass text features "
                "encoded elsewhere (prompt_embeds)."
            )
        return Mxfp4Plan("dequantized", needed_bytes, message)
    obstacle = kernel_obstacle(device_type, capability, missing, bytes_per_value)
    if not obstacle and not is_too_large:
        return Mxfp4Plan("native", needed_bytes, f"{takes} in MXFP4.")
    message = f"{takes}, with experts in MXFP4 that are widened when used, as {obstacle or free}."
    return Mxfp4Plan("packed", needed_bytes, message)


def mxfp4_plan_for_device(
    config: Mapping[str, Any],
    device: "torch.device | str | None" = None,
    bytes_per_value: int = 2,
    *,
    is_dequantized: bool = False,
) -> Mxfp4Plan:
    """Return the plan for a device; None is the GPU for MXFP4, and main memory for dequantized experts."""
    import torch

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    target = torch.device(device or ("cpu" if is_dequantized else accelerator or "cpu"))
    capability = torch.cuda.get_device_capability(target) if target.type == "cuda" else None
    can_have_kernels = not is_dequantized and is_capable(target.type, capability)
    return mxfp4_plan(
        config,
        device_type=target.type,
        capability=capability,
        missing=missing_kernels(target.type) if can_have_kernels else [],
        free_bytes=available_memory(target),
        bytes_per_value=bytes_per_value,
        is_dequantized=is_dequantized,
    )


def execution_device(module: Any) -> "torch.device":
    """Return the device that a module computes on; offloaded weights may be on another one."""
    return hooked_device(module) or module.device


def hooked_device(module: Any) -> "torch.device | None":
    """Return the device that the hooks of offloading move a module's weights to; None without such hooks."""
    import torch

    for part in module.modules() if hasattr(module, "_hf_hook") else ():
        hooked = getattr(getattr(part, "_hf_hook", None), "execution_device", None)
        if hooked is not None:
            return torch.device(hooked)
    if hasattr(module, "_diffusers_hook"):
        from diffusers.hooks.group_offloading import _get_group_onload_device

        try:
            return _get_group_onload_device(module)
        except ValueError:  # hooks of another kind
            pass
    return None
