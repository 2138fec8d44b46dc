"""LoRA adapters on a denoiser that is trained: put on by PEFT, taken out as files of their own.

Knows nothing of what they learn. Letters: R rank.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lens.errors import SettingError
from lens.models.checkpoints.lora_formats import Adapter, LoraWeights, write_adapter
from lens.train.settings.run import LoraSettings


def add_lora(
    denoiser: Any,
    settings: LoraSettings,
    seed: int,
    adapter_names: Sequence[str],
    trainable_adapters: Sequence[str],
) -> None:
    """Put adapters of these names on a denoiser, all alike at first; of them and the denoiser train some.

    Raises: SettingError for targets that are no layers.
    """
    from peft import LoraConfig

    denoiser.requires_grad_(False)
    layers = [
        name for name, module in denoiser.transformer_blocks.named_modules()
        if isinstance(module, torch.nn.Linear) and name.endswith(tuple(f".{end}" for end in settings.targets))
    ]  # fmt: skip
    if not layers:
        needs = "ends of the names of linear layers, such as img_qkv"
        raise SettingError("lora.targets", settings.targets, needs)
    targets = [f"transformer_blocks.{name}" for name in layers]
    for adapter_name in adapter_names:
        torch.manual_seed(seed)  # PEFT draws the first weights
        denoiser.add_adapter(
            LoraConfig(r=settings.rank, lora_alpha=settings.alpha, target_modules=targets),
            adapter_name=adapter_name,
        )
    for name, parameter in denoiser.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(name.split(".")[-2] in trainable_adapters)


def extract_lora(state: dict[str, Tensor], alpha: float, adapter_name: str) -> Adapter:
    """Return the adapter of a name that a state of a denoiser holds beside its weights."""
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
