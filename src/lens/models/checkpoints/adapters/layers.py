"""Layers of adapters that PEFT's LoRA does not cover: they add to a linear layer's output, a bias or a norm.

Each is a child of the layer, moves with it, stays out of the state dict, and has the names and methods by
which diffusers, PEFT and the denoiser control adapters.
Letters: O outputs, I inputs.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from lens.core.products import is_mixed
from lens.errors import SettingError
from lens.models.checkpoints.adapters.weights import (
    AdapterWeights,
    DifferenceWeights,
    change_of_output,
    depends_on_weight,
    gain,
    total_delta,
)
from lens.models.mapped_memory import is_mapped, release
from lens.models.quantized.packed_modules import PackedLinear

_HOOK, _UNADAPTED = "_adapter_hook", "_unadapted_"
_KEPT_IN_FLOAT32 = ("magnitude", "blocks", "rescale")


class AdapterLayer(nn.Module, BaseTunerLayer):
    """The part of one adapter on one parameter of a layer, `weight` or `bias`."""

    adapter_layer_names = ()

    def __init__(self, part: AdapterWeights, name: str, owner: nn.Module, parameter: str, dtype: torch.dtype):
        super().__init__()
        device = _device_of(owner)
        if device.type == "meta":
            fix = "Load adapters before the model is offloaded."
            raise SettingError("adapter_name", name, "a model whose weights are in memory", fix)
        self._fields = [field for field, value in part._asdict().items() if isinstance(value, Tensor)]
        numbers: Any = part._replace(**dict.fromkeys(self._fields))
        self._numbers: AdapterWeights = numbers  # what is no tensor, such as alpha
        for field in self._fields:
            stored = getattr(part, field)
            kept = torch.float32 if field in _KEPT_IN_FLOAT32 else dtype
            value = stored.to(device, kept if stored.is_floating_point() else None)
            self.register_buffer(field, value, persistent=False)
        self.adapter_name, self.parameter = name, parameter
        self.scaling = {name: 1.0}
        self.merged_adapters = []
        self._active_adapter = [name]
        self._owner = [owner]  # in a list, as a module attribute would become a child

    @property
    def owner(self) -> nn.Module:
        return self._owner[0]

    @property
    def child_name(self) -> str:
        return f"adapter_{self.parameter}_{self.adapter_name}"

    @property
    def part(self) -> AdapterWeights:
        """The weights on the device of the layer, in its dtype."""
        values: dict[str, Any] = {field: getattr(self, field) for field in self._fields}
        return self._numbers._replace(**values)

    @property
    def is_active(self) -> bool:
        return self.adapter_name in self._active_adapter

    @property
    def strength(self) -> float:
        """The weight at which the adapter acts now; 0 if it is off."""
        return self.scaling[self.adapter_name] if self.is_active and not self._disable_adapters else 0.0

    def _is_merged_by(self, adapter_names: list[str] | None) -> bool:
        is_wanted = adapter_names is None or self.adapter_name in adapter_names
        return is_wanted and self.is_active and not self._disable_adapters and not self.merged_adapters

    def attach(self) -> None:
        """Become a child of the layer and act from now on."""
        self.owner.add_module(self.child_name, self)

    def detach(self) -> None:
        """Act no more, and leave the layer as it was; the caller removes the child."""
        raise NotImplementedError

    def refresh(self) -> None:
        """Apply a strength that has changed."""

    # Names and methods by which diffusers, PEFT and the denoiser control adapter layers.
    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        self._active_adapter = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        self.refresh()

    def set_scale(self, adapter: str, scale: float) -> None:
        if adapter == self.adapter_name:
            self.scaling[adapter] = scale
            self.refresh()

    def scale_layer(self, scale: float) -> None:
        self.scaling[self.adapter_name] *= scale
        self.refresh()

    def unscale_layer(self, scale: float | None = None) -> None:
        name = self.adapter_name
        self.scaling[name] = 1.0 if scale is None else self.scaling[name] / scale
        self.refresh()

    def enable_adapters(self, enabled: bool) -> None:
        if not enabled:
            self.unmerge()
        self._disable_adapters = not enabled
        self.refresh()

    def delete_adapter(self, adapter_name: str) -> None:
        if adapter_name == self.adapter_name:
            self.unmerge()
            self.detach()
            # PEFT calls this for all modules in turn, so the dictionary of children keeps its size.
            self.owner._modules[self.child_name] = None

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        raise NotImplementedError

    def unmerge(self) -> None:
        raise NotImplementedError


class MatrixAdapter(AdapterLayer):
    """Adds strength * delta @ x to the output of a linear layer, for any kind of weights."""

    gain: Tensor | None

    def __init__(self, part: AdapterWeights, name: str, owner: nn.Module):
        super().__init__(part, name, owner, "weight", _compute_dtype(owner))
        factor = None
        if part.magnitude is not None:
            factor = gain(self.part, _weight_of(owner))
            release(owner)  # or the pages of all weights of a mapped model would stay in memory
        self.register_buffer("gain", factor, persistent=False)
        self._fused: Callable[[], Tensor] | None = None

    def attach(self) -> None:
        super().attach()
        if not hasattr(self.owner, _HOOK):
            # One hook for all adapters of the layer, as each needs the layer's own output.
            setattr(self.owner, _HOOK, self.owner.register_forward_hook(_add_adapters))

    def detach(self) -> None:
        others = [child for child in _adapters_on(self.owner, "weight") if child is not self]
        if not others and hasattr(self.owner, _HOOK):
            getattr(self.owner, _HOOK).remove()
            delattr(self.owner, _HOOK)

    def forward(self, x: Tensor, output: Tensor) -> Tensor:
        """Return what is added to the layer's own output.

        Shapes: x (..., I), output (..., O) -> (..., O).
        """
        part = self.part
        cast = [field for field in self._fields if field not in (*_KEPT_IN_FLOAT32, "order")]
        dtype = getattr(part, cast[0]).dtype if cast else x.dtype
        inputs = x if is_mixed(x, dtype) else x.to(dtype)

        def own(vectors: Tensor) -> Tensor:
            """Return the layer's own weight times vectors; for its inputs that is known."""
            if vectors is inputs:
                return self._without_bias(output)
            return self._without_bias(self.owner.forward(vectors))  # type: ignore[operator]  # no hook

        if self.gain is None:
            change = change_of_output(part, inputs, own)
        else:
            # gain * (weight + delta) @ x - weight @ x of a DoRA
            rest, factor = (self.gain - 1).to(inputs.dtype), self.gain.to(inputs.dtype)
            if self.gain.shape[1] == 1:  # a gain for each output
                change = rest.mT * own(inputs) + factor.mT * change_of_output(part, inputs, own)
            else:
                change = own(inputs * rest) + change_of_output(part, inputs * factor, own)
        return (self.strength * change).to(output.dtype)

    def _without_bias(self, output: Tensor) -> Tensor:
        bias: Any = self.owner.bias
        return output if bias is None else output - bias.to(output.dtype)

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        if not self._is_merged_by(adapter_names):
            return
        strength, part, weight = self.strength, self.part, _weight_of(self.owner)
        if not depends_on_weight(part):
            fused: Callable[[], Tensor] = lambda: strength * total_delta(self.part, weight)  # noqa: E731
        else:
            # It depends on the layer's own weight, so it could not be computed again from the fused one.
            own = weight.float()
            for child in _adapters_on(self.owner, "weight"):
                if isinstance(child, MatrixAdapter) and child._fused is not None:
                    own = own - child._fused()
            fused = (strength * total_delta(part, own)).to(weight.dtype).float
        add_to_weight(self.owner, fused())
        self._fused, self.merged_adapters = fused, [self.adapter_name]

    @torch.no_grad()
    def unmerge(self) -> None:
        if self._fused is not None:
            add_to_weight(self.owner, -self._fused())
            self._fused, self.merged_adapters = None, []


class VectorAdapter(AdapterLayer):
    """Adds strength * value to a bias or the weight of a norm, in place; the layer keeps the old values."""

    def __init__(self, part: DifferenceWeights, name: str, owner: nn.Module, parameter: str):
        super().__init__(part, name, owner, parameter, torch.float32)
        self._fused_strength: float | None = None

    def attach(self) -> None:
        super().attach()
        if not hasattr(self.owner, _UNADAPTED + self.parameter):
            self.owner.register_buffer(_UNADAPTED + self.parameter, self._vector.data, persistent=False)
        self.refresh()

    def detach(self) -> None:
        self._active_adapter = []
        others = [child for child in _adapters_on(self.owner, self.parameter) if child is not self]
        if others:
            self.refresh()
        elif hasattr(self.owner, _UNADAPTED + self.parameter):
            self._vector.data = getattr(self.owner, _UNADAPTED + self.parameter)
            delattr(self.owner, _UNADAPTED + self.parameter)

    @property
    def _vector(self) -> Any:
        return getattr(self.owner, self.parameter)

    @torch.no_grad()
    def refresh(self) -> None:
        old: Any = getattr(self.owner, _UNADAPTED + self.parameter, None)
        if old is None:
            return
        value = old.float()
        for child in _adapters_on(self.owner, self.parameter):
            assert isinstance(child, VectorAdapter)
            strength = child.strength if child._fused_strength is None else child._fused_strength
            if strength:
                value = value + strength * total_delta(child.part, old)
        if self._vector.data_ptr() == old.data_ptr():
            self._vector.data = value.to(old.dtype)
        else:  # in place, as offloading keeps its own reference to the values
            self._vector.data.copy_(value)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        if self._is_merged_by(adapter_names):
            self._fused_strength, self.merged_adapters = self.strength, [self.adapter_name]

    def unmerge(self) -> None:
        self._fused_strength, self.merged_adapters = None, []
        self.refresh()


def adapter_layers(model: nn.Module) -> list[AdapterLayer]:
    """Return the layers of this module on a model, in its order."""
    return [module for module in model.modules() if isinstance(module, AdapterLayer)]


def remove_adapter_layers(model: nn.Module) -> None:
    """Remove all layers of this module; fused ones are subtracted first."""
    for layer in adapter_layers(model):
        layer.unmerge()
    for layer in adapter_layers(model):
        layer.detach()
        delattr(layer.owner, layer.child_name)


@torch.no_grad()
def add_to_weight(layer: nn.Module, change: Tensor) -> None:
    """Add to a layer's weight, to a copy if it is mapped: pages of a file may be dropped and read again."""
    weight: Any = layer.weight
    if is_mapped(weight):
        weight.data = weight.data.clone()
    weight += change.to(weight)


def _add_adapters(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    total = output
    for child in _adapters_on(layer, "weight"):
        if child.strength and not child.merged_adapters:
            total = total + child(inputs[0], output)
    return total


def _adapters_on(layer: nn.Module, parameter: str) -> Iterator[AdapterLayer]:
    return (m for m in layer.children() if isinstance(m, AdapterLayer) and m.parameter == parameter)


def _tensors_of(layer: nn.Module) -> Iterator[Tensor]:
    yield from layer.parameters()
    yield from layer.buffers()


def _device_of(layer: nn.Module) -> torch.device:
    return next(_tensors_of(layer)).device


def _compute_dtype(layer: nn.Module) -> torch.dtype:
    """Return the dtype that a layer computes in, as far as it can be told."""
    if isinstance(layer, PackedLinear):
        return layer.compute_dtype
    floating = [t.dtype for t in _tensors_of(layer) if t.is_floating_point() and t.itemsize > 1]
    return floating[0] if floating else torch.float32


def _weight_of(layer: nn.Module) -> Tensor:
    weight: Any = layer.weight
    return (
        weight.dequantize()
        if hasattr(weight, "dequantize") and type(weight) not in (nn.Parameter, Tensor)
        else weight
    )
