"""Packed weights: the stored bytes of a quantized matrix, or of a stack of experts, dequantized at each use.

A format is one function from the stored parts of a matrix to its values. Knows nothing of files or layers.
Letters: E experts, O outputs, I inputs.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lens.models.quantized import gguf_values, mxfp4_values, mxfp8, nvfp4


class PackedFormat(NamedTuple):
    """A number format of packed weights."""

    name: str
    """As messages write it."""
    dequantize: Callable[..., Tensor]
    """Returns the values (O, I) of the stored parts of one matrix in a dtype: (*parts, dtype=...)."""
    is_by_rows: bool = False
    """Whether every part has one row for each output, so that some rows can be dequantized alone."""


def cast(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the values of a weight that is stored in another floating-point dtype."""
    return values.to(dtype)


NVFP4 = PackedFormat("NVFP4", nvfp4.dequantize)
MXFP8 = PackedFormat("MXFP8", mxfp8.dequantize)
MXFP4 = PackedFormat("MXFP4", mxfp4_values.dequantize, is_by_rows=True)


def gguf_format(kind: str) -> PackedFormat:
    """Return the format of one of llama.cpp's number types, such as Q4_0."""
    return PackedFormat(f"GGUF {kind}", partial(gguf_values.dequantize, kind=kind), is_by_rows=True)


def plain_format(dtype: str) -> PackedFormat:
    """Return the format of values in a floating-point dtype, which are cast at use."""
    return PackedFormat(dtype, cast, is_by_rows=True)


class PackedSource(NamedTuple):
    """A quantized weight in a file: its format, and the stored parts, each with a method `read`."""

    format: PackedFormat
    parts: tuple[Any, ...]
    """LazyTensors; for a stack of experts each has a leading axis E."""
    shape: tuple[int, ...]
    """(O, I), or (E, O, I) for a stack of experts."""
    interleaved: "PackedSource | None" = None
    """A second weight, whose outputs alternate with those of this one, this one first."""

    def read(self) -> "PackedWeight":
        """Return the packed weight; its bytes are views of the file."""
        other = None if self.interleaved is None else self.interleaved.read()
        return PackedWeight(self.format, [part.read() for part in self.parts], self.shape, other)


class PackedWeight(nn.Module):
    """The stored bytes of a matrix or of a stack of experts; they are no parameters and have no gradient."""

    def __init__(
        self,
        format: PackedFormat,
        parts: Sequence[Tensor],
        shape: tuple[int, ...],
        interleaved: "PackedWeight | None" = None,
    ):
        super().__init__()
        self.format, self.interleaved = format, interleaved
        self.shape = shape if interleaved is None else (*shape[:-2], 2 * shape[-2], shape[-1])
        self._dtypes = [part.dtype for part in parts]
        for index, part in enumerate(parts):
            # As bytes, so that a change of the module's dtype does not change them.
            stored = part.contiguous()
            stored = stored.reshape(1) if stored.ndim == 0 else stored
            self.register_buffer(f"part_{index}", stored.view(torch.uint8), persistent=False)

    def dequantize(self, dtype: torch.dtype, expert: int | None = None) -> Tensor:
        """Return the values (O, I) of the matrix, or those of one expert of a stack."""
        values = self.format.dequantize(*self._parts(expert), dtype=dtype)
        if self.interleaved is None:
            return values
        other = self.interleaved.dequantize(dtype, expert)
        return torch.stack([values, other], dim=1).flatten(0, 1)  # (2 O, I)

    def dequantize_rows(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """Return some rows of a matrix whose format stores each row by itself. Shapes: (N,) -> (N, I)."""
        return self.format.dequantize(*(part[rows] for part in self._parts(None)), dtype=dtype)

    def stored_parts(self, expert: int) -> list[Tensor]:
        """Return the stored bytes of one expert of a stack."""
        others = [] if self.interleaved is None else self.interleaved.stored_parts(expert)
        return self._parts(expert) + others

    def _parts(self, expert: int | None) -> list[Tensor]:
        parts = []
        for index, dtype in enumerate(self._dtypes):
            stored = self.get_buffer(f"part_{index}")
            parts.append((stored if expert is None else stored[expert]).view(dtype))
        return parts
