"""Observations: what models saw in images, one JSON object a line, and what a scorer returns for them.

Knows nothing of images, models or prompt files: a file of observations has all that a score needs.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import ConfigDict

from lens.config import Settings
from lens.errors import SettingError
from lens.text_files import read_json_lines

Language = Literal["en", "zh"]


class Observation(Settings):
    """Base class of the lines of a file. Unknown keys are ignored; `note` is one of them."""

    model_config = ConfigDict(extra="ignore", strict=True)


class BenchmarkScore(NamedTuple):
    """The score of a file of observations, with all that it consists of. Numbers are not rounded."""

    headline: float | None
    """None for a file in which nothing counts."""
    parts: dict[str, float | None]
    """None for a part without members."""
    cases: list[dict[str, Any]]
    """One for each line, in the order of the lines."""
    prompts: dict[str, Any] | None = None
    """For benchmarks that score each prompt."""

    def to_json(self, benchmark: str) -> dict[str, Any]:
        """Return the object that the command prints."""
        values = {"benchmark": benchmark, "headline": self.headline, "parts": self.parts}
        return values | ({} if self.prompts is None else {"prompts": self.prompts}) | {"cases": self.cases}


T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
Line = TypeVar("Line", bound=Observation)


def read_observations(path: Path, line_class: type[Line]) -> list[Line]:
    """Return the lines of a file.

    Raises: SettingError that names the file, the line and the key.
    """
    objects = read_json_lines(path, "OBSERVATIONS", "a readable UTF-8 file of JSON lines")
    lines = [line_class.of(values, source=place) for place, values in objects]
    if not lines:
        raise SettingError("OBSERVATIONS", str(path), "at least one line")
    return lines


def check_answers(answers: Mapping[str, str | None], **questions_of: Mapping[str, Any]) -> None:
    """Raise a SettingError if `answers` is empty, or a key of another mapping has no answer."""
    if not answers:
        raise SettingError("answers", answers, "at least one answer")
    for name, questions in questions_of.items():
        if missing := [question for question in questions if question not in answers]:
            raise SettingError(name, missing[0], f"questions that have an answer: {', '.join(answers)}")


def mean(values: Iterable[float]) -> float | None:
    """Return the plain mean; None if there is no value."""
    found = list(values)
    return sum(found) / len(found) if found else None


def group_by(values: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """Return values by key, both in the order in which they come."""
    groups: dict[K, list[T]] = {}
    for value in values:
        groups.setdefault(key(value), []).append(value)
    return groups


def headline_of_languages(parts: dict[str, float | None]) -> float | None:
    """Return the score of a benchmark in two languages: English where there is any."""
    return parts["en"] if "en" in parts else parts.get("zh")


def by_language(lines: Sequence[Any]) -> dict[Language, list[Any]]:
    """Return the lines of each language, English first."""
    groups = group_by(lines, lambda line: line.language)
    return {language: groups[language] for language in ("en", "zh") if language in groups}
