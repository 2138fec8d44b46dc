"""OneIG-Bench: five dimensions, each in English and Chinese.

The benchmark's own score is the plain mean of the five of one language.
"""

from typing import Any, NamedTuple, Self

from pydantic import model_validator
from rapidfuzz.distance import Levenshtein

from lens.evals.scores.observations import (
    BenchmarkScore,
    Language,
    Observation,
    by_language,
    check_answers,
    group_by,
    headline_of_languages,
    mean,
)
from lens.evals.scores.text_units import (
    count_matches,
    has_chinese,
    keep_letters,
    with_single_blanks,
    without_space,
)

PHRASES_OF_READER = ("addCriterion", "No text recognized.")
"""What the reader adds of its own; each is taken out once, in this order."""
MAX_EDIT_DISTANCE = {"en": 100, "zh": 50}
NO_PARENT = 0


class OneigLine(Observation):
    """What the lines of all dimensions have."""

    prompt_id: str
    language: Language


class AlignmentLine(OneigLine):
    """A judge's answers about one image."""

    category: str
    repeat: int = 0
    answers: dict[str, str | None]
    dependency: dict[str, list[int]]
    """The questions on which each depends; 0 is none."""

    @model_validator(mode="after")
    def _every_question_has_an_answer(self) -> Self:
        check_answers(self.answers, dependency=self.dependency)
        return self


class OneigTextLine(OneigLine):
    """What a reader saw in one image."""

    repeat: int = 0
    text: str
    """The cell of the benchmark's table: the printed form of a list, scored as it is."""
    ocr: str
    """The reader's raw answer."""


class ReasoningLine(OneigLine):
    """The cosine of one image and the prompt's reference answer."""

    repeat: int = 0
    cosine: float


class StyleLine(OneigLine):
    """Cosines of one image and the reference images of its style, by two encoders."""

    repeat: int = 0
    style: str | None
    """The cell of the benchmark's table; None where it is empty, and the line does not count."""
    csd: list[float]
    se: list[float]


class DiversityLine(OneigLine):
    """The distances of all pairs of a prompt's images."""

    category: str
    distances: list[float]


class _Reading(NamedTuple):
    """How a reader's answer differs from the reference."""

    edit_distance: int
    matched: int
    reference: int


def score_alignment(lines: list[AlignmentLine]) -> BenchmarkScore:
    """Return the share of questions that hold: by image, by prompt, then over all prompts at once."""
    scores: list[float | None] = [_alignment(line) for line in lines]
    return _score_prompts(lines, scores, lambda line: f"{line.category}_{line.prompt_id}")


def score_reasoning(lines: list[ReasoningLine]) -> BenchmarkScore:
    """Return the mean over prompts of the mean cosine of a prompt's images."""
    return _score_prompts(lines, [line.cosine for line in lines], lambda line: line.prompt_id)


def score_style(lines: list[StyleLine]) -> BenchmarkScore:
    """Return the mean over prompts, in all and by style, of the best cosines of a prompt's images."""
    scores = [None if line.style is None else (_best(line.csd) + _best(line.se)) / 2 for line in lines]
    return _score_prompts(
        lines,
        scores,
        lambda line: line.prompt_id,
        group=lambda line: None if line.style is None else line.style.lower().replace(" ", "_"),
    )


def score_diversity(lines: list[DiversityLine]) -> BenchmarkScore:
    """Return the mean over prompts, in all and by category, of the mean distance of a prompt's images."""
    scores = [mean(line.distances) for line in lines]
    scored = _score_prompts(
        lines, scores, lambda line: f"{line.category}_{line.prompt_id}", group=lambda line: line.category
    )
    return scored._replace(prompts=None)


def score_text(lines: list[OneigTextLine]) -> BenchmarkScore:
    """Return 1 less what edit distance, share of perfect images and share of words take off."""
    readings = [_read(line) for line in lines]
    parts: dict[str, float | None] = {}
    prompts: dict[str, dict[str, float | None]] = {}
    pairs = list(zip(lines, readings, strict=True))
    for language, own_lines in by_language(lines).items():
        own = [(line, reading) for line, reading in pairs if line.language == language]
        parts |= _text_parts(language, [reading for _, reading in own])
        by_prompt = group_by(own, lambda pair: pair[0].prompt_id)
        for prompt_id in sorted({line.prompt_id for line in own_lines}):
            of_prompt = [reading for _, reading in by_prompt[prompt_id]]
            prompts[f"{language}/{prompt_id}"] = {
                "ED": mean(one.edit_distance for one in of_prompt),
                "CR": mean(float(one.edit_distance == 0) for one in of_prompt),
                "WAC": mean(one.matched / one.reference if one.reference else 0.0 for one in of_prompt),
            }
    cases = [one._asdict() for one in readings]
    return BenchmarkScore(headline_of_languages(parts), parts, cases, prompts)


def _text_parts(language: Language, readings: list[_Reading]) -> dict[str, float | None]:
    num_units = sum(one.reference for one in readings)
    distance = sum(one.edit_distance for one in readings) / len(readings)
    completion = sum(one.edit_distance == 0 for one in readings) / len(readings)
    accuracy = sum(one.matched for one in readings) / num_units if num_units else 0.0
    limit = MAX_EDIT_DISTANCE[language]
    score = 1 - min(limit, distance) * (1 - completion) * (1 - accuracy) / limit
    return {
        language: score,
        f"{language}/ED": distance,
        f"{language}/CR": completion,
        f"{language}/WAC": accuracy,
    }


def _read(line: OneigTextLine) -> _Reading:
    answer = line.ocr
    for phrase in PHRASES_OF_READER:
        answer = answer.replace(phrase, "")
    reference, read = _normalize(line.text), _normalize(answer)
    # The units follow the text, whatever the language of the line.
    units = list if has_chinese(reference) else str.split
    matched = count_matches(units(reference), units(read))
    return _Reading(Levenshtein.distance(reference, read), matched, len(units(reference)))


def _normalize(text: str) -> str:
    kept = keep_letters(text)
    return without_space(kept) if has_chinese(kept) else with_single_blanks(kept)


def _alignment(line: AlignmentLine) -> float:
    """Return the share of questions that hold, and whose direct parents were answered right.

    A parent that only its own parent makes fail does not make its children fail.
    """
    is_right = {question: answer == "Yes" for question, answer in line.answers.items()}
    held = [
        right and all(is_right.get(str(parent), True) for parent in line.dependency.get(question, ()))
        for question, right in is_right.items()
    ]
    return sum(held) / len(held)


def _best(cosines: list[float]) -> float:
    return max(0.0, max(cosines, default=0.0))


def _score_prompts(
    lines: list[Any], scores: list[float | None], name_of: Any, group: Any = None
) -> BenchmarkScore:
    """Return the means of prompts by language, and by `group` within it; a score of None does not count."""
    cases = [{"score": score} for score in scores]
    score_of = {id(line): score for line, score in zip(lines, scores, strict=True)}
    parts: dict[str, float | None] = {}
    prompts: dict[str, float] = {}
    for language, own in by_language(lines).items():
        found: dict[str, float] = {}
        group_of: dict[str, str | None] = {}
        for name, members in group_by(own, name_of).items():
            counted = [score for line in members if (score := score_of[id(line)]) is not None]
            group_of[name] = group(members[0]) if group else None
            if counted:
                found[name] = sum(counted) / len(counted)
        parts[language] = mean(found.values())
        for one in dict.fromkeys(filter(None, group_of.values())):
            parts[f"{language}/{one}"] = mean(found[name] for name in found if group_of[name] == one)
        prompts |= {f"{language}/{name}": found[name] for name in sorted(found)}
    return BenchmarkScore(headline_of_languages(parts), parts, cases, prompts)
