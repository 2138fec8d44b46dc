"""Smaller weights on the fly: int8 or float8 linear layers through torchao, and the memory a model takes.

Weights alone are quantised, activations keep their precision. Modulation, the ways in and out, and the time
embedding stay as they are: quantised, they give grid patterns and broken text. Spec: section 14.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lens.errors import MemoryNeedError, MissingExtraError, SettingError
from lens.models.shapes import denoiser_shapes, text_encoder_shapes, vae_shapes

if TYPE_CHECKING:
    import torch
    from torch import nn

QUANTIZATIONS = ("int8", "float8")
DTYPE_BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0, "int8": 1.0, "float8": 1.0}

DENOISER_SKIP_MODULES = ("img_mod", "txt_mod", "img_in", "txt_in", "proj_out", "time_text_embed", "norm_out")
TEXT_ENCODER_SKIP_MODULES = ("lm_head", "embed_tokens", "router")

GB = 1e9
# Beside the weights: activations, the allocator's slack, and kernels' work space.
MEMORY_OVERHEAD_RATIO = 0.15


def is_quantizable(name: str) -> bool:
    """Return whether a linear layer of the denoiser or text encoder may lose precision, by its name."""
    pieces = name.split(".")
    return not any(kept in pieces for kept in (*DENOISER_SKIP_MODULES, *TEXT_ENCODER_SKIP_MODULES))


def quantize_weights(module: "nn.Module", quantization: str) -> "nn.Module":
    """Replace the weights of a model's linear layers by int8 or float8 ones, in place, and return the model.

    Load adapters afterwards. The experts of a GPT-OSS are no linear layers and stay as loaded.
    Raises: SettingError for an unknown kind, MissingExtraError.
    """
    config = _torchao_config(quantization)
    from torch import nn
    from torchao.quantization import quantize_

    quantize_(
        module, config, filter_fn=lambda layer, name: isinstance(layer, nn.Linear) and is_quantizable(name)
    )
    return module


def _torchao_config(quantization: str) -> Any:
    if quantization not in QUANTIZATIONS:
        raise SettingError("quantize", quantization, f"one of {', '.join(QUANTIZATIONS)}, or nothing")
    try:
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig
    except ImportError as error:
        raise MissingExtraError("Quantization", "torchao", "quantize") from error
    return Int8WeightOnlyConfig() if quantization == "int8" else Float8WeightOnlyConfig()


def expected_memory(
    configs: Mapping[str, Mapping[str, Any]], dtype: str = "bfloat16", quantization: str | None = None
) -> dict[str, int]:
    """Return the bytes that each component's weights will take once loaded.

    `configs` gives the settings of transformer, text_encoder and vae by component; any may be missing.
    Raises: SettingError for an unknown dtype or quantisation.
    """
    for setting, value in (("dtype", dtype), ("quantize", quantization)):
        if value is not None and value not in DTYPE_BYTES:
            raise SettingError(setting, value, f"one of {', '.join(DTYPE_BYTES)}")
    shapes_by_component = {
        "transformer": denoiser_shapes,
        "text_encoder": text_encoder_shapes,
        "vae": vae_shapes,
    }
    memory = {}
    for component, config in configs.items():
        shapes = shapes_by_component[component](config)
        kind = quantization if component != "vae" else None
        memory[component] = math.ceil(
            sum(_weight_bytes(name, shape, dtype, kind) for name, shape in shapes.items())
        )
    return memory


def _weight_bytes(name: str, shape: tuple[int, ...], dtype: str, quantization: str | None) -> float:
    plain = DTYPE_BYTES[dtype]
    is_linear = len(shape) == 2 and name.endswith(".weight")
    if quantization is None or not is_linear or not is_quantizable(name.removesuffix(".weight")):
        return math.prod(shape) * plain
    # One scale for each output, in the dtype of the activations.
    return math.prod(shape) * DTYPE_BYTES[quantization] + shape[0] * plain


def available_memory(device: "torch.device | str" = "cpu") -> int:
    """Return the bytes that are free on a device; on the CPU what machine and container still give."""
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return int(min(psutil.virtual_memory().available, _free_cgroup_bytes()))


def _free_cgroup_bytes() -> float:
    folder = Path("/sys/fs/cgroup")
    try:
        limit, used = (folder / "memory.max").read_text().strip(), (folder / "memory.current").read_text()
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        # Pages of files that nobody holds count as used, but are given back when asked for.
        return math.inf if limit == "max" else int(limit) - int(used) + int(stat.get("inactive_file", 0))
    except (OSError, ValueError):
        return math.inf


def check_memory(
    needed: Mapping[str, int], device: "torch.device | str" = "cpu", available: float | None = None
) -> str:
    """Return one line that says what a load takes and what is there; refuse a load that cannot fit.

    `needed` is bytes by component, as from `expected_memory`.
    Raises: MemoryNeedError with what it takes, what is there and what to do.
    """
    free_bytes = available_memory(device) if available is None else available
    needed_bytes = sum(needed.values()) * (1 + MEMORY_OVERHEAD_RATIO)
    parts = ", ".join(f"{component} {size / GB:.1f}" for component, size in needed.items())
    takes = f"Loading takes about {needed_bytes / GB:.1f} GB on {device} ({parts} GB and room to work)"
    line = f"{takes}; {free_bytes / GB:.1f} GB is free."
    if needed_bytes > free_bytes:
        raise MemoryNeedError(
            f"{line} Try --quantize int8, --dtype bfloat16 or --offload, or close other programs; "
            "lens-nano needs under 1 GB."
        )
    return line
