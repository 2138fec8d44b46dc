"""Rotary embedding and softmax attention, of a batch or inside each image of a packed sequence.

Two caches keep what every step of an image reads: rotary tables and the used length of a text mask. Knows
nothing of weights. Paper: Lens report, model section. Letters: B batch, M queries, N keys, I image tokens,
T text tokens, H heads, K head dimension.
"""

import weakref
from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _AttentionBackendRegistry,
    dispatch_attention_fn,
)
from torch import Tensor

from lens.core.rope import image_positions, rope_angles, text_positions
from lens.models.sequence_packing import PackedSequence, permute_tokens

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10; attention then runs image by image
    varlen_attn = None

SHORT_SEQUENCE_TOKENS = 512
ROTARY_THETA = 10000.0
NATIVE_BACKEND = AttentionBackendName.NATIVE


def apply_rotary(x: Tensor, rotary: Tensor) -> Tensor:
    """Rotate adjacent channel pairs as complex numbers, in float32, and return them in the dtype of x.

    Shapes: x (B, N, H, K), rotary (N, K/2, 2) of cosine and sine -> (B, N, H, K).
    """
    pairs = x.float().unflatten(-1, (-1, 2))                                # (B, N, H, K/2, 2)
    if torch.compiler.is_compiling():  # the compiler fuses this, and does not support complex numbers
        (a, b), (cos, sin) = pairs.unbind(-1), rotary[:, None].unbind(-1)
        rotated = torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1)  # (B, N, H, K/2, 2)
    else:
        complex_rotary = torch.view_as_complex(rotary)[:, None]               # (N, 1, K/2)
        rotated = torch.view_as_real(torch.view_as_complex(pairs) * complex_rotary)
    return rotated.flatten(3).to(x.dtype)                                    # (B, N, H, K)


def attention(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None, backend: Any = None) -> Tensor:
    """Return softmax attention; keys where key_mask is False are ignored.

    `backend` is one of diffusers' kernels; None is the one that is active in diffusers.

    Shapes: q (B, H, M, K), k and v (B, H, N, K), key_mask bool (B, 1, 1, N) -> (B, H, M, K).
    """
    backend = backend or active_backend()
    if backend != NATIVE_BACKEND:
        q, k, v = (heads.transpose(1, 2) for heads in (q, k, v))            # (B, M or N, H, K)
        return dispatch_attention_fn(q, k, v, attn_mask=key_mask, backend=backend).transpose(1, 2)
    is_training_on_cpu = q.requires_grad and q.device.type == "cpu" and q.dtype == torch.bfloat16
    if not is_training_on_cpu or k.shape[2] > SHORT_SEQUENCE_TOKENS:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask)
    # On a CPU the fused kernel takes 79 ms for its backward pass, these products 17 (64 samples, 124 tokens).
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)                # (B, H, M, N)
    if key_mask is not None:
        scores += torch.zeros(key_mask.shape, dtype=q.dtype).masked_fill_(~key_mask, float("-inf"))
    return scores.softmax(dim=-1) @ v


def active_backend() -> AttentionBackendName:
    """Return the kernel that diffusers' `attention_backend` or DIFFUSERS_ATTN_BACKEND names."""
    return _AttentionBackendRegistry.get_active_backend()[0]  # type: ignore[return-value]


def packed_attention(
    q: Tensor, k: Tensor, v: Tensor, rotary: Tensor, packing: PackedSequence, backend: Any = None
) -> Tensor:
    """Return softmax attention of every token over the tokens of its own image.

    Without queries of text tokens, q is (1, I, H, K) and the result (1, I, H*K).

    Shapes: q, k and v (1, N, H, K) in the order of the streams, rotary (N, K/2, 2) in the joint order
        -> (1, N, H*K).
    """
    has_text = q.shape[1] == k.shape[1]
    joint_index, stream_index = packing.joint_index, packing.stream_index
    k, v = (
        apply_rotary(permute_tokens(k, joint_index, stream_index), rotary),
        permute_tokens(v, joint_index, stream_index),
    )  # (1, N, H, K)
    # Queries of image tokens alone are in order already.
    q = (
        apply_rotary(permute_tokens(q, joint_index, stream_index), rotary)
        if has_text
        else apply_rotary(q, rotary[stream_index[: q.shape[1]]])
    )
    is_native = (backend or active_backend()) == NATIVE_BACKEND
    is_half_on_gpu = q.device.type == "cuda" and q.dtype in (torch.float16, torch.bfloat16)
    if varlen_attn is not None and is_half_on_gpu and is_native:
        cu_seqlens, max_seqlen = (
            (packing.cu_seqlens, packing.max_seqlen)
            if has_text
            else (packing.image_cu_seqlens, packing.image_max_seqlen)
        )
        output: Any = varlen_attn(
            q[0], k[0], v[0], cu_seqlens, packing.cu_seqlens, max_seqlen, packing.max_seqlen
        )
        output = output[None]                                                                  # (1, N, H, K)
    else:
        lengths = packing.lengths if has_text else packing.image_lengths
        own = zip(q.split(lengths, 1), k.split(packing.lengths, 1), v.split(packing.lengths, 1), strict=True)
        by_head = ([heads.transpose(1, 2) for heads in one] for one in own)                    # (1, H, M, K)
        each = [attention(a, b, c, None, backend) for a, b, c in by_head]
        output = torch.cat([one.transpose(1, 2) for one in each], dim=1)                     # (1, N, H, K)
    return (permute_tokens(output, stream_index, joint_index) if has_text else output).flatten(2)


class RotaryCache:
    """Cosines and sines of joint sequences, computed once for each size and outside the state dict."""

    MAX_ENTRIES = 32

    def __init__(self, axes_dims: tuple[int, ...]):
        self.axes_dims = axes_dims
        self._tables: OrderedDict[tuple[Any, ...], Tensor] = OrderedDict()

    def get(self, h: int, w: int, num_text: int, device: torch.device) -> Tensor:
        """Return the cosines and sines of h x w image tokens, then of num_text text tokens.

        Shapes: -> (h*w + T, K/2, 2), float32.
        """
        if torch.compiler.is_compiling():  # a look-up would compile anew for each size and each entry
            angles = self._angles(h, w, num_text, device)
            return torch.stack([angles.cos(), angles.sin()], dim=-1)
        key = (h, w, num_text, device)
        if key in self._tables:
            self._tables.move_to_end(key)
            return self._tables[key]
        # A table outlives the call, and one made under inference mode cannot be used in training.
        with torch.inference_mode(False), torch.no_grad():
            angles = self._angles(h, w, num_text, device)
            table = torch.view_as_real(torch.polar(torch.ones_like(angles), angles))
        self._tables[key] = table
        if len(self._tables) > self.MAX_ENTRIES:
            self._tables.popitem(last=False)
        return table

    def _angles(self, h: int, w: int, num_text: int, device: torch.device) -> Tensor:
        positions = torch.cat([image_positions(h, w, device), text_positions(num_text, h, w, device)])
        return rope_angles(positions, self.axes_dims, ROTARY_THETA)                      # (I+T, K/2)


class MaskCache:
    """The used length of a text mask, read from the device once per mask instead of once per step.

    A guided step has two masks, so more than the last one is kept: each read waits for the device.
    """

    MAX_ENTRIES = 4

    def __init__(self):
        self._entries: OrderedDict[int, tuple[weakref.ref[Tensor], int, tuple[int, bool]]] = OrderedDict()

    def get(self, mask: Tensor | None, features: Tensor) -> tuple[int, bool]:
        """Return the number of text tokens to keep, and whether any of those is padding.

        Columns at the end that are padding in the whole batch are dropped.
        """
        num_text = features.shape[1]
        if mask is None:
            return num_text, False
        if torch.compiler.is_compiling() or mask.device.type == "meta":
            return num_text, True
        if mask.is_inference():
            return self._measure(mask)
        known = self._entries.pop(id(mask), None)
        if known is None or known[0]() is not mask or known[1] != mask._version:
            known = weakref.ref(mask), mask._version, self._measure(mask)
        self._entries[id(mask)] = known
        if len(self._entries) > self.MAX_ENTRIES:
            self._entries.popitem(last=False)
        return known[2]

    @staticmethod
    def _measure(mask: Tensor) -> tuple[int, bool]:
        in_use = mask.cpu()
        columns = in_use.any(dim=0).nonzero()
        num_text = int(columns[-1]) + 1 if len(columns) else 0
        return num_text, not bool(in_use[:, :num_text].all())

    def __getstate__(self) -> dict[str, Any]:
        return {"_entries": OrderedDict()}  # weak references are neither copied nor pickled
