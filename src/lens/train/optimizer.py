"""The optimizers of a run, and the learning rate schedule."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from lens.errors import SettingError
from lens.train.ema import belongs_to
from lens.train.muon import Muon
from lens.train.settings.run import OptimizerSettings

MIN_LR_RATIO = 0.02
"""Learning rate at the end of a cosine schedule, as a share of the initial one."""


class Optimizers:
    """One or two optimizers that step together. Each group keeps the ratio of its learning rate to the
    run's."""

    def __init__(self, optimizers: list[torch.optim.Optimizer], lr: float):
        self.optimizers, self._lr = optimizers, lr
        for group in self._groups():
            group["ratio"] = group["lr"] / lr

    def set_lr(self, lr: float) -> None:
        self._lr = lr
        for group in self._groups():
            group["lr"] = lr * group["ratio"]

    @property
    def lr(self) -> float:
        return self._lr

    def step(self, skip: Tensor | None = None) -> None:
        """Make an update; where `skip` is 1 on the device, AdamW changes nothing."""
        for part in self.optimizers:
            vars(part)["found_inf"] = skip  # what fused AdamW reads, as torch.amp.GradScaler sets it
            part.step()

    def zero_grad(self) -> None:
        for part in self.optimizers:
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self.optimizers]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for part, state in zip(self.optimizers, states, strict=True):
            part.load_state_dict(state)

    def _groups(self) -> list[dict[str, Any]]:
        return [group for part in self.optimizers for group in part.param_groups]


def build_optimizers(module: nn.Module, settings: OptimizerSettings) -> Optimizers:
    """Return the optimizers of a module's trainable parameters.

    AdamW, without weight decay for vectors. With `muon_lr`, Muon updates the matrices inside the network.
    """
    hidden = _hidden_matrices(module) if settings.muon_lr else {}
    adamw_parameters = [p for p in module.parameters() if p.requires_grad and id(p) not in hidden]
    lr_by_id = _learning_rates(module, settings)
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for parameter in adamw_parameters:
        decay = settings.weight_decay if parameter.ndim >= 2 else 0.0
        groups.setdefault((lr_by_id[id(parameter)], decay), []).append(parameter)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            [{"params": members, "lr": lr, "weight_decay": decay} for (lr, decay), members in groups.items()],
            lr=settings.lr, betas=settings.betas, fused=True,
        )
    ]  # fmt: skip
    _init_adamw_state(optimizers[0])
    if hidden:
        optimizers.append(
            Muon(list(hidden.values()), lr=settings.muon_lr, weight_decay=settings.weight_decay)
        )
    return Optimizers(optimizers, settings.lr)


def _init_adamw_state(optimizer: torch.optim.Optimizer) -> None:
    """Create the state of all weights, which AdamW would create at their first update.

    A run that trains models alternately may be saved before each had an update; its checkpoint needs all
    state.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }


def _learning_rates(module: nn.Module, settings: OptimizerSettings) -> dict[int, float]:
    """Return the learning rate of each trainable parameter, by its id.

    Raises: SettingError for a part without trainable weights.
    """
    trainable = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    rates = {id(parameter): settings.lr for parameter in trainable.values()}
    for part, rate in settings.rates.items():
        members = [parameter for name, parameter in trainable.items() if belongs_to(name, (part,))]
        if not members:
            raise SettingError("optimizer.rates", part, "a word in the names of trainable weights")
        rates.update({id(parameter): rate for parameter in members})
    return rates


def _hidden_matrices(module: nn.Module) -> dict[int, Tensor]:
    """Return the weights of linear and convolution layers, by their id; embeddings are not matrices."""
    layers = (m for m in module.modules() if isinstance(m, nn.Linear | nn.Conv2d))
    return {id(layer.weight): layer.weight for layer in layers if layer.weight.requires_grad}


def lr_at(step: int, num_steps: int, settings: OptimizerSettings) -> float:
    """Return the learning rate of an update, counted from 0."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.lr
    progress = (step - settings.warmup_steps) / max(1, num_steps - settings.warmup_steps)
    return settings.lr * (
        MIN_LR_RATIO + (1 - MIN_LR_RATIO) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    )
