"""One process of a tuning run on several, judged by brightness: what test_rl.py starts."""

from pathlib import Path

from float32 import train_in_float32

from lens.errors import LensError
from lens.rl.rewards.base import Score
from lens.train.run import train
from lens.train.stages import rl


class Brightness:
    """A reward that pictures of a model without knowledge differ in; some prompts can be left unjudged."""

    version = "brightness"

    def __init__(self, unjudged: str = "-"):
        self.unjudged = unjudged

    def score(self, image, prompt) -> Score:
        if self.unjudged in prompt.prompt:
            raise LensError("the judge is out")
        value = float(image.mean()) / 255
        return Score(value, {"brightness": value})


def train_by_brightness(recipe: Path) -> None:
    train_in_float32()
    rl.create_reward = lambda *_: Brightness()  # type: ignore[assignment]
    train(recipe)
