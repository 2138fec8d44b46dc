"""Layers of the denoiser: norms, joint attention, SwiGLU and the dual-stream block.

Knows nothing of sampling, files or devices. Paper: Lens report, model section.
Letters: B batch, I image tokens, T text tokens, N = I + T, D width, H heads, K head dimension.
Order: joint sequences put image tokens first.
"""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention import AttentionModuleMixin
from torch import Tensor, nn

from lens.core.products import is_cpu_inference, linear
from lens.core.token_blocks import modulated_rms_norm, rotated_rms_norm
from lens.models.attention import apply_rotary, attention, packed_attention
from lens.models.sequence_packing import PackedSequence, broadcast_modulation
from lens.models.shapes import TIME_CHANNELS, mlp_width


class Linear(nn.Linear):
    """A linear layer which, for inference on a CPU, takes inputs in float32 to weights of 16 bits as well."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


class RMSNorm(nn.Module):
    """Root-mean-square norm with a learned weight, in the dtype of its input."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        # On a GPU autocast norms in float32; without the cast, queries and keys would miss fast attention.
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps).to(x.dtype)


class AdaRMSNorm(RMSNorm):
    """RMSNorm with a scale and a shift per sample; the learned weight is folded into the scale."""

    def forward(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Return norm(x) * (1 + scale) + shift.

        Shapes: x (B, N, D), shift and scale (B, 1, D) or, packed, (1, N, D) -> (B, N, D).
        """
        if is_cpu_inference(x):
            return modulated_rms_norm(x, shift, self.weight * (1 + scale), self.eps)
        normed = F.rms_norm(x, self.weight.shape, None, self.eps).to(x.dtype)
        return torch.addcmul(shift.to(x.dtype), normed, (self.weight * (1 + scale)).to(x.dtype))


class SwiGLU(nn.Module):
    """Gated feed-forward without bias: w2(silu(w1 x) * w3 x)."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.w1 = Linear(dim, hidden_dim, bias=False)
        self.w2 = Linear(hidden_dim, dim, bias=False)
        self.w3 = Linear(dim, hidden_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.w1(x), self.w3(x)
        return self.w2(F.silu(gate, inplace=True).mul_(up) if is_cpu_inference(x) else F.silu(gate) * up)


class JointAttention(nn.Module, AttentionModuleMixin):
    """One softmax attention over image and text, with projections and query-key norms for each stream."""

    _supports_qkv_fusion = False  # the projections are one layer already

    def __init__(self, dim: int, num_heads: int, head_dim: int):
        super().__init__()
        self.num_heads = num_heads
        self.img_qkv = Linear(dim, 3 * dim)
        self.txt_qkv = Linear(dim, 3 * dim)
        self.norm_q, self.norm_k = RMSNorm(head_dim, 1e-6), RMSNorm(head_dim, 1e-6)
        self.norm_added_q, self.norm_added_k = RMSNorm(head_dim, 1e-6), RMSNorm(head_dim, 1e-6)
        self.to_out = nn.ModuleList([Linear(dim, dim)])
        self.to_add_out = Linear(dim, dim)
        self.processor: Any = JointAttnProcessor()

    def forward(
        self, image_tokens: Tensor, text_tokens: Tensor, rotary: Tensor, key_mask: Tensor | None,
        packing: PackedSequence | None = None, updates_text: bool = True,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return both streams after attention; text has no tokens without `updates_text`.

        Shapes: image_tokens (B, I, D), text_tokens (B, T, D), rotary (I+T, K/2, 2), key_mask bool
            (B, 1, 1, I+T) -> (B, I, D), (B, T, D). With a packing B is 1, and rotary is in its joint order.
        """
        num_image = image_tokens.shape[1]
        image_heads = self.img_qkv(image_tokens).unflatten(-1, (3, self.num_heads, -1))  # (B, I, 3, H, K)
        text_heads = self.txt_qkv(text_tokens).unflatten(-1, (3, self.num_heads, -1))    # (B, T, 3, H, K)
        joint = self.processor(
            self, image_heads, text_heads, rotary, key_mask, packing, updates_text
        )  # (B, I+T, D) or (B, I, D)
        image_out = self.to_out[0](joint[:, :num_image])
        # Without updates there are no text tokens, rather than None: hooks of caches take tensors alone.
        return image_out, self.to_add_out(joint[:, num_image:]) if updates_text else joint[:, :0]


class JointAttnProcessor:
    """The attention between the projections; diffusers' `set_attention_backend` chooses its kernel."""

    _attention_backend: Any = None
    _parallel_config: Any = None

    def __call__(
        self, attn: JointAttention, image_heads: Tensor, text_heads: Tensor, rotary: Tensor,
        key_mask: Tensor | None, packing: PackedSequence | None, updates_text: bool,
    ) -> Tensor:  # fmt: skip
        """Return the outputs of all queries: those of the image tokens alone without `updates_text`.

        Shapes: image_heads (B, I, 3, H, K), text_heads (B, T, 3, H, K) -> (B, I+T, D) or (B, I, D).
        """
        num_image, backend = image_heads.shape[1], self._attention_backend
        # Weights that a hook of accelerate loads are there only in the calls of their own layers.
        is_offloaded = attn.norm_q.weight.is_meta
        if packing is None and is_cpu_inference(image_heads) and not is_offloaded:
            q, k, v = self._joint_heads(attn, image_heads, text_heads, rotary)  # (B, H, N, K) each
            q = q if updates_text else q[:, :, :num_image]                      # (B, H, I, K)
            return attention(q, k, v, key_mask, backend).transpose(1, 2).flatten(2)  # (B, N, D)
        image_q, image_k, image_v = image_heads.unbind(2)                       # (B, I, H, K) each
        text_q, text_k, text_v = text_heads.unbind(2)                           # (B, T, H, K) each
        q = attn.norm_q(image_q)                                                # (B, I, H, K)
        if updates_text:
            q = torch.cat([q, attn.norm_added_q(text_q)], dim=1)                # (B, I+T, H, K)
        k = torch.cat([attn.norm_k(image_k), attn.norm_added_k(text_k)], dim=1)  # (B, I+T, H, K)
        v = torch.cat([image_v, text_v], dim=1)                                 # (B, I+T, H, K)
        if packing is not None:
            return packed_attention(q, k, v, rotary, packing, backend)          # (1, N, D)
        q, k = apply_rotary(q, rotary[: q.shape[1]]), apply_rotary(k, rotary)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)       # (B, H, N, K) each
        joint = attention(q, k, v, key_mask, backend)                           # (B, H, N, K)
        return joint.transpose(1, 2).flatten(2)                                 # (B, N, D)

    @staticmethod
    def _joint_heads(attn: JointAttention, image_heads: Tensor, text_heads: Tensor, rotary: Tensor) -> Tensor:
        """Return queries, keys and values of both streams for inference on a CPU, each token written once.

        Shapes: image_heads (B, I, 3, H, K), text_heads (B, T, 3, H, K) -> (3, B, H, I+T, K).
        """
        batch, num_image, _, num_heads, head_dim = image_heads.shape
        num_tokens = num_image + text_heads.shape[1]
        joint = image_heads.new_empty(3, batch, num_heads, num_tokens, head_dim)
        by_token = joint.permute(1, 3, 0, 2, 4)                                 # (B, I+T, 3, H, K)
        for heads, norms, tokens in (
            (image_heads, (attn.norm_q, attn.norm_k), slice(num_image)),
            (text_heads, (attn.norm_added_q, attn.norm_added_k), slice(num_image, num_tokens)),
        ):
            out = by_token[:, tokens]                                           # (B, I or T, 3, H, K)
            for part, norm in enumerate(norms):
                rotated_rms_norm(heads[:, :, part], norm.weight, rotary[tokens], norm.eps, out[:, :, part])
            out[:, :, 2] = heads[:, :, 2]
        return joint


class LensTransformerBlock(nn.Module):
    """Dual-stream block: joint attention, then a feed-forward for each stream, modulated by the time."""

    def __init__(self, dim: int, num_heads: int, head_dim: int, updates_text: bool = True):
        super().__init__()
        hidden_dim = mlp_width(dim)
        self.updates_text = updates_text
        self.img_mod = nn.Sequential(nn.SiLU(), Linear(dim, 6 * dim))
        self.img_norm1, self.img_norm2 = AdaRMSNorm(dim, 1e-6), AdaRMSNorm(dim, 1e-6)
        self.img_mlp = SwiGLU(dim, hidden_dim)
        self.txt_mod = nn.Sequential(nn.SiLU(), Linear(dim, 6 * dim))
        self.txt_norm1, self.txt_norm2 = AdaRMSNorm(dim, 1e-6), AdaRMSNorm(dim, 1e-6)
        self.txt_mlp = SwiGLU(dim, hidden_dim)
        self.attn = JointAttention(dim, num_heads, head_dim)

    def forward(
        self,
        image_tokens: Tensor,
        text_tokens: Tensor,
        cond: Tensor,
        rotary: Tensor,
        key_mask: Tensor | None = None,
        packing: PackedSequence | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return both streams; the last block returns the text unchanged, as nothing reads it afterwards.

        Shapes: image_tokens (B, I, D), text_tokens (B, T, D), cond (B, D), rotary (I+T, K/2, 2)
            -> (B, I, D), (B, T, D). With a packing B is 1, but cond has a row for each image.
        """
        image_sequence_ids, text_sequence_ids = (
            (packing.image_sequence_ids, packing.text_sequence_ids) if packing else (None, None)
        )
        image_mod = [
            broadcast_modulation(part, image_sequence_ids) for part in self.img_mod(cond).chunk(6, dim=-1)
        ]  # (B, 1, D)
        text_mod = [
            broadcast_modulation(part, text_sequence_ids) for part in self.txt_mod(cond).chunk(6, dim=-1)
        ]  # (B, 1, D)
        image_normed = self.img_norm1(image_tokens, *image_mod[:2])
        text_normed = self.txt_norm1(text_tokens, *text_mod[:2])
        image_out, text_out = self.attn(
            image_normed, text_normed, rotary, key_mask, packing, self.updates_text
        )  # fmt: skip
        image_tokens = _add_gated(image_tokens, image_mod[2], image_out, self.attn)
        image_out = self.img_mlp(self.img_norm2(image_tokens, *image_mod[3:5]))
        image_tokens = _add_gated(image_tokens, image_mod[5], image_out, self.img_mlp)
        if self.updates_text:
            text_tokens = _add_gated(text_tokens, text_mod[2], text_out, self.attn)
            text_out = self.txt_mlp(self.txt_norm2(text_tokens, *text_mod[3:5]))
            text_tokens = _add_gated(text_tokens, text_mod[5], text_out, self.txt_mlp)
        return image_tokens, text_tokens


def _add_gated(tokens: Tensor, gate: Tensor, update: Tensor, source: nn.Module) -> Tensor:
    """Return tokens + gate * update, for inference on a CPU in the memory of update.

    A hook of diffusers on the module that the update is from may keep it, as caches do.
    """
    is_in_place = is_cpu_inference(tokens) and not hasattr(source, "_diffusers_hook")
    return torch.addcmul(tokens, gate, update, out=update if is_in_place else None)


class TimeEmbedding(nn.Module):
    """The noise level as a conditioning vector: a sinusoid, then two linear layers."""

    def __init__(self, dim: int):
        super().__init__()
        self.timestep_embedder = nn.ModuleDict(
            {"linear_1": Linear(TIME_CHANNELS, dim), "linear_2": Linear(dim, dim)}
        )

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        """Shapes: t (B,) in [0, 1] -> (B, D)."""
        # float32 until after the sinusoid: bf16 cannot tell neighbouring times apart.
        waves = timestep_embedding(t.float(), TIME_CHANNELS).to(dtype)                # (B, 256)
        return self.timestep_embedder["linear_2"](F.silu(self.timestep_embedder["linear_1"](waves)))


def timestep_embedding(
    t: Tensor, num_channels: int, max_period: float = 10000.0, scale: float = 1000.0
) -> Tensor:
    """Return cosines, then sines, of t * scale at geometrically falling frequencies.

    Shapes: t (B,) -> (B, num_channels), float32.
    """
    half = num_channels // 2
    exponents = torch.arange(half, dtype=torch.float32, device=t.device) / half
    angles = scale * (t.float()[:, None] * max_period**-exponents)              # (B, half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class AdaLayerNormOut(nn.Module):
    """The last norm: without learned weight, scaled and shifted by the time embedding."""

    def __init__(self, dim: int):
        super().__init__()
        self.linear = Linear(dim, 2 * dim)

    def forward(self, x: Tensor, cond: Tensor, sequence_ids: Tensor | None = None) -> Tensor:
        """Return norm(x) * (1 + scale) + shift.

        Shapes: x (B, N, D), cond (B, D) -> (B, N, D); packed, with sequence_ids (N,), B is 1 for x alone.
        """
        scale, shift = broadcast_modulation(self.linear(F.silu(cond)), sequence_ids).chunk(
            2, dim=-1
        )  # (B, 1, D) each
        normed = F.layer_norm(x, x.shape[-1:], eps=1e-6).to(x.dtype)
        return torch.addcmul(shift, normed, 1 + scale)
