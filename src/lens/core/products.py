"""Matrix products on a CPU with weights of 16 bits: in float32, where the machine computes that faster.

Without instructions for bfloat16 such a product takes up to ten times as long as one in float32, and even
with those of AVX-512 it can take twice as long; with AMX it is several times as fast. So both are timed, once
a process.
Knows nothing of layers. Letters: N rows, O outputs, I inputs.
"""

import time
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HALF = (torch.bfloat16, torch.float16)

WIDENED_AT_ONCE = 1 << 20
"""Values of a weight in float32 at a time: 4 MB, which stay in the cache between the cast and the product."""

LEAST_GAIN = 1.4
"""How much faster a product in float32 has to be; casting the weight takes a part of that."""

PROBE_SHAPE = (64, 256, 512)
"""Rows, outputs and inputs of the timed product, which is far shorter than a time slice of the system."""

PROBE_ROUNDS = 12


def is_cpu_inference(x: Tensor) -> bool:
    """Return whether x is computed with on a CPU without gradients, autocast or the compiler."""
    return (
        x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
    )


def cpu_compute_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype in which inference on x is fastest: float32 for 16 bits where the CPU prefers it."""
    return torch.float32 if x.dtype in HALF and is_cpu_inference(x) and _prefers_float32(x.dtype) else x.dtype


def is_mixed(x: Tensor, weight_dtype: torch.dtype) -> bool:
    """Return whether x is in float32 and a weight in 16 bits, for inference on a CPU."""
    return x.dtype == torch.float32 and weight_dtype in HALF and is_cpu_inference(x)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W^T + b in the dtype of x; for float32 a weight of 16 bits is cast some rows at a time.

    Shapes: x (..., I), weight (O, I), bias (O,) -> (..., O).
    """
    is_compiled_on_cpu = torch.compiler.is_compiling() and x.device.type == "cpu"
    if is_compiled_on_cpu and weight.dtype in HALF and x.dtype == torch.float32:
        # A block compiled by itself, in a denoiser that has chosen float32 outside.
        return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
    if not is_mixed(x, weight.dtype):
        return F.linear(x, weight, bias)
    if type(weight) not in (Tensor, nn.Parameter):  # quantized by torchao: its products are its own
        return F.linear(x.to(weight.dtype), weight, bias).to(x.dtype)
    rows = x.reshape(-1, x.shape[-1])                                                           # (N, I)
    num_outputs, num_inputs = weight.shape
    out = x.new_empty(len(rows), num_outputs)                                                   # (N, O)
    step = max(1, WIDENED_AT_ONCE // num_inputs)
    scratch = x.new_empty(min(step, num_outputs), num_inputs)                                   # (<=step, I)
    wide_bias = None if bias is None else bias.to(x.dtype)
    for start in range(0, num_outputs, step):
        end = min(start + step, num_outputs)
        wide = scratch[: end - start].copy_(weight[start:end]).t()                              # (I, <=step)
        if wide_bias is None:
            torch.mm(rows, wide, out=out[:, start:end])
        else:
            torch.addmm(wide_bias[start:end], rows, wide, out=out[:, start:end])
    return out.reshape(*x.shape[:-1], num_outputs)                                              # (..., O)


@cache
def _prefers_float32(dtype: torch.dtype) -> bool:
    """Time one product in both dtypes, by turns, and compare the least times.

    On one thread and by its CPU time, as waiting for threads under load would change the choice.
    """
    num_rows, num_outputs, num_inputs = PROBE_SHAPE
    elapsed_s: dict[torch.dtype, list[float]] = {dtype: [], torch.float32: []}
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            x, weight = torch.ones(num_rows, num_inputs), torch.ones(num_outputs, num_inputs)
            for _ in range(PROBE_ROUNDS):  # the first one, which fills caches, is not the least
                for each, times in elapsed_s.items():
                    rows, matrix = x.to(each), weight.to(each)
                    started_at = time.thread_time()
                    F.linear(rows, matrix)
                    times.append(time.thread_time() - started_at)
    finally:
        torch.set_num_threads(num_threads)
    return min(elapsed_s[dtype]) > LEAST_GAIN * min(elapsed_s[torch.float32])
