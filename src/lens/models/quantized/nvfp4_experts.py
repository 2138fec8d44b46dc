"""GPT-OSS experts kept in NVFP4: each expert is dequantized when tokens reach it.

They take 12 GB for GPT-OSS-20B, and are slower than plain experts with the same values. Knows nothing of
files.
Letters: N tokens, E experts, k experts of a token, H hidden width, M inner width of an expert.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lens.models.quantized import nvfp4


class Nvfp4Experts(nn.Module):
    """A replacement of GptOssExperts; its packed matrices are not in the state dict, its biases are."""

    def __init__(self, like: Any):
        super().__init__()
        self.gate_up_proj_bias, self.down_proj_bias = like.gate_up_proj_bias, like.down_proj_bias
        self.alpha, self.limit = like.alpha, like.limit

    def set_packed(self, name: str, packed: Tensor, blocked_scale: Tensor, matrix_scale: Tensor) -> None:
        """Set one stack of packed matrices, `gate_up_proj` or `down_proj`.

        Shapes: packed (E, O, I/2), blocked_scale of each padded (O, I/16), matrix_scale (E,).
        """
        # As bytes, so that a change of the module's dtype does not change the scales.
        scale, matrix_scale = blocked_scale.reshape(len(packed), -1), matrix_scale.float().reshape(-1, 1)
        for part, value in (("packed", packed), ("scale", scale), ("matrix_scale", matrix_scale)):
            self.register_buffer(f"{name}_{part}", value.contiguous().view(torch.uint8), persistent=False)

    def dequantize_expert(self, name: str, expert: int, dtype: torch.dtype) -> Tensor:
        """Return one expert's matrix (O, I)."""
        parts = (f"{name}_{part}" for part in ("packed", "scale", "matrix_scale"))
        packed, scale, matrix_scale = (self.get_buffer(part)[expert] for part in parts)
        scale, matrix_scale = scale.view(torch.float8_e4m3fn), matrix_scale.view(torch.float32)
        return nvfp4.dequantize(packed, scale, matrix_scale, dtype)

    def forward(self, hidden: Tensor, router_indices: Tensor, routing_weights: Tensor) -> Tensor:
        """Return the weighted sum of the outputs of the selected experts.

        Shapes: hidden (N, H), router_indices (N, k), routing_weights (N, k) -> (N, H).
        """
        total = torch.zeros_like(hidden)
        for expert in router_indices.unique().tolist():
            token, choice = torch.where(router_indices == expert)
            gate_up = linear(
                hidden[token], self.dequantize_expert("gate_up_proj", expert, hidden.dtype)
            )  # (n, 2 M)
            inner = self._apply_gate(gate_up + self.gate_up_proj_bias[expert])           # (n, M)
            out = linear(inner, self.dequantize_expert("down_proj", expert, hidden.dtype))     # (n, H)
            out = (out + self.down_proj_bias[expert]) * routing_weights[token, choice, None]
            total.index_add_(0, token, out.to(total.dtype))
        return total

    def _apply_gate(self, gate_up: Tensor) -> Tensor:
        gate, up = gate_up[:, 0::2], gate_up[:, 1::2]                               # (n, M) each
        gate, up = gate.clamp(max=self.limit), up.clamp(-self.limit, self.limit)
        return (up + 1) * gate * torch.sigmoid(self.alpha * gate)

