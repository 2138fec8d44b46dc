"""Confidence intervals at 95%: of a mean of few values, and of a fraction of passes."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

NORMAL_QUANTILE = 1.959964
"""97.5% point of the normal distribution."""

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


def wilson_interval(passed: int, total: int) -> tuple[float, float]:
    """Return Wilson's interval of a fraction of passes."""
    z, n, p = NORMAL_QUANTILE, total, passed / total
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))
