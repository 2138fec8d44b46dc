"""Settings of a prompt set with rubrics: from a taxonomy by a language model, or from the nano world."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from lens.config import Settings, remedy
from lens.errors import SettingError
from lens.llm.client import LLMSettings
from lens.nano.tasks import TASKS
from lens.rl.prompts.taxonomy import CATEGORIES

PROMPT_SOURCES = ("taxonomy", "nano")


class PromptSetSettings(Settings):
    """Settings of every prompt set."""

    out: Path
    """Folder of the set; a stopped build resumes from its files."""
    count: int = Field(ge=1)
    """Number of prompts; a larger set begins with the smaller one."""
    seed: int = Field(0, ge=0)
    benchmarks: tuple[str, ...] = ("nano",)
    """Files with prompts of benchmarks, one a line; `nano` stands for the test prompts of the nano world."""

    @property
    def prompts_file(self) -> Path:
        return self.out / "prompts.jsonl"

    @property
    def rubrics_file(self) -> Path:
        """The same prompts with their rubrics."""
        return self.out / "rubrics.jsonl"

    @model_validator(mode="after")
    def _benchmarks_are_there(self) -> Self:
        for name in self.benchmarks:
            if name != "nano" and not Path(name).is_file():
                raise SettingError("benchmarks", name, "paths of files with one prompt a line, or nano")
        return self


OWN_WORDS = "own_words"
"""Kind of prompts of the whole nano world, in English as people write it."""
KINDS = (*TASKS, OWN_WORDS)


class NanoPromptSettings(Settings):
    """Prompts of the nano world with exact rubrics."""

    kinds: tuple[str, ...] = TASKS
    """Kinds of prompt, those of the six tasks and `own_words`; they alternate."""
    dense_share: float = Field(0.2, ge=0, le=1)
    """Share of prompts of several sentences."""
    new_share: float = Field(0.7, ge=0, le=1)
    """Share of brief prompts with phrases that neither training nor tests use."""

    @model_validator(mode="after")
    def _kinds_are_known(self) -> Self:
        check_choices("kinds", self.kinds, KINDS)
        return self


class NanoPromptSetSettings(PromptSetSettings, NanoPromptSettings):
    """Prompts from the grammar of the nano world, without a language model; their rubrics are exact."""

    source: Literal["nano"] = "nano"


class TaxonomyPromptSetSettings(PromptSetSettings):
    """Prompts about the items of a taxonomy, written by a language model."""

    source: Literal["taxonomy"] = "taxonomy"
    model: LLMSettings
    """Writes the prompts, and the rubrics unless `rubric_model` does."""
    rubric_model: LLMSettings | None = None
    taxonomy: Path | None = None
    """File of a taxonomy; None uses the packaged one."""
    categories: tuple[str, ...] = CATEGORIES
    """Categories; they alternate."""
    text_share: float = Field(0.05, ge=0, le=1)
    """Share of prompts with text in the image, in categories that do not require it."""
    min_words: int = Field(30, ge=1)
    max_words: int = Field(60, ge=1)
    max_similarity: float = Field(0.6, gt=0, le=1)
    """Jaccard similarity of words at which the later one of two prompts is rejected."""
    overlap: Literal["drop", "report"] = "drop"
    """Whether a prompt that overlaps a benchmark is rejected, or only listed in the summary."""
    spare: float = Field(0.25, ge=0)
    """Spare subjects for rejected prompts, as a share of `count`."""
    min_criteria: int = Field(3, ge=1)
    max_criteria: int = Field(10, ge=1)
    """Criteria of a rubric, without the global one."""

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        check_choices("categories", self.categories, CATEGORIES)
        for least, most in (("min_words", "max_words"), ("min_criteria", "max_criteria")):
            if getattr(self, least) > getattr(self, most):
                needs = f"no more than {most}, {getattr(self, most)}"
                raise SettingError(least, getattr(self, least), needs)
        if self.taxonomy is not None and not self.taxonomy.is_file():
            raise SettingError("taxonomy", str(self.taxonomy), "the path of a YAML file")
        return self


def parse_prompt_settings(
    values: dict[str, Any], source: str
) -> NanoPromptSetSettings | TaxonomyPromptSetSettings:
    """Return the settings from the values of a recipe.

    Raises: SettingError for an unknown `source` and for invalid settings.
    """
    kind = values.get("source")
    if kind not in PROMPT_SOURCES:
        fix = remedy(values, ("source",), source)
        raise SettingError("source", kind, f"one of {', '.join(PROMPT_SOURCES)}", fix)
    return (NanoPromptSetSettings if kind == "nano" else TaxonomyPromptSetSettings).of(values, source)


def check_choices(setting: str, chosen: Sequence[str], known: Sequence[str]) -> None:
    """Raise a SettingError unless `chosen` has at least one item and only known ones, each once."""
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(known):
        raise SettingError(setting, list(chosen), f"one or more of {', '.join(known)}, each once")
