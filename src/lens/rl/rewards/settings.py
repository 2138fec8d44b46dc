"""Settings of rewards: which one judges, and by what; and from them the reward. Free of torch.

Spec: section 9.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from lens.config import Settings
from lens.llm.client import Endpoint
from lens.rl.rewards.base import Reward


class NanoRewardSettings(Settings):
    """The exact judge of the nano world."""

    kind: Literal["nano"] = "nano"
    exact_weight: float = Field(0.5, ge=0, le=1)
    """Share of the reward that only a picture without a fault gets; the rest is the mean over the rubric."""
    processes: int = Field(0, ge=0)
    """Processes that look at pictures, in the place of the run's `reward_workers`; 0 for none."""


class VlmJudgeSettings(Settings):
    """A vision-language model that judges one criterion a call."""

    kind: Literal["judge"] = "judge"
    endpoint: Endpoint
    probabilities: bool = False
    """Whether a criterion counts as how sure the judge is of it, where the endpoint tells; else 1 or 0."""
    side_px: int = Field(1024, ge=64)
    """Longer side of the picture that the judge is shown; smaller ones stay as they are."""
    max_tokens: int = Field(8, ge=1)
    """Length of an answer at most; a model that thinks before it answers needs more."""


class OcrRewardSettings(Settings):
    """Writing is read and compared with what was asked for."""

    kind: Literal["text"] = "text"
    max_side_px: int = Field(960, ge=64)
    """Pictures are read with a long side of at most so much."""
    min_confidence: float = Field(0.5, ge=0, le=1)
    """Lines that are read with less are as if they were not there."""
    num_readers: int = Field(2, ge=1)
    """Pictures that are read at once."""


AnyPartSettings = Annotated[
    NanoRewardSettings | VlmJudgeSettings | OcrRewardSettings, Field(discriminator="kind")
]


class WeightedPart(Settings):
    """One of several rewards."""

    weight: float = Field(1.0, gt=0)
    """Beside the weights of the others; those that do not apply to a prompt do not count."""
    reward: AnyPartSettings


class WeightedRewardSettings(Settings):
    """A weighted mean of rewards."""

    kind: Literal["combined"] = "combined"
    parts: dict[str, WeightedPart] = Field(min_length=1)
    """By the name that they have in the log."""


AnyRewardSettings = Annotated[
    NanoRewardSettings | VlmJudgeSettings | OcrRewardSettings | WeightedRewardSettings,
    Field(discriminator="kind"),
]


def create_reward(settings: AnyRewardSettings, folder: Path | None = None, name: str = "judge") -> Reward:
    """Return the reward; a judge keeps its answers in `folder`, as `<name>.jsonl`, where there is one.

    One process writes into a folder.

    Raises: LensError for a package that is missing.
    """
    match settings:
        case NanoRewardSettings():
            from lens.rl.rewards.nano import MultiprocessNanoReward, NanoReward

            if settings.processes:
                return MultiprocessNanoReward(settings.exact_weight, settings.processes)
            return NanoReward(settings.exact_weight)
        case VlmJudgeSettings():
            from lens.rl.rewards.vlm_judge import VlmJudgeReward

            return VlmJudgeReward(settings, folder / f"{name}.jsonl" if folder else None)
        case OcrRewardSettings():
            from lens.rl.rewards.ocr import OcrReward

            return OcrReward(settings)
        case WeightedRewardSettings():
            from lens.rl.rewards.weighted import WeightedReward

            return WeightedReward(
                {
                    key: (part.weight, create_reward(part.reward, folder, key))
                    for key, part in settings.parts.items()
                }
            )
