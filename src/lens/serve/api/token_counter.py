"""Token counts of prompts, by the tokenizer and the prompt template of each model."""

import threading
from collections.abc import Mapping
from pathlib import Path

from lens.core.prompt_text import TokenCount
from lens.models.checkpoints.components.tokenizer import load_tokenizer
from lens.models.prompt_date import PINNED_DATE
from lens.models.prompt_template import PromptTemplate


class TokenCounter:
    """Counts tokens; safe to share among threads."""

    def __init__(self, paths: Mapping[str, Path], dates: Mapping[str, str] | None = None):
        """Take the folder or file of each model's tokenizer, and its prompt date, by the model's name."""
        self._paths, self._dates = paths, dates or {}
        self._templates: dict[tuple[Path, str], PromptTemplate] = {}
        self._lock = threading.Lock()

    def __call__(self, model: str, text: str) -> TokenCount:
        """Return the number of tokens of a text, without those of the prompt template, and how many fit."""
        key = self._paths[model], self._dates.get(model, PINNED_DATE)
        with self._lock:  # a tokenizer is changed while it splits the control tokens in a prompt
            if key not in self._templates:
                self._templates[key] = PromptTemplate(load_tokenizer(key[0]), key[1])
            return self._templates[key].count_tokens(text)
