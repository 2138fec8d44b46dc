"""What a denoiser's blocks keep for the way back, and what is computed again.

Spec: section 8 (gradient checkpointing). The estimates in plan.py follow what is kept here.
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
"""Operations whose outputs are kept: products with weights, attention by a fused kernel. Attention that is
written out in products, as for short sequences on a CPU, is computed again: its scores outweigh the rest."""


def apply_activation_checkpointing(denoiser: Any, mode: str) -> None:
    """Make a denoiser's blocks keep all (`none`), the dear outputs (`selective`) or their inputs (`full`)."""
    if mode == "full":
        denoiser.enable_gradient_checkpointing()
    elif mode == "selective":
        for block in denoiser.transformer_blocks:
            block.forward = _selective_checkpoint(block.forward)


def _selective_checkpoint(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Return a block's forward pass that keeps the dear outputs; compiled with the block, where that is."""

    def wrapped(*inputs: Any) -> Any:
        return checkpoint(forward, *inputs, use_reentrant=False, context_fn=_selective_contexts)

    return wrapped


def _selective_contexts() -> Any:
    return create_selective_checkpoint_contexts(_checkpoint_policy)


def _checkpoint_policy(_context: Any, operation: Any, *_args: Any, **_settings: Any) -> CheckpointPolicy:
    is_saved = isinstance(operation, torch._ops.OpOverload) and operation._schema.name in SAVED_OPS
    return CheckpointPolicy.MUST_SAVE if is_saved else CheckpointPolicy.PREFER_RECOMPUTE
