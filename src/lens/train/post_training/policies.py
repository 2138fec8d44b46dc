"""One denoiser in several roles, such as student and teacher, as LoRA adapters or as full copies.

Knows nothing of the purpose of a role. The names of a role's weights contain the name of the role, by which
the training loop selects the weights of an update.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lens.train.activation_checkpointing import apply_activation_checkpointing
from lens.train.lora import add_lora
from lens.train.settings.run import LoraSettings

BASE = "base"
"""The role of the original denoiser, whose weights never change."""


class PolicySet:
    """A denoiser that acts in one role at a time; all roles start with the same weights."""

    def __init__(
        self,
        denoiser: Any,
        trainable: Sequence[str],
        ema_followers: Sequence[str],
        lora: LoraSettings | None,
        seed: int,
        activation_checkpointing: str = "none",
    ):
        """Create the trained roles, the roles that follow them, and the base from one denoiser."""
        names = [*trainable, *ema_followers]
        for unused in denoiser.unused_parameters():
            unused.requires_grad_(False)
        self._ema_followers, self._has_full_copies = tuple(ema_followers), lora is None
        if lora:
            add_lora(denoiser, lora, seed, names, trainable)
            apply_activation_checkpointing(denoiser, activation_checkpointing)
            self.module: Any = nn.ModuleDict({"denoiser": denoiser})
        else:
            copies = {name: copy.deepcopy(denoiser) for name in names}
            for name in ema_followers:
                copies[name].requires_grad_(False)
            for name in trainable:
                apply_activation_checkpointing(copies[name], activation_checkpointing)
            self.module = nn.ModuleDict(copies | {BASE: denoiser.requires_grad_(False)})
        self.set_active(trainable[0])

    @property
    def extra_state(self) -> dict[str, Tensor]:
        """Return the weights of the following roles, which a checkpoint needs beside the trained ones."""
        return {
            f"{role}/{name}": tensor
            for role in self._ema_followers
            for name, tensor in self._weights(role).items()
        }

    def set_active(self, role: str) -> None:
        """Act in a role until another is set.

        A backward pass recomputes blocks in the role that is active then. Before a backward pass, set the
        role of its graph.
        """
        self._role = role
        if not self._has_full_copies:
            for layer in self._lora_layers():
                layer._disable_adapters = role == BASE
                layer._active_adapter = [] if role == BASE else [role]

    @contextmanager
    def use(self, role: str) -> Iterator[Any]:
        """Yield the denoiser in a role, for the length of a `with` block."""
        previous = self._role
        self.set_active(role)
        try:
            yield self.module[role] if self._has_full_copies else self.module["denoiser"]
        finally:
            self.set_active(previous)

    @torch.no_grad()
    def ema_update(self, role: str, leader: str, decay: float) -> None:
        """Set a role's weights to decay times its own plus (1 - decay) times the leader's."""
        weights = self._weights(leader)
        for name, tensor in self._weights(role).items():
            tensor.lerp_(weights[name].detach(), 1 - decay)

    def state_dict_of(self, role: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of a full copy, by the denoiser's own names, from a state dict of `module`."""
        prefix = f"{role}."
        return {
            name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)
        }

    def _weights(self, role: str) -> dict[str, Tensor]:
        """Return a role's weights, by names that are the same in all roles."""
        if self._has_full_copies:
            return dict(self.module[role].named_parameters())
        infix = f".{role}."
        named_parameters = self.module["denoiser"].named_parameters()
        return {name.replace(infix, "."): tensor for name, tensor in named_parameters if infix in name}

    def _lora_layers(self) -> list[Any]:
        from peft.tuners.tuners_utils import BaseTunerLayer

        return [layer for layer in self.module.modules() if isinstance(layer, BaseTunerLayer)]
