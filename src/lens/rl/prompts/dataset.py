"""Prompts of reinforcement learning with their rubrics, and their file format.

A file has one line a prompt (JSON). Knows nothing of language models or rewards. Spec: section 9.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field

from lens.config import Settings
from lens.errors import SettingError
from lens.files import write_bytes_atomic
from lens.text_files import read_json_lines

GLOBAL_CRITERION = "coherent"
"""Name of the criterion that every rubric has: the whole image is coherent and plausible."""
GLOBAL_RUBRIC = "The whole image is structurally coherent and physically plausible."
"""Text of that criterion."""


class RLPrompt(Settings):
    """A prompt with its origin and the criteria for its images."""

    prompt: str = Field(min_length=1)
    category: str
    """Category of the taxonomy, such as `animal`; in the nano world the name of a task."""
    item: str
    """Item that the prompt is about, such as `red fox`."""
    dimensions: tuple[str, ...] = ()
    """Required aspects of the prompt: attribute, spatial, count, interaction, colour, text."""
    keypoints: tuple[str, ...] = ()
    """Phrases of the prompt that state the dimensions."""
    rubric: dict[str, str] = Field(default_factory=dict)
    """Criteria by short name."""
    expected: dict[str, Any] | None = None
    """What an image of the nano world must show: the fields of a `SceneSpec`; None for other prompts."""
    text: str | None = None
    """Text in the image, if the prompt asks for any."""


def read_prompts(path: Path) -> list[RLPrompt]:
    """Return the prompts of a file.

    Raises: SettingError for a file that is missing, is empty, or has a line that is no prompt.
    """
    needs = "a file with one prompt (JSON object) a line"
    if not path.is_file():
        raise SettingError("prompts", str(path), needs, "`lens rl prompts RECIPE` makes one.")
    prompts = [RLPrompt.of(values, line) for line, values in read_json_lines(path, "prompts", needs)]
    if not prompts:
        raise SettingError("prompts", str(path), "at least one prompt")
    return prompts


def write_prompts(prompts: Iterable[RLPrompt], path: Path) -> None:
    """Write prompts, one a line."""
    lines = (json.dumps(one.model_dump(mode="json"), ensure_ascii=False) for one in prompts)
    write_bytes_atomic(path, "".join(f"{line}\n" for line in lines).encode())
