"""One denoiser in several roles, such as student and teacher: adapters on one base, or whole copies.

Knows nothing of what the roles are for. A role's weights have its name as a word of theirs, which is how the
loop tells what an update is of.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lens.train.activation_checkpointing import keep_for_the_way_back
from lens.train.lora import add_lora
from lens.train.settings.stages import LoraSettings

BASE = "base"
"""The role of the denoiser as it was, whose weights never change."""


class Roles:
    """A denoiser that acts in one role at a time; all are alike at first."""

    def __init__(
        self, denoiser: Any, trained: Sequence[str], following: Sequence[str], lora: LoraSettings | None,
        seed: int, recompute: str = "none",
    ):  # fmt: skip
        """Take a denoiser apart into roles that are trained, roles that follow them, and the base."""
        names = [*trained, *following]
        for unread in denoiser.unread_parameters():
            unread.requires_grad_(False)
        self._following, self._is_whole = tuple(following), lora is None
        if lora:
            add_lora(denoiser, lora, seed, names, trained)
            keep_for_the_way_back(denoiser, recompute)
            self.module: Any = nn.ModuleDict({"denoiser": denoiser})
        else:
            copies = {name: copy.deepcopy(denoiser) for name in names}
            for name in following:
                copies[name].requires_grad_(False)
            for name in trained:
                keep_for_the_way_back(copies[name], recompute)
            self.module = nn.ModuleDict(copies | {BASE: denoiser.requires_grad_(False)})
        self.take(trained[0])

    @property
    def kept(self) -> dict[str, Tensor]:
        """Return the weights of the roles that follow: what a run has to keep beside the trained ones."""
        return {
            f"{role}/{name}": tensor for role in self._following for name, tensor in self._of(role).items()
        }

    def take(self, role: str) -> None:
        """Act in a role until another is taken.

        Blocks that are computed again on the way back are computed in the role of that moment: before a
        backward pass, be in the role that it goes through.
        """
        self._role = role
        if not self._is_whole:
            for layer in self._layers():
                layer._disable_adapters = role == BASE
                layer._active_adapter = [] if role == BASE else [role]

    @contextmanager
    def acting(self, role: str) -> Iterator[Any]:
        """Give the denoiser in a role, for the length of a `with` block."""
        before = self._role
        self.take(role)
        try:
            yield self.module[role] if self._is_whole else self.module["denoiser"]
        finally:
            self.take(before)

    @torch.no_grad()
    def follow(self, role: str, leader: str, decay: float) -> None:
        """Move a role's weights toward another's: decay times its own, the rest the leader's."""
        weights = self._of(leader)
        for name, tensor in self._of(role).items():
            tensor.lerp_(weights[name].detach(), 1 - decay)

    def state_of(self, role: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a whole role's weights, under the denoiser's own names, from a state of `module`."""
        start = f"{role}."
        return {
            name.removeprefix(start): tensor for name, tensor in state.items() if name.startswith(start)
        }

    def _of(self, role: str) -> dict[str, Tensor]:
        """Return a role's weights by names that other roles' have too."""
        if self._is_whole:
            return dict(self.module[role].named_parameters())
        word = f".{role}."
        named = self.module["denoiser"].named_parameters()
        return {name.replace(word, "."): tensor for name, tensor in named if word in name}

    def _layers(self) -> list[Any]:
        from peft.tuners.tuners_utils import BaseTunerLayer

        return [layer for layer in self.module.modules() if isinstance(layer, BaseTunerLayer)]
