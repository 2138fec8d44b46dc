"""Weights on their way from one layout to another: read by pieces, dequantized, quantized anew or copied.

Bytes of a format that stays the same are copied. Pieces of files leave the memory of the process once they
are used. Knows nothing of names.
Letters: E experts, O outputs, I inputs.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lens.errors import CheckpointError
from lens.models.checkpoints.reader import LazyTensor, torch_dtype
from lens.models.checkpoints.writer import StreamedTensor
from lens.models.mapped_memory import prefetch, release
from lens.models.quantized import gguf_quantize, mxfp8, nvfp4
from lens.models.quantized.block_scales import TILE_ROWS, padded_size
from lens.models.quantized.fp4 import (
    mxfp4_from_gguf,
    mxfp4_to_gguf,
    mxfp4_to_nvfp4,
    quantize_mxfp4,
)
from lens.models.quantized.lookup import BLOCK_VALUES
from lens.models.quantized.packed_weight import PackedSource

PIECE_VALUES = 2**24
"""Values of a large tensor that are read at once."""


class JointTensors:
    """Tensors that are computed together, piece by piece.

    The first is passed on as it is computed. The others are kept until they are read, which is after it.
    """

    def __init__(self, compute: Callable[[], Iterator[Sequence[Tensor]]]):
        self._compute = compute
        self._kept: list[list[Tensor]] = []

    def reader(self, index: int) -> Callable[[], Iterator[Tensor]]:
        """Return the function that reads one of the tensors."""
        return self._first if index == 0 else lambda: iter(self._take(index - 1))

    def _first(self) -> Iterator[Tensor]:
        self._kept = []
        for first, *others in self._compute():
            self._kept = self._kept or [[] for _ in others]
            for kept, other in zip(self._kept, others, strict=True):
                kept.append(other)
            yield first

    def _take(self, index: int) -> list[Tensor]:
        pieces, self._kept[index] = self._kept[index], []
        assert pieces, "the first of joint tensors is read before the others"
        return pieces


def plain_tensor(name: str, stored: LazyTensor, dtype: str) -> StreamedTensor:
    """Return a tensor in a floating-point dtype of safetensors, in its own shape; others are unchanged."""
    if stored.packed is None and not torch_dtype(stored.dtype, name).is_floating_point:
        return StreamedTensor(stored.shape, stored.dtype, stored.read)
    return StreamedTensor(stored.shape, dtype, lambda: cast_pieces(name, stored, torch_dtype(dtype, name)))


def cast_pieces(name: str, stored: LazyTensor, dtype: torch.dtype) -> Iterator[Tensor]:
    """Yield the values of a tensor in row-major order. Raises: CheckpointError where they overflow dtype."""
    for piece in _experts_in_order(stored, dtype) if len(stored.shape) == 3 else _rows(stored, dtype):
        yield require_finite(name, piece, dtype)


def _experts_in_order(stored: LazyTensor, dtype: torch.dtype) -> Iterator[Tensor]:
    """Yield the matrix (I, O) of each expert of a stack (E, I, O)."""
    if stored.packed is not None:
        for matrix in matrices(stored, dtype):  # (O, I)
            yield matrix.T
        return
    whole = stored.read()
    prefetch(whole)
    for matrix in whole:
        yield matrix.to(dtype)
        release(matrix)


def _rows(stored: LazyTensor, dtype: torch.dtype) -> Iterator[Tensor]:
    """Yield blocks of rows of a tensor of at most two axes."""
    packed = stored.packed
    if packed is not None and not (packed.format.is_by_rows and packed.interleaved is None):
        yield from matrices(stored, dtype)
        return
    parts = [stored.read()] if packed is None else [part.read() for part in packed.parts]
    prefetch(*parts)
    if len(stored.shape) < 2:
        yield parts[0].to(dtype) if packed is None else packed.format.dequantize(*parts, dtype=dtype)
        release(*parts)
        return
    num_rows = max(1, PIECE_VALUES // max(1, stored.shape[1]))
    for start in range(0, stored.shape[0], num_rows):
        block = [part[start : start + num_rows] for part in parts]
        yield block[0].to(dtype) if packed is None else packed.format.dequantize(*block, dtype=dtype)
        release(*block)


def matrices(stored: LazyTensor, dtype: torch.dtype = torch.float32) -> Iterator[Tensor]:
    """Yield the matrix (O, I) of a weight, or of each expert of a stack."""
    if stored.packed is None:
        whole = stored.read()  # (O, I), or (E, I, O) as in transformers
        prefetch(whole)
        for matrix in whole if whole.ndim == 3 else [whole]:
            yield (matrix.T.contiguous() if whole.ndim == 3 else matrix).to(dtype)
            release(matrix)
        return
    weight = stored.packed.read()
    for expert in _experts(stored.packed):
        yield weight.dequantize(dtype, expert)
        release_expert(stored.packed, expert)


def _experts(packed: PackedSource) -> Iterator[int | None]:
    """Yield the experts of a stack, or None for a matrix, while the file's pages of the next are read."""
    experts = range(packed.shape[0]) if len(packed.shape) == 3 else [None]
    for index, expert in enumerate(experts):
        for coming in experts[index : index + 2]:
            _prefetch_expert(packed, coming)
        yield expert


def _prefetch_expert(packed: PackedSource, expert: int | None) -> None:
    prefetch(*parts_of(packed, expert))
    if packed.interleaved is not None:
        _prefetch_expert(packed.interleaved, expert)


def parts_of(packed: PackedSource, expert: int | None) -> list[Tensor]:
    """Return the stored parts of a matrix, or of one expert of a stack."""
    parts = [part.read() for part in packed.parts]
    return parts if expert is None else [part[expert] for part in parts]


def release_expert(packed: PackedSource, expert: int | None) -> None:
    """Drop the file's pages of a matrix, or of one expert of a stack, from the memory of the process."""
    release(*parts_of(packed, expert))
    if packed.interleaved is not None:
        release_expert(packed.interleaved, expert)


def require_finite(name: str, values: Tensor, what: object) -> Tensor:
    """Return values that are all finite. Raises: CheckpointError that names the tensor."""
    if not bool(torch.isfinite(values.sum(dtype=torch.float32))) and not bool(torch.isfinite(values).all()):
        raise CheckpointError(f"{name} has values that are not finite in {what}; nothing is written.")
    return values


def require_inputs(name: str, num_inputs: int, multiple: int, format_name: str) -> None:
    """Raise a CheckpointError unless a layer's inputs are a multiple of the size of a format's blocks."""
    if num_inputs % multiple:
        raise CheckpointError(
            f"{name} has {num_inputs} inputs, but {format_name} needs a multiple of {multiple}. "
            "Choose a format without blocks, such as single-bf16 or gguf-bf16."
        )


def is_stored_as(packed: PackedSource | None, format_name: str) -> bool:
    """Return whether a weight is stored in a format, so that its bytes can be copied."""
    return packed is not None and packed.format.name == format_name and (
        packed.interleaved is None or packed.interleaved.format.name == format_name
    )  # fmt: skip


def mxfp8_tensors(name: str, stored: LazyTensor) -> dict[str, StreamedTensor]:
    """Return weight and weight_scale of a linear layer in MXFP8. Shapes: (O, I)."""
    outputs, inputs = stored.shape
    padded = padded_size(outputs, inputs // mxfp8.BLOCK_SIZE)

    def compute() -> Iterator[Sequence[Tensor]]:
        if is_stored_as(stored.packed, "MXFP8"):
            weight, scale = parts_of(stored.packed, None)  # type: ignore[arg-type]
            yield weight, scale.view(torch.uint8)
            release(weight, scale)
            return
        for matrix in matrices(stored):
            # Whole tiles of scales, so that their blocked order is that of the whole matrix.
            for block in require_finite(name, matrix, "MXFP8").split(TILE_ROWS):
                yield mxfp8.quantize(block)

    joint = JointTensors(compute)
    return {
        "weight": StreamedTensor((outputs, inputs), "F8_E4M3", joint.reader(0)),
        "weight_scale": StreamedTensor(padded, "U8", joint.reader(1)),
    }


def nvfp4_tensors(name: str, stored: LazyTensor, shape: tuple[int, int, int]) -> dict[str, StreamedTensor]:
    """Return weight, weight_scale and weight_scale_2 of a stack of experts in NVFP4. Shapes: (E, O, I)."""
    experts, outputs, inputs = shape
    padded = padded_size(outputs, inputs // nvfp4.BLOCK_SIZE)

    def compute() -> Iterator[Sequence[Tensor]]:
        copied = _mxfp4_experts(stored.packed)
        if is_stored_as(stored.packed, "NVFP4"):
            packed: Any = stored.packed
            for expert in range(experts):
                weight, scale, matrix_scale = parts_of(packed, expert)
                yield weight, scale, matrix_scale.float()
                release_expert(packed, expert)
        elif copied is not None:
            for blocks, scales in copied:
                exact = mxfp4_to_nvfp4(blocks, scales)
                yield exact or nvfp4.quantize(_values(blocks, scales))
        else:
            for matrix in matrices(stored):
                yield nvfp4.quantize(require_finite(name, matrix, "NVFP4"))

    joint = JointTensors(compute)
    return {
        "weight": StreamedTensor((experts, outputs, inputs // 2), "U8", joint.reader(0)),
        "weight_scale": StreamedTensor((experts, *padded), "F8_E4M3", joint.reader(1)),
        "weight_scale_2": StreamedTensor((experts,), "F32", joint.reader(2)),
    }


def _values(blocks: Tensor, scales: Tensor) -> Tensor:
    from lens.models.quantized import mxfp4_values

    return mxfp4_values.dequantize(blocks, scales)


def mxfp4_tensors(name: str, stored: LazyTensor, shape: tuple[int, int, int]) -> dict[str, StreamedTensor]:
    """Return blocks and scales of a stack of experts in MXFP4. Shapes: (E, O, I)."""
    experts, outputs, inputs = shape
    groups = inputs // 32
    joint = JointTensors(lambda: _to_mxfp4(name, stored))
    return {
        "blocks": StreamedTensor((experts, outputs, groups, 16), "U8", joint.reader(0)),
        "scales": StreamedTensor((experts, outputs, groups), "U8", joint.reader(1)),
    }


def _to_mxfp4(name: str, stored: LazyTensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (blocks, scales) of each matrix: those of the file, or quantized ones."""
    copied = _mxfp4_experts(stored.packed)
    if copied is not None:
        yield from copied
        return
    for matrix in matrices(stored):
        rows = require_finite(name, matrix, "MXFP4").split(max(1, BLOCK_VALUES // matrix.shape[1]))
        blocks, scales = zip(*(quantize_mxfp4(block) for block in rows), strict=True)
        yield torch.cat(blocks), torch.cat(scales)


def _mxfp4_experts(packed: PackedSource | None) -> Iterator[tuple[Tensor, Tensor]] | None:
    """Return an iterator of the stored (blocks, scales) of each matrix, or None for another format."""
    if not (is_stored_as(packed, "MXFP4") or is_stored_as(packed, "GGUF MXFP4")):
        return None
    assert packed is not None

    def experts() -> Iterator[tuple[Tensor, Tensor]]:
        for expert in _experts(packed):
            yield _stored_mxfp4(packed, expert)
            release_expert(packed, expert)

    return experts()


def _stored_mxfp4(packed: PackedSource, expert: int | None) -> tuple[Tensor, Tensor]:
    parts = parts_of(packed, expert)
    if packed.format.name == "MXFP4":
        blocks, scales = parts
    else:
        blocks, scales = mxfp4_from_gguf(parts[0].unflatten(-1, (-1, 17)))  # (O, I/32, 17)
    if packed.interleaved is None:
        return blocks, scales
    others = _stored_mxfp4(packed.interleaved, expert)
    both = (torch.stack(pair, dim=1).flatten(0, 1) for pair in zip((blocks, scales), others, strict=True))
    return next(both), next(both)  # (2 O, I/32, 16) and (2 O, I/32)


def gguf_rows(name: str, stored: LazyTensor, kind: str) -> Iterator[Tensor]:
    """Yield the bytes of each matrix of a weight in one of llama.cpp's types. Shapes: (O, bytes of a row)."""
    if is_stored_as(stored.packed, f"GGUF {kind}"):
        packed: Any = stored.packed
        for expert in _experts(packed):
            (rows,) = parts_of(packed, expert)
            if packed.interleaved is not None:
                (other,) = parts_of(packed.interleaved, expert)
                rows = torch.stack([rows, other], dim=1).flatten(0, 1)
            yield rows
            release_expert(packed, expert)
    elif kind == "MXFP4":
        for blocks, scales in _to_mxfp4(name, stored):
            yield mxfp4_to_gguf(blocks, scales).flatten(1)
    else:
        for matrix in matrices(stored):
            yield gguf_quantize.quantize(require_finite(name, matrix, kind), kind)
