"""Prompts to tune on, each with its rubric: what they hold, and the file that keeps them.

A file is a line a prompt (JSON). Knows nothing of who wrote or who judges. Spec: section 9.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field

from lens.config import Settings
from lens.errors import SettingError
from lens.files import write_bytes_atomic

GLOBAL_CRITERION = "coherent"
"""Name of the criterion that every rubric has: the whole image is coherent and plausible."""
GLOBAL_RUBRIC = "The whole image is structurally coherent and physically plausible."
"""What that criterion asks to verify."""


class RLPrompt(Settings):
    """A prompt, where it comes from, and what a judge verifies of its pictures."""

    prompt: str = Field(min_length=1)
    category: str
    """Of the taxonomy, such as `animal`; a task's name in the nano world."""
    item: str
    """What it is about, such as `red fox`."""
    dimensions: tuple[str, ...] = ()
    """What the prompt was asked to speak of: attribute, spatial, count, interaction, colour, text."""
    keypoints: tuple[str, ...] = ()
    """Words that stand in the prompt because the dimensions asked for them."""
    rubric: dict[str, str] = Field(default_factory=dict)
    """Criteria by short name: what to verify."""
    expected: dict[str, Any] | None = None
    """What a picture of the nano world must show: an `Expected` by its fields; None for other prompts."""
    text: str | None = None
    """What is written in the picture, where the prompt asks for writing."""


def read_prompts(path: Path) -> list[RLPrompt]:
    """Return the prompts of a file.

    Raises: SettingError for a file that is not there, is empty, or has a line that is no prompt.
    """
    if not path.is_file():
        fix = "`lens rl prompts RECIPE` makes one."
        raise SettingError("prompts", str(path), "a file of prompts, one JSON object a line", fix)
    prompts = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            prompts.append(RLPrompt.of(json.loads(line), f"{path}, line {number}"))
        except ValueError as error:
            if isinstance(error, SettingError):
                raise
            raise SettingError("prompts", f"{path}, line {number}", "a JSON object") from error
    if not prompts:
        raise SettingError("prompts", str(path), "at least one prompt")
    return prompts


def write_prompts(prompts: Iterable[RLPrompt], path: Path) -> None:
    """Write prompts, a line each, complete or not at all."""
    lines = (json.dumps(one.model_dump(mode="json"), ensure_ascii=False) for one in prompts)
    write_bytes_atomic(path, "".join(f"{line}\n" for line in lines).encode())
