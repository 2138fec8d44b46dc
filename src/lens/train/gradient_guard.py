"""Gradient guard: skips updates whose gradient norm is not finite, or far larger than the previous ones.

After one skipped update the run continues with the next batch. Many skips in a row mean that the weights
themselves are broken; then the training loop returns to the last checkpoint (trainer.py).
"""

import math
from collections import deque
from statistics import median
from typing import Any

import torch
from torch import Tensor

from lens.train.settings.run import GuardSettings


class GradientGuard:
    """Accepts or rejects the gradient norms of a run in their order, and counts the rejected ones."""

    def __init__(self, settings: GuardSettings):
        self.settings = settings
        self.num_skipped = 0
        """Skipped updates of the whole run."""
        self.num_consecutive_skips = 0
        self.has_rolled_back = False
        """Whether the run returned to a checkpoint and has made no update since."""
        self._norms: dict[str, deque[float]] = {}
        self._unread: list[tuple[Tensor, str]] = []

    def defer(self, norm: Tensor, kind: str = "") -> Tensor:
        """Note a norm that is read later; return 1 on its device if the update is to be skipped, else 0."""
        self._unread.append((norm, kind))
        if len(self._unread) == self.settings.read_every:
            self._read()
        return (~torch.isfinite(norm)).float()

    def accepts(self, norm: float, kind: str = "") -> bool:
        """Return whether to make the update whose gradient has this norm.

        Norms are compared with earlier norms of the same kind.
        """
        norms = self._norms.setdefault(kind, deque(maxlen=self.settings.window))
        if math.isfinite(norm) and not self._is_spike(norm, norms):
            norms.append(norm)
            self.num_consecutive_skips, self.has_rolled_back = 0, False
            return True
        self.num_skipped += 1
        self.num_consecutive_skips += 1
        return False

    @property
    def should_rollback(self) -> bool:
        """Return whether enough updates in a row were skipped to return to a checkpoint."""
        return self.num_consecutive_skips >= self.settings.max_skips

    def state_dict(self) -> dict[str, Any]:
        self._read()
        norms = {kind: list(norms) for kind, norms in self._norms.items()}
        return {"num_skipped": self.num_skipped, "in_a_row": self.num_consecutive_skips, "norms": norms}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.num_skipped, self.num_consecutive_skips = state["num_skipped"], state["in_a_row"]
        window = self.settings.window
        self._norms = {kind: deque(norms, maxlen=window) for kind, norms in state["norms"].items()}

    def _read(self) -> None:
        unread, self._unread = self._unread, []
        if unread:
            values = torch.stack([norm for norm, _ in unread]).tolist()  # waits for the device
            for value, (_, kind) in zip(values, unread, strict=True):
                self.accepts(value, kind)

    def _is_spike(self, norm: float, norms: deque[float]) -> bool:
        is_known = self.settings.max_ratio > 0 and len(norms) == self.settings.window
        return is_known and norm > self.settings.max_ratio * median(norms)
