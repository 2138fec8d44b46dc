"""The interface between the training loop and its stages.

A stage assembles data, modules, loss, evaluation and export. A stage that trains several models alternately
also implements `AlternatingStage`.
"""

from pathlib import Path
from typing import Protocol, runtime_checkable

from PIL import Image
from torch import Tensor, nn

from lens.losses.base import LossOutput

HELD_OUT_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Times at which the flow-matching loss of held-out examples is measured."""


class Stage(Protocol):
    model: nn.Module
    """The module whose weights are trained; the loop averages and saves it."""

    def objective(self, step: int, index: int) -> LossOutput:
        """Return the loss of a micro-batch; all its random draws derive from (seed, step, index)."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Return metrics of the current weights on held-out data, by name."""
        ...

    def sample_grid(self) -> Image.Image | None:
        """Return an image of samples from the current weights, or None for a stage without images."""
        ...

    def export(self, folder: Path, state: dict[str, Tensor]) -> None:
        """Write a full state dict of `model` in the published layout; only the main rank calls this."""
        ...


@runtime_checkable
class AlternatingStage(Protocol):
    """A stage that trains several models alternately, or has a model that follows another."""

    ema_parts: tuple[str, ...]
    """Parts of `model` with a moving average, by a word in the names of their weights; empty for all."""
    extra_state: dict[str, Tensor]
    """Tensors outside of `model` that the stage changes in place and a resumed run needs."""

    def active_parts(self, step: int) -> tuple[str, ...]:
        """Return the parts of `model` that an update trains, by a word in their names; empty for all."""
        ...

    def after_update(self, step: int) -> str:
        """Act on the update of this step; return a reason to end the run, or an empty string."""
        ...
