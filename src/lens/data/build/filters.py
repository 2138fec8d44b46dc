"""Filters: thresholds on stored scores, and the first reason to drop each sample.

Scores are computed once; a changed threshold reads them again. Knows nothing of images or of how scores are
computed. Paper: Lens report, data section (nine cleaning stages).
Letters: N samples.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from lens.config import Settings
from lens.data.buckets import MAX_CUT
from lens.errors import SettingError

Scores = Mapping[str, NDArray[Any]]
"""Arrays (N,) by the name of the score; NaN where a sample has no score."""

KEPT = ""


class FilterRule(NamedTuple):
    """One threshold: samples whose score lies outside are dropped for the reason."""

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
    """Bounds on the scores of a sample, both ends included; None is no bound."""

    min_area_px: float | None = Field(384 * 384, ge=0)
    """Width times height."""
    max_nsfw: float | None = Field(0.5, ge=0, le=1)
    """Probability that the image is not safe for work."""
    min_aesthetics: float | None = 3.0
    """Aesthetic Predictor v2.5, about 1 to 10."""
    max_watermark: float | None = Field(0.5, ge=0, le=1)
    """Probability of a watermark or credit line."""
    min_clarity: float | None = Field(None, ge=0)
    """Variance of the Laplacian at a short side of 384 px, or of the full image where it is smaller."""
    min_entropy: float | None = Field(None, ge=0, le=8)
    """Entropy of the grey histogram, in bits."""
    min_luminance: float | None = Field(None, ge=0, le=1)
    """Mean V of HSV below which an image is too dark."""
    max_luminance: float | None = Field(None, ge=0, le=1)
    """Mean V of HSV above which an image is too bright."""
    max_cut: float | None = Field(MAX_CUT, ge=0, lt=1)
    """Share of the area of an image that may be cropped to fit its bucket."""

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
    """Return the first reason to drop each sample, KEPT for those that are kept.

    A sample that lacks a score with a threshold is dropped as `unscored`.

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
        is_kept = first_reasons == KEPT
        first_reasons[is_kept & np.isnan(values)] = "unscored"
        is_outside = values < bound if rule.is_lower_bound else values > bound
        first_reasons[is_kept & is_outside] = rule.reason
    return first_reasons
