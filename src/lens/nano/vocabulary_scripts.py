"""The vocabulary check in other languages than English: only listed things are told, in any form.

Where words are spaced, a word may be an inflected form of a listed one. Chinese and Japanese texts are cut
into the longest listed pieces; what is left between them is told if it must be a noun.
"""

import re
from functools import cache

from lens.nano import vocabulary_tables as tables

_MOST_ADDED = {"ru": 3, "ko": 3, "ar": 2, "hi": 4}
"""Letters that an inflection adds to the stem, 2 in the others."""
_ARABIC_PREFIXES = ("\u0648\u0627\u0644", "\u0628\u0627\u0644", "\u0627\u0644", "\u0648", "\u0628", "\u0644")
"""And, with, the."""


def is_of_language(word: str, code: str) -> bool:
    """Return whether a language has a word, in its captions or among the things outside the world."""
    listed, captions = tables.other_things(code).names, tables.caption_words(code)
    return any(one in captions or one in listed or _inflected(one, code) for one in _forms(word, code))


def is_of_captions(word: str, code: str) -> bool:
    """Return whether a word, or a form of it, is in the captions of a language with spaces."""
    captions = tables.caption_words(code)
    return any(form in captions or _has_known_stem(form, code) for form in _forms(word, code))


def unknown_in_script(text: str, code: str) -> tuple[dict[str, tuple[str, ...]], bool]:
    """Return unknown words with their neighbours, and whether anything of the captions' words is named."""
    if code in ("ja", "zh"):
        return _unknown_unspaced(text, code)
    things = tables.other_things(code).names
    told: dict[str, tuple[str, ...]] = {}
    words = tables.words_of(text)
    names_known = code == "ko" and any(noun in text for noun in tables.noun_words(code) if len(noun) > 1)
    place = 0
    while place < len(words):
        pair, word = " ".join(words[place : place + 2]), words[place]
        place += 1
        if pair in things and place < len(words):
            told[pair] = things[pair]
            place += 1
        elif is_of_captions(word, code):
            names_known = True
        else:
            names = (form if form in things else _inflected(form, code) for form in _forms(word, code))
            if (name := next(filter(None, names), None)) is not None:
                told[word] = things[name]
    return told, names_known


def _forms(word: str, code: str) -> tuple[str, ...]:
    """Return a word without what is written together with it: l'arbre, and the Arabic article."""
    if code in ("fr", "it", "pt") and "'" in word:
        return word, word.rpartition("'")[2]
    if code == "ar":
        return word, *(word.removeprefix(prefix) for prefix in _ARABIC_PREFIXES if word.startswith(prefix))
    return (word,)


def _has_known_stem(word: str, code: str) -> bool:
    return any(word[:end] in _stems(code) for end in range(max(2, len(word) - _added(code)), len(word) + 1))


def _added(code: str) -> int:
    return _MOST_ADDED.get(code, 2)


@cache
def _stems(code: str) -> frozenset[str]:
    """Return what is left of the captions' words without their last vowels."""
    shortest = 2 if code in ("ko", "hi", "ar") else 3
    stems = set()
    for word in tables.caption_words(code):
        stems |= {_stem(word), _stem(_stem(word)) if len(word) > 5 else word}
    return frozenset(stem for stem in stems if len(stem) >= shortest)


def _stem(word: str) -> str:
    return word[:-1] if word[-1:] in tables.letters("vowels") else word


@cache
def _listed_stems(code: str) -> dict[str, str]:
    shortest = 2 if code in ("ko", "hi", "ar") else 4
    return {_stem(name): name for name in tables.other_things(code).names if len(_stem(name)) >= shortest}


def _inflected(word: str, code: str) -> str | None:
    """Return the listed thing that a word may be a form of."""
    stems = _listed_stems(code)
    ends = range(len(word), max(1, len(word) - _added(code) - 1), -1)
    return next((stems[word[:end]] for end in ends if word[:end] in stems), None)


def _unknown_unspaced(text: str, code: str) -> tuple[dict[str, tuple[str, ...]], bool]:
    things, known = tables.other_things(code).names, _pieces(code)
    text = text.lower()  # some names have Latin letters, as a personal computer's
    told: dict[str, tuple[str, ...]] = {}
    names_known, left, place = False, "", 0
    while place <= len(text):
        length = _longest(text, place, things, known)
        if length == 0 and place < len(text) and _is_letter(text[place]):
            left += text[place]
            place += 1
            continue
        is_compound = length > 0 and all(map(_is_katakana, left + text[place]))
        if len(left) > 1 and not is_compound and _must_be_noun(left, text[: place - len(left)]):
            told[left] = ()
        piece, left = text[place : place + length], ""
        if piece in things:
            if len(piece) > 1 or _stands_alone(text, place, code):
                told[piece] = things[piece]
        elif len(piece) > 0 and piece in known:
            names_known = True
        place += max(1, length)
    return told, names_known


@cache
def _pieces(code: str) -> frozenset[str]:
    return frozenset(piece.lower() for piece in tables.caption_pieces(code))


def _longest(text: str, place: int, *lists: object) -> int:
    for length in range(min(8, len(text) - place), 0, -1):
        if any(text[place : place + length] in known for known in lists):  # type: ignore[operator]
            return length
    return 0


def _stands_alone(text: str, place: int, code: str) -> bool:
    """Return whether a single character is a word: counted, or in Japanese between other characters."""
    if _counted().search(text[:place]):
        return True
    if text[:place][-1:].isdigit():
        return False  # a counter
    around = text[max(0, place - 1) : place] + text[place + 1 : place + 2]
    return not any(map(_is_letter, around)) if code == "ja" else len(text.strip()) == 1


@cache
def _counted() -> re.Pattern[str]:
    """Return the pattern of a number with a counter, after which a noun stands."""
    return re.compile(rf"[{tables.letters('numbers')}\d][{tables.letters('counters')}]$")


def _is_letter(character: str) -> bool:
    return _is_katakana(character) or "\u4e00" <= character <= "\u9fff"


def _must_be_noun(left: str, before: str) -> bool:
    """Return whether what no list has names a thing: katakana, or what is counted."""
    return all(map(_is_katakana, left)) or bool(_counted().search(before))


def _is_katakana(character: str) -> bool:
    return "\u30a1" <= character <= "\u30fc"
