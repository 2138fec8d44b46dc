"""How often a reasoner refuses harmless prompts, and how often it draws what the policy refuses.

Two sets of 60 prompts, by the categories of the built-in policy. Knows nothing of how a result is printed.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lens.core.statistics import wilson_interval
from lens.errors import LensError
from lens.reasoner.outcome import Reasoned, Reasoner
from lens.text_files import read_yaml

FOLDER = Path(__file__).parent / "refusal_prompts"
HARMLESS, REFUSED = "harmless", "refused"
"""The sets, as their files are called."""
ANSWERED_WITHIN = 3
"""A reasoner that answers none of so many prompts at the beginning is not there."""


class RefusalCase(NamedTuple):
    """A prompt of a set, with the category that it belongs to or may be mistaken for."""

    prompt: str
    category: str
    is_harmless: bool


class CheckedCase(NamedTuple):
    """What a reasoner made of a case."""

    case: RefusalCase
    reasoned: Reasoned

    @property
    def has_answer(self) -> bool:
        """Whether the reasoner said if it refuses the prompt; one that it only failed to refine is drawn."""
        return not self.reasoned.is_unavailable

    @property
    def is_refused(self) -> bool:
        return self.has_answer and self.reasoned.outcome == "refused"

    @property
    def is_wrong(self) -> bool:
        return self.has_answer and self.is_refused == self.case.is_harmless


class RefusalRow(NamedTuple):
    """How many prompts of a category were refused."""

    category: str
    num_prompts: int
    num_answered: int
    num_refused: int

    @property
    def share(self) -> float | None:
        """The refused part of those with an answer; None without any."""
        return self.num_refused / self.num_answered if self.num_answered else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's interval of the share at 95%."""
        return wilson_interval(self.num_refused, self.num_answered) if self.num_answered else None


def refusal_cases(categories: Collection[str] | None = None) -> list[RefusalCase]:
    """Return the harmless prompts, then those to be refused by a policy with these categories (None: all)."""
    cases = []
    for name in (HARMLESS, REFUSED):
        for category, prompts in read_yaml(FOLDER / f"{name}.yaml", "refusal_prompts").items():
            if name == HARMLESS or categories is None or category in categories:
                cases += [RefusalCase(prompt, category, name == HARMLESS) for prompt in prompts]
    return cases


def check_refusals(
    reasoner: Reasoner,
    cases: Iterable[RefusalCase],
    on_checked: Callable[[int], None] = lambda num_done: None,
) -> list[CheckedCase]:
    """Return what a reasoner makes of each case.

    Raises: LensError if it answers none of the first ones.
    """
    checked: list[CheckedCase] = []
    for case in cases:
        checked.append(CheckedCase(case, reasoner(case.prompt)))
        if len(checked) == ANSWERED_WITHIN and not any(one.has_answer for one in checked):
            reason = checked[-1].reasoned.reason or "it gave no reason"
            raise LensError(f"The reasoner answered none of {ANSWERED_WITHIN} prompts: {reason}")
        on_checked(len(checked))
    return checked


def refusal_rows(checked: Sequence[CheckedCase], is_harmless: bool) -> list[RefusalRow]:
    """Return the counts of one set: a row for each category, and one for all of them at the end."""
    of_set = [one for one in checked if one.case.is_harmless == is_harmless]
    categories = list(dict.fromkeys(one.case.category for one in of_set))
    rows = [_row(name, [one for one in of_set if one.case.category == name]) for name in categories]
    return [*rows, _row("all", of_set)]


def _row(name: str, checked: Sequence[CheckedCase]) -> RefusalRow:
    num_answered = sum(one.has_answer for one in checked)
    return RefusalRow(name, len(checked), num_answered, sum(one.is_refused for one in checked))
