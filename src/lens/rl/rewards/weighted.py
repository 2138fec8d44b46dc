"""Weighted mean of several rewards; every component stays visible."""

from collections.abc import Mapping

from lens.errors import LensError
from lens.rl.prompts.dataset import RLPrompt
from lens.rl.rewards.base import ImageArray, NotApplicable, Reward, Score


class WeightedReward:
    """Weighted mean of the rewards that apply to a prompt; parts are named `name` and `name/part`.

    Where one reward fails, the sample has no value; the other rewards still score and stay visible.
    """

    def __init__(self, parts: Mapping[str, tuple[float, Reward]]):
        """Create it from rewards by name, each with its weight."""
        self.parts = dict(parts)
        versions = (
            f"{name}: {weight:g} x ({reward.version})" for name, (weight, reward) in self.parts.items()
        )
        self.version = "; ".join(versions)

    def score(self, image: ImageArray, prompt: RLPrompt) -> Score:
        """Return the weighted mean of the components.

        Raises: NotApplicable where no reward applies.
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
