"""The last comparison of a search: the best candidates and the start, on new prompts with new seeds.

The search chose its best by the highest of many scores, which is too high by chance: the winner's curse.
These scores were not chosen from. Intervals are bootstraps of prompts, within each kind of prompt.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lens.core.statistics import bootstrap_means
from lens.reasoner.search.archive import ranking
from lens.reasoner.search.candidates import Candidate
from lens.reasoner.search.evaluation import PromptResult, scores_of

LEVEL = 0.95


class Estimate(NamedTuple):
    """A value with its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


class Finalist(NamedTuple):
    """A candidate in the last comparison."""

    candidate: Candidate
    results: list[PromptResult]
    """On the test split."""
    selection: Estimate
    test: Estimate
    gain: Estimate
    """Of the test score over that of the start; all intervals of gains hold together at 95%."""
    gap: Estimate
    """The selection score less the test score."""
    gain_gap: float
    """The gain on the selection split less that on the test split: what chance added, whatever the splits."""

    def to_dict(self) -> dict[str, Any]:
        estimates = {
            name: getattr(self, name)._asdict() for name in ("selection", "test", "gain", "gap")
        }
        return {"number": self.candidate.number, "hash": self.candidate.hash, **estimates,
                "gain_gap": self.gain_gap}  # fmt: skip


def finalists_of(archive: Sequence[Candidate], count: int) -> list[Candidate]:
    """Return the start, then the best others by their selection scores."""
    order = ranking(np.stack([one.scores for one in archive]))
    return [archive[0], *[archive[number] for number in order if number][:count]]


def compare_finalists(
    candidates: Sequence[Candidate], evaluate: Callable[[str], list[PromptResult]], seed: int
) -> list[Finalist]:
    """Return the last comparison; the first candidate is the start.

    `evaluate` draws the pictures of a system prompt on the test split.
    """
    results = [evaluate(one.text) for one in candidates]
    selection, test = np.stack([one.scores for one in candidates]), np.stack([*map(scores_of, results)])
    in_selection, in_test = (
        bootstrap_means(scores, [one.prompt.kind for one in rows[0]], seed)
        for scores, rows in ((selection, [one.selection for one in candidates]), (test, results))
    )                                                                                    # (samples, C)
    # By Bonferroni: several candidates are compared with the start.
    gain_level = 1 - (1 - LEVEL) / max(1, len(candidates) - 1)
    means = selection.mean(1), test.mean(1)
    found = []
    for place, (candidate, rows) in enumerate(zip(candidates, results, strict=True)):
        sampled = in_selection[:, place], in_test[:, place]
        gains = [float(mean[place] - mean[0]) for mean in means]
        found.append(
            Finalist(
                candidate, rows,
                _estimate(means[0][place], sampled[0]), _estimate(means[1][place], sampled[1]),
                _estimate(gains[1], sampled[1] - in_test[:, 0], gain_level),
                _estimate(means[0][place] - means[1][place], sampled[0] - sampled[1]),
                gains[0] - gains[1],
            )
        )  # fmt: skip
    return found


def winner_of(finalists: Sequence[Finalist]) -> Finalist:
    """Return the finalist with the best test score among those that surely beat the start, or the start."""
    better = [one for one in finalists if one.gain.low > 0]
    return max(better, key=lambda one: one.test.value, default=finalists[0])


def _estimate(value: float, samples: np.ndarray, level: float = LEVEL) -> Estimate:
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(value), float(low), float(high))
