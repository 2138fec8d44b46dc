"""What a token of an answer costs: the bytes of weights that it reads, and the seconds that takes.

An estimate from sizes alone; nothing is run or read.
"""

import math
from typing import Any, NamedTuple

import torch

from lens.models.mapped_memory import is_mapped
from lens.models.memory import GB, available_memory, execution_device
from lens.models.quantized.packed_weight import PackedWeight

BYTES_PER_S = {"cuda": 1e12, "cpu": 1e10, "disk": 1e9}
"""Reading speed of a GPU's memory, of main memory, and of a disk with flash memory: rough, as they vary."""
WIDENED_PER_S = {"cuda": 1e11, "cpu": 4e8}
"""Packed values dequantized in a second, on a CPU by one thread (see `benchmarks/reasoner_tokens.py`)."""


class TokenCost(NamedTuple):
    """What the weights of a model cost each token, and each pass over a text of many tokens."""

    token_bytes: int
    """Weights that one token reads: of a layer of experts, those that it is routed to."""
    pass_bytes: int
    """Weights that a long text reads: all."""
    token_s: float
    pass_s: float
    source: str
    """Where the weights are read from: the GPU, main memory, or the disk."""


def token_cost(model: Any) -> TokenCost:
    """Return what tokens cost on the device that a model computes on."""
    config = model.config
    num_experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    share = getattr(config, "num_experts_per_tok", 1) / num_experts if num_experts else 1.0
    token_bytes, pass_bytes, mapped_bytes = 0.0, 0, 0
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if "embed_tokens" in name and not config.tie_word_embeddings:
            continue  # a token reads one row
        token_bytes += tensor.nbytes * (share if ".experts." in name else 1)
        pass_bytes += tensor.nbytes
        mapped_bytes += tensor.nbytes if is_mapped(tensor) else 0
    token_values, pass_values = _packed_values(model, share)
    kind = execution_device(model).type
    is_on_disk = kind == "cpu" and mapped_bytes > available_memory("cpu")
    speed = BYTES_PER_S.get("disk" if is_on_disk else kind, BYTES_PER_S["cpu"])
    widened_per_s = WIDENED_PER_S.get(kind, WIDENED_PER_S["cpu"])
    widened_per_s *= torch.get_num_threads() if kind == "cpu" else 1
    return TokenCost(
        math.ceil(token_bytes),
        pass_bytes,
        token_bytes / speed + token_values / widened_per_s,
        pass_bytes / speed + pass_values / widened_per_s,
        "the disk" if is_on_disk else "the GPU" if kind == "cuda" else "main memory",
    )


def _packed_values(model: Any, share: float) -> tuple[float, float]:
    """Return how many packed values a token widens, and a pass over a long text."""
    of_token, of_pass = 0.0, 0.0
    for name, module in model.named_modules():
        is_part = isinstance(module, PackedWeight) and not name.endswith("interleaved")
        if not is_part or "embed_tokens" in name:
            continue
        count = math.prod(module.shape)
        of_token += count * (share if ".experts." in name else 1)
        of_pass += count
    return of_token, of_pass


def cost_note(model: Any, max_tokens: int) -> str:
    """Return in one or two sentences what an answer of so many tokens costs at most, thinking included."""
    cost = token_cost(model)
    note = (
        f"Each token of an answer reads {_size(cost.token_bytes)} of weights from {cost.source}, about "
        f"{_span(cost.token_s)}. The request takes about {_span(cost.pass_s)} to read, and an answer of "
        f"{max_tokens} tokens, the most allowed, about {_span(cost.pass_s + max_tokens * cost.token_s)}."
    )
    if cost.source == "the disk":
        note += " An endpoint, or a smaller model of transformers, is far faster."
    return note


def _size(num_bytes: float) -> str:
    return f"{num_bytes / GB:.1f} GB" if num_bytes >= GB / 10 else f"{num_bytes / 1e6:.1f} MB"


def _span(seconds: float) -> str:
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} hours"
    if seconds >= 120:
        return f"{seconds / 60:.0f} minutes"
    if seconds >= 1:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{1000 * seconds:.1g} ms" if seconds < 0.01 else f"{1000 * seconds:.0f} ms"
