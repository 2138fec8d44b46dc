"""Activation checkpointing: what the blocks of a denoiser save for the backward pass, and what they
recompute.

Spec: section 8 (gradient checkpointing). The estimates in cost/memory.py follow the choices here.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

SAVED_OPS = frozenset(
    {
        "aten::mm", "aten::addmm",
        "aten::_scaled_dot_product_flash_attention", "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_efficient_attention", "aten::_scaled_dot_product_cudnn_attention",
        "aten::_scaled_dot_product_fused_attention_overrideable", "torch_attn::_varlen_attn",
    }
)  # fmt: skip
"""Operations whose outputs are saved: products with weights, and attention by a fused kernel. Attention
without a fused kernel, as for short sequences on a CPU, is recomputed, because its scores take more
memory."""


def apply_activation_checkpointing(denoiser: Any, mode: str) -> None:
    """Make a denoiser's blocks save everything (none), the outputs of `SAVED_OPS` (selective), or inputs
    (full)."""
    if mode == "full":
        denoiser.enable_gradient_checkpointing()
    elif mode == "selective":
        for block in denoiser.transformer_blocks:
            block.forward = _selective_checkpoint(block.forward)


def _selective_checkpoint(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a block's forward pass with selective checkpointing; it is compiled together with the block."""

    def wrapped(*inputs: Any) -> Any:
        return checkpoint(forward, *inputs, use_reentrant=False, context_fn=_selective_contexts)

    return wrapped


def _selective_contexts() -> Any:
    return create_selective_checkpoint_contexts(_checkpoint_policy)


def _checkpoint_policy(_context: Any, operation: Any, *_args: Any, **_settings: Any) -> CheckpointPolicy:
    is_saved = isinstance(operation, torch._ops.OpOverload) and operation._schema.name in SAVED_OPS
    return CheckpointPolicy.MUST_SAVE if is_saved else CheckpointPolicy.PREFER_RECOMPUTE
