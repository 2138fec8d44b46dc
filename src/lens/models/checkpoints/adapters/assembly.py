"""Assembly of the tensors that a file has for one layer into the weights of an adapter.

Knows no key styles: parts have the names of `keys.AdapterKey`. The scale is alpha / rank, or 1 without alpha.
Letters: O outputs, I inputs, R rank.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lens.errors import CheckpointError
from lens.models.checkpoints.adapters.keys import KIND_OF_PART
from lens.models.checkpoints.adapters.rotation_assembly import lycoris_rotation, peft_boft, peft_oft
from lens.models.checkpoints.adapters.weights import (
    Adapter,
    AdapterWeights,
    DifferenceWeights,
    GLoRAWeights,
    IncompleteError,
    LoHaWeights,
    LoKrWeights,
    LoraWeights,
)

_OF_FACTORS = ("LoRA", "LoHa", "LoKr", "GLoRA")
_BLOCKS = ("oft_blocks", "boft_R")


def assemble(
    module: str,
    parts: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    metadata: Mapping[str, str],
    layer: tuple[int, ...] | None,
) -> Adapter:
    """Return the weights of one layer, and of its bias, from all parts that a file has for it.

    `settings` are those of PEFT, `layer` is the shape of the layer's weight where it is known.
    Raises: IncompleteError for parts that are missing, do not fit each other or are of two kinds.
    """
    values = {
        name: value if name in _BLOCKS else _without_kernel_axes(value)
        for name, value in parts.items()
        if name != "alpha"
    }
    alpha = _number(parts["alpha"]) if "alpha" in parts else None
    kinds = sorted({KIND_OF_PART[name] for name in values if name in KIND_OF_PART})
    if len(kinds) > 1:
        raise IncompleteError(f"{module} has parts of two kinds, {' and '.join(kinds)}")
    adapter: Adapter = {}
    for name, value in values.items():
        if KIND_OF_PART.get(name) in _OF_FACTORS and value.ndim != 2:
            raise IncompleteError(f"{module} has a {name} of the shape {tuple(value.shape)}")
    bias, low_rank_bias = values.pop("diff_b", None), values.pop("up_bias", None)
    magnitude = values.pop("magnitude", None)
    rest = dict(values)
    part: AdapterWeights | None = None
    if kinds == ["LoRA"]:
        part = _lora(module, rest, alpha, settings)
    elif kinds == ["LoHa"]:
        part = _loha(module, rest, alpha, settings, metadata)
    elif kinds == ["LoKr"]:
        part = _lokr(module, rest, alpha, settings, metadata)
    elif kinds == ["GLoRA"]:
        part = _glora(module, rest, alpha)
    elif len(kinds) == 1 and "OFT" in kinds[0]:
        part = _rotation(module, rest, alpha, settings, layer)
    elif kinds and len(rest) == 1:  # an alpha has no effect on whole matrices
        ((name, value),) = rest.items()
        rest, part = {}, DifferenceWeights(value, replaces=name == "set_weight")
    if rest or (part is None and (bias is None or alpha is not None)):
        raise IncompleteError(f"{module} has only {' and '.join(sorted(parts))}")
    if magnitude is not None:
        part = _with_magnitude(module, part, magnitude)
    if low_rank_bias is not None:
        if bias is not None or magnitude is not None or not isinstance(part, LoraWeights):
            raise IncompleteError(f"{module} has a bias of a LoRA beside what does not go with it")
        bias = low_rank_bias.float() * part.scale
    if part is not None:
        adapter[module] = part
    if bias is not None:
        adapter[f"{module}.bias"] = DifferenceWeights(bias)
    return adapter


def _lora(
    module: str, values: dict[str, Tensor], alpha: float | None, settings: Mapping[str, Any]
) -> LoraWeights | None:
    if not {"down", "up"} <= set(values):
        return None
    down, up, mid = values.pop("down"), values.pop("up"), values.pop("mid", None)
    up = up if mid is None else _product(module, up, mid)
    _check_product(module, up, down)
    rank = len(down)
    peft_scale = _peft_scale(settings, module, "lora_alpha", default_rank=rank)
    chosen = peft_scale * rank if alpha is None and peft_scale is not None else alpha
    return LoraWeights(down, up, float(rank if chosen is None else chosen))


def _loha(
    module: str,
    values: dict[str, Tensor],
    alpha: float | None,
    settings: Mapping[str, Any],
    metadata: Mapping[str, str],
) -> LoHaWeights | None:
    names = [f"hada_{name}" for name in ("w1_a", "w1_b", "w2_a", "w2_b")]
    if not set(names) <= set(values) or ("hada_t1" in values) != ("hada_t2" in values):
        return None
    w1_a, w1_b, w2_a, w2_b = (values.pop(name) for name in names)
    t1, t2 = values.pop("hada_t1", None), values.pop("hada_t2", None)
    rank = len(w1_b)
    if t1 is not None and t2 is not None:
        # A Tucker factor stands between the two others, of which the first is transposed.
        w1_a, w1_b = w1_a.mT, _product(module, t1, w1_b)
        w2_a, w2_b = w2_a.mT, _product(module, t2, w2_b)
    _check_product(module, w1_a, w1_b)
    _check_product(module, w2_a, w2_b)
    if (len(w1_a), w1_b.shape[1]) != (len(w2_a), w2_b.shape[1]):
        raise IncompleteError(f"{module} has factors of two shapes")
    scale = _lycoris_scale(module, alpha, rank, settings, metadata)
    return LoHaWeights(w1_a, w1_b, w2_a, w2_b, scale)


def _lokr(
    module: str,
    values: dict[str, Tensor],
    alpha: float | None,
    settings: Mapping[str, Any],
    metadata: Mapping[str, str],
) -> LoKrWeights | None:
    tucker = values.pop("lokr_t2", None)
    if tucker is not None and "lokr_w2_a" in values and "lokr_w2_b" in values:
        values["lokr_w2_a"] = values["lokr_w2_a"].mT
        rank_of_tucker = len(values["lokr_w2_b"])
        values["lokr_w2_b"] = _product(module, tucker, values["lokr_w2_b"])
        tucker = None
    else:
        rank_of_tucker = None
    first, second = _pop_factor(module, values, "lokr_w1"), _pop_factor(module, values, "lokr_w2")
    if tucker is not None or first is None or second is None:
        return None
    # Where both factors are whole matrices there is no rank, and alpha is without effect.
    rank = rank_of_tucker or second[1] or first[1]
    return LoKrWeights(first[0], second[0], _lycoris_scale(module, alpha, rank, settings, metadata))


def _glora(module: str, values: dict[str, Tensor], alpha: float | None) -> GLoRAWeights | None:
    if not {"a1", "a2", "b1", "b2"} <= set(values):
        return None
    a1, a2, b1, b2 = (values.pop(name) for name in ("a1", "a2", "b1", "b2"))
    if len(a1) < a1.shape[1]:  # older files have the factors the other way round
        a1, a2, b1, b2 = a2, a1, b2, b1
    _check_product(module, a1, a2)
    _check_product(module, b1, b2)
    if len(a1) != a2.shape[1] or len(a1) != b2.shape[1]:
        raise IncompleteError(f"{module} has factors of two shapes")
    return GLoRAWeights(a1, a2, b1, b2, 1.0 if alpha is None else alpha / len(a2))


def _rotation(
    module: str,
    values: dict[str, Tensor],
    alpha: float | None,
    settings: Mapping[str, Any],
    layer: tuple[int, ...] | None,
) -> AdapterWeights | None:
    if layer is not None and len(layer) != 2:
        raise IncompleteError(f"{module} is a norm, which has no axes to rotate")
    shape = (layer[0], layer[1]) if layer else None
    if "oft_R" in values:
        return peft_oft(module, values, settings, shape)
    return peft_boft(module, values, shape) or lycoris_rotation(module, values, alpha, shape)


def _pop_factor(module: str, values: dict[str, Tensor], name: str) -> tuple[Tensor, int | None] | None:
    """Remove one factor of a LoKr from `values`; return it and its rank, None if it is a whole matrix."""
    if name in values:
        return values.pop(name), None
    if f"{name}_a" in values and f"{name}_b" in values:
        a, b = values.pop(f"{name}_a"), values.pop(f"{name}_b")
        return _product(module, a, b), len(b)
    return None


def _with_magnitude(module: str, part: AdapterWeights | None, magnitude: Tensor) -> AdapterWeights:
    """Return a part as a DoRA.

    PEFT and LyCORIS have a norm for each output, older files of kohya's one for each input.
    """
    if part is None or isinstance(part, DifferenceWeights):
        raise IncompleteError(f"{module} has a magnitude beside what is no product")
    outputs, inputs = part.shape
    if 0 in part.shape and magnitude.ndim == 2 and 1 in magnitude.shape:  # a layer of unknown shape
        return part._replace(magnitude=magnitude)
    if tuple(magnitude.shape) in ((outputs,), (outputs, 1)):
        return part._replace(magnitude=magnitude.reshape(outputs, 1))
    if tuple(magnitude.shape) == (1, inputs):
        return part._replace(magnitude=magnitude)
    raise IncompleteError(f"{module} has a magnitude of the shape {tuple(magnitude.shape)}")


def _without_kernel_axes(value: Tensor) -> Tensor:
    """Return a value without the axes of a 1 x 1 kernel, which trainers of convolutions leave."""
    while value.ndim > 2 and value.shape[-1] == 1:
        value = value.squeeze(-1)
    return value


def _check_product(module: str, a: Tensor, b: Tensor) -> None:
    if a.shape[1] != len(b) or not len(b):
        shapes = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise IncompleteError(f"{module} has factors of the shapes {shapes}, which have no product")


def _product(module: str, a: Tensor, b: Tensor) -> Tensor:
    _check_product(module, a, b)
    return (a.float() @ b.float()).to(a.dtype)


def _number(value: Tensor) -> float:
    if value.numel() != 1:
        raise IncompleteError(f"an alpha has {value.numel()} values")
    number = float(value)
    if not math.isfinite(number):
        raise IncompleteError(f"an alpha is {number}")
    return number


def _lycoris_scale(
    module: str,
    alpha: float | None,
    rank: int | None,
    settings: Mapping[str, Any],
    metadata: Mapping[str, str],
) -> float:
    if alpha is None:
        scale = _peft_scale(settings, module, "alpha", default_rank=rank)
        if scale is not None:
            return scale
        alpha = _alpha_in(metadata)
    return alpha / rank if rank and alpha is not None else 1.0


def _peft_scale(
    settings: Mapping[str, Any], module: str, alpha_name: str, default_rank: int | None
) -> float | None:
    """Return alpha / rank of one layer by PEFT's settings; None if they do not have it."""
    alpha = _value_for_module(settings.get("alpha_pattern"), module, settings.get(alpha_name))
    rank = default_rank or _value_for_module(settings.get("rank_pattern"), module, settings.get("r"))
    if alpha is None or not rank:
        return None
    for value in (alpha, rank):
        if not isinstance(value, int | float) or not math.isfinite(value) or rank < 0:
            raise CheckpointError(f"The adapter's settings have {value!r} as an alpha or a rank of {module}.")
    return float(alpha) / (rank**0.5 if settings.get("use_rslora") else rank)


def _value_for_module(patterns: Any, module: str, default: Any) -> Any:
    try:
        for pattern, value in dict(patterns or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
    except (re.error, TypeError, ValueError) as error:
        raise CheckpointError(
            f"The adapter's settings have patterns that cannot be read: {error}."
        ) from error
    return default


def _alpha_in(metadata: Mapping[str, str]) -> float | None:
    for key in ("ss_network_alpha", "network_alpha", "lokr_alpha", "loha_alpha", "alpha"):
        try:
            alpha = float(metadata[key])
        except (KeyError, ValueError, TypeError):
            continue
        if math.isfinite(alpha):
            return alpha
    return None
