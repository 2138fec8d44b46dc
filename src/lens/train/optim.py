"""The optimizer of a run and its learning rate at any step."""

import math

import torch
from torch import nn

from lens.train.settings import OptimizerSettings

COSINE_FLOOR = 0.05
"""Share of the learning rate that is left at the end of a cosine schedule."""


def build_optimizer(module: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """Return AdamW over a module's trainable parameters; vectors and scalars are not decayed."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=settings.lr, betas=settings.betas, fused=True
    )


def lr_at(step: int, num_steps: int, settings: OptimizerSettings) -> float:
    """Return the learning rate of the update number `step`, counted from 0."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.lr
    done = (step - settings.warmup_steps) / max(1, num_steps - settings.warmup_steps)
    return settings.lr * (COSINE_FLOOR + (1 - COSINE_FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))
