"""What people write around and into a caption and that means nothing: openers, boilerplate, case and typos.

Knows nothing of scenes.
"""

import re
from collections.abc import Sequence
from functools import cache
from random import Random

from lens.nano.world.colours import COLOURS, EVERYDAY_COLOUR_NAMES
from lens.nano.world.languages.english_parts import frames, words
from lens.nano.world.languages.english_parts.nouns import nouns_of
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.phrases import CODAS, FUNCTION_WORDS, ONSETS, VOWELS

_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


@cache
def known_words() -> frozenset[str]:
    """Return every word that means something in the world: no invented word and no typo is one of them."""
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
        name = invented_word(random) if random.random() < 0.2 else _pick(random, words.PEOPLE)
        text = text.replace("{name}", name, 1)
    return text


def boilerplate(random: Random) -> str:
    """Return one to six phrases of other models' prompts."""
    number = 1 + int(6 * random.random() ** 2)
    return ", ".join(_pick(random, words.BOILERPLATE) for _ in range(number))


def change_case(text: str, random: Random) -> str:
    """Return a text in small letters, with capitals where sentences or words begin, or all in capitals."""
    draw = random.random()
    if draw < 0.42:
        return text
    if draw < 0.86:
        return _SENTENCE_START.sub(lambda match: match.group().upper(), text)
    if draw < 0.92:
        return text.upper()
    if draw < 0.97:
        return text.title().replace("'S ", "'s ")
    return "".join(letter.upper() if random.random() < 0.2 else letter for letter in text)


_SENTENCE_START = re.compile(r"(?:^|(?<=[.!?] ))[\ue000-\ue00f]?[a-z]")


def misspell(text: str, random: Random) -> str:
    """Return a text with one letter of one longer word left out, doubled, swapped or mistyped."""
    matches = [match for match in _LONG_WORD.finditer(text)]
    if not matches:
        return text
    match = matches[random.randrange(len(matches))]
    for _ in range(5):
        word = _misspell_word(match.group(), random)
        if word.lower() not in known_words():
            return text[: match.start()] + word + text[match.end() :]
    return text


_LONG_WORD = re.compile(r"[A-Za-z]{5,}")


def _misspell_word(word: str, random: Random) -> str:
    at = random.randrange(1, len(word) - 1)
    kind = random.randrange(4)
    if kind == 0:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[:at] + word[at] + word[at:]
    if kind == 2:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    row = next((row for row in _KEYBOARD if word[at].lower() in row), _KEYBOARD[0])
    near = row.find(word[at].lower()) + random.choice((-1, 1))
    return word[:at] + row[max(near, 0) % len(row)] + word[at + 1 :]


def _pick(random: Random, choices: Sequence[str]) -> str:
    return choices[int(random.random() * len(choices))]
