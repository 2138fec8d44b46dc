"""The reasoner in front of a language model: refusal question, rewriting, checks, one repair.

A failure of the model is an outcome, never an exception. Spec: section 11.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from lens.reasoner.language_model import LanguageModel
from lens.reasoner.outcome import Reasoned
from lens.reasoner.refusal import RefusalCategory, check_categories
from lens.reasoner.settings import ReasonerSettings
from lens.reasoner.system_prompts import read_system_prompt


class RewritingReasoner:
    """Refines requests with a language model; threads may share it."""

    def __init__(
        self,
        model: LanguageModel,
        settings: ReasonerSettings,
        *,
        categories: Sequence[RefusalCategory] = (),
        count_tokens: Callable[[str], int],
        when_down: Literal["refuse", "allow"] = "refuse",
        cache_file: Path | None = None,
    ):
        check_categories(categories)
        self._model, self._settings, self._count_tokens = model, settings, count_tokens
        self._categories, self._when_down = tuple(categories), when_down
        self.system_prompt = read_system_prompt(settings.system_prompt)

    def __call__(
        self, prompt: str, *, seed: int = 0, should_stop: Callable[[], bool] | None = None
    ) -> Reasoned:
        """Return the answer to a request. Raises: ReasoningStoppedError."""
        raise NotImplementedError
