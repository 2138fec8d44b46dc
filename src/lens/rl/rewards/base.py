"""What a reward is: a picture and its prompt in, a number and its parts out.

Spec: section 9. A score that could not be had is a failure of that sample, never a zero.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lens.rl.prompts.dataset import RLPrompt

ImageArray = NDArray[np.uint8]
"""(H, W, 3)."""


class Score(NamedTuple):
    """How good a picture is for its prompt."""

    value: float | None
    """In [0, 1]; None where no score could be had."""
    parts: dict[str, float]
    """Every component, by name."""
    failure: str = ""
    """Why there is no value."""


class Reward(Protocol):
    version: str
    """Says everything that a score depends on beside the picture and its prompt: part of a cache's key."""

    def score(self, image: ImageArray, prompt: RLPrompt) -> Score:
        """Return the score of a picture; may take long, and is called from several threads.

        Raises: LensError where none can be had.
        """
        ...


@runtime_checkable
class AsyncReward(Protocol):
    """A reward with workers of its own."""

    def submit(self, images: Sequence[ImageArray], prompts: Sequence[RLPrompt]) -> list[Future[Score]]:
        """Return at once a future for each picture and its prompt, in their order."""
        ...
