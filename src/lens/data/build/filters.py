"""Thresholds on stored scores: which samples stay, and the first reason why each other one falls.

A filter is a view: scores are computed once, and a changed threshold reads them again. Knows nothing of
pictures or of how scores are made. Paper: Lens report, data section (nine cleaning stages).
Letters: N samples.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from lens.config import Settings
from lens.errors import SettingError

Scores = Mapping[str, NDArray[Any]]
"""Arrays (N,) by the name of the score; NaN where a sample has none."""

KEPT = ""


class FilterRule(NamedTuple):
    """One threshold: samples whose score lies outside fall for the reason."""

    reason: str
    score: str
    setting: str
    is_lower_bound: bool


RULES = (
    FilterRule("too_small", "area_px", "min_area_px", True),
    FilterRule("nsfw", "nsfw", "max_nsfw", False),
    FilterRule("unaesthetic", "aesthetics", "min_aesthetics", True),
    FilterRule("watermark", "watermark", "max_watermark", False),
    FilterRule("blurred", "clarity", "min_clarity", True),
    FilterRule("little_information", "entropy", "min_entropy", True),
    FilterRule("too_dark", "luminance", "min_luminance", True),
    FilterRule("too_bright", "luminance", "max_luminance", False),
)
"""In the order of the paper's stages (2) to (8); (1) is decoding and (9) near duplicates."""


class FilterSettings(Settings):
    """Bounds that a sample must keep; None asks for nothing. Both ends are inside."""

    min_area_px: float | None = Field(384 * 384, ge=0)
    """Width times height."""
    max_nsfw: float | None = Field(0.5, ge=0, le=1)
    """Probability that the picture is not safe for work."""
    min_aesthetics: float | None = 3.0
    """Aesthetic Predictor v2.5, about 1 to 10."""
    max_watermark: float | None = Field(0.5, ge=0, le=1)
    """Probability of a watermark or credit line."""
    min_clarity: float | None = Field(None, ge=0)
    """Variance of the Laplacian at a short side of 384 px, or less where the picture has less."""
    min_entropy: float | None = Field(None, ge=0, le=8)
    """Bits of the grey histogram."""
    min_luminance: float | None = Field(None, ge=0, le=1)
    """Mean V of HSV, below which a picture is too dark."""
    max_luminance: float | None = Field(None, ge=0, le=1)
    """Mean V of HSV, above which it is too bright."""

    @model_validator(mode="after")
    def _some_luminance_is_left(self) -> Self:
        low, high = self.min_luminance, self.max_luminance
        if low is not None and high is not None and low > high:
            raise SettingError("min_luminance", low, f"at most max_luminance, which is {high}")
        return self

    @property
    def scores(self) -> set[str]:
        """Return the names of the scores that these thresholds read."""
        return {rule.score for rule in RULES if getattr(self, rule.setting) is not None}


def drop_reasons(scores: Scores, thresholds: FilterSettings) -> NDArray[np.str_]:
    """Return the first reason why each sample falls, KEPT for those that stay.

    A sample without a number where a threshold asks for one falls as `unscored`: nothing passes unseen.

    Shapes: -> (N,).
    Raises: SettingError for a threshold whose score was never computed.
    """
    active_rules = [rule for rule in RULES if getattr(thresholds, rule.setting) is not None]
    for rule in active_rules:
        if rule.score not in scores:
            needs = f"the score {rule.score}, which no scorer of this build computes"
            fix = "Add a scorer that does, or set the threshold to null."
            raise SettingError(f"filters.{rule.setting}", getattr(thresholds, rule.setting), needs, fix)
    count = len(next(iter(scores.values()))) if scores else 0
    first_reasons = np.full(count, KEPT, dtype="<U32")
    for rule in active_rules:
        values, bound = scores[rule.score], getattr(thresholds, rule.setting)
        is_open = first_reasons == KEPT
        first_reasons[is_open & np.isnan(values)] = "unscored"
        falls = values < bound if rule.is_lower_bound else values > bound
        first_reasons[is_open & falls] = rule.reason
    return first_reasons
