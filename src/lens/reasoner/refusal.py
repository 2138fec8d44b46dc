"""The refusal question: which category of the operator's policy a request falls into, before it is rewritten.

The answer is one of a few names, so a sentence that refuses can never become a prompt.
"""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from lens.config import Settings
from lens.errors import SettingError

ALLOWED = "none"
"""The answer for a request that no category refuses."""


class RefusalCategory(Settings):
    """Requests of a kind that the operator does not draw."""

    name: str = Field(min_length=1, max_length=60, pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")
    """Shown to the user and kept in the audit file."""
    description: str = Field(min_length=1)
    """For the language model: what belongs to the category, and what does not."""


class RefusalPolicy(Settings):
    """The section `reasoner` of a policy file."""

    categories: tuple[RefusalCategory, ...] = ()
    """Without categories, no question is asked."""
    when_down: Literal["refuse", "allow"] = "refuse"
    """What happens to a request while the question has no answer."""

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        check_categories(self.categories)
        return self


def check_categories(categories: Sequence[RefusalCategory]) -> None:
    """Raise SettingError for two categories of one name, or one with the name of the other answer."""
    names = [category.name.casefold() for category in categories]
    for name in names:
        if names.count(name) > 1 or name == ALLOWED:
            needs = f"names that differ from one another and from {ALLOWED}"
            raise SettingError("reasoner.categories", name, needs, "Rename one in the policy file.")
