"""One optimizer update: the only code that changes weights, in every stage."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from lens.objectives.objective import Objective
from lens.train.ema import Ema
from lens.train.guard import Guard
from lens.train.optim import Optimizers, lr_at
from lens.train.settings import RunSettings


@dataclass
class Run:
    """All that an update needs and changes: what state.py saves."""

    settings: RunSettings
    trained: nn.Module
    optimizer: Optimizers
    ema: Ema
    objective: Callable[[int, int], Objective]
    """(step, index of the micro-batch) -> loss; its data, times and noise derive from those two numbers."""
    step: int = 0
    guard: Guard = field(init=False)

    def __post_init__(self) -> None:
        self.guard = Guard(self.settings.guard)


def train_step(run: Run) -> dict[str, Tensor]:
    """Make one optimizer update and return its mean terms.

    An update that the guard turns down changes no weights; the run goes on with the next batch all the same.
    """
    optimizer = run.settings.optimizer
    run.optimizer.set_lr(lr_at(run.step, run.settings.steps, optimizer))
    logs: list[dict[str, Tensor]] = []
    for index in range(run.settings.micro_batches):
        loss, terms = run.objective(run.step, index)
        (loss / run.settings.micro_batches).backward()
        logs.append({"loss": loss.detach(), **terms})
    grad_norm = nn.utils.clip_grad_norm_(run.trained.parameters(), optimizer.max_grad_norm)
    if run.guard.accepts(grad_norm.item()):
        run.optimizer.step()
        run.ema.update(run.trained)
    run.optimizer.zero_grad()
    run.step += 1
    means = {name: torch.stack([log[name].float().mean() for log in logs]).mean() for name in logs[0]}
    return means | {"grad_norm": grad_norm}
