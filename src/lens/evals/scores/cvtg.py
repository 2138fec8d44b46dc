"""CVTG-2K: words in single quotes that a reader found in the image, and how near the others came."""

import difflib
import re
from typing import Literal, NamedTuple

from rapidfuzz.distance import Levenshtein

from lens.evals.scores.observations import BenchmarkScore, Observation, group_by, mean

_QUOTED = re.compile(r"'(.*?)'")
LENGTH_OFFSET = 1e-5
"""Added to the length of the longer word by the official script, so that a word that was not read gets not
exactly 0."""
CLIPSCORE_SCALE = 2.5


class CvtgLine(Observation):
    """What a reader and CLIP saw in one image."""

    group: Literal["CVTG", "CVTG-Style"]
    regions: int
    index: int
    prompt: str
    ocr: list[str] | None
    """The lines in the reader's order; None when the reader failed."""
    clip_cosine: float
    """Cosine of the image and the prompt."""


class _Measures(NamedTuple):
    """What is counted in one image."""

    words: int
    correct: int
    ned: list[float]
    """How near each reference word is to the closest word that was read."""
    clipscore: float


def score_cvtg(lines: list[CvtgLine]) -> BenchmarkScore:
    """Return the share of words that were read, over all images and by group and number of regions."""
    measures = [_measure(line) for line in lines]
    parts = _average(measures)
    groups = group_by(zip(lines, measures, strict=True), lambda pair: (pair[0].group, pair[0].regions))
    for group, regions in sorted(groups):
        own = _average([one for _, one in groups[group, regions]])
        parts |= {f"{group}/{regions}/{name}": value for name, value in own.items()}
    return BenchmarkScore(parts["word_accuracy"], parts, [one._asdict() for one in measures])


def quoted_words(prompt: str) -> list[str]:
    """Return the words in straight single quotes, in lower case; apostrophes open and close quotes too."""
    return [word for text in _QUOTED.findall(prompt) for word in text.lower().split()]


def _measure(line: CvtgLine) -> _Measures:
    words = quoted_words(line.prompt)
    clipscore = CLIPSCORE_SCALE * max(0.0, line.clip_cosine)
    if line.ocr is None:
        return _Measures(len(words), 0, [0.0] * len(words), clipscore)
    read = [word for text in line.ocr for word in text.lower().split()] or [""]
    correct = sum(word in read for word in words)
    return _Measures(len(words), correct, [_nearness(word, read) for word in words], clipscore)


def _nearness(word: str, read: list[str]) -> float:
    nearest = difflib.get_close_matches(word, read, n=1, cutoff=0)[0]
    return 1 - Levenshtein.distance(word, nearest) / (max(len(word), len(nearest)) + LENGTH_OFFSET)


def _average(measures: list[_Measures]) -> dict[str, float | None]:
    num_words = sum(one.words for one in measures)
    return {
        "word_accuracy": sum(one.correct for one in measures) / num_words if num_words else 0.0,
        "ned": mean(value for one in measures for value in one.ned) or 0.0,
        "clipscore": mean(one.clipscore for one in measures),
    }
