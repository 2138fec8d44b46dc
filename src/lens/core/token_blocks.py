"""Norms and rotary embedding for inference on a CPU: in float32, a block of tokens at a time.

All steps of a block are done before the next one, so that it stays in the cache; whole tensors would go to
memory and back at each step, and fresh ones cost page faults. For float32 the results are those of
`F.rms_norm` and a complex product, to the bit.
Knows nothing of layers. Letters: B batch, N tokens, D width, H heads, K head dimension.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

VALUES_PER_THREAD = 1 << 16


def modulated_rms_norm(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """Return norm(x) * scale + shift.

    Shapes: x (B, N, D), shift and scale (B, 1, D) or (B, N, D) -> (B, N, D), in the dtype of x.
    """
    shift, scale = shift.float(), scale.float()
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    scratch = _Scratch(x)
    for block in scratch.blocks():
        normed = scratch.rms_norm(x[:, block], eps)                             # (B, <=step, D)
        block_shift, block_scale = (each if each.shape[1] == 1 else each[:, block] for each in (shift, scale))
        if x.dtype == torch.float32:
            torch.addcmul(block_shift, normed, block_scale, out=out[:, block])
        else:
            out[:, block] = torch.addcmul(block_shift, normed, block_scale, out=normed)
    return out


def rotated_rms_norm(x: Tensor, weight: Tensor, rotary: Tensor, eps: float, out: Tensor) -> None:
    """Write norm(x) * weight into out, with adjacent channel pairs rotated as complex numbers.

    Shapes: x and out (B, N, H, K), weight (K,), rotary (N, K/2, 2) of cosine and sine.
    """
    weight, turns = weight.float(), torch.view_as_complex(rotary)[:, None]      # (N, 1, K/2)
    scratch = _Scratch(x)
    for block in scratch.blocks():
        pairs = _pairs(scratch.rms_norm(x[:, block], eps).mul_(weight))         # (B, <=step, H, K/2)
        if out.dtype == torch.float32:
            torch.mul(pairs, turns[block], out=_pairs(out[:, block]))
        else:
            out[:, block] = torch.view_as_real(pairs.mul_(turns[block])).flatten(-2)


class _Scratch:
    """Buffers for one block of tokens, of a tensor whose second axis counts them."""

    def __init__(self, x: Tensor):
        batch, self.num_tokens, *rest = x.shape
        token_values = max(1, batch * x[:1, :1].numel())
        self.step = max(1, min(self.num_tokens, VALUES_PER_THREAD * torch.get_num_threads() // token_values))
        shape = (batch, self.step, *rest)
        self.normed = torch.empty(shape, dtype=torch.float32)
        self.wide = None if x.dtype == torch.float32 else torch.empty(shape, dtype=torch.float32)

    def blocks(self) -> Iterator[slice]:
        for start in range(0, self.num_tokens, self.step):
            yield slice(start, min(start + self.step, self.num_tokens))

    def rms_norm(self, x: Tensor, eps: float) -> Tensor:
        """Return the norm of a block over its last axis; the buffer is overwritten by the next call."""
        normed = self.normed[:, : x.shape[1]]
        wide = x if self.wide is None else self.wide[:, : x.shape[1]].copy_(x)
        torch.mul(wide, wide, out=normed)
        return torch.mul(wide, normed.mean(-1, keepdim=True).add_(eps).rsqrt_(), out=normed)


def _pairs(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))                      # (..., K/2)
