"""English captions state all of a spec and nothing else, in many words."""

import re
from collections.abc import Iterable
from functools import cache

import numpy as np
import pytest

from lens.nano.world.colours import COLOUR_SYNONYMS, COLOURS, EVERYDAY_COLOUR_NAMES, OBJECT_COLOURS
from lens.nano.world.languages.english import words
from lens.nano.world.languages.english.nouns import colourless_nouns_of, nouns_of
from lens.nano.world.languages.english.own_words import English
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scene_spec import PLACES, RELATIONS, SIGN_CHARACTERS, ObjectGroup, SceneSpec

_NAMES = tuple(OBJECT_CLASSES)
_CLASS_OF = {word.lower(): name for name in _NAMES for noun in nouns_of(name) for word in noun[:2]}
_NOT_NUMBERS = (
    "--ar 1:1", "--v 6", "--q 2", "f/1.8", "quick one:",
    "more than one of the", "one colour:", "a couple or more of",
)  # fmt: skip
_NUMBER_WORDS = {word: number for number, word in enumerate(words.NUMBERS) if number}
_NUMBER_WORDS |= {"couple": 2, "pair": 2, "duo": 2, "trio": 3, "quartet": 4, "foursome": 4, "dozen": 6}


def random_spec(rng: np.random.Generator) -> SceneSpec:
    """Return a spec of any kind."""
    num_groups = int(rng.choice((0, 1, 1, 1, 2, 2, 2, 3)))
    chosen = rng.choice(len(_NAMES), num_groups, False)
    groups = tuple(_random_group(rng, _NAMES[i], num_groups) for i in chosen)
    pairs: tuple[tuple[int, int], ...] = ()
    if num_groups == 2 and rng.random() < 0.5:
        pairs = ((0, 1),)
    if num_groups == 3 and rng.random() < 0.6:
        pairs = (((0, 1), (1, 2)), ((0, 1), (2, 1)), ((0, 1), (0, 2)), ((0, 1),))[int(rng.integers(4))]
    relations = tuple((a, str(rng.choice(RELATIONS)), b) for a, b in pairs)
    # A digit alone would be taken for a number of objects.
    text = "QZ" + "".join(rng.choice(list(SIGN_CHARACTERS), int(rng.integers(7))))
    has_background = rng.random() < 0.6 or not groups
    return SceneSpec(groups, str(rng.choice(list(COLOURS))) if has_background else None, relations,
        text if rng.random() < 0.15 else None)


def _random_group(rng: np.random.Generator, name: str, num_groups: int) -> ObjectGroup:
    count = None if rng.random() < 0.1 else int(rng.integers(1, 9)) if rng.random() < 0.5 else 1
    colour = str(rng.choice(list(OBJECT_COLOURS))) if rng.random() < 0.15 and "apple" not in name else None
    size = ("small", "large")[int(rng.integers(2))] if rng.random() < 0.2 else None
    has_place = count == 1 and num_groups == 1 and rng.random() < 0.4
    return ObjectGroup(name, count, colour, size, str(rng.choice(PLACES)) if has_place else None)


def without(text: str, phrases: Iterable[str]) -> str:
    """Return a text with phrases replaced by a dot, the longest first."""
    return _pattern(tuple(phrases)).sub(" . ", text)


@cache
def _pattern(phrases: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted((phrase.lower() for phrase in phrases), key=len, reverse=True)
    return re.compile(rf"(?<![a-z])(?:{'|'.join(map(re.escape, longest_first))})(?![a-z])")


def colour_names(colour: str) -> list[str]:
    names = [colour, *COLOUR_SYNONYMS.get(colour, ()), *EVERYDAY_COLOUR_NAMES[colour]]
    return [*names, *words.EVERYDAY_OBJECT_COLOURS.get(colour, ())]


_COLOUR_NAMES = tuple(name for colour in COLOURS for name in colour_names(colour))


@pytest.mark.parametrize("name", _NAMES)
def test_every_class_has_names_of_its_own(name: str) -> None:
    nouns = nouns_of(name)
    assert len(nouns) >= 2 and len(set(nouns)) == len(nouns)
    assert all(_CLASS_OF[word.lower()] == name for noun in nouns for word in noun[:2])
    assert colourless_nouns_of(name)


@pytest.mark.parametrize("noise", (True, False))
def test_captions_state_the_spec_and_nothing_else(noise: bool) -> None:
    rng = np.random.default_rng(19)
    language = English(noise=noise)
    for _ in range(2000):
        spec = random_spec(rng)
        caption = language.caption(spec, rng)
        _check(spec, caption.text, caption.order)


def _check(spec: SceneSpec, caption: str, order: tuple[int, ...]) -> None:
    assert caption.isprintable() or "\n" in caption
    assert not re.search("[\ue000-\uf8ff{}]", caption), caption
    assert sorted(order) == list(range(len(spec.groups)))
    text = caption.lower()
    if spec.text is not None:
        assert spec.text in caption or spec.text.lower() in caption, (spec, caption)
        text = re.sub(rf"(?<![a-z0-9]){spec.text.lower()}(?![a-z0-9])", " ", text)
    text = without(text, _NOT_NUMBERS)
    for group in spec.groups:
        nouns = nouns_of(group.class_name) if group.colour is None else colourless_nouns_of(group.class_name)
        singular, plural = ([noun[i] for noun in nouns] for i in range(2))
        plural += [f"{word}s" for word in singular]
        is_tag = re.search(r"x\s?\d|\dx|\d x|\d\u00d7", text)
        shorter = without(text, plural + (singular if group.count == 1 or is_tag else []))
        assert shorter != text, (spec, caption)
        text = shorter
        if group.count not in (1, None):
            assert {group.count} & set(_numbers(text)), (spec, caption)
    counts = {group.count for group in spec.groups} | {1}
    assert set(_numbers(text)) <= counts, (spec, caption)
    names = {group.class_name for group in spec.groups}
    colours = [spec.background, *(group.colour for group in spec.groups)]
    for colour in sorted({colour for colour in colours if colour}, key=len, reverse=True):
        shorter = without(text, colour_names(colour))
        # The fruit may have taken the word of the colour.
        assert shorter != text or "orange" in names, (spec, caption, text)
        text = shorter
    assert without(text, _COLOUR_NAMES) == text, (spec, caption, text)
    assert without(text, _CLASS_OF) == text, (spec, caption, text)


def _numbers(text: str) -> list[int]:
    text = re.sub(r"(?<![\w.])x\s?(?=\d)|(?<=\d)\s?[x\u00d7](?!\w)", " ", text)
    found = re.findall(r"(?<![\w./])(?:[a-z]+|\d+)(?!\w)", text)
    return [_NUMBER_WORDS.get(word) or int(word) for word in found if word in _NUMBER_WORDS or word.isdigit()]
