"""Quantized weights in files: the table of stored formats, and layers that are dequantized when read.

A quantized layer is a weight with one or more scales, and often `comfy_quant`, JSON bytes that name the
format. A new format takes its arithmetic in `models/quantized` and an entry of QUANTIZED_FORMATS.
Knows nothing of which model the layers belong to. Spec: section 6.
Letters: E experts, O outputs, I inputs.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from lens.errors import CheckpointError
from lens.models.checkpoints.gguf import open_gguf
from lens.models.checkpoints.gguf_header import GGUF_SUFFIX
from lens.models.checkpoints.reader import LazyStateDict, LazyTensor, open_safetensors
from lens.models.quantized import packed_weight
from lens.models.quantized.packed_weight import PackedFormat, PackedSource


class QuantizedFormat(NamedTuple):
    """A number format of linear layers, as a safetensors file stores it."""

    packed: PackedFormat
    """Its name is as messages write it; `comfy_quant` has it in lower case."""
    parts: dict[str, tuple[str, ...]]
    """The tensors of a layer by suffix, each with its possible safetensors dtypes; the weight is first."""
    marker: str
    """The suffix by which a layer of this format is known; no format after it in the table may have it."""
    ranks: tuple[int, ...]
    """2 for a matrix (O, I), 3 for a stack of experts (E, O, I)."""
    values_per_element: int
    """How many inputs one element of the stored weight holds."""
    ignored: tuple[str, ...] = ()
    """Suffixes of tensors that a layer may have and that its values do not depend on."""

    @property
    def name(self) -> str:
        return self.packed.name


QUANTIZED_FORMATS = (
    QuantizedFormat(
        packed_weight.NVFP4,
        {"weight": ("U8",), "weight_scale": ("F8_E4M3",), "weight_scale_2": ("F32", "F16", "BF16")},
        marker="weight_scale_2",
        ranks=(2, 3),
        values_per_element=2,
        # The scale of activations is for products in 4 bits; here activations keep their precision.
        ignored=("input_scale",),
    ),
    QuantizedFormat(
        packed_weight.MXFP8,
        {"weight": ("F8_E4M3",), "weight_scale": ("U8", "F8_E8M0")},
        marker="weight_scale",
        ranks=(2,),
        values_per_element=1,
    ),
)
"""The formats that can be read, the ones whose markers are more particular first."""


def open_weights_file(path: Path) -> LazyStateDict:
    """Return the tensors of a .safetensors or .gguf file as stored; those of GGUF are dequantized when read.

    Raises: CheckpointError for a file that is missing, damaged or refused.
    """
    return open_gguf(path) if path.suffix.lower() == GGUF_SUFFIX else open_safetensors(path)


def quantized_layers(tensors: Mapping[str, LazyTensor]) -> dict[str, QuantizedFormat]:
    """Return the names of the quantized layers, each with its format."""
    layers: dict[str, QuantizedFormat] = {}
    for stored_format in QUANTIZED_FORMATS:
        end = f".{stored_format.marker}"
        for name in tensors:
            if name.endswith(end):
                layers.setdefault(name.removesuffix(end), stored_format)
    return layers


def dequantize_layers(
    tensors: Mapping[str, LazyTensor], *, source: object, dtype: torch.dtype = torch.float32
) -> dict[str, LazyTensor]:
    """Return the same tensors with each quantized layer as one tensor that is dequantized when read.

    A matrix is named `layer.weight`, a stack of experts `layer`.
    Raises: CheckpointError that names a layer whose tensors do not fit its format.
    """
    plain = dict(tensors)
    for layer, stored_format in quantized_layers(tensors).items():
        name, tensor = _pop_layer(plain, layer, stored_format, source, dtype)
        plain[name] = tensor
    return plain


def _pop_layer(
    plain: dict[str, LazyTensor],
    layer: str,
    stored_format: QuantizedFormat,
    source: object,
    dtype: torch.dtype,
) -> tuple[str, LazyTensor]:
    """Take the tensors of one layer out of `plain`; return the name and the tensor that replace them."""
    found = {part: plain.pop(f"{layer}.{part}", None) for part in stored_format.parts}
    found["weight"] = found["weight"] or plain.pop(layer, None)
    for part in stored_format.ignored:
        plain.pop(f"{layer}.{part}", None)
    if declared := plain.pop(f"{layer}.comfy_quant", None):
        _check_declared_format(declared.read(), stored_format, layer, source)
    parts = [tensor for tensor in found.values() if tensor is not None]
    weight = found["weight"]
    is_fit = all(
        tensor is not None and tensor.dtype in dtypes
        for tensor, dtypes in zip(found.values(), stored_format.parts.values(), strict=True)
    )
    if weight is None or not is_fit or len(weight.shape) not in stored_format.ranks:
        got = ", ".join(f"{part} {_describe(tensor)}" for part, tensor in found.items())
        needs = ", ".join(f"{part} {' or '.join(kinds)}" for part, kinds in stored_format.parts.items())
        ranks = " or ".join(map(str, stored_format.ranks))
        raise CheckpointError(
            f"{layer} in {source} is not {stored_format.name}: it has {got}, "
            f"but it needs {needs}, the weight of {ranks} axes."
        )
    shape = (*weight.shape[:-1], weight.shape[-1] * stored_format.values_per_element)

    def read() -> Tensor:
        return stored_format.packed.dequantize(*(part.read() for part in parts), dtype=dtype)

    if len(shape) == 2:
        packed = PackedSource(stored_format.packed, tuple(parts), shape)
        return f"{layer}.weight", LazyTensor(shape, "F32", read, packed)
    # Parts other than the matrices have one row for each expert, so that they can be indexed by expert.
    rows = tuple(part if part is weight else _rows_by_expert(part, shape[0]) for part in parts)
    return layer, LazyTensor(shape, "F32", read, PackedSource(stored_format.packed, rows, shape))


def _rows_by_expert(part: LazyTensor, num_experts: int) -> LazyTensor:
    """Return a part as (E, numbers of an expert); one number for all experts is repeated."""
    count = math.prod(part.shape)
    shape = (num_experts, max(1, count // num_experts))

    def read() -> Tensor:
        value = part.read()
        return value.reshape(1, 1).expand(shape) if count == 1 else value.reshape(shape)

    return LazyTensor(shape, part.dtype, read)


def _describe(tensor: LazyTensor | None) -> str:
    return f"{tensor.dtype} {tensor.shape}" if tensor else "missing"


def _check_declared_format(
    declared: Tensor, stored_format: QuantizedFormat, layer: str, source: object
) -> None:
    """Raise a CheckpointError unless the JSON of a layer names the format that its tensors have."""
    try:
        name = json.loads(bytes(declared.tolist()))["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{layer}.comfy_quant in {source} is not JSON with a format.") from error
    if stored_format.name.lower() not in str(name).lower():
        raise CheckpointError(
            f"{layer} in {source} says that its format is {name!r}, but its tensors are {stored_format.name}."
        )
