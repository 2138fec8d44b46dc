"""Means of few values, and how far they can be trusted."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5% points of Student's t for 1, 2, ... degrees of freedom."""


class MeanEstimate(NamedTuple):
    """A mean and half the width of its interval at 95%."""

    mean: float
    half_width: float

    @property
    def interval(self) -> tuple[float, float]:
        return self.mean - self.half_width, self.mean + self.half_width

    @property
    def interval_text(self) -> str:
        low, high = self.interval
        return f"({low:.3f} to {high:.3f})"


def estimate_mean(values: Sequence[float]) -> MeanEstimate:
    """Return the mean of two to ten values with its interval by Student's t."""
    assert 2 <= len(values) <= len(STUDENT_T) + 1, len(values)
    spread = statistics.stdev(values)
    return MeanEstimate(
        statistics.fmean(values), STUDENT_T[len(values) - 2] * spread / math.sqrt(len(values))
    )
