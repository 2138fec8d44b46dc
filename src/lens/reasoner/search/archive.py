"""The archive of a search: candidates with a score for every prompt of the selection split.

Parents come from the Pareto front over prompts, so that a candidate which alone solves some prompts is not
lost. Pure functions of scores.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lens.core.statistics import lower_bound

Scores = NDArray[np.float64]


class Comparison(NamedTuple):
    """A candidate against its parent, on the same prompts and seeds."""

    before: float
    after: float
    bound: float
    """One-sided lower bound of the gain."""
    num_prompts: int

    @property
    def gain(self) -> float:
        return self.after - self.before


def compare(before: Scores, after: Scores, confidence: float) -> Comparison:
    """Return the means of two candidates and the bound of their paired difference. Shapes: both (P,)."""
    bound = lower_bound((after - before).tolist(), confidence)
    return Comparison(float(before.mean()), float(after.mean()), bound, len(before))


def pareto_front(scores: Scores) -> list[int]:
    """Return the rows that no other row matches everywhere and beats somewhere. Shapes: scores (C, P)."""
    front = []
    for number, row in enumerate(scores):
        is_matched = (scores >= row).all(1) & (scores > row).any(1)
        if not is_matched.any():
            front.append(number)
    return front


def is_plausibly_best(scores: Scores, confidence: float) -> NDArray[np.bool_]:
    """Return for each row whether the leading row is not surely better. Shapes: scores (C, P) -> (C,)."""
    best = scores[ranking(scores)[0]]
    return np.array([lower_bound((best - row).tolist(), confidence) <= 0 for row in scores])


def parent_weights(scores: Scores, confidence: float) -> NDArray[np.float64]:
    """Return the probability of each candidate to be the next parent; they sum to 1.

    Those on the Pareto front share each prompt among its leaders. Candidates that the leading one surely
    beats are left out: with few pictures a prompt, chance puts everyone on the front.
    Shapes: scores (C, P) -> (C,).
    """
    plausible = np.flatnonzero(is_plausibly_best(scores, confidence))
    front = plausible[pareto_front(scores[plausible])]
    leads = scores[front] == scores[front].max(0)                                        # (F, P)
    weights = np.zeros(len(scores))
    weights[front] = (leads / leads.sum(0)).sum(1)
    return weights / weights.sum()


def ranking(scores: Scores) -> list[int]:
    """Return the rows by their mean, the best first; the earlier one first where they are equal."""
    return sorted(range(len(scores)), key=lambda number: (-scores[number].mean(), number))
