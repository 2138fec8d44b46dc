"""LongText-Bench: the share of reference words, or Chinese characters, that a reader found in the images."""

from lens.evals.scores.observations import (
    BenchmarkScore,
    Language,
    Observation,
    by_language,
    headline_of_languages,
)
from lens.evals.scores.text_units import count_matches, keep_letters, with_single_blanks, without_space

NOTHING_READ = "No text recognized."
"""What the reader answers for an image without text; only with its full stop is it taken out."""


class LongTextLine(Observation):
    """What a reader saw in one image."""

    prompt_id: int
    repeat: int = 0
    language: Language
    text: list[str]
    """The reference texts."""
    ocr: str
    """The reader's raw answer."""


def score_longtext(lines: list[LongTextLine]) -> BenchmarkScore:
    """Return matched over reference units of each language, over all its images."""
    cases = [_count(line) for line in lines]
    parts: dict[str, float | None] = {}
    for language in by_language(lines):
        own = [case for case, line in zip(cases, lines, strict=True) if line.language == language]
        reference = sum(case["reference"] for case in own)
        parts[language] = sum(case["matched"] for case in own) / reference if reference else None
    return BenchmarkScore(headline_of_languages(parts), parts, cases)


def _count(line: LongTextLine) -> dict[str, int]:
    reference = _units(" ".join(line.text), line.language)
    read = _units(line.ocr.replace(NOTHING_READ, ""), line.language)
    return {"matched": count_matches(reference, read), "reference": len(reference)}


def _units(text: str, language: Language) -> list[str]:
    kept = keep_letters(text)
    return list(without_space(kept)) if language == "zh" else with_single_blanks(kept).lower().split()
