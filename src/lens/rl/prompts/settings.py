"""Settings of a set of prompts with rubrics: by a language model about a taxonomy, or of the nano world."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from lens.config import Settings
from lens.errors import SettingError
from lens.llm.client import LLMSettings
from lens.nano.tasks import TASKS
from lens.rl.prompts.taxonomy import CATEGORIES

PROMPT_SOURCES = ("taxonomy", "nano")


class PromptSetSettings(Settings):
    """What every recipe says."""

    out: Path
    """Folder of the set; the same command goes on with whatever is in it."""
    count: int = Field(ge=1)
    """Prompts wanted; a larger set begins with the smaller one."""
    seed: int = Field(0, ge=0)
    benchmarks: tuple[str, ...] = ("nano",)
    """Files with prompts that models are measured by, one a line; `nano` is our own test prompts."""

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
                raise SettingError("benchmarks", name, "paths of files with a prompt a line, or nano")
        return self


class NanoPromptSettings(Settings):
    """What kinds of prompts the grammar of the nano world generates."""

    kinds: tuple[str, ...] = TASKS
    """Kinds of prompt, which take turns."""
    dense_share: float = Field(0.2, ge=0, le=1)
    """Share of prompts of several sentences."""
    new_share: float = Field(0.7, ge=0, le=1)
    """Share of the brief ones that are in words which neither training nor tests use."""

    @model_validator(mode="after")
    def _kinds_are_known(self) -> Self:
        _check_choices("kinds", self.kinds, TASKS)
        return self


class NanoPromptSetSettings(PromptSetSettings, NanoPromptSettings):
    """Prompts by the grammar of the nano world, which needs no model; their rubrics are exact."""

    source: Literal["nano"] = "nano"


class TaxonomyPromptSetSettings(PromptSetSettings):
    """Prompts about the things of a taxonomy, written by a language model."""

    source: Literal["taxonomy"] = "taxonomy"
    model: LLMSettings
    """Writes the prompts, and the rubrics unless `rubric_model` does."""
    rubric_model: LLMSettings | None = None
    taxonomy: Path | None = None
    """File of a taxonomy; None takes the one that ships."""
    categories: tuple[str, ...] = CATEGORIES
    """Categories, which take turns."""
    text_share: float = Field(0.05, ge=0, le=1)
    """Share of prompts that ask for writing where the category does not."""
    min_words: int = Field(30, ge=1)
    max_words: int = Field(60, ge=1)
    max_similarity: float = Field(0.6, gt=0, le=1)
    """Shared words over all words of two prompts, from which on the later one falls."""
    overlap: Literal["drop", "report"] = "drop"
    """What becomes of a prompt that is so similar to one of a benchmark, or holds its words."""
    spare: float = Field(0.25, ge=0)
    """Further subjects that may be tried in place of those whose prompts fell, as a share of `count`."""
    min_criteria: int = Field(3, ge=1)
    max_criteria: int = Field(10, ge=1)
    """Of a rubric, beside the global one."""

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        _check_choices("categories", self.categories, CATEGORIES)
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
    """Return the settings of a recipe's values.

    Raises: SettingError for an unknown `source`, and for whatever else is wrong.
    """
    kind = values.get("source")
    if kind not in PROMPT_SOURCES:
        raise SettingError("source", kind, f"one of {', '.join(PROMPT_SOURCES)}", f"Say it in {source}.")
    return (NanoPromptSetSettings if kind == "nano" else TaxonomyPromptSetSettings).of(values, source)


def _check_choices(setting: str, chosen: tuple[str, ...], known: tuple[str, ...]) -> None:
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(known):
        raise SettingError(setting, list(chosen), f"one or more of {', '.join(known)}, each once")
