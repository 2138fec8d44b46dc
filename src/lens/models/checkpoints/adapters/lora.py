"""Adapters on a denoiser: load several with weights, change the weights, fuse, unload, save.

LoRA uses PEFT, every other kind `layers`. Files and key styles are those of `lora_formats`.
Letters: O outputs, I inputs, R rank.
"""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import nn

from lens.errors import SettingError
from lens.models.checkpoints.adapters.hotswap import prepare_for_hotswap, set_scale
from lens.models.checkpoints.adapters.layers import (
    AdapterLayer,
    MatrixAdapter,
    VectorAdapter,
    adapter_layers,
    remove_adapter_layers,
)
from lens.models.checkpoints.adapters.lora_formats import read_adapter, write_adapter
from lens.models.checkpoints.adapters.weights import (
    Adapter,
    AdapterWeights,
    DifferenceWeights,
    LoraWeights,
    depends_on_weight,
)
from lens.models.checkpoints.module_loader import one_at_a_time
from lens.models.mapped_memory import is_mapped
from lens.models.quantized.packed_modules import PackedLinear

if TYPE_CHECKING:
    from lens.models.denoiser import LensTransformer2DModel

_MODULE_ENTRIES = nn.ModuleDict().__dict__  # such as `training`
_INSIDE_PEFT = (".base_layer", ".lora_A", ".lora_B", ".lora_magnitude_vector")


def linear_layers(denoiser: nn.Module) -> dict[str, tuple[int, int]]:
    """Return (O, I) of each linear layer by module name, with or without adapters."""
    layers: dict[str, tuple[int, int]] = {}
    for name, module in denoiser.named_modules():
        inside_adapter = any(piece in name for piece in _INSIDE_PEFT)
        if not inside_adapter and isinstance(module, (nn.Linear, LoraLayer)):
            layers[name] = (int(module.out_features), int(module.in_features))  # type: ignore[arg-type]
    return layers


def adaptable_weights(denoiser: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all weights that an adapter can change, named as `read_adapter` needs them."""
    shapes: dict[str, tuple[int, ...]] = {**linear_layers(denoiser)}
    for name in list(shapes):
        if getattr(_own_layer(denoiser.get_submodule(name)), "bias", None) is not None:
            shapes[f"{name}.bias"] = (shapes[name][0],)
    for name, module in denoiser.named_modules():
        weight = module._parameters.get("weight")
        if weight is not None and weight.ndim == 1 and not any(piece in name for piece in _INSIDE_PEFT):
            shapes[name] = tuple(weight.shape)
    return shapes


def _own_layer(layer: nn.Module) -> nn.Module:
    """Return the layer of the denoiser itself, which PEFT may have wrapped."""
    return layer.base_layer if isinstance(layer, LoraLayer) else layer  # type: ignore[return-value]


def load_lora(
    denoiser: "LensTransformer2DModel",
    source: str | Path | Mapping[str, torch.Tensor],
    adapter_name: str | None = None,
    weight: float = 1.0,
) -> str:
    """Load one adapter file or folder in addition to those on a denoiser; return its name."""
    return load_loras(denoiser, [(source, weight)], None if adapter_name is None else [adapter_name])[0]


@one_at_a_time
def load_loras(
    denoiser: "LensTransformer2DModel",
    files: Sequence[tuple[str | Path | Mapping[str, torch.Tensor], float]],
    names: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> list[str]:
    """Load adapter files or state dicts into a denoiser, each active with its weight; return their names.

    Adapters that are loaded already do not change. `settings` are those of PEFT for sources without any.
    All files are checked before the denoiser is changed.
    Raises: CheckpointError that lists keys without a layer; SettingError for a name that is taken or cannot
        be one, or for fused adapters in the same layers.
    """
    layers = adaptable_weights(denoiser)
    adapters = [read_adapter(source, layers, settings=settings) for source, _ in files]
    names = _names_for(files, names, set(adapter_names(denoiser)))
    active = active_adapters(denoiser)
    for name, adapter in zip(names, adapters, strict=True):
        _check_can_be_added(denoiser, adapter, name)
    for name, adapter in zip(names, adapters, strict=True):
        add_adapter(denoiser, adapter, name)
    for module in _controlled_layers(denoiser):
        module.set_adapter([*active, *names])
        for name, (_, weight) in zip(names, files, strict=True):
            set_scale(module, name, weight)
    for name in names:
        prepare_for_hotswap(denoiser, name)
    return names


def _names_for(
    files: Sequence[tuple[str | Path | Mapping[str, torch.Tensor], float]],
    names: Sequence[str] | None,
    taken: set[str],
) -> list[str]:
    if names is None:
        paths = [Path("adapter") if isinstance(source, Mapping) else Path(source) for source, _ in files]
        return [_unused_name(path, taken) for path in paths]
    for name in names:
        if name in taken or not _can_be_name(name):
            needs = "a name without dots that no loaded adapter and no attribute of torch.nn.Module has"
            raise SettingError("adapter_name", name, needs)
        taken.add(name)
    return list(names)


def add_adapter(denoiser: "LensTransformer2DModel", adapter: Adapter, name: str) -> None:
    """Add one adapter to a denoiser under a name, active with weight 1.

    Raises: SettingError for a DoRA while adapters are fused, as it depends on the weights.
    """
    _check_can_be_added(denoiser, adapter, name)
    low_rank = {
        module: part for module, part in adapter.items()
        if isinstance(part, LoraWeights) and part.magnitude is None
    }  # fmt: skip
    others = {target: part for target, part in adapter.items() if target not in low_rank}
    if low_rank:
        _add_peft_layers(denoiser, low_rank, name)
    for target, part in others.items():
        layer = _add_layer(denoiser, target, part, name)
        layer.attach()
    denoiser.eval()


def _check_can_be_added(denoiser: nn.Module, adapter: Adapter, name: str) -> None:
    fix = "Unfuse them, load it, then fuse again."
    depends = any(map(depends_on_weight, adapter.values()))
    if depends and any(layer.merged for layer in _controlled_layers(denoiser)):
        needs = "a denoiser without fused adapters, as it depends on the weights"
        raise SettingError("adapter_name", name, needs, fix)
    for target in adapter:
        if getattr(denoiser.get_submodule(target.removesuffix(".bias")), "merged", False):
            needs = f"{target} without fused adapters, beside which another one has no effect"
            raise SettingError("adapter_name", name, needs, fix)


def _add_peft_layers(denoiser: "LensTransformer2DModel", parts: dict[str, LoraWeights], name: str) -> None:
    ranks = {module: len(part.down) for module, part in parts.items()}
    alphas = {module: part.alpha for module, part in parts.items()}
    first = next(iter(parts))
    settings: dict[str, Any] = {
        "r": ranks[first],
        "lora_alpha": alphas[first],
        "target_modules": list(parts),
        "rank_pattern": _pattern_overrides(ranks, ranks[first]),
        "alpha_pattern": _pattern_overrides(alphas, alphas[first]),
        "init_lora_weights": False,
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        warnings.filterwarnings("ignore", message="TorchaoLoraLinear was instantiated")
        denoiser.add_adapter(LoraConfig(**settings), adapter_name=name)
    for module, part in parts.items():
        _copy_lora_weights(denoiser.get_submodule(module), part, name)


def _add_layer(denoiser: nn.Module, target: str, part: AdapterWeights, name: str) -> AdapterLayer:
    is_bias = target.endswith(".bias")
    owner = _own_layer(denoiser.get_submodule(target.removesuffix(".bias")))
    if isinstance(part, DifferenceWeights) and part.value.ndim == 1:
        return VectorAdapter(part, name, owner, "bias" if is_bias else "weight")
    return MatrixAdapter(part, name, owner)


def _pattern_overrides(values: Mapping[str, float], usual: float) -> dict[str, float]:
    return {re.escape(module): value for module, value in values.items() if value != usual}


@torch.no_grad()
def _copy_lora_weights(layer: nn.Module, part: LoraWeights, name: str) -> None:
    assert isinstance(layer, LoraLayer)
    for branch, value in ((layer.lora_A[name], part.down), (layer.lora_B[name], part.up)):
        branch.weight.copy_(value)  # type: ignore[union-attr, operator]
        branch.requires_grad_(False)


def adapter_names(denoiser: nn.Module) -> list[str]:
    """Return the names of all adapters on a denoiser, in the order of loading."""
    names = dict.fromkeys(getattr(denoiser, "peft_config", {}) or {})
    return list(names | dict.fromkeys(layer.adapter_name for layer in adapter_layers(denoiser)))


def _controlled_layers(denoiser: nn.Module) -> list[Any]:
    """Return all layers of adapters, those of PEFT included."""
    return [module for module in denoiser.modules() if isinstance(module, (LoraLayer, AdapterLayer))]


def active_adapters(denoiser: nn.Module) -> list[str]:
    """Return the names of the adapters that act, or would if they were not disabled."""
    names: dict[str, None] = {}
    for module in _controlled_layers(denoiser):
        if not isinstance(module, AdapterLayer):
            names |= dict.fromkeys(module.active_adapters)
        elif module.is_active:
            names[module.adapter_name] = None
    return list(names)


def set_lora_weights(denoiser: nn.Module, weights: Mapping[str, float]) -> None:
    """Activate exactly these adapters, each with its weight.

    Raises: SettingError for a name that is not loaded.
    """
    _check_names(denoiser, weights)
    for module in _controlled_layers(denoiser):
        module.set_adapter(list(weights))
        for name, weight in weights.items():
            set_scale(module, name, weight)


def _check_names(denoiser: nn.Module, names: Iterable[str]) -> None:
    known = adapter_names(denoiser)
    for name in names:
        if name not in known:
            needs = f"the name of a loaded adapter ({', '.join(known) or 'none'})"
            # The words of diffusers' error, which programs look for.
            raise SettingError("lora", name, needs, f"{name} is not in the list of present adapters.")


def fuse_loras(denoiser: nn.Module, names: Sequence[str] | None = None, is_checked: bool = False) -> None:
    """Fuse the active adapters, at their weights, into the layers, so that sampling is as fast as without.

    `names` activates more of them first. With `is_checked` adapters that are not finite are refused.
    Raises: SettingError for quantized weights, to which nothing can be added, or for `names` that leave out
        an active adapter, which would have no effect beside fused ones.
    """
    layers = _controlled_layers(denoiser)
    if names is not None:
        _check_names(denoiser, names)
        rest = [name for name in active_adapters(denoiser) if name not in names]
        if rest:
            needs = f"all active adapters; {', '.join(rest)} would have no effect beside fused ones"
            raise SettingError("adapter_names", list(names), needs, "Choose with set_adapters.")
        for layer in layers:
            layer.set_adapter(list(names))
    for name in active_adapters(denoiser) if is_checked else ():
        for target, part in adapter_of(denoiser, name).items():
            if not all(bool(v.isfinite().all()) for v in part if isinstance(v, torch.Tensor)):
                raise SettingError("safe_fusing", name, f"finite values, but those of {target} are not")
    for layer in layers:
        if not isinstance(layer, VectorAdapter):
            _check_can_be_fused(layer.owner if isinstance(layer, MatrixAdapter) else layer.base_layer)
    # PEFT's come last: a DoRA is computed from the layer's own weight.
    for layer in sorted(layers, key=lambda layer: isinstance(layer, LoraLayer)):
        if isinstance(layer, LoraLayer):
            if layer.merged:
                continue
            layer.fused_scales = dict(layer.scaling)  # type: ignore[assignment]
            weight: Any = layer.base_layer.weight
            if is_mapped(weight):  # the pages of a file may be dropped, with what was added to them
                weight.data = weight.data.clone()
        layer.merge()


def fused_adapters(denoiser: nn.Module) -> set[str]:
    """Return the names of the adapters that are fused into the layers."""
    return {name for layer in _controlled_layers(denoiser) for name in layer.merged_adapters}


def delete_adapters(denoiser: "LensTransformer2DModel", names: Sequence[str]) -> None:
    """Remove some adapters.

    Raises: SettingError for a name that is not loaded.
    """
    _check_names(denoiser, names)
    denoiser.delete_adapters(list(names))


def move_adapters(denoiser: nn.Module, names: Sequence[str], device: Any) -> None:
    """Move the weights of adapters to a device; to act they must be where the denoiser is.

    Raises: SettingError for a name that is not loaded.
    """
    _check_names(denoiser, names)
    for layer in _controlled_layers(denoiser):
        if isinstance(layer, AdapterLayer):
            if layer.adapter_name in names:
                layer.to(device)
            continue
        for name in names:
            for part in (layer.lora_A, layer.lora_B, layer.lora_magnitude_vector):
                if name in part:
                    part[name] = part[name].to(device)  # type: ignore[index]


def _check_can_be_fused(layer: nn.Module) -> None:
    if isinstance(layer, PackedLinear):
        kept = layer.packed.format.name
        fix = "Use them without fusing, or load the model with keep_packed=False."
        fix = f"Adapters cannot be fused into weights kept in {kept}. {fix}"
        raise SettingError("fuse_lora", kept, "a model without packed weights", fix)
    weight = layer._parameters.get("weight")
    if weight is not None and type(weight) is nn.Parameter and weight.is_floating_point():
        return
    kind = type(layer if weight is None else weight).__name__
    fix = "Load the model without quantization, fuse the adapters, then quantize; or use them without fusing."
    raise SettingError("fuse_lora", kind, "weights that are not quantized", fix)


def unfuse_loras(denoiser: nn.Module) -> None:
    """Subtract fused adapters from the layers again, up to rounding; they stay active."""
    for layer in _controlled_layers(denoiser):
        scaling = dict(layer.scaling)
        layer.scaling.update(getattr(layer, "fused_scales", {}))  # PEFT subtracts at the current scale
        layer.unmerge()
        layer.scaling.update(scaling)


def unload_loras(denoiser: "LensTransformer2DModel") -> None:
    """Remove all adapters; the denoiser is then as before, bit for bit unless they were fused."""
    remove_adapter_layers(denoiser)
    if getattr(denoiser, "peft_config", None):
        denoiser.unload_lora()


def adapter_of(denoiser: nn.Module, name: str | None = None) -> Adapter:
    """Return the weights of one adapter; the name is optional if there is only one."""
    known = adapter_names(denoiser)
    if name is None and len(known) == 1:
        name = known[0]
    if name not in known:
        raise SettingError("adapter", name, f"the name of a loaded adapter ({', '.join(known) or 'none'})")
    adapter: Adapter = {}
    for module_name, module in denoiser.named_modules():
        if isinstance(module, LoraLayer) and name in module.lora_A:
            adapter[module_name] = _lora_weights_of(module, name)
        elif isinstance(module, AdapterLayer) and module.adapter_name == name:
            owner = module_name.rpartition(".")[0].removesuffix(".base_layer")
            adapter[f"{owner}.bias" if module.parameter == "bias" else owner] = module.part
    return adapter


def _lora_weights_of(layer: LoraLayer, name: str) -> LoraWeights:
    rank = layer.r[name]
    divisor = rank**0.5 if getattr(layer, "use_rslora", {}).get(name) else rank
    down: Any = layer.lora_A[name].weight  # type: ignore[union-attr]
    up: Any = layer.lora_B[name].weight  # type: ignore[union-attr]
    magnitude: Any = None
    if name in layer.lora_magnitude_vector:
        magnitude = layer.lora_magnitude_vector[name].weight.detach()[:, None]  # type: ignore[index]
    alpha = layer.lora_alpha[name] / divisor * len(down)  # a hotswap may have padded the rank
    return LoraWeights(down.detach(), up.detach(), alpha, magnitude)


def save_lora(denoiser: nn.Module, path: str | Path, style: str = "peft", name: str | None = None) -> Path:
    """Write one of a denoiser's adapters to a .safetensors file in a key style of `lora_formats.STYLES`."""
    return write_adapter(adapter_of(denoiser, name), path, style)


def _can_be_name(name: str) -> bool:
    """Return whether PEFT can keep an adapter of this name in a ModuleDict."""
    return bool(name) and "." not in name and not hasattr(nn.ModuleDict, name) and name not in _MODULE_ENTRIES


def _unused_name(path: Path, taken: set[str]) -> str:
    stem = re.sub(r"\W+", "_", path.stem).strip("_") or "adapter"
    name, number = stem, 2
    while name in taken or not _can_be_name(name):
        name, number = f"{stem}_{number}", number + 1
    taken.add(name)
    return name
