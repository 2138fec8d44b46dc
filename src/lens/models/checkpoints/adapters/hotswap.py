"""Hotswap: another LoRA in the place of a loaded one, so that a compiled denoiser is not compiled again.

diffusers' `enable_lora_hotswap` makes room for the largest rank before the first LoRA is loaded.
"""

from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from lens.errors import SettingError
from lens.models.checkpoints.adapters.weights import Adapter, LoraWeights


def prepare_for_hotswap(denoiser: Any, name: str) -> None:
    """Give a LoRA that was just loaded the rank that `enable_lora_hotswap` has asked for, if it has."""
    settings = denoiser._prepare_lora_hotswap_kwargs
    if settings is None or name not in (getattr(denoiser, "peft_config", None) or {}):
        return
    from peft.utils.hotswap import prepare_model_for_compiled_hotswap

    prepare_model_for_compiled_hotswap(denoiser, config=denoiser.peft_config[name], **settings)
    denoiser._prepare_lora_hotswap_kwargs = None


def set_scale(layer: Any, name: str, weight: float) -> None:
    """Set the weight of an adapter on a layer; a scale in a tensor, as for hotswaps, stays in that tensor."""
    old = layer.scaling.get(name)
    layer.set_scale(name, weight)
    if isinstance(old, Tensor):
        layer.scaling[name] = old.fill_(layer.scaling[name])


@torch.no_grad()
def hotswap_adapter(denoiser: nn.Module, adapter: Adapter, name: str, weight: float = 1.0) -> None:
    """Write a LoRA over the loaded one of this name; layers that it leaves out get zeros.

    Raises: SettingError for another kind than LoRA, for a layer without the old LoRA or a rank above its own.
    """
    layers = {
        module_name: module for module_name, module in denoiser.named_modules()
        if isinstance(module, LoraLayer) and name in module.lora_A
    }  # fmt: skip
    if not layers or any(name in layer.lora_magnitude_vector for layer in layers.values()):
        fix = "Load one without hotswap first."
        raise SettingError("adapter_name", name, "the name of a loaded plain LoRA", fix)
    for target, part in adapter.items():
        if not isinstance(part, LoraWeights) or part.magnitude is not None:
            raise SettingError("hotswap", True, f"a plain LoRA, but {target} has another kind")
        if target not in layers:
            raise SettingError("hotswap", True, f"a LoRA of the layers of {name!r}, which {target} is not")
        room = len(layers[target].lora_A[name].weight)  # type: ignore[union-attr, arg-type]
        if len(part.down) > room:
            fix = f"Call enable_lora_hotswap(target_rank={len(part.down)}) before the first LoRA is loaded."
            needs = f"a rank of at most {room}, but {target} has {len(part.down)}"
            raise SettingError("hotswap", True, needs, fix)
    for module_name, layer in layers.items():
        _overwrite(layer, adapter.get(module_name), name)
        set_scale(layer, name, weight)


def _overwrite(layer: LoraLayer, part: Any, name: str) -> None:
    down: Tensor = layer.lora_A[name].weight  # type: ignore[assignment, union-attr]  # (R, I)
    up: Tensor = layer.lora_B[name].weight  # type: ignore[assignment, union-attr]  # (O, R)
    down.zero_()
    up.zero_()
    if part is not None:
        rank = len(part.down)
        down[:rank].copy_(part.down)
        up[:, :rank].copy_(part.scale * part.up.float())
    layer.r[name] = layer.lora_alpha[name] = len(down)  # the scale is in the up matrix now
    layer.use_rslora[name] = False
