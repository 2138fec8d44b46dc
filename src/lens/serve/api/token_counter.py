"""Token counts of prompts, by the tokenizer of each model."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lens.models.checkpoints.components.tokenizer import load_tokenizer_backend

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TokenCounter:
    """Counts tokens; safe to share among threads."""

    def __init__(self, paths: Mapping[str, Path]):
        """Take the folder or file of each model's tokenizer, by the model's name."""
        self._paths = paths
        self._tokenizers: dict[Path, Tokenizer] = {}
        self._lock = threading.Lock()

    def __call__(self, model: str, text: str) -> int:
        """Return the number of tokens of a text, without those of the prompt template."""
        if not text:
            return 0
        path = self._paths[model]
        with self._lock:
            tokenizer = self._tokenizers.get(path)
            if tokenizer is None:
                tokenizer = self._tokenizers[path] = load_tokenizer_backend(path)
        return len(tokenizer.encode(text, add_special_tokens=False).ids)
