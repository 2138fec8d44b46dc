"""GGUF values: rows of blocks of llama.cpp's number types, dequantized with torch.

The types that are used most have functions here. diffusers has functions for the K-quants, and the `gguf`
package has all others, in NumPy. Knows nothing of files.
Letters: O outputs, I inputs, N blocks.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from lens.errors import CheckpointError, MissingExtraError
from lens.models.quantized.lookup import dequantize_by_rows, unpack_e2m1
from lens.models.quantized.mxfp8 import e8m0_scale


def dequantize(rows: Tensor, kind: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the values of a matrix in a number type, such as Q4_0, computed in float32.

    Shapes: rows (O, bytes of a row) uint8 -> (O, I).
    Raises: CheckpointError for a type that cannot be dequantized.
    """
    block_size, block_bytes, dequantize_blocks = _BLOCKS.get(kind) or _library_blocks(kind)
    shape = rows.shape[0], rows.shape[1] // block_bytes * block_size

    def dequantize_rows(some: Tensor) -> Tensor:
        blocks = some.reshape(-1, block_bytes)  # (N, bytes of a block)
        return dequantize_blocks(blocks).reshape(len(some), -1)

    return dequantize_by_rows([rows], dequantize_rows, shape, dtype)


def _q8_0(blocks: Tensor) -> Tensor:
    scale = blocks[:, :2].contiguous().view(torch.float16).float()  # (N, 1)
    return blocks[:, 2:].view(torch.int8).float().mul_(scale)  # (N, 32)


def _q4_0(blocks: Tensor) -> Tensor:
    scale = blocks[:, :2].contiguous().view(torch.float16).float()  # (N, 1)
    packed = blocks[:, 2:]
    values = torch.empty(len(blocks), 32, dtype=torch.float32, device=blocks.device)
    values[:, :16], values[:, 16:] = packed & 15, packed >> 4
    return values.sub_(8).mul_(scale)  # (N, 32)


def _mxfp4(blocks: Tensor) -> Tensor:
    # Unlike in GPT-OSS's own files, the low bits of all bytes come first, then the high bits of all.
    pairs = unpack_e2m1(blocks[:, 1:], is_high_first=False).unflatten(1, (16, 2))  # (N, 16, 2)
    return pairs.transpose(1, 2).flatten(1).mul_(e8m0_scale(blocks[:, :1]))  # (N, 32)


_Blocks = tuple[int, int, Callable[[Tensor], Tensor]]
"""Values of a block, bytes of a block, and the function from blocks to values."""
_BLOCKS: dict[str, _Blocks] = {"Q8_0": (32, 34, _q8_0), "Q4_0": (32, 18, _q4_0), "MXFP4": (32, 17, _mxfp4)}


def _library_blocks(kind: str) -> _Blocks:
    try:
        import gguf
    except ImportError as error:
        raise MissingExtraError(f"GGUF's number type {kind}", "gguf", "quantize") from error
    from diffusers.quantizers.gguf.utils import dequantize_functions

    quantization = gguf.GGMLQuantizationType[kind]
    block_size, block_bytes = gguf.GGML_QUANT_SIZES[quantization]
    function = dequantize_functions.get(quantization)
    if function is not None:
        return (
            block_size,
            block_bytes,
            lambda blocks: function(blocks, block_size, block_bytes, torch.float32),
        )

    def dequantize_in_numpy(blocks: Tensor) -> Tensor:
        try:
            values = gguf.dequantize(blocks.cpu().numpy(), quantization)
        except (NotImplementedError, ValueError) as error:
            raise CheckpointError(
                f"GGUF's number type {kind} cannot be read. Use a file in Q8_0 or Q4_0."
            ) from error
        return torch.from_numpy(values.copy()).to(blocks.device)

    return block_size, block_bytes, dequantize_in_numpy
