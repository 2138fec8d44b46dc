"""Bootstrap intervals of headlines, by prompt, and of the difference of two runs on the same prompts.

The prompt is what is drawn again, never the image: images of one prompt are alike. Prompts are drawn again
within each stratum that the benchmark has, such as a task. A headline is a function of sums over prompts, so
that thousands of draws are one matrix product.
Letters: R resamples, P prompts of a stratum, K sums.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lens.evals.scores.observations import BenchmarkScore
from lens.evals.scores.oneig import MAX_EDIT_DISTANCE

NUM_RESAMPLES = 2000
LEVEL = 0.95

Sums = NDArray[np.float64]
Line = Mapping[str, Any]
Case = Mapping[str, Any]


class Interval(NamedTuple):
    """A value with its bootstrap interval at 95%, and the number of prompts behind it."""

    value: float
    low: float
    high: float
    num_prompts: int


class Aggregation(NamedTuple):
    """How a headline follows from sums over prompts."""

    stratum: Callable[[Line], str]
    sums: Callable[[Line, Case], Sequence[float] | None]
    """What an image adds to the sums of its prompt; None for one that does not count."""
    headline: Callable[[dict[str, Sums]], Sums]
    """Sums (R, K) by stratum -> headlines (R,)."""
    is_mean_of_prompts: bool = False
    """Whether a prompt counts as one, however many images it has."""


def headline_interval(
    scorer: str, lines: Sequence[Line], score: BenchmarkScore, seed: int = 0
) -> Interval | None:
    """Return the headline's interval; None where nothing counts."""
    strata = _prompt_sums(scorer, lines, score)
    if not strata or score.headline is None:
        return None
    draws = _resample(scorer, [strata], seed)[0]
    return _interval(score.headline, draws, sum(map(len, strata.values())))


def difference_interval(
    scorer: str,
    lines: Sequence[Line],
    score: BenchmarkScore,
    other_lines: Sequence[Line],
    other_score: BenchmarkScore,
    seed: int = 0,
) -> Interval | None:
    """Return the first headline less the second, over the prompts that both runs have; None without any."""
    one, other = _prompt_sums(scorer, lines, score), _prompt_sums(scorer, other_lines, other_score)
    common = {
        name: keys
        for name in one.keys() & other.keys()
        if (keys := sorted(one[name].keys() & other[name].keys()))
    }
    if not common:
        return None
    pair = [
        {name: {key: run[name][key] for key in keys} for name, keys in common.items()} for run in (one, other)
    ]
    exact = [_exact(scorer, run) for run in pair]
    draws = _resample(scorer, pair, seed)
    return _interval(exact[0] - exact[1], draws[0] - draws[1], sum(map(len, common.values())))


def _prompt_sums(
    scorer: str, lines: Sequence[Line], score: BenchmarkScore
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Return the sums (K,) of each prompt, by stratum."""
    aggregation = AGGREGATIONS[scorer]
    found: dict[str, dict[str, list[Sequence[float]]]] = {}
    for line, case in zip(lines, score.cases, strict=True):
        sums = aggregation.sums(line, case)
        if sums is not None:
            found.setdefault(aggregation.stratum(line), {}).setdefault(_prompt_of(line), []).append(sums)
    reduce = np.mean if aggregation.is_mean_of_prompts else np.sum
    return {
        stratum: {key: reduce(np.array(rows, float), axis=0) for key, rows in prompts.items()}
        for stratum, prompts in found.items()
    }


def _resample(scorer: str, runs: Sequence[Mapping[str, Mapping[str, Sums]]], seed: int) -> list[Sums]:
    """Return headlines (R,) of each run; all runs draw the same prompts."""
    random = np.random.default_rng(seed)
    sums: list[dict[str, Sums]] = [{} for _ in runs]
    for stratum in sorted(runs[0]):
        num_prompts = len(runs[0][stratum])
        chances = np.full(num_prompts, 1 / num_prompts)
        counts = random.multinomial(num_prompts, chances, NUM_RESAMPLES)                # (R, P)
        for run, own in zip(runs, sums, strict=True):
            own[stratum] = counts @ np.stack(list(run[stratum].values()))               # (R, K)
    return [AGGREGATIONS[scorer].headline(own) for own in sums]


def _exact(scorer: str, strata: Mapping[str, Mapping[str, Sums]]) -> float:
    sums = {name: np.sum(list(prompts.values()), axis=0)[None] for name, prompts in strata.items()}  # (1, K)
    return float(AGGREGATIONS[scorer].headline(sums)[0])


def _interval(value: float, draws: Sums, num_prompts: int) -> Interval:
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    return Interval(value, float(low), float(high), num_prompts)


def _prompt_of(line: Line) -> str:
    """Return what identifies a prompt within its stratum."""
    names = ("key", "group", "regions", "index", "category", "language", "type", "length", "prompt_id")
    return line["key"] if "key" in line else str([line.get(name) for name in names])


def _ratio(sums: dict[str, Sums]) -> Sums:
    total = np.sum(list(sums.values()), axis=0)                                         # (R, K)
    return total[:, 0] / np.maximum(total[:, 1], 1e-12)


def _mean_of_ratios(sums: dict[str, Sums]) -> Sums:
    return np.mean([own[:, 0] / np.maximum(own[:, 1], 1e-12) for own in sums.values()], axis=0)


def _main_language(sums: dict[str, Sums]) -> tuple[str, Sums]:
    language = "en" if "en" in sums else "zh"
    return language, sums[language]


def _ratio_of_main_language(sums: dict[str, Sums]) -> Sums:
    language, own = _main_language(sums)
    return _ratio({language: own})


def _oneig_text(sums: dict[str, Sums]) -> Sums:
    language, own = _main_language(sums)
    limit = MAX_EDIT_DISTANCE[language]
    distance, perfect, matched, reference, count = own.T
    accuracy = matched / np.maximum(reference, 1e-12)
    return 1 - np.minimum(limit, distance / count) * (1 - perfect / count) * (1 - accuracy) / limit


def _score_and_one(line: Line, case: Case) -> Sequence[float] | None:
    return None if case["score"] is None else (case["score"], 1)


def _text_sums(line: Line, case: Case) -> Sequence[float]:
    return case["edit_distance"], case["edit_distance"] == 0, case["matched"], case["reference"], 1


def _language(line: Line) -> str:
    return str(line["language"])


def _everything(line: Line) -> str:
    return "all"


_ONEIG = Aggregation(_language, _score_and_one, _ratio_of_main_language, is_mean_of_prompts=True)
AGGREGATIONS = {
    "geneval": Aggregation(
        lambda line: str(line["tag"]), lambda line, case: (case["correct"], 1), _mean_of_ratios
    ),
    "longtext": Aggregation(
        _language, lambda line, case: (case["matched"], case["reference"]), _ratio_of_main_language
    ),
    "oneig_alignment": _ONEIG,
    "oneig_reasoning": _ONEIG,
    "oneig_style": _ONEIG,
    "oneig_diversity": _ONEIG,
    "oneig_text": Aggregation(_language, _text_sums, _oneig_text),
    "cvtg": Aggregation(
        lambda line: f"{line['group']}/{line['regions']}",
        lambda line, case: (case["correct"], case["words"]),
        _ratio,
    ),
    "dpg": Aggregation(
        _everything, _score_and_one, lambda sums: 100 * _ratio(sums), is_mean_of_prompts=True
    ),
}
"""TIIF has none: its headline averages rounded numbers of types with one image each."""
