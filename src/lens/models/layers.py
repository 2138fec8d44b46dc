"""Parts of the denoiser: norms, joint attention, SwiGLU and the dual-stream block.

Knows nothing of pictures, timesteps, files or devices. Paper: Lens report, model section.
Letters: B batch, I image tokens, T text tokens, N = I + T, D width, H heads, K head dimension.
Order: joint sequences put image tokens first.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lens.models.attention import attention, packed_attention, rotate
from lens.models.sequence_packing import Packing, per_token


class RMSNorm(nn.Module):
    """Root-mean-square norm with a learned weight, in the dtype of what it norms."""

    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        # On a GPU autocast norms in float32; left so, queries and keys would miss the fast attention.
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps).to(x.dtype)


class ModulatedRMSNorm(RMSNorm):
    """RMSNorm, then scaled and shifted per sample; the learned weight rides on the scale, one pass less."""

    def forward(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Return norm(x) * (1 + scale) + shift.

        Shapes: x (B, N, D), shift and scale (B, 1, D) or, packed, (1, N, D) -> (B, N, D).
        """
        normed = F.rms_norm(x, self.weight.shape, None, self.eps).to(x.dtype)
        return torch.addcmul(shift.to(x.dtype), normed, (self.weight * (1 + scale)).to(x.dtype))


class SwiGLU(nn.Module):
    """Gated feed-forward without bias: w2(silu(w1 x) * w3 x)."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.w1 = nn.Linear(dim, hidden_dim, bias=False)
        self.w2 = nn.Linear(hidden_dim, dim, bias=False)
        self.w3 = nn.Linear(dim, hidden_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class JointAttention(nn.Module):
    """One softmax attention over image and text, with projections and query-key norms for each stream."""

    def __init__(self, dim: int, num_heads: int, head_dim: int):
        super().__init__()
        self.num_heads = num_heads
        self.img_qkv = nn.Linear(dim, 3 * dim)
        self.txt_qkv = nn.Linear(dim, 3 * dim)
        self.norm_q, self.norm_k = RMSNorm(head_dim, 1e-6), RMSNorm(head_dim, 1e-6)
        self.norm_added_q, self.norm_added_k = RMSNorm(head_dim, 1e-6), RMSNorm(head_dim, 1e-6)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
        self.to_add_out = nn.Linear(dim, dim)

    def forward(
        self, image: Tensor, text: Tensor, turns: Tensor, key_mask: Tensor | None,
        packing: Packing | None = None, text_goes_on: bool = True,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """Return both streams after attention; no text when nothing reads it afterwards.

        Shapes: image (B, I, D), text (B, T, D), turns (I+T, K/2, 2), key_mask bool (B, 1, 1, I+T)
            -> (B, I, D), (B, T, D). With a packing B is 1, and turns lie as its tokens together.
        """
        num_image = image.shape[1]
        image_q, image_k, image_v = self._heads(self.img_qkv(image))            # (B, I, H, K) each
        text_q, text_k, text_v = self._heads(self.txt_qkv(text))                # (B, T, H, K) each
        q = self.norm_q(image_q)                                                # (B, I, H, K)
        if text_goes_on:
            q = torch.cat([q, self.norm_added_q(text_q)], dim=1)                # (B, I+T, H, K)
        k = torch.cat([self.norm_k(image_k), self.norm_added_k(text_k)], dim=1)  # (B, I+T, H, K)
        v = torch.cat([image_v, text_v], dim=1)                                 # (B, I+T, H, K)
        if packing is not None:
            joint = packed_attention(q, k, v, turns, packing)                   # (1, N, D)
        else:
            q, k = rotate(q, turns[: q.shape[1]]), rotate(k, turns)
            q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)   # (B, H, N, K) each
            joint = attention(q, k, v, key_mask)                                # (B, H, N, K)
            joint = joint.transpose(1, 2).flatten(2)                            # (B, N, D)
        image = self.to_out[0](joint[:, :num_image])
        return image, self.to_add_out(joint[:, num_image:]) if text_goes_on else None

    def _heads(self, qkv: Tensor) -> tuple[Tensor, ...]:
        return qkv.unflatten(-1, (3, self.num_heads, -1)).unbind(2)             # (B, N, H, K) each


class LensTransformerBlock(nn.Module):
    """Dual-stream block: joint attention, then a feed-forward for each stream, both modulated by the time."""

    def __init__(self, dim: int, num_heads: int, head_dim: int, text_goes_on: bool = True):
        super().__init__()
        hidden_dim = int(dim / 3 * 8)
        self.text_goes_on = text_goes_on
        self.img_mod = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.img_norm1, self.img_norm2 = ModulatedRMSNorm(dim, 1e-6), ModulatedRMSNorm(dim, 1e-6)
        self.img_mlp = SwiGLU(dim, hidden_dim)
        self.txt_mod = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.txt_norm1, self.txt_norm2 = ModulatedRMSNorm(dim, 1e-6), ModulatedRMSNorm(dim, 1e-6)
        self.txt_mlp = SwiGLU(dim, hidden_dim)
        self.attn = JointAttention(dim, num_heads, head_dim)

    def forward(
        self, image: Tensor, text: Tensor, cond: Tensor, turns: Tensor, key_mask: Tensor | None = None,
        packing: Packing | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return both streams; the last block leaves the text as it came, for nothing reads it afterwards.

        Shapes: image (B, I, D), text (B, T, D), cond (B, D), turns (I+T, K/2, 2) -> (B, I, D), (B, T, D).
            With a packing B is 1, but cond has a row for each picture.
        """
        image_of, text_of = (packing.image_of, packing.text_of) if packing else (None, None)
        image_mod = [per_token(part, image_of) for part in self.img_mod(cond).chunk(6, dim=-1)]  # (B, 1, D)
        text_mod = [per_token(part, text_of) for part in self.txt_mod(cond).chunk(6, dim=-1)]    # (B, 1, D)
        seen_image = self.img_norm1(image, *image_mod[:2])
        seen_text = self.txt_norm1(text, *text_mod[:2])
        image_out, text_out = self.attn(
            seen_image, seen_text, turns, key_mask, packing, self.text_goes_on
        )  # fmt: skip
        image = torch.addcmul(image, image_mod[2], image_out)
        image = torch.addcmul(image, image_mod[5], self.img_mlp(self.img_norm2(image, *image_mod[3:5])))
        if text_out is not None:
            text = torch.addcmul(text, text_mod[2], text_out)
            text = torch.addcmul(text, text_mod[5], self.txt_mlp(self.txt_norm2(text, *text_mod[3:5])))
        return image, text


class TimeEmbedding(nn.Module):
    """Noise level to conditioning vector: sinusoid, then two linear layers."""

    NUM_CHANNELS = 256

    def __init__(self, dim: int):
        super().__init__()
        self.timestep_embedder = nn.ModuleDict(
            {"linear_1": nn.Linear(self.NUM_CHANNELS, dim), "linear_2": nn.Linear(dim, dim)}
        )

    def forward(self, t: Tensor, dtype: torch.dtype) -> Tensor:
        """Shapes: t (B,) in [0, 1] -> (B, D)."""
        # float32 until after the sinusoid: bf16 cannot tell neighbouring times apart.
        waves = sinusoid(t.float(), self.NUM_CHANNELS).to(dtype)                # (B, 256)
        return self.timestep_embedder["linear_2"](F.silu(self.timestep_embedder["linear_1"](waves)))


def sinusoid(t: Tensor, num_channels: int, max_period: float = 10000.0, times: float = 1000.0) -> Tensor:
    """Return cosines, then sines, of t x 1000 at geometrically falling frequencies.

    Shapes: t (B,) -> (B, num_channels), float32.
    """
    half = num_channels // 2
    exponents = torch.arange(half, dtype=torch.float32, device=t.device) / half
    angles = times * (t.float()[:, None] * max_period**-exponents)              # (B, half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class ScaledLayerNorm(nn.Module):
    """The last norm: no affine of its own, scaled and shifted by the time embedding, scale first."""

    def __init__(self, dim: int):
        super().__init__()
        self.linear = nn.Linear(dim, 2 * dim)

    def forward(self, x: Tensor, cond: Tensor, picture_of: Tensor | None = None) -> Tensor:
        """Shapes: x (B, N, D), cond (B, D) -> (B, N, D); packed, with picture_of (N,), B is 1 for x alone."""
        scale, shift = per_token(self.linear(F.silu(cond)), picture_of).chunk(2, dim=-1)  # (B, 1, D) each
        normed = F.layer_norm(x, x.shape[-1:], eps=1e-6).to(x.dtype)
        return torch.addcmul(shift, normed, 1 + scale)
