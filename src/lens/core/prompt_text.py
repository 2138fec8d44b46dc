"""What may be a prompt, and what is told of one that a model does not read to its end.

The command, the HTTP API, the studio and the pipeline share these rules. Knows nothing of tokenizers. Free of
torch, so that a prompt is refused before anything is loaded.
"""

import re
from typing import NamedTuple

from lens.errors import SettingError

MAX_PROMPT_CHARACTERS = 32_000
"""Models read about 400 tokens; longer texts are files that were passed by mistake."""
SHOWN_CHARACTERS = 40
"""What messages repeat of a prompt."""
UNREADABLE = re.compile(r"[\0\ud800-\udfff]")
"""NUL, and halves of surrogate pairs: Python puts them where bytes of a terminal are not UTF-8."""


def check_prompt_text(
    text: str, setting: str = "prompt", max_characters: int = MAX_PROMPT_CHARACTERS
) -> None:
    """Raise SettingError for a text that is too long or that no tokenizer reads; an empty one is accepted."""
    if len(text) > max_characters:
        shown = f"{text[:SHOWN_CHARACTERS]}..."
        fix = f"It has {len(text)}; models read about 400 words."
        raise SettingError(setting, shown, f"at most {max_characters} characters", fix)
    found = UNREADABLE.search(text)
    if found is None:
        return
    shown = text[max(0, found.start() - SHOWN_CHARACTERS // 2) :][:SHOWN_CHARACTERS]
    if found[0] == "\0":
        raise SettingError(setting, shown, "text without NUL characters", "Remove them.")
    raise SettingError(setting, shown, "text in UTF-8", "Save or send it in that encoding.")


class TokenCount(NamedTuple):
    """The tokens of a prompt, and how many of them a model reads."""

    num_tokens: int
    room: int
    """Tokens that fit beside those of the prompt template."""
    dropped: str = ""
    """The beginning of what is not read."""

    @property
    def num_read(self) -> int:
        return min(self.num_tokens, self.room)

    def warning(self, what: str = "prompt") -> str | None:
        """Return what is told of a prompt that is cut; None for one that is read to its end."""
        if self.num_tokens <= self.room:
            return None
        return (
            f"The {what} has {self.num_tokens} tokens, of which {self.room} fit: the last "
            f"{self.num_tokens - self.room} are dropped, from {self.dropped!r} on."
        )
