"""What the scores of an ablation say of its claims, and beforehand what they will be able to say."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lens.core.statistics import MeanEstimate, estimate_mean
from lens.evals.ablation import AblationRun, AblationSettings, ClaimSettings, missing_runs
from lens.evals.paired import PairedDifference, Spread, paired_difference

Scores = Mapping[tuple[str, str], NDArray[np.bool_]]
"""Passed images (seeds, prompts) by arm and name of the scores."""

AGREES, DOES_NOT, CANNOT_BE_TOLD = "agrees", "does not", "cannot be told"


class ArmScore(NamedTuple):
    """The share of passes of one arm."""

    arm: str
    score: str
    shares: tuple[float, ...]
    """One a seed."""
    mean: MeanEstimate


class ClaimAnswer(NamedTuple):
    """What the images say of one claim."""

    claim: ClaimSettings
    difference: PairedDifference
    """Of the arm and the other one."""
    verdict: str
    factor: int
    """Multiple of the seeds and prompts at which the answer is sure to be known; 1 if it is known."""

    @property
    def text(self) -> str:
        needs = f", needs {self.factor} times as much" if self.verdict == CANNOT_BE_TOLD else ""
        return f"{self.verdict}{needs}"


def arm_scores(settings: AblationSettings, scores: Scores) -> list[ArmScore]:
    """Return the shares of all arms, by scores."""
    rows = []
    for name in settings.scores:
        for arm in settings.arms:
            shares = scores[arm, name].mean(1).tolist()
            rows.append(ArmScore(arm, name, tuple(shares), estimate_mean(shares)))
    return rows


def claim_answers(settings: AblationSettings, scores: Scores) -> list[ClaimAnswer]:
    """Return what the images say of each claim."""
    found = []
    for claim in settings.claims:
        difference = paired_difference(scores[claim.arm, claim.score], scores[claim.other, claim.score])
        verdict = verdict_of(claim, difference.estimate, settings.margin)
        factor = 1
        if verdict == CANNOT_BE_TOLD:
            factor = factor_needed(settings, difference.spread, claim.score)
        found.append(ClaimAnswer(claim, difference, verdict, factor))
    return found


def verdict_of(claim: ClaimSettings, difference: MeanEstimate, margin: float) -> str:
    """Return whether the interval agrees with a claim, contradicts it, or neither.

    "Beats" agrees above zero, and does not below the margin. "Matches" agrees above minus the margin, and
    does not below zero.
    """
    low, high = difference.interval
    floor, ceiling = (0.0, margin) if claim.beats else (-margin, 0.0)
    if low > floor:
        return AGREES
    return DOES_NOT if high < ceiling else CANNOT_BE_TOLD


def factor_needed(settings: AblationSettings, spread: Spread, score: str) -> int:
    """Return the multiple of seeds and prompts whose interval is shorter than the margin.

    Such an interval cannot hold both zero and the margin, so the answer is then known.
    """
    counts = len(settings.seeds), settings.num_prompts(score)
    return max(2, spread.needed_factor(settings.margin / 2, *counts))


def format_findings(settings: AblationSettings, scores: Scores) -> str:
    """Return Markdown: the question, the share of every arm, and the answer to every claim."""
    lines = [settings.question, "", f"| arm | {' | '.join(settings.scores)} |"]
    lines.append(f"| --- |{' --- |' * len(settings.scores)}")
    by_arm = {(row.arm, row.score): row.mean for row in arm_scores(settings, scores)}
    for arm in settings.arms:
        means = (by_arm[arm, name] for name in settings.scores)
        lines.append(f"| {arm} | {' | '.join(f'{one.mean:.3f} {one.interval_text}' for one in means)} |")
    lines += ["", "| finding | difference and 95% interval | |", "| --- | --- | --- |"]
    for one in claim_answers(settings, scores):
        estimate = one.difference.estimate
        lines.append(
            f"| {one.claim.text} | {estimate.mean:+.3f} {estimate.interval_text} | {one.text} |"
        )
    return "\n".join([*lines, "", power_text(settings)])


def power_text(settings: AblationSettings) -> str:
    """Return the power to see a difference of the margin, as expected before the runs."""
    spread, points = Spread(**settings.expected.model_dump()), f"{100 * settings.margin:g} points"
    parts = []
    for count in sorted({settings.num_prompts(name) for name in settings.scores}):
        power = spread.power(settings.margin, len(settings.seeds), count)
        half = spread.half_width(len(settings.seeds), count)
        parts.append(
            f"{len(settings.seeds)} seeds and {count} prompts see a difference of {points} with a "
            f"probability of {power:.2f} (half width {half:.3f})"
        )
    return f"Computed beforehand: {'; '.join(parts)}."


def missing_minutes(settings: AblationSettings, runs: Sequence[AblationRun]) -> dict[Path, float]:
    """Return the expected minutes of one core of each run that is still to be trained, by its folder."""
    before, own = missing_runs(runs)
    minutes = {run.out: settings.first_minutes for run in before}
    return minutes | {run.out: settings.minutes for run in own}


def format_plan(settings: AblationSettings, runs: Sequence[AblationRun]) -> str:
    """Return what is still to be trained, how long it takes, and the power."""
    work = format_work(missing_minutes(settings, runs))
    return f"{settings.question}\n{work} {power_text(settings)}"


def format_work(minutes: Mapping[Path, float]) -> str:
    """Return the number of runs and their hours."""
    return f"{len(minutes)} runs to train, {sum(minutes.values()) / 60:.1f} hours of one core."


def findings_to_dict(settings: AblationSettings, scores: Scores) -> dict[str, Any]:
    """Return the values of the JSON file of results."""
    return {
        "question": settings.question,
        "seeds": list(settings.seeds),
        "margin": settings.margin,
        "power": power_text(settings),
        "arms": [
            {"arm": row.arm, "score": row.score, "shares": list(row.shares), "mean": row.mean.mean,
             "interval": row.mean.interval}
            for row in arm_scores(settings, scores)
        ],
        "findings": [
            {"finding": one.claim.text, "answer": one.text, "difference": one.difference.estimate.mean,
             "interval": one.difference.estimate.interval, "spread": one.difference.spread._asdict()}
            for one in claim_answers(settings, scores)
        ],
    }  # fmt: skip
