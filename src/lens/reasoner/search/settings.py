"""Settings of a search for a system prompt: how many prompts and pictures, and how sure a step must be."""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from lens.config import Settings
from lens.errors import SettingError


class SplitSettings(Settings):
    """Numbers of prompts; no prompt is in two splits."""

    feedback: int = Field(40, ge=2)
    """Prompts whose failures the rewriter reads."""
    selection: int = Field(48, ge=2)
    """Prompts that candidates are compared on."""
    test: int = Field(48, ge=2)
    """Prompts that are drawn once, at the end."""


class BudgetSettings(Settings):
    """Where a search ends; its last comparison is always drawn, and is inside the budget of pictures."""

    pictures: int = Field(2000, ge=1)
    """Pictures in all."""
    tokens: int = Field(2_000_000, ge=1)
    """Tokens of the language models after which no further candidate is asked for."""
    proposals: int = Field(60, ge=1)
    """Candidates that are asked for at most, those included that fail before a picture is drawn."""


class GateSettings(Settings):
    """What a candidate must keep before a picture of it is drawn."""

    max_failed_share: float = Field(0.0, ge=0, lt=1)
    """Largest share of requests for which no valid prompt came."""
    max_words: int = Field(900, ge=20)
    """Largest length of a system prompt."""


class FinalSettings(Settings):
    """The last comparison: on the test split, with other seeds than the search had."""

    candidates: int = Field(3, ge=1)
    """Best candidates of the search that are compared with the start."""
    images_per_prompt: int = Field(4, ge=1)


class SearchSettings(Settings):
    """Settings of a search."""

    out: Path
    """Folder of the search; a stopped search resumes from its files."""
    seed: int = Field(0, ge=0)
    """Of the splits, of the pictures, and of what is proposed."""
    splits: SplitSettings = SplitSettings.of({})
    images_per_prompt: int = Field(2, ge=1)
    """Pictures of each prompt, of the same seeds for every candidate."""
    minibatch: int = Field(8, ge=2)
    """Prompts whose failures the rewriter reads, and that a proposal is drawn on first."""
    max_minibatches: int = Field(3, ge=1)
    """Minibatches until a proposal that gains has to be better than by chance."""
    confidence: float = Field(0.8, ge=0.5, lt=1)
    """Of the paired one-sided bound by which a candidate must beat its parent on the minibatch; at 0.5 any
    gain will do."""
    margin: float = Field(0.0, ge=0, lt=1)
    """Least gain of the score that this bound must exceed."""
    parent_confidence: float = Field(0.9, ge=0.5, lt=1)
    """Of the bound by which the best candidate must beat another one that is no parent any more."""
    rewriter_tokens: int = Field(4000, ge=100)
    """Largest length of an answer of the rewriter, with what it thinks before."""
    concurrency: int = Field(4, ge=1)
    """Requests that the reasoner answers at the same time."""
    gates: GateSettings = GateSettings.of({})
    final: FinalSettings = FinalSettings.of({})
    budget: BudgetSettings = BudgetSettings.of({})

    @property
    def num_final_pictures(self) -> int:
        """Return the pictures of the last comparison, the start included."""
        return (self.final.candidates + 1) * self.splits.test * self.final.images_per_prompt

    @property
    def num_proposal_pictures(self) -> int:
        """Return the most pictures that one proposal can take."""
        in_minibatches = min(self.max_minibatches * self.minibatch, self.splits.feedback)
        return (2 * in_minibatches + self.splits.selection) * self.images_per_prompt

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.minibatch > self.splits.feedback:
            needs = f"at most splits.feedback, {self.splits.feedback}"
            raise SettingError("minibatch", self.minibatch, needs)
        start = self.splits.selection * self.images_per_prompt
        needed = start + self.num_proposal_pictures + self.num_final_pictures
        if self.budget.pictures < needed:
            parts = f"{start} of the start, {self.num_proposal_pictures} of one proposal, "
            needs = f"at least {needed}: {parts}{self.num_final_pictures} of the last comparison"
            raise SettingError("budget.pictures", self.budget.pictures, needs)
        return self
