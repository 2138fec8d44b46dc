"""Exponential moving average of the parameters of a module, in float32."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Ema:
    """Averages the trainable parameters of a module. The decay is at most (1 + updates) / (10 + updates)."""

    def __init__(self, module: nn.Module, decay: float, parts: tuple[str, ...] = ()):
        """Average all trainable parameters, or those with one of the words `parts` in their names."""
        self.decay = decay
        self.num_updates = 0
        self.average: dict[str, Tensor] = {
            name: parameter.detach().float().clone()
            for name, parameter in _trainable_parameters(module).items() if belongs_to(name, parts)
        }

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average toward the current weights of the module."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        current = _trainable_parameters(module)
        weights = [current[name].float() for name in self.average]
        torch._foreach_lerp_(list(self.average.values()), weights, 1 - decay)  # type: ignore[attr-defined]

    @contextlib.contextmanager
    def swap_into(self, module: nn.Module) -> Iterator[None]:
        """Put the averaged weights into the module for the length of a `with` block."""
        trained = _trainable_parameters(module)
        current = {name: trained[name] for name in self.average}
        backup = {name: parameter.detach().clone() for name, parameter in current.items()}
        self._copy(self.average, current)
        try:
            yield
        finally:
            self._copy(backup, current)

    def state_dict(self) -> dict:
        return {"num_updates": self.num_updates, "average": self.average}

    def load_state_dict(self, state: dict) -> None:
        self.num_updates = state["num_updates"]
        self._copy(state["average"], self.average)

    @staticmethod
    @torch.no_grad()
    def _copy(source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
        for name, tensor in target.items():
            tensor.copy_(source[name])


def belongs_to(name: str, parts: tuple[str, ...]) -> bool:
    """Return whether a weight belongs to one of the parts; no parts mean all weights."""
    return not parts or not set(parts).isdisjoint(name.split("."))


def _trainable_parameters(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
