"""Tables of small floats: bytes to the numbers that they encode, and matrices dequantized by blocks of rows.

A look-up takes a quarter of the time of torch's own conversion of float8 on a CPU. Knows nothing of formats.
Letters: O outputs, I inputs.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache

import torch
from torch import Tensor

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
"""The numbers of four bits: one of sign, two of exponent, one of mantissa."""
E2M1_MAX = max(E2M1)

BLOCK_VALUES = 2**15
"""Values that are dequantized at once on a CPU: as many as torch leaves to one thread.

Threads that meet after every operation wait for each other whenever another program has their core: blocks of
2**18 values took thirty times as long beside six busy processes. Each thread works through blocks of its own.
"""


def unpack_e2m1(packed: Tensor, *, is_high_first: bool) -> Tensor:
    """Return the numbers of bytes that hold two each.

    Shapes: (..., I/2) uint8 -> (..., I) float32.
    """
    table = _pair_table(is_high_first, packed.device)
    pairs = torch.index_select(table, 0, packed.flatten().int())  # (... I/2,) 8 bytes each
    return pairs.view(torch.float32).reshape(*packed.shape[:-1], -1)


def unpack_e4m3(weight: Tensor) -> Tensor:
    """Return the numbers of float8 E4M3. Shapes: any of uint8 -> the same of float32."""
    return torch.index_select(_e4m3_table(weight.device), 0, weight.flatten().int()).reshape(weight.shape)


def power_of_two(exponent: Tensor) -> Tensor:
    """Return 2^exponent in float32, exact from -149 to 127."""
    return torch.ldexp(torch.ones_like(exponent, dtype=torch.float32), exponent)


def scale_groups(values: Tensor, scale: Tensor) -> Tensor:
    """Multiply each group of inputs by its scale, in place, and return the values.

    Shapes: values (O, I) float32, scale (O, groups) -> (O, I).
    """
    values.unflatten(1, (scale.shape[1], -1)).mul_(scale[..., None])  # (O, groups, I/groups)
    return values


def dequantize_by_rows(
    parts: Sequence[Tensor],
    dequantize_rows: Callable[..., Tensor],
    shape: tuple[int, int],
    dtype: torch.dtype,
) -> Tensor:
    """Return a matrix whose rows are dequantized in blocks that fit into the cache of a CPU.

    Shapes: parts (O, ...) each, -> (O, I), which is `shape`.
    """
    outputs, inputs = shape
    device = parts[0].device
    rows = max(1, BLOCK_VALUES // inputs) if device.type == "cpu" else outputs
    if rows >= outputs:
        return dequantize_rows(*parts).to(dtype)
    matrix = torch.empty(shape, dtype=dtype, device=device)
    is_inference = torch.is_inference_mode_enabled()

    def dequantize_share(first: int, last: int) -> None:
        with torch.inference_mode(is_inference):
            for start in range(first, last, rows):
                block = slice(start, min(start + rows, last))
                matrix[block] = dequantize_rows(*(part[block] for part in parts))

    num_threads = torch.get_num_threads()
    bounds = [outputs * index // num_threads for index in range(num_threads + 1)]
    if num_threads == 1:
        dequantize_share(0, outputs)
    else:
        list(_threads(os.getpid(), num_threads).map(dequantize_share, bounds[:-1], bounds[1:]))
    return matrix


@lru_cache(maxsize=1)
def _threads(_: int, num_threads: int) -> ThreadPoolExecutor:
    """Return the threads of a process, which are not those of a process that it was forked from."""
    return ThreadPoolExecutor(num_threads, thread_name_prefix="dequantize")


@cache
def _pair_table(is_high_first: bool, device: torch.device) -> Tensor:
    numbers = torch.tensor(E2M1)
    high, low = numbers.repeat_interleave(16), numbers.repeat(16)
    pairs = torch.stack([high, low] if is_high_first else [low, high], dim=1)  # (256, 2)
    return pairs.contiguous().view(torch.int64).flatten().to(device)  # (256,) two floats each


@cache
def _e4m3_table(device: torch.device) -> Tensor:
    return torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float().to(device)
