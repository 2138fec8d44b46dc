"""Taxonomy of prompts: ten categories with kinds and items, and the subjects sampled from it.

A subject is an item with the dimensions of its prompt; the seed and its number in its category determine it.
Knows nothing of language models. Paper: Lens report, post-training section (Lens-RL-8K).
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from lens.errors import SettingError
from lens.text_files import read_yaml

CATEGORIES = (
    "human", "object", "animal", "plant", "scene", "food", "event", "fictional world", "text",
    "UI and graphic design",
)  # fmt: skip
TEXT_CATEGORIES = ("text", "UI and graphic design")
"""Categories whose prompts always ask for text in the image."""
DIMENSIONS = ("attribute", "spatial", "count", "interaction", "colour")
MAX_DIMENSIONS = 4
DEFAULT_TAXONOMY_PATH = Path(__file__).with_name("taxonomy.yaml")


class TaxonomyItem(NamedTuple):
    """One item of the taxonomy."""

    category: str
    kind: str
    """Its sub-category, such as `wolves and foxes`."""
    name: str


class PromptSubject(NamedTuple):
    """What one prompt must be about."""

    item: TaxonomyItem
    number: int
    """Its number in its category."""
    dimensions: tuple[str, ...]
    """One to four, in the order of DIMENSIONS, `text` last."""

    @property
    def name(self) -> str:
        """Return a unique name."""
        return f"{self.item.category}/{self.number}"


Taxonomy = dict[str, tuple[TaxonomyItem, ...]]
"""The items of each category."""


def read_taxonomy(path: Path | None = None) -> Taxonomy:
    """Return a taxonomy; without a path, the packaged one.

    Raises: SettingError unless it has the ten categories, each with distinct items in words.
    """
    path = path or DEFAULT_TAXONOMY_PATH
    if path == DEFAULT_TAXONOMY_PATH:
        values = yaml.load(path.read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # faster
    else:
        values = read_yaml(path, "taxonomy")
    if not isinstance(values, dict) or set(values) != set(CATEGORIES):
        found = sorted(map(str, values)) if isinstance(values, dict) else values
        raise SettingError(f"taxonomy ({path})", found, f"exactly these categories: {', '.join(CATEGORIES)}")
    return {category: _parse_items(category, values[category], path) for category in CATEGORIES}


def subjects(
    taxonomy: Taxonomy, categories: Sequence[str], seed: int, text_share: float, start: int, stop: int
) -> list[PromptSubject]:
    """Return the subjects from `start` to `stop` in the order of a set; the categories alternate.

    The subjects of a category do not depend on the other categories. Items repeat with other dimensions once
    all items of their category were used.
    """
    sources = [_category_subjects(taxonomy[category], seed, text_share) for category in categories]
    interleaved_subjects = (next(sources[place % len(sources)]) for place in count())
    return list(islice(interleaved_subjects, start, stop))


def _category_subjects(
    items: tuple[TaxonomyItem, ...], seed: int, text_share: float
) -> Iterator[PromptSubject]:
    category = items[0].category
    key = int.from_bytes(hashlib.blake2b(category.encode(), digest_size=4).digest(), "big")
    for number in count():
        lap, place = divmod(number, len(items))
        if place == 0:
            order = np.random.default_rng([seed, key, 0, lap]).permutation(len(items))
        rng = np.random.default_rng([seed, key, 1, number])
        yield PromptSubject(
            items[order[place]], number, _sample_dimensions(rng, category in TEXT_CATEGORIES, text_share)
        )


def _sample_dimensions(rng: np.random.Generator, has_text: bool, text_share: float) -> tuple[str, ...]:
    """Return one to four random dimensions; text in the image, if required, is one of them."""
    total = int(rng.integers(1, MAX_DIMENSIONS + 1))
    has_text = bool(rng.random() < text_share) or has_text
    indices = rng.choice(len(DIMENSIONS), total - has_text, replace=False)
    return (*(DIMENSIONS[index] for index in sorted(indices)), *(("text",) if has_text else ()))


def _parse_items(category: str, kinds: object, path: Path) -> tuple[TaxonomyItem, ...]:
    where = f"taxonomy ({path}), {category}"
    if not isinstance(kinds, dict) or not kinds:
        raise SettingError(where, kinds, "kinds, each with a list of items")
    items: dict[str, TaxonomyItem] = {}
    for kind, names in kinds.items():
        if not isinstance(names, list) or not names:
            raise SettingError(f"{where}, {kind}", names, "a list of items")
        for name in names:
            if not isinstance(name, str) or not name.strip():
                raise SettingError(f"{where}, {kind}", name, "words, in quotes if YAML reads another type")
            if name.lower() in items:
                raise SettingError(f"{where}, {kind}", name, "items that occur once in a category")
            items[name.lower()] = TaxonomyItem(category, str(kind), name)
    return tuple(items.values())
