"""What a nano model knows: the world of the six tasks, or the grown one. Its tokenizer tells which.

Knows nothing of prompts.
"""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

from lens.nano.world.colours import COLOURS, FIRST_COLOURS
from lens.nano.world.objects import FIRST_CLASSES, OBJECT_CLASSES
from lens.nano.world.scene_spec import MAX_COUNT
from lens.text_files import read_text


class NanoWorld(NamedTuple):
    """The things, colours and numbers that a model was trained on."""

    name: str
    class_names: frozenset[str]
    backgrounds: tuple[str, ...]
    max_count: int
    """Most things of a kind."""
    has_colours: bool
    """Whether things come in other colours than their own."""
    has_signs: bool


FIRST_WORLD = NanoWorld("six tasks", frozenset(FIRST_CLASSES), FIRST_COLOURS, 5, False, False)
"""The world of the six tasks."""
GROWN_WORLD = NanoWorld("grown", frozenset(OBJECT_CLASSES), tuple(COLOURS), MAX_COUNT, True, True)


@cache
def world_of(tokenizer_file: Path) -> NanoWorld:
    """Return the world of the model that a `tokenizer.json` belongs to.

    A tokenizer has the words whole that its training captions were made of.
    Raises: SettingError for a file that cannot be read.
    """
    text = read_text(tokenizer_file, "tokenizer", "a readable tokenizer.json")
    vocabulary = json.loads(text)["model"]["vocab"]
    words = {word for name in GROWN_WORLD.class_names for word in name.split()}
    has_all = all(f"\u0120{word}" in vocabulary for word in words)  # the mark of a space before a word
    return GROWN_WORLD if has_all else FIRST_WORLD
