"""Several rewards as one: their weighted mean, with every component to be seen."""

from collections.abc import Mapping

from lens.errors import LensError
from lens.rl.prompts.dataset import RLPrompt
from lens.rl.rewards.base import ImageArray, Reward, Score


class NotApplicable(LensError):
    """A reward that has nothing to say about this prompt: left out of a mean, a failure where it is alone."""


class WeightedReward:
    """Weighted mean of what applies to the prompt; parts are called `name` and `name/part`.

    Where one of them fails the whole sample has no value; the others are asked all the same and stay visible.
    """

    def __init__(self, parts: Mapping[str, tuple[float, Reward]]):
        """Take rewards by name, each with its weight."""
        self.parts = dict(parts)
        versions = (
            f"{name}: {weight:g} x ({reward.version})" for name, (weight, reward) in self.parts.items()
        )
        self.version = "; ".join(versions)

    def score(self, image: ImageArray, prompt: RLPrompt) -> Score:
        """Return the mean of the components.

        Raises: NotApplicable where none of them applies.
        """
        parts: dict[str, float] = {}
        weighted: list[tuple[float, float]] = []
        failures, left_out = [], []
        for name, (weight, reward) in self.parts.items():
            try:
                score = reward.score(image, prompt)
            except NotApplicable as error:
                left_out.append(f"{name}: {error}")
                continue
            except LensError as error:
                score = Score(None, {}, str(error))
            parts |= {f"{name}/{part}": value for part, value in score.parts.items()}
            if score.value is None:
                failures.append(f"{name}: {score.failure}")
            else:
                parts[name] = score.value
                weighted.append((weight, score.value))
        if failures:
            return Score(None, parts, "; ".join(failures))
        if not weighted:
            raise NotApplicable("; ".join(left_out))
        total = sum(weight for weight, _ in weighted)
        return Score(sum(weight * value for weight, value in weighted) / total, parts)
