"""What the loop asks of a stage. A stage only assembles: data, modules, objective, probe, export.

Stages whose models take turns, or follow one another, also say what `Turns` says.
"""

from pathlib import Path
from typing import Protocol, runtime_checkable

from PIL import Image
from torch import Tensor, nn

from lens.losses.base import LossOutput


class Stage(Protocol):
    model: nn.Module
    """The module whose weights change; the loop averages and saves it."""

    def objective(self, step: int, index: int) -> LossOutput:
        """Return the loss of a micro-batch; all its randomness derives from (seed, step, index)."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Return held-out numbers of the present weights, by name."""
        ...

    def sample_grid(self) -> Image.Image | None:
        """Return a picture that shows what the present weights do, or None for a stage without pictures."""
        ...

    def export(self, folder: Path, state: dict[str, Tensor]) -> None:
        """Write such a state of `trained`, whole, in the published layout; the main rank alone does."""
        ...


@runtime_checkable
class AlternatingStage(Protocol):
    """A stage that trains several models by turns, or keeps one that follows another."""

    ema_parts: tuple[str, ...]
    """Parts of `trained` whose average is kept, by a word of their weights' names; none for all of it."""
    extra_state: dict[str, Tensor]
    """Tensors beside `trained` that the stage itself changes, in place: a resumed run needs them."""

    def active_parts(self, step: int) -> tuple[str, ...]:
        """Return the parts of `trained` that an update is of, by a word of their names; none for all."""
        ...

    def after_update(self, step: int) -> str:
        """Do what follows the update of this number; return why the run should end here, if it should."""
        ...
