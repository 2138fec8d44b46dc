"""Which updates are made: none from a gradient that is no number, or far larger than the ones before.

A batch that breaks an update is left out and the run goes on; when many break in a row the weights themselves
are to blame, and the loop goes back to the last checkpoint (loop.py).
"""

import math
from collections import deque
from statistics import median
from typing import Any

from pydantic import Field

from lens.config import Settings


class GuardSettings(Settings):
    max_ratio: float = Field(0.0, ge=0)
    """Gradient norm, over the median of the last `window` ones, above which an update is left out; 0 leaves
    out none but those that are no number."""
    window: int = Field(100, ge=2)
    """Norms that the median is taken of; until there are as many, no norm is too large."""
    max_skips: int = Field(10, ge=1)
    """Updates left out in a row before the run goes back to its last checkpoint, and then before it stops."""


class GradientGuard:
    """Judges gradient norms one after another, and remembers how many it turned down."""

    def __init__(self, settings: GuardSettings):
        self.settings = settings
        self.num_skipped = 0
        """Of the whole run."""
        self.num_consecutive_skips = 0
        self.has_rolled_back = False
        """Whether the run went back to a checkpoint and has made no update since."""
        self._norms: dict[str, deque[float]] = {}

    def accepts(self, norm: float, kind: str = "") -> bool:
        """Return whether to make the update whose gradient has this norm; it is compared with its kind."""
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
        """Return whether skipping does not help any more."""
        return self.num_consecutive_skips >= self.settings.max_skips

    def state_dict(self) -> dict[str, Any]:
        norms = {kind: list(norms) for kind, norms in self._norms.items()}
        return {"num_skipped": self.num_skipped, "in_a_row": self.num_consecutive_skips, "norms": norms}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.num_skipped, self.num_consecutive_skips = state["num_skipped"], state["in_a_row"]
        window = self.settings.window
        self._norms = {kind: deque(norms, maxlen=window) for kind, norms in state["norms"].items()}

    def _is_spike(self, norm: float, norms: deque[float]) -> bool:
        is_known = self.settings.max_ratio > 0 and len(norms) == self.settings.window
        return is_known and norm > self.settings.max_ratio * median(norms)
