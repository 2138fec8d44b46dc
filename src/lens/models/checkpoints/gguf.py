"""GGUF files: their tensors, in any number type of llama.cpp, dequantized when read.

The tensors are views of the file's memory map. Knows nothing of what they mean. Spec: section 6.
"""

from collections.abc import Callable
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from lens.errors import CheckpointError
from lens.models.checkpoints.gguf_header import GgufTensor, read_gguf_header
from lens.models.checkpoints.reader import LazyStateDict, LazyTensor, map_of, torch_dtype
from lens.models.mapped_memory import MappedFile
from lens.models.quantized import gguf_values
from lens.models.quantized.packed_weight import PackedSource, gguf_format

PLAIN_FORMATS = ("F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64")
"""The formats of plain numbers, which safetensors names alike."""


def open_gguf(path: Path) -> LazyStateDict:
    """Return the tensors of a GGUF file, and those of its settings that are strings.

    Raises: CheckpointError for a file that is missing, not GGUF, truncated, or in an unknown number format.
    """
    header = read_gguf_header(path)
    open_map = map_of(path)
    tensors = {name: _lazy_tensor(name, tensor, path, open_map) for name, tensor in header.tensors.items()}
    strings = {name: value for name, value in header.settings.items() if isinstance(value, str)}
    return LazyStateDict(tensors, strings)


def _lazy_tensor(name: str, tensor: GgufTensor, path: Path, open_map: Callable[[], MappedFile]) -> LazyTensor:
    """Return a tensor of the file; a quantized one keeps its bytes, and is dequantized when read."""
    shape, offset, kind = tensor.shape, tensor.offset, tensor.format
    if kind in PLAIN_FORMATS:
        dtype = torch_dtype(kind, path)
        return LazyTensor(shape, kind, lambda: open_map().tensor(offset, shape, dtype))
    rows = (*shape[:-1], tensor.num_bytes // max(1, prod(shape[:-1])))
    stored = LazyTensor(rows, "U8", lambda: open_map().tensor(offset, rows, torch.uint8))

    def read() -> Tensor:
        try:
            values = gguf_values.dequantize(stored.read().reshape(-1, rows[-1]), kind)
        except CheckpointError as error:
            raise CheckpointError(f"{name} in {path}: {error}") from error
        return values.reshape(shape)

    return LazyTensor(shape, "F32", read, PackedSource(gguf_format(kind), (stored,), shape))
