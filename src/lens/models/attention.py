"""Rotary embedding and softmax attention, of a batch or inside each image of a packed sequence.

Knows nothing of weights. Paper: Lens report, model section. Letters: B batch, M queries, N keys, I image
tokens of a packed sequence, H heads, K head dimension.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lens.models.sequence_packing import PackedSequence, permute_tokens

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch before 2.10; attention then runs image by image
    varlen_attn = None

SHORT_SEQUENCE_TOKENS = 512


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


def attention(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None) -> Tensor:
    """Return softmax attention; keys where key_mask is False are ignored.

    Shapes: q (B, H, M, K), k and v (B, H, N, K), key_mask bool (B, 1, 1, N) -> (B, H, M, K).
    """
    is_training_on_cpu = q.requires_grad and q.device.type == "cpu" and q.dtype == torch.bfloat16
    if not is_training_on_cpu or k.shape[2] > SHORT_SEQUENCE_TOKENS:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask)
    # On a CPU the fused kernel takes 79 ms for its backward pass, these products 17 (64 samples, 124 tokens).
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)                # (B, H, M, N)
    if key_mask is not None:
        scores += torch.zeros(key_mask.shape, dtype=q.dtype).masked_fill_(~key_mask, float("-inf"))
    return scores.softmax(dim=-1) @ v


def packed_attention(q: Tensor, k: Tensor, v: Tensor, rotary: Tensor, packing: PackedSequence) -> Tensor:
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
    if varlen_attn is not None and q.device.type == "cuda" and q.dtype in (torch.float16, torch.bfloat16):
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
        each = [attention(a.transpose(1, 2), b.transpose(1, 2), c.transpose(1, 2), None) for a, b, c in own]
        output = torch.cat([one.transpose(1, 2) for one in each], dim=1)                     # (1, N, H, K)
    return (permute_tokens(output, stream_index, joint_index) if has_text else output).flatten(2)
