"""Where a run computes, and at which precision."""

from contextlib import AbstractContextManager, nullcontext

import torch

from lens.train.cost.training import GPU_SPECS


def resolve_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is the GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Return the context that the forward pass runs in."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def peak_memory_gib() -> float:
    """Return the most memory that this process had: of its GPU where it has one, else of the machine."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def peak_flops_per_s() -> float | None:
    """Return the bf16 peak of this process's GPU, or None where it has none that is known."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name().lower().replace(" ", "")
    return next((card.peak_flops_per_s for kind, card in GPU_SPECS.items() if kind in name), None)
