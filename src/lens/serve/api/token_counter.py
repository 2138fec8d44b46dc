"""Token counts of prompts, by the tokenizer of each model. Loads no torch."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lens.models.checkpoints.diffusers_folder import component_folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class TokenCounter:
    """Counts tokens; safe to share among threads."""

    def __init__(self, folders: Mapping[str, Path]):
        """Take the folder of each model of the server, by name."""
        self._folders = folders
        self._tokenizers: dict[Path, Tokenizer] = {}
        self._lock = threading.Lock()

    def __call__(self, model: str, text: str) -> int:
        """Return the number of tokens of a text, without those of the prompt template."""
        if not text:
            return 0
        path = component_folder(self._folders[model], "tokenizer").resolve() / "tokenizer.json"
        with self._lock:
            tokenizer = self._tokenizers.get(path)
            if tokenizer is None:
                from tokenizers import Tokenizer

                tokenizer = self._tokenizers[path] = Tokenizer.from_file(str(path))
        return len(tokenizer.encode(text, add_special_tokens=False).ids)
