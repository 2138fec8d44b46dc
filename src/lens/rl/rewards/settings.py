"""Settings of rewards, and the table of their kinds.

A new reward is a file beside this one and an entry here: its settings name its class, and `AnyPart` lists
them. Loads neither torch nor the packages of a reward. Spec: section 9.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from lens.config import Settings
from lens.llm.client import Endpoint


class NanoRewardSettings(Settings):
    """The exact scorer of the nano world."""

    implementation: ClassVar[str] = "nano:NanoReward"
    kind: Literal["nano"] = "nano"
    exact_weight: float = Field(0.5, ge=0, le=1)
    """Share of the reward for an image that passes the whole test; the rest is the mean over the rubric."""
    processes: int = Field(0, ge=0)
    """Processes that score images, in place of the `reward_workers` of the run; 0 for none."""


class VlmJudgeSettings(Settings):
    """A vision-language model that judges one criterion a call."""

    implementation: ClassVar[str] = "vlm_judge:VlmJudgeReward"
    kind: Literal["judge"] = "judge"
    endpoint: Endpoint
    probabilities: bool = False
    """Whether the score of a criterion is the probability of its answer, where the endpoint returns it."""
    side_px: int = Field(1024, ge=64)
    """Longer side of the image that the judge gets; smaller images are not enlarged."""
    max_tokens: int = Field(8, ge=1)
    """Largest length of an answer; a reasoning model needs more."""


class OcrRewardSettings(Settings):
    """Text in the image, read and compared with the text of the prompt."""

    implementation: ClassVar[str] = "ocr:OcrReward"
    kind: Literal["text"] = "text"
    max_side_px: int = Field(960, ge=64)
    """Longer side to which a larger image is reduced before it is read."""
    min_confidence: float = Field(0.5, ge=0, le=1)
    """Lines that are read with less confidence are ignored."""
    num_readers: int = Field(2, ge=1)
    """Images that are read at the same time."""


AnyPart = NanoRewardSettings | VlmJudgeSettings | OcrRewardSettings
"""The settings of all rewards that score by themselves."""


class WeightedPart(Settings):
    """One reward of a weighted mean."""

    weight: float = Field(1.0, gt=0)
    """Relative to the other weights; rewards that do not apply to a prompt are left out."""
    reward: Annotated[AnyPart, Field(discriminator="kind")]


class WeightedRewardSettings(Settings):
    """A weighted mean of rewards."""

    kind: Literal["combined"] = "combined"
    parts: dict[str, WeightedPart] = Field(min_length=1)
    """Rewards by their names in the log."""


AnyRewardSettings = Annotated[AnyPart | WeightedRewardSettings, Field(discriminator="kind")]
"""The settings of any reward, by their `kind`."""
