"""Differences of two arms that drew the same prompts after training from the same seeds.

The difference of two paired images is taken as mean + effect of the seed + effect of the prompt + the rest,
with independent effects. Interval and degrees of freedom are those of studies with many readers and many
cases: seeds are the readers, prompts the cases (Hillis, Statistics in Medicine 26, 2007). So they hold for
other seeds and other prompts of the same kinds. Letters: S seeds, P prompts.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lens.core.statistics import MeanEstimate, student_t, t_test_power


class Spread(NamedTuple):
    """Standard deviations of the difference of two paired images, by their cause."""

    seed: float
    """Of the effect of the training seed on the difference of the two arms."""
    prompt: float
    """Of the effect of the prompt."""
    rest: float
    """Of a single image, beside both."""

    def standard_error(self, num_seeds: float, num_prompts: float) -> float:
        """Return the standard error of the mean difference."""
        parts = (
            self.seed**2 / num_seeds, self.prompt**2 / num_prompts, self.rest**2 / (num_seeds * num_prompts)
        )  # fmt: skip
        return math.sqrt(sum(parts))

    def half_width(self, num_seeds: float, num_prompts: float) -> float:
        """Return the expected half width of the interval, with one degree of freedom less than seeds."""
        return student_t(num_seeds - 1) * self.standard_error(num_seeds, num_prompts)

    def power(self, difference: float, num_seeds: int, num_prompts: int) -> float:
        """Return the probability that the interval of a true difference excludes zero."""
        error = self.standard_error(num_seeds, num_prompts)
        return t_test_power(difference, error, num_seeds - 1)

    def needed_factor(self, half_width: float, num_seeds: int, num_prompts: int) -> int:
        """Return the least multiple of seeds and prompts whose interval has at most a half width."""
        factor = 1
        while self.half_width(factor * num_seeds, factor * num_prompts) > half_width:
            factor += 1
        return factor


class PairedDifference(NamedTuple):
    """The mean difference of two arms with its interval, and the spread that it was computed from."""

    estimate: MeanEstimate
    spread: Spread


def paired_difference(passed: NDArray[Any], against: NDArray[Any]) -> PairedDifference:
    """Return the difference of the shares of passes of two arms.

    Shapes: both (S, P), from the same seeds and prompts, with at least two of each.
    """
    differences = passed.astype(float) - against.astype(float)                                  # (S, P)
    num_seeds, num_prompts = differences.shape
    assert num_seeds > 1 and num_prompts > 1 and passed.shape == against.shape, differences.shape
    mean = float(differences.mean())
    of_seeds, of_prompts = differences.mean(1), differences.mean(0)                             # (S,), (P,)
    rest = differences - of_seeds[:, None] - of_prompts + mean                                  # (S, P)
    # Mean squares: each has the expectation of the rest, and that of its own effect.
    seed_square = num_prompts * float(of_seeds.var(ddof=1))
    prompt_square = num_seeds * float(of_prompts.var(ddof=1))
    rest_square = float(np.square(rest).sum()) / ((num_seeds - 1) * (num_prompts - 1))
    total = seed_square + max(prompt_square - rest_square, 0.0)
    # Hillis's degrees of freedom; more than S - 1 where prompts have a part in the error.
    df = (num_seeds - 1) * (total / seed_square) ** 2 if seed_square else math.inf
    half_width = student_t(df) * math.sqrt(total / differences.size)
    spread = Spread(
        math.sqrt(max(seed_square - rest_square, 0.0) / num_prompts),
        math.sqrt(max(prompt_square - rest_square, 0.0) / num_seeds),
        math.sqrt(rest_square),
    )
    return PairedDifference(MeanEstimate(mean, half_width), spread)
