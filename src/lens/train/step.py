"""One optimizer update, for every stage."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lens.losses.base import LossOutput, StepStats
from lens.train.distributed import DistributedContext, full_tensor
from lens.train.ema import Ema, belongs_to
from lens.train.gradient_guard import GradientGuard
from lens.train.optimizer import Optimizers, lr_at
from lens.train.settings.run import RunSettings


@dataclass
class TrainState:
    """The state of a run: everything that an update reads and changes, and that checkpoint.py saves."""

    settings: RunSettings
    model: nn.Module
    optimizer: Optimizers
    ema: Ema
    objective: Callable[[int, int], LossOutput]
    """(step, index of the micro-batch) -> loss; its data, times and noise derive from these two numbers."""
    step: int = 0
    stats: StepStats = field(default_factory=StepStats)
    """Work of this rank since the start of the process."""
    distributed: DistributedContext = field(default_factory=DistributedContext)
    fsdp_modules: list[Any] = field(default_factory=list)
    """Parts of `model` that sum their gradients over the ranks."""
    active_parts: Callable[[int], tuple[str, ...]] = lambda _: ()
    """Parts of `model` that an update trains, by a word in the names of their weights; empty for all."""
    ema_parts: tuple[str, ...] = ()
    """Parts with a moving average."""
    extra_state: dict[str, Tensor] = field(default_factory=dict)
    """Tensors outside of `model` that the stage changes."""
    after_update: Callable[[int], str] = lambda _: ""
    """Called after the update of a step; returns a reason to end the run, or an empty string."""
    stop_reason: str = ""
    """Why the run ends before its last step; empty if it does not."""
    best_value: float | None = None
    """Best value so far of the metric `checkpoint.best`."""
    guard: GradientGuard = field(init=False)

    def __post_init__(self) -> None:
        self.guard = GradientGuard(self.settings.guard)


def train_step(run: TrainState, log_block_norms: bool = False) -> dict[str, Tensor]:
    """Make one optimizer update and return its mean loss terms, and on request the gradient norm of each
    block.

    The only code that changes weights. An update that the gradient guard rejects changes nothing; the run
    continues with the next batch.
    """
    optimizer = run.settings.optimizer
    run.optimizer.set_lr(lr_at(run.step, run.settings.steps, optimizer))
    local_micro_batches = run.distributed.local_micro_batches(run.settings.micro_batches)
    logs: list[dict[str, Tensor]] = []
    for index in local_micro_batches:
        for part in run.fsdp_modules:
            part.set_requires_gradient_sync(index == local_micro_batches[-1])
        loss, terms, work = run.objective(run.step, index)
        (loss / len(local_micro_batches)).backward()
        logs.append({"loss": loss.detach(), **terms})
        run.stats = run.stats.plus(work)
    for part in run.fsdp_modules:
        part.reshard()  # parts without a backward pass still hold gathered weights
    parts = run.active_parts(run.step)
    _drop_inactive_gradients(run.model, parts)
    blocks = block_grad_norms(run.model) if log_block_norms else {}
    grad_norm = full_tensor(nn.utils.clip_grad_norm_(run.model.parameters(), optimizer.max_grad_norm))
    if _update_weights(run, grad_norm, " ".join(parts)):
        if not parts or not set(parts).isdisjoint(run.ema_parts or parts):
            run.ema.update(run.model)
        run.stop_reason = run.after_update(run.step)
    run.optimizer.zero_grad()
    run.step += 1
    means = torch.stack([torch.stack([log[name].float().mean() for log in logs]).mean() for name in logs[0]])
    return (
        dict(zip(logs[0], run.distributed.all_reduce_mean(means), strict=True))
        | {"grad_norm": grad_norm}
        | blocks
    )


def _update_weights(run: TrainState, grad_norm: Tensor, kind: str) -> bool:
    """Make an update unless the guard rejects it; return whether it was made, or left to the device."""
    if run.settings.guard.read_every > 1:
        run.optimizer.step(run.guard.defer(grad_norm, kind))
        return True
    is_accepted = run.guard.accepts(grad_norm.item(), kind)
    if is_accepted:
        run.optimizer.step()
    return is_accepted


def _drop_inactive_gradients(module: nn.Module, parts: tuple[str, ...]) -> None:
    """Drop the gradients of weights that the update does not train, so that AdamW leaves them unchanged."""
    if parts:
        for name, parameter in module.named_parameters():
            if not belongs_to(name, parts):
                parameter.grad = None


def block_grad_norms(module: nn.Module) -> dict[str, Tensor]:
    """Return the gradient norm of each block and of each other part, by name."""
    parts: dict[str, list[Tensor]] = {}
    for name, parameter in module.named_parameters():
        if parameter.grad is not None:
            match = re.match(r"(?:.*?\.)??\w+\.\d+(?=\.)", name)
            part = match[0] if match else name.rpartition(".")[0]
            parts.setdefault(f"grad_norm/{part}", []).append(parameter.grad)
    return {part: full_tensor(nn.utils.get_total_norm(gradients)) for part, gradients in parts.items()}
