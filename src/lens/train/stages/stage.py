"""What the loop asks of a stage. A stage only assembles: data, modules, objective, probe, export."""

from pathlib import Path
from typing import Protocol

from PIL import Image
from torch import Tensor, nn

from lens.objectives.objective import Objective


class Stage(Protocol):
    trained: nn.Module
    """The module whose weights change; the loop averages and saves it."""

    def objective(self, step: int, index: int) -> Objective:
        """Return the loss of a micro-batch; all its randomness derives from (seed, step, index)."""
        ...

    def probe(self) -> dict[str, float]:
        """Return held-out numbers of the present weights, by name."""
        ...

    def sample_grid(self) -> Image.Image | None:
        """Return a picture that shows what the present weights do, or None for a stage without pictures."""
        ...

    def export(self, folder: Path, state: dict[str, Tensor]) -> None:
        """Write such a state of `trained`, whole, in the published layout; the main rank alone does."""
        ...
