"""Confidence intervals: of a mean of few values, of clusters, and of a fraction of passes; Student's t.

They are at 95% where a function has no other level.
"""

import math
import statistics
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NORMAL_QUANTILE = 1.959964
"""97.5% point of the normal distribution."""

_LARGE_DF = 1000
"""Degrees of freedom from which Student's t is taken for normal."""


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
    """Return the mean of two or more values with its interval by Student's t."""
    assert len(values) > 1, values
    error = statistics.stdev(values) / math.sqrt(len(values))
    return MeanEstimate(statistics.fmean(values), student_t(len(values) - 1) * error)


def lower_bound(values: Sequence[float], confidence: float) -> float:
    """Return the one-sided lower bound of the mean of two or more values by Student's t.

    The true mean is above it with the probability `confidence`, which is a half or more.
    """
    assert len(values) > 1 and 0.5 <= confidence < 1, (values, confidence)
    error = statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values) - student_t(len(values) - 1, 2 * confidence - 1) * error


def bootstrap_means(
    values: NDArray[np.float64], strata: Sequence[str], seed: int, num_samples: int = 10_000
) -> NDArray[np.float64]:
    """Return the means of rows over clusters that are drawn again with replacement, within each stratum.

    Rows get the same draws, so that differences of rows are paired.
    Shapes: values (R, C), one stratum a cluster -> (num_samples, R).
    """
    assert values.shape[1] == len(strata) > 0, (values.shape, len(strata))
    rng, names = np.random.default_rng(seed), np.asarray(strata)
    sums = np.zeros((num_samples, len(values)))
    for name in sorted(set(strata)):
        places = np.flatnonzero(names == name)
        drawn = rng.multinomial(len(places), np.full(len(places), 1 / len(places)), num_samples)
        sums += drawn @ values[:, places].T                                              # (num_samples, R)
    return sums / values.shape[1]


@cache
def student_t(df: float, level: float = 0.95) -> float:
    """Return the point that the size of Student's t exceeds with the probability 1 - level.

    Degrees of freedom need not be whole.
    """
    if df >= _LARGE_DF:
        return statistics.NormalDist().inv_cdf((1 + level) / 2)
    # With t = sqrt(df) tan(angle), the density of the angle is proportional to cos(angle)^(df - 1).
    angles = np.linspace(0, math.pi / 2, 200_001)
    density = np.cos(angles) ** (df - 1)
    mass = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(df) * math.tan(float(np.interp(level * mass[-1], mass, angles)))


def t_test_power(difference: float, standard_error: float, df: float) -> float:
    """Return the probability that the interval by Student's t of a true difference excludes zero."""
    if standard_error == 0:
        return float(difference != 0)
    shift, limit = difference / standard_error, student_t(df)
    # The estimate of the error is its true value times the root of a mean of `df` squared normal values.
    spread = np.linspace(1e-6, 1 + 8 / math.sqrt(df), 4001)
    log_density = (df - 1) * np.log(spread) - df * np.square(spread) / 2
    density = np.exp(log_density - log_density.max())
    normal = statistics.NormalDist().cdf
    exceeds = [normal(shift - limit * s) + normal(-shift - limit * s) for s in spread.tolist()]
    return float(density @ np.array(exceeds) / density.sum())


def wilson_interval(passed: int, total: int) -> tuple[float, float]:
    """Return Wilson's interval of a fraction of passes."""
    z, n, p = NORMAL_QUANTILE, total, passed / total
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))
