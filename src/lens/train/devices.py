"""Where a run computes, and at which precision."""

from contextlib import AbstractContextManager, nullcontext

import torch


def chosen_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is the GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Return the context that the forward pass runs in."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
