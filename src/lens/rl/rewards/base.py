"""What a reward is: an image and its prompt in, a score and its parts out.

A score that is not available is a failure of that sample, never a zero. Spec: section 9.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol, runtime_checkable

from lens.errors import LensError
from lens.nano.scoring.scorer import ImageArray
from lens.rl.prompts.dataset import RLPrompt


class NotApplicable(LensError):
    """A prompt that a reward cannot score: left out of a weighted mean, a failure of a single reward."""


class Score(NamedTuple):
    """How well an image fits its prompt."""

    value: float | None
    """In [0, 1]; None where the scoring failed."""
    parts: dict[str, float]
    """Every component, by name."""
    failure: str = ""
    """Why there is no value."""


class Reward(Protocol):
    """What scores images.

    A reward that settings name also has the class method `from_settings(settings, cache_path)`; `cache_path`
    is a file in which it may keep responses, or None.
    """

    version: str
    """Names everything but image and prompt that a score depends on; part of the key of a cache."""

    def score(self, image: ImageArray, prompt: RLPrompt) -> Score:
        """Return the score of an image; may take long, and is called from several threads.

        Raises: LensError where the scoring fails; NotApplicable for a prompt that the reward cannot score.
        """
        ...


@runtime_checkable
class AsyncReward(Protocol):
    """A reward with its own workers."""

    def submit(self, images: Sequence[ImageArray], prompts: Sequence[RLPrompt]) -> list[Future[Score]]:
        """Return at once a future for each image and its prompt, in order."""
        ...
