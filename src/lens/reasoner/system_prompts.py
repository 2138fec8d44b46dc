"""System prompts: files with a name, a hash, and whether they are shown the metadata of a scorer.

Spec: section 11.
"""

import hashlib
from functools import cached_property
from pathlib import Path

from lens.config import Settings
from lens.errors import SettingError
from lens.text_files import check_text, read_text

FOLDER = Path(__file__).parent / "system_prompts"
METADATA_MARK = "# sees-metadata"
"""First line of a file whose prompt is shown what the scorer knows; it is not part of the prompt."""
MAX_CHARACTERS = 20_000


class SystemPrompt(Settings):
    """What a language model is told before it gets a request."""

    name: str
    text: str
    sees_metadata: bool = False
    """Whether requests come with the metadata of a scorer, so that scores are not the model's own."""

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the text, in hexadecimal digits."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def system_prompt_names() -> list[str]:
    """Return the names of the system prompts of Lens."""
    return sorted(file.stem for file in FOLDER.glob("*.txt"))


def read_system_prompt(name: str, setting: str = "reasoner.system_prompt") -> SystemPrompt:
    """Return a system prompt of Lens by its name, or that of a text file.

    Raises: SettingError for an unknown name, and for a file without words or with too many of them.
    """
    needs = f"one of {', '.join(system_prompt_names())}, or the path of a text file"
    if name in system_prompt_names():
        path, known_as = FOLDER / f"{name}.txt", name
    else:
        path = Path(name)
        known_as = path.stem
    return parse_system_prompt(known_as, read_text(path, setting, needs), setting)


def parse_system_prompt(name: str, content: str, setting: str = "reasoner.system_prompt") -> SystemPrompt:
    """Return the system prompt of a file's content. Raises: SettingError for too few or too many words."""
    first, _, rest = content.partition("\n")
    sees_metadata = first.strip() == METADATA_MARK
    text = check_text(rest if sees_metadata else content).strip()
    if not text or len(text) > MAX_CHARACTERS:
        needs = f"between 1 and {MAX_CHARACTERS} characters"
        raise SettingError(setting, name, needs, f"It has {len(text)}.")
    return SystemPrompt(name=name, text=text, sees_metadata=sees_metadata)
