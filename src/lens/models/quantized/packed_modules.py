"""Layers that keep their weights packed: linear layers, embeddings and the experts of GPT-OSS.

Each use dequantizes what it needs: a matrix, some rows, one expert. The values are those of the plain layers.
Knows nothing of files.
Letters: N tokens, E experts, k experts of a token, H hidden width, M inner width of an expert, O outputs,
I inputs.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lens.core.products import is_mixed, linear
from lens.errors import CheckpointError
from lens.models.quantized.packed_weight import PackedWeight


class PackedLinear(nn.Linear):
    """A linear layer whose matrix is packed; `weight` is dequantized whenever it is read."""

    def __init__(self, packed: PackedWeight, bias: Tensor | None, dtype: torch.dtype):
        nn.Module.__init__(self)
        self.out_features, self.in_features = packed.shape
        self.packed = packed
        self.compute_dtype = dtype
        self.bias = None if bias is None else nn.Parameter(bias.to(dtype))

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The matrix in the dtype of computation, computed anew. Shapes: (O, I)."""
        return self.packed.dequantize(self.compute_dtype)

    def forward(self, input: Tensor) -> Tensor:
        if is_mixed(input, self.compute_dtype):
            # The values of the plain layer, which are rounded to its dtype, and its product.
            return linear(input, self.packed.dequantize(self.compute_dtype), self.bias)
        bias = None if self.bias is None else self.bias.to(input.dtype)
        return linear(input, self.packed.dequantize(input.dtype), bias)

    def product_by_rows(self, input: Tensor, num_rows: int) -> Tensor:
        """Return what `forward` returns, with so many rows of the matrix dequantized at a time."""
        if not self.packed.format.is_by_rows or self.packed.interleaved or self.bias is not None:
            return self(input)
        dtype = self.compute_dtype if is_mixed(input, self.compute_dtype) else input.dtype
        rows = torch.arange(self.out_features, device=input.device).split(num_rows)
        return torch.cat([linear(input, self.packed.dequantize_rows(some, dtype)) for some in rows], dim=-1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, format={self.packed.format.name}"

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = self.weight

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        if f"{prefix}weight" in state_dict:
            raise CheckpointError(
                f"{prefix}weight is kept in {self.packed.format.name}, so no other weight can be loaded into "
                "it. Load the model with keep_packed=False."
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


class PackedEmbedding(nn.Module):
    """An embedding whose rows are dequantized when their tokens occur."""

    def __init__(self, packed: PackedWeight, dtype: torch.dtype):
        super().__init__()
        self.num_embeddings, self.embedding_dim = packed.shape
        self.packed = packed
        self.compute_dtype = dtype

    def forward(self, ids: Tensor) -> Tensor:
        """Shapes: (...) -> (..., H)."""
        rows = self.packed.dequantize_rows(ids.flatten(), self.compute_dtype)  # (N, H)
        return rows.reshape(*ids.shape, -1)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}weight"] = self.packed.dequantize(self.compute_dtype)


class PackedExperts(nn.Module):
    """The experts of a GPT-OSS layer in place of GptOssExperts; only experts with tokens are dequantized."""

    def __init__(self, like: Any, gate_up: PackedWeight, down: PackedWeight, dtype: torch.dtype):
        super().__init__()
        self.gate_up_proj_bias, self.down_proj_bias = like.gate_up_proj_bias, like.down_proj_bias
        self.alpha, self.limit = like.alpha, like.limit
        self.gate_up, self.down = gate_up, down
        self.compute_dtype = dtype

    def forward(self, hidden: Tensor, router_indices: Tensor, routing_weights: Tensor) -> Tensor:
        """Return the weighted sum of the outputs of the selected experts.

        Shapes: hidden (N, H), router_indices (N, k), routing_weights (N, k) -> (N, H).
        """
        return self.forward_sequences([(hidden, router_indices, routing_weights)])[0]

    def forward_sequences(self, sequences: Sequence[tuple[Tensor, Tensor, Tensor]]) -> list[Tensor]:
        """Return what `forward` returns for each of several sequences, with each expert dequantized once.

        Products are made sequence by sequence, so that no sequence depends on the others, to the bit.
        """
        totals = [torch.zeros_like(hidden) for hidden, _, _ in sequences]
        routed = torch.cat([indices.flatten() for _, indices, _ in sequences]).unique().tolist()
        for expert in routed:
            dtype = sequences[0][0].dtype
            gate_up, down = self.gate_up.dequantize(dtype, expert), self.down.dequantize(dtype, expert)
            for total, (hidden, indices, weights) in zip(totals, sequences, strict=True):
                token, choice = torch.where(indices == expert)  # (n,) each
                if not len(token):
                    continue
                inner = linear(hidden[token], gate_up, self.gate_up_proj_bias[expert])  # (n, 2 M)
                out = linear(self._apply_gate(inner), down, self.down_proj_bias[expert])  # (n, H)
                total.index_add_(0, token, (out * weights[token, choice, None]).to(total.dtype))
        return totals

    def stored_parts(self, experts: Iterable[int]) -> list[Tensor]:
        """Return the stored matrices of some experts; of mapped weights they are views of the file."""
        weights = (self.gate_up, self.down)
        return [part for expert in experts for weight in weights for part in weight.stored_parts(expert)]

    def _apply_gate(self, gate_up: Tensor) -> Tensor:
        gate, up = gate_up[:, 0::2], gate_up[:, 1::2]  # (n, M) each
        gate, up = gate.clamp(max=self.limit), up.clamp(-self.limit, self.limit)
        return (up + 1) * gate * torch.sigmoid(self.alpha * gate)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, packed in (("gate_up_proj", self.gate_up), ("down_proj", self.down)):
            matrices = [packed.dequantize(self.compute_dtype, expert).T for expert in range(packed.shape[0])]
            destination[f"{prefix}{name}"] = torch.stack(matrices)  # (E, I, O)


def packed_formats(module: nn.Module) -> list[str]:
    """Return the formats of a module's packed weights, sorted; empty if all its weights are plain."""
    return sorted({part.format.name for part in module.modules() if isinstance(part, PackedWeight)})
