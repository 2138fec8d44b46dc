"""What people write around a caption and that means nothing: invented words, purposes and boilerplate.

Knows nothing of scenes. Case and typos are no matter of a language (text_noise.py).
"""

import re
from collections.abc import Sequence
from functools import cache
from random import Random

from lens.nano.world.colours import COLOURS, EVERYDAY_COLOUR_NAMES
from lens.nano.world.languages.english import frames, words
from lens.nano.world.languages.english.nouns import nouns_of
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.phrases import CODAS, FUNCTION_WORDS, ONSETS, VOWELS


@cache
def known_words() -> frozenset[str]:
    """Return every word that means something in the world: no invented word is one of them."""
    names = [word for name in OBJECT_CLASSES for noun in nouns_of(name) for word in noun[:2]]
    tables = (
        names, COLOURS, EVERYDAY_COLOUR_NAMES, words.NUMBERS, words.SIZE_ADJECTIVES, words.COUNT_PHRASES,
        frames.PREPOSITIONS, frames.ASIDES, frames.SIDES, frames.PLACES, frames.CORNERS,
        words.EVERYDAY_OBJECT_COLOURS, words.SEVERAL, frames.SIGN_PHRASES,
    )  # fmt: skip
    return frozenset(re.findall("[a-z]+", " ".join(map(repr, tables)).lower()))


def invented_word(random: Random) -> str:
    """Return a word that nobody knows."""
    while True:
        word = "".join(
            _pick(random, part) for _ in range(random.randrange(1, 4)) for part in (ONSETS, VOWELS, CODAS)
        )
        if word not in known_words():
            return word


def invented_opener(random: Random) -> str:
    """Return invented words among function words, so that any opener is possible."""
    row = [_pick(random, FUNCTION_WORDS) for _ in range(random.randrange(4))]
    for _ in range(random.randrange(1, 3)):
        row.insert(random.randrange(len(row) + 1), invented_word(random))
    return " ".join(row) + _pick(random, (" ", " ", " ", ": ", ", "))


def purpose(random: Random) -> str:
    """Return whom or what a picture is for."""
    text = _pick(random, words.PURPOSES)
    while "{name}" in text:
        text = text.replace("{name}", person(random), 1)
    return text


def person(random: Random) -> str:
    """Return somebody's name, or a word that may be one."""
    return invented_word(random) if random.random() < 0.2 else _pick(random, words.PEOPLE)


def boilerplate(random: Random) -> str:
    """Return one to six phrases of other models' prompts."""
    number = 1 + int(6 * random.random() ** 2)
    return ", ".join(_pick(random, words.BOILERPLATE) for _ in range(number))


def capitalize_sentences(text: str) -> str:
    """Return a text with capitals where sentences begin; a mark of a group may stand before a letter."""
    return _SENTENCE_START.sub(lambda match: match.group().upper(), text)


_SENTENCE_START = re.compile(r"(?:^|(?<=[.!?\n] )|(?<=\n))[\ue000-\ue00f]?[a-z]")


def _pick(random: Random, choices: Sequence[str]) -> str:
    return choices[int(random.random() * len(choices))]
