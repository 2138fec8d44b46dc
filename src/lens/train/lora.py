"""LoRA adapters in training: added to a denoiser by PEFT, and exported as adapter files.

Knows nothing of losses. Letters: R rank.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lens.errors import SettingError
from lens.models.checkpoints.adapters.lora_formats import Adapter, LoraWeights, write_adapter
from lens.train.settings.run import LoraSettings


def add_lora(
    denoiser: Any,
    settings: LoraSettings,
    seed: int,
    adapter_names: Sequence[str],
    trainable_adapters: Sequence[str],
) -> None:
    """Add adapters of these names, with equal initial weights, to a denoiser; train only some of them.

    Raises: SettingError for targets that match no layer.
    """
    from peft import LoraConfig

    denoiser.requires_grad_(False)
    layers = [
        name for name, module in denoiser.transformer_blocks.named_modules()
        if isinstance(module, torch.nn.Linear) and name.endswith(tuple(f".{end}" for end in settings.targets))
    ]  # fmt: skip
    if not layers:
        needs = "suffixes of names of linear layers, such as img_qkv"
        raise SettingError("lora.targets", settings.targets, needs)
    targets = [f"transformer_blocks.{name}" for name in layers]
    for adapter_name in adapter_names:
        torch.manual_seed(seed)  # PEFT draws the initial weights
        denoiser.add_adapter(
            LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=targets),
            adapter_name=adapter_name,
        )
    for name, parameter in denoiser.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(name.split(".")[-2] in trainable_adapters)


def extract_lora(state: dict[str, Tensor], alpha: float, adapter_name: str) -> Adapter:
    """Return the adapter of a name from a state dict of a denoiser."""
    down_end, up_end = (f".lora_{side}.{adapter_name}.weight" for side in "AB")
    return {
        (module := name.removesuffix(down_end)): LoraWeights(down, state[module + up_end], alpha)
        for name, down in state.items() if name.endswith(down_end)
    }  # fmt: skip


def export_lora(adapter: Adapter, folder: Path) -> None:
    """Write an adapter in both key styles."""
    folder.mkdir(parents=True, exist_ok=True)
    write_adapter(adapter, folder / "lora.safetensors", "transformer")
    write_adapter(adapter, folder / "lora_kohya.safetensors", "kohya")
