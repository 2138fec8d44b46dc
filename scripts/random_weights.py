"""Random weights of any size, in pieces, plain and in the packed formats of published files.

Drawing billions of numbers would take minutes, and quantizing them hours. So values come from pools, each
tensor from a place of its own: a pool of normal values, and a pool of random bytes, which are packed values
as they are, under scales that give them the size that is asked for. The lengths of the pools are prime, so
that rows do not repeat. A draw depends on the seed and on the name of the tensor alone.
Letters: E experts, O outputs, I inputs.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from functools import cache
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from lens.models.checkpoints.gguf_header import GGUF_FORMATS
from lens.models.checkpoints.gguf_writer import StreamedGgufTensor
from lens.models.checkpoints.reader import torch_dtype
from lens.models.checkpoints.writer import StreamedTensor
from lens.models.quantized.block_scales import padded_size, to_blocked
from lens.models.quantized.lookup import E2M1

Shape = tuple[int, ...]

PIECE = 2**20
"""Values, or bytes of packed values, that are made at once: as many stay in the cache of a CPU."""
NUM_NORMALS, NUM_BYTES = 2**24 + 43, 2**26 + 15
"""Lengths of the pools; both are prime."""
BIAS = 127
"""Of the exponents of scales (E8M0)."""
E2M1_RMS = math.sqrt(sum(value**2 for value in E2M1) / len(E2M1))
E4M3_RMS = 64.0
"""Root mean square of MXFP8 values before their scale; four times as much is below float8's limit of 448."""
TWO_EXPONENTS_RMS = math.sqrt((1 + 4) / 2)
"""Of scales that are 1 or 2, as often the one as the other."""

GGUF_SCALES = {
    "Q4_0": (0,), "Q5_0": (0,), "Q8_0": (0,), "IQ4_NL": (0,), "Q4_1": (0, 2), "Q5_1": (0, 2),
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
}  # fmt: skip
"""Where the blocks of llama.cpp's formats have their float16 scale, and their minimum where they have one."""


def generator_of(seed: int, name: str) -> np.random.Generator:
    """Return the generator of one pool, or of one tensor."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


@cache
def byte_pool(seed: int) -> Tensor:
    """Return the pool of bytes, each as likely as any other."""
    words = generator_of(seed, "bytes").integers(0, 2**64, -(-NUM_BYTES // 8), dtype=np.uint64)
    return torch.from_numpy(words.view(np.uint8)[:NUM_BYTES])


@cache
def normal_pool(seed: int) -> Tensor:
    """Return the pool of values of the standard normal distribution in float32: quantiles by chance."""
    inverse, count = NormalDist().inv_cdf, 2**16
    quantiles = torch.tensor([inverse((index + 0.5) / count) for index in range(count)]).float()
    words = generator_of(seed, "normal").integers(0, count, NUM_NORMALS, dtype=np.int32)
    return torch.index_select(quantiles, 0, torch.from_numpy(words))


def cycle(pool: Tensor, seed: int, name: str, count: int) -> Iterator[Tensor]:
    """Yield `count` entries of a pool in pieces, from a place that the name gives on, round and round."""
    start = int(generator_of(seed, name).integers(len(pool)))
    while count:
        piece = pool[start : start + count]
        yield piece
        count -= len(piece)
        start = 0


def random_bytes(seed: int, name: str, count: int) -> Tensor:
    """Return `count` random bytes."""
    return torch.cat(list(cycle(byte_pool(seed), seed, name, count)))


def normal(seed: int, name: str, shape: Shape, dtype: str, std: float, mean: float = 0.0) -> StreamedTensor:
    """Return normal values; those of narrower dtypes are the float32 ones, rounded."""

    def read() -> Iterator[Tensor]:
        for pieces in cycle(normal_pool(seed), seed, name, math.prod(shape)):
            for piece in pieces.split(PIECE):
                yield (piece * std + mean).to(torch_dtype(dtype, name))

    return StreamedTensor(shape, dtype, read)


def constant(shape: Shape, dtype: str, value: float) -> StreamedTensor:
    """Return a tensor of one value."""
    return StreamedTensor(
        shape, dtype, lambda: torch.full(shape, value, dtype=torch_dtype(dtype, "constant"))
    )


def byte_tensor(content: bytes) -> StreamedTensor:
    """Return bytes as a tensor, as files hold their tokenizer and the names of formats."""
    return StreamedTensor(
        (len(content),), "U8", lambda: torch.frombuffer(bytearray(content), dtype=torch.uint8)
    )


def mxfp8(seed: int, layer: str, shape: Shape, std: float) -> dict[str, StreamedTensor]:
    """Return the tensors of an MXFP8 layer. Shapes: (O, I), I a multiple of 32."""
    outputs, inputs = shape
    smaller = math.floor(math.log2(std / (E4M3_RMS * TWO_EXPONENTS_RMS)))
    std_of_weight = std / (TWO_EXPONENTS_RMS * 2.0**smaller)

    def read_scale() -> Tensor:
        bits = random_bytes(seed, f"{layer}.weight_scale", outputs * inputs // 32) & 1
        return to_blocked((bits + (BIAS + smaller)).reshape(outputs, inputs // 32))

    return {
        f"{layer}.weight": normal(seed, f"{layer}.weight", shape, "F8_E4M3", std_of_weight),
        f"{layer}.weight_scale": StreamedTensor(padded_size(outputs, inputs // 32), "U8", read_scale),
        f"{layer}.comfy_quant": byte_tensor(json.dumps({"format": "mxfp8"}).encode()),
    }


def nvfp4(seed: int, layer: str, shape: Shape, std: float) -> dict[str, StreamedTensor]:
    """Return the tensors of a stack of experts in NVFP4. Shapes: (E, O, I), I a multiple of 16."""
    experts, outputs, inputs = shape
    one = torch.tensor(1.0).to(torch.float8_e4m3fn).view(torch.uint8)
    scales = (one + torch.arange(8, dtype=torch.uint8)).view(torch.float8_e4m3fn).float()  # 1 to 1.875
    matrix_scale = std / (E2M1_RMS * float(scales.square().mean().sqrt()))

    def read_scale() -> Iterator[Tensor]:
        for expert in range(experts):
            low = random_bytes(seed, f"{layer}.weight_scale.{expert}", outputs * inputs // 16) & 7
            yield to_blocked((low + one).reshape(outputs, inputs // 16)).view(torch.float8_e4m3fn)

    def read_matrix_scale() -> Tensor:
        return matrix_scale * (
            0.9 + 0.2 * random_bytes(seed, f"{layer}.weight_scale_2", experts).float() / 255
        )

    return {
        f"{layer}.weight": _random_packed(seed, f"{layer}.weight", (experts, outputs, inputs // 2)),
        f"{layer}.weight_scale": StreamedTensor(
            (experts, *padded_size(outputs, inputs // 16)), "F8_E4M3", read_scale
        ),
        f"{layer}.weight_scale_2": StreamedTensor((experts,), "F32", read_matrix_scale),
    }


def mxfp4(seed: int, name: str, shape: Shape, std: float) -> dict[str, StreamedTensor]:
    """Return the tensors of a stack of experts in MXFP4. Shapes: (E, O, I), I a multiple of 32."""
    experts, outputs, inputs = shape
    groups, exponent = (experts, outputs, inputs // 32), _mxfp4_exponent(std)

    def read_scales() -> Iterator[Tensor]:
        pool = byte_pool(seed)
        return ((piece & 1) + exponent for piece in cycle(pool, seed, f"{name}_scales", math.prod(groups)))

    return {
        f"{name}_blocks": _random_packed(seed, f"{name}_blocks", (*groups, 16)),
        f"{name}_scales": StreamedTensor(groups, "U8", read_scales),
    }


def _random_packed(seed: int, name: str, shape: Shape) -> StreamedTensor:
    """Return bytes of two values of four bits each."""
    return StreamedTensor(shape, "U8", lambda: cycle(byte_pool(seed), seed, name, math.prod(shape)))


def _mxfp4_exponent(std: float) -> int:
    return BIAS + round(math.log2(std / (E2M1_RMS * TWO_EXPONENTS_RMS)))


def gguf_blocks(seed: int, name: str, shape: Shape, kind: str, std: float) -> StreamedGgufTensor:
    """Return a matrix, or a stack of them, in one of llama.cpp's formats: random bytes under sane scales."""
    values, size = next(entry[1:] for entry in GGUF_FORMATS.values() if entry[0] == kind)

    def read() -> Iterator[Tensor]:
        num_blocks, most = math.prod(shape) // values, PIECE // size
        for start in range(0, num_blocks, most):
            count, place = min(most, num_blocks - start), f"{name}.{kind}.{start}"
            blocks = random_bytes(seed, place, count * size).reshape(count, size)
            _set_scales(blocks, kind, std, random_bytes(seed, f"{place}.scales", count))
            yield blocks

    return StreamedGgufTensor(shape, kind, read)


def _set_scales(blocks: Tensor, kind: str, std: float, spread: Tensor) -> None:
    """Replace the scales of blocks, whose other bytes are random, so that their values have a size.

    Shapes: blocks (N, bytes of a block), spread (N,) random bytes.
    """
    if kind == "MXFP4":
        blocks[:, 0] = (blocks[:, 0] & 1) + _mxfp4_exponent(std)
        return
    unit, minimum = _unit_scales(kind)
    # Of either sign, so that formats whose numbers are not symmetric have a mean of zero all the same.
    signed = spread.view(torch.int8).float()
    scale = std / unit * (0.75 + signed.abs() / 256) * torch.where(signed < 0, -1, 1)
    for place, factor in zip(GGUF_SCALES[kind], (1.0, minimum), strict=False):
        blocks[:, place : place + 2] = (scale * factor).half()[:, None].view(torch.uint8)


@cache
def _unit_scales(kind: str) -> tuple[float, float]:
    """Return the size of values under a scale of 1, and the minimum, if there is one, that centres them."""
    places = GGUF_SCALES[kind]
    if len(places) == 1:
        return _measured(kind, (1.0,)).square().mean().sqrt().item(), 0.0
    # The mean is linear in the minimum.
    mean, other = (_measured(kind, (1.0, minimum)).mean().item() for minimum in (0.0, 1.0))
    minimum = -mean / (other - mean)
    return _measured(kind, (1.0, minimum)).square().mean().sqrt().item(), minimum


def _measured(kind: str, scales: tuple[float, ...]) -> Tensor:
    """Return the values of many random blocks under given scales."""
    import gguf

    _, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    blocks = random_bytes(0, kind, 1024 * size).reshape(-1, size)
    for place, scale in zip(GGUF_SCALES[kind], scales, strict=True):
        blocks[:, place : place + 2] = torch.tensor([scale]).half().view(torch.uint8)
    return torch.from_numpy(gguf.dequantize(blocks.numpy(), gguf.GGMLQuantizationType[kind]).copy()).double()
