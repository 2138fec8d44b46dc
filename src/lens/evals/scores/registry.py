"""Names of benchmarks that can be scored, with the class of their lines and their scorer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from lens.errors import SettingError
from lens.evals.scores.cvtg import CvtgLine, score_cvtg
from lens.evals.scores.dpg import DpgLine, score_dpg
from lens.evals.scores.geneval import GenevalLine, score_geneval
from lens.evals.scores.longtext import LongTextLine, score_longtext
from lens.evals.scores.observations import BenchmarkScore, Observation, read_observations
from lens.evals.scores.oneig import (
    AlignmentLine,
    DiversityLine,
    OneigTextLine,
    ReasoningLine,
    StyleLine,
    score_alignment,
    score_diversity,
    score_reasoning,
    score_style,
    score_text,
)
from lens.evals.scores.tiif import TiifLine, score_tiif


class BenchmarkScorer(NamedTuple):
    """How the observations of a benchmark are read and scored."""

    line_class: type[Observation]
    score: Callable[[list[Any]], BenchmarkScore]


SCORERS = {
    "geneval": BenchmarkScorer(GenevalLine, score_geneval),
    "longtext": BenchmarkScorer(LongTextLine, score_longtext),
    "oneig_alignment": BenchmarkScorer(AlignmentLine, score_alignment),
    "oneig_text": BenchmarkScorer(OneigTextLine, score_text),
    "oneig_reasoning": BenchmarkScorer(ReasoningLine, score_reasoning),
    "oneig_style": BenchmarkScorer(StyleLine, score_style),
    "oneig_diversity": BenchmarkScorer(DiversityLine, score_diversity),
    "cvtg": BenchmarkScorer(CvtgLine, score_cvtg),
    "dpg": BenchmarkScorer(DpgLine, score_dpg),
    "tiif": BenchmarkScorer(TiifLine, score_tiif),
}


def score_file(benchmark: str, path: Path) -> BenchmarkScore:
    """Return the score of a file of observations.

    Raises: SettingError for an unknown benchmark, and for a line that cannot be scored.
    """
    if benchmark not in SCORERS:
        raise SettingError("BENCHMARK", benchmark, f"one of {', '.join(SCORERS)}")
    scorer = SCORERS[benchmark]
    return scorer.score(read_observations(path, scorer.line_class))
