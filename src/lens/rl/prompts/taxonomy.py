"""What prompts are about: ten categories, their kinds, the things of each kind; and what each is asked for.

A subject is a thing with the dimensions that its prompt speaks of, fixed by the seed and its number in its
category. Knows nothing of language models. Paper: Lens report, post-training section (Lens-RL-8K).
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from lens.errors import SettingError

CATEGORIES = (
    "human", "object", "animal", "plant", "scene", "food", "event", "fictional world", "text",
    "UI and graphic design",
)  # fmt: skip
TEXT_CATEGORIES = ("text", "UI and graphic design")
"""Categories whose prompts always ask for writing."""
DIMENSIONS = ("attribute", "spatial", "count", "interaction", "colour")
MAX_DIMENSIONS = 4
DEFAULT_TAXONOMY_PATH = Path(__file__).with_name("taxonomy.yaml")


class TaxonomyItem(NamedTuple):
    """One thing of the taxonomy."""

    category: str
    kind: str
    """Its sub-category, such as `wolves and foxes`."""
    name: str


class PromptSubject(NamedTuple):
    """What one prompt is asked for."""

    item: TaxonomyItem
    number: int
    """In its category."""
    dimensions: tuple[str, ...]
    """One to four, in the order of DIMENSIONS, `text` last."""

    @property
    def name(self) -> str:
        """Return what tells it from all others."""
        return f"{self.item.category}/{self.number}"


Taxonomy = dict[str, tuple[TaxonomyItem, ...]]
"""The things of each category."""


def read_taxonomy(path: Path | None = None) -> Taxonomy:
    """Return a taxonomy; without a path, the one that ships.

    Raises: SettingError unless it has the ten categories, and in each of them things in words, none twice.
    """
    path = path or DEFAULT_TAXONOMY_PATH
    if not path.is_file():
        raise SettingError("taxonomy", str(path), "the path of a YAML file")
    try:
        values = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise SettingError("taxonomy", str(path), "valid YAML", str(error).replace("\n", " ")) from error
    if not isinstance(values, dict) or set(values) != set(CATEGORIES):
        found = sorted(map(str, values)) if isinstance(values, dict) else values
        raise SettingError(f"taxonomy ({path})", found, f"exactly these categories: {', '.join(CATEGORIES)}")
    return {category: _parse_items(category, values[category], path) for category in CATEGORIES}


def subjects(
    taxonomy: Taxonomy, categories: Sequence[str], seed: int, text_share: float, start: int, stop: int
) -> list[PromptSubject]:
    """Return the subjects of so many places in the order of a set, its categories taking turns.

    A category's subjects are the same whatever other categories there are. Things come again, with other
    dimensions, when all of their category have been there.
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
    """Draw one to four dimensions; writing, where it is asked for, is one of them."""
    total = int(rng.integers(1, MAX_DIMENSIONS + 1))
    has_text = bool(rng.random() < text_share) or has_text
    indices = rng.choice(len(DIMENSIONS), total - has_text, replace=False)
    return (*(DIMENSIONS[index] for index in sorted(indices)), *(("text",) if has_text else ()))


def _parse_items(category: str, kinds: object, path: Path) -> tuple[TaxonomyItem, ...]:
    where = f"taxonomy ({path}), {category}"
    if not isinstance(kinds, dict) or not kinds:
        raise SettingError(where, kinds, "kinds, each with a list of things")
    items: dict[str, TaxonomyItem] = {}
    for kind, names in kinds.items():
        if not isinstance(names, list) or not names:
            raise SettingError(f"{where}, {kind}", names, "a list of things")
        for name in names:
            if not isinstance(name, str) or not name.strip():
                raise SettingError(f"{where}, {kind}", name, "words, in quotes where YAML reads more")
            if name.lower() in items:
                raise SettingError(f"{where}, {kind}", name, "things that stand once in a category")
            items[name.lower()] = TaxonomyItem(category, str(kind), name)
    return tuple(items.values())
