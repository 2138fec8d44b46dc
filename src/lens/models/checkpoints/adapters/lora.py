"""LoRA and LoKr adapters on a denoiser: load several with weights, change the weights, fuse, unload, save.

LoRA uses PEFT. A LoKr adds its Kronecker product to the layer's output, without computing the full matrix,
and has the methods of PEFT's layers. Key styles are those of `lora_formats`.
Letters: B batch, O outputs, I inputs, R rank.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from lens.errors import CheckpointError, SettingError
from lens.models.checkpoints.adapters.lora_formats import (
    Adapter,
    LoKrWeights,
    LoraWeights,
    read_adapter,
    write_adapter,
)

if TYPE_CHECKING:
    from lens.models.denoiser import LensTransformer2DModel

_LOKR_CHILD_PREFIX = "kronecker_"


def linear_layers(denoiser: nn.Module) -> dict[str, tuple[int, int]]:
    """Return (O, I) of each linear layer by module name, with or without adapters."""
    layers: dict[str, tuple[int, int]] = {}
    for name, module in denoiser.named_modules():
        inside_adapter = any(piece in name for piece in (".base_layer", ".lora_A", ".lora_B"))
        if not inside_adapter and isinstance(module, (nn.Linear, LoraLayer)):
            layers[name] = (int(module.out_features), int(module.in_features))  # type: ignore[arg-type]
    return layers


def load_lora(
    denoiser: "LensTransformer2DModel",
    source: str | Path,
    adapter_name: str | None = None,
    weight: float = 1.0,
) -> str:
    """Load one adapter file or folder in addition to those on a denoiser; return its name."""
    return load_loras(denoiser, [(source, weight)], None if adapter_name is None else [adapter_name])[0]


def load_loras(
    denoiser: "LensTransformer2DModel",
    files: Sequence[tuple[str | Path, float]],
    names: Sequence[str] | None = None,
) -> list[str]:
    """Load adapter files into a denoiser, each active with its weight; return their names.

    Adapters that are loaded already do not change. All files are checked before the denoiser is changed.
    Raises: CheckpointError that lists keys without a layer; SettingError for a name that is taken.
    """
    linears = linear_layers(denoiser)
    adapters = [read_adapter(path, linears) for path, _ in files]
    names = _names_for(files, names, set(adapter_names(denoiser)))
    active = _active_adapters(denoiser)
    for name, adapter in zip(names, adapters, strict=True):
        add_adapter(denoiser, adapter, name)
    for module in _adapter_layers(denoiser):
        module.set_adapter([*active, *names])
        for name, (_, weight) in zip(names, files, strict=True):
            module.set_scale(name, weight)
    return names


def _names_for(
    files: Sequence[tuple[str | Path, float]], names: Sequence[str] | None, taken: set[str]
) -> list[str]:
    if names is None:
        return [_unused_name(Path(path), taken) for path, _ in files]
    for name in names:
        if name in taken or "." in name:
            raise SettingError("adapter_name", name, "a name without dots that no loaded adapter has")
        taken.add(name)
    return list(names)


def add_adapter(denoiser: "LensTransformer2DModel", adapter: Adapter, name: str) -> None:
    """Add one adapter to a denoiser under a name, active with weight 1."""
    low_rank = {module: part for module, part in adapter.items() if isinstance(part, LoraWeights)}
    if low_rank:
        ranks = {module: len(part.down) for module, part in low_rank.items()}
        alphas = {module: part.alpha for module, part in low_rank.items()}
        first = next(iter(low_rank))
        settings: dict[str, Any] = {
            "r": ranks[first],
            "lora_alpha": alphas[first],
            "target_modules": list(low_rank),
            "rank_pattern": _pattern_overrides(ranks, ranks[first]),
            "alpha_pattern": _pattern_overrides(alphas, alphas[first]),
            "init_lora_weights": False,
        }
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            warnings.filterwarnings("ignore", message="TorchaoLoraLinear was instantiated")
            denoiser.add_adapter(LoraConfig(**settings), adapter_name=name)
    for module, part in adapter.items():
        layer = denoiser.get_submodule(module)
        if isinstance(part, LoraWeights):
            _copy_lora_weights(layer, part, name)
        else:
            child = LoKrLayer(part, name, like=next(layer.parameters()))
            layer.add_module(_LOKR_CHILD_PREFIX + name, child)
            child.attach(layer)
    denoiser.eval()


def _pattern_overrides(values: Mapping[str, float], usual: float) -> dict[str, float]:
    return {re.escape(module): value for module, value in values.items() if value != usual}


@torch.no_grad()
def _copy_lora_weights(layer: nn.Module, part: LoraWeights, name: str) -> None:
    assert isinstance(layer, LoraLayer)
    for branch, value in ((layer.lora_A[name], part.down), (layer.lora_B[name], part.up)):
        branch.weight.copy_(value)  # type: ignore[union-attr, operator]
        branch.requires_grad_(False)


class LoKrLayer(nn.Module, BaseTunerLayer):
    """Adds scale * kron(w1, w2) @ x to the output of a linear layer.

    It is a child of the layer and moves with it; its factors are not in the state dict.
    """

    adapter_layer_names = ()
    w1: Tensor
    w2: Tensor

    def __init__(self, part: LoKrWeights, name: str, like: Tensor):
        super().__init__()
        dtype = like.dtype if like.is_floating_point() else part.w1.dtype
        self.register_buffer("w1", part.w1.to(like.device, dtype), persistent=False)
        self.register_buffer("w2", part.w2.to(like.device, dtype), persistent=False)
        self.adapter_name, self.scale, self.is_active = name, part.scale, True
        self._fused_scale: float | None = None
        self.scaling = {name: part.scale}
        self._active_adapter = name

    def attach(self, layer: nn.Module) -> None:
        """Add to a layer's output from now on."""
        self.handle = layer.register_forward_hook(lambda _, inputs, output: output + self(inputs[0], output))
        self._layer = [layer]  # in a list, as a module attribute would become a child

    def forward(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the term that is added to the output.

        Shapes: x (..., I) -> (..., O).
        """
        weight = self.scaling[self.adapter_name]
        if not self.is_active or weight == 0 or self._fused_scale is not None:
            return torch.zeros((), dtype=output.dtype, device=output.device)
        inputs = x.to(self.w1.dtype).unflatten(-1, (self.w1.shape[1], self.w2.shape[1]))  # (..., I1, I2)
        outputs = self.w1 @ (inputs @ self.w2.mT)                                         # (..., O1, O2)
        return (weight * outputs.flatten(-2)).to(output.dtype)                            # (..., O)

    # Names and methods by which diffusers, PEFT and the denoiser control adapter layers.
    def merge(self) -> None:
        if self.is_active and self._fused_scale is None:
            self._fused_scale = self.scaling[self.adapter_name]
            self._add(self._fused_scale)

    def unmerge(self) -> None:
        if self._fused_scale is not None:
            self._add(-self._fused_scale)
            self._fused_scale = None

    @torch.no_grad()
    def _add(self, weight: float) -> None:
        weights: Any = getattr(self._layer[0], "base_layer", self._layer[0]).weight
        weights += (weight * torch.kron(self.w1.float(), self.w2.float())).to(weights)

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        names = [adapter_names] if isinstance(adapter_names, str) else adapter_names
        self.is_active = self.adapter_name in names

    def set_scale(self, adapter: str, scale: float) -> None:
        if adapter == self.adapter_name:
            self.scaling[adapter] = self.scale * scale

    def scale_layer(self, scale: float) -> None:
        self.scaling[self.adapter_name] *= scale

    def unscale_layer(self, scale: float | None = None) -> None:
        name = self.adapter_name
        self.scaling[name] = self.scale if scale is None else self.scaling[name] / scale

    def enable_adapters(self, enabled: bool) -> None:
        self.is_active = enabled


def adapter_names(denoiser: nn.Module) -> list[str]:
    """Return the names of all adapters on a denoiser, in the order of loading."""
    names = dict.fromkeys(getattr(denoiser, "peft_config", {}) or {})
    return list(names | dict.fromkeys(m.adapter_name for m in denoiser.modules() if isinstance(m, LoKrLayer)))


def _adapter_layers(denoiser: nn.Module) -> list[Any]:
    return [module for module in denoiser.modules() if isinstance(module, (LoraLayer, LoKrLayer))]


def _active_adapters(denoiser: nn.Module) -> list[str]:
    names: dict[str, None] = {}
    for module in _adapter_layers(denoiser):
        if not isinstance(module, LoKrLayer):
            names |= dict.fromkeys(module.active_adapters)
        elif module.is_active:
            names[module.adapter_name] = None
    return list(names)


def set_lora_weights(denoiser: nn.Module, weights: Mapping[str, float]) -> None:
    """Activate exactly these adapters, each with its weight.

    Raises: SettingError for a name that is not loaded.
    """
    known = adapter_names(denoiser)
    for name in weights:
        if name not in known:
            raise SettingError("lora", name, f"the name of a loaded adapter ({', '.join(known) or 'none'})")
    for module in _adapter_layers(denoiser):
        module.set_adapter(list(weights))
        for name, weight in weights.items():
            module.set_scale(name, weight)


def fuse_loras(denoiser: nn.Module) -> None:
    """Fuse the active adapters, at their weights, into the layers, so that sampling is as fast as without.

    Raises: SettingError for quantized weights, to which nothing can be added.
    """
    layers = _adapter_layers(denoiser)
    for layer in layers:
        owner = layer._layer[0] if isinstance(layer, LoKrLayer) else layer
        weight: Any = getattr(owner, "base_layer", owner).weight
        if type(weight) not in (nn.Parameter, Tensor) or not weight.is_floating_point():
            fix = "Load the model without quantization, fuse the adapters, then quantize."
            raise SettingError("fuse_lora", type(weight).__name__, "weights that are not quantized", fix)
    for layer in layers:
        if not isinstance(layer, LoKrLayer) and not layer.merged:
            layer.fused_scales = dict(layer.scaling)
        layer.merge()


def unfuse_loras(denoiser: nn.Module) -> None:
    """Subtract fused adapters from the layers again, up to rounding; they stay active."""
    for layer in _adapter_layers(denoiser):
        scaling = dict(layer.scaling)
        layer.scaling.update(getattr(layer, "fused_scales", {}))  # PEFT subtracts at the current scale
        layer.unmerge()
        layer.scaling.update(scaling)


def unload_loras(denoiser: "LensTransformer2DModel") -> None:
    """Remove all adapters; the denoiser is then as before, bit for bit."""
    for layer in list(denoiser.modules()):
        for child_name, child in list(layer.named_children()):
            if isinstance(child, LoKrLayer):
                child.handle.remove()
                delattr(layer, child_name)
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
        elif isinstance(module, LoKrLayer) and module.adapter_name == name:
            adapter[module_name.rpartition(".")[0]] = LoKrWeights(module.w1, module.w2, module.scale)
    return adapter


def _lora_weights_of(layer: LoraLayer, name: str) -> LoraWeights:
    if layer.use_dora.get(name):
        raise CheckpointError(f"Adapter {name} is a DoRA, which no key style here has. Save it with PEFT.")
    rank = layer.r[name]
    root = rank**0.5 if getattr(layer, "use_rslora", {}).get(name) else 1.0
    down, up = layer.lora_A[name].weight, layer.lora_B[name].weight  # type: ignore[union-attr]
    return LoraWeights(down.detach(), up.detach(), layer.lora_alpha[name] * root)  # type: ignore[arg-type]


def save_lora(denoiser: nn.Module, path: str | Path, style: str = "peft", name: str | None = None) -> Path:
    """Write one of a denoiser's adapters to a .safetensors file in a key style of `lora_formats.STYLES`."""
    return write_adapter(adapter_of(denoiser, name), path, style)


def _unused_name(path: Path, taken: set[str]) -> str:
    stem = re.sub(r"\W+", "_", path.stem).strip("_") or "adapter"
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}_{number}", number + 1
    taken.add(name)
    return name
