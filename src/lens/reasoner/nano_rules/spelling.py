"""Typos of English words: a word in no list is taken for a word of the world that is one slip away.

A word that is ordinary English is left alone, however near it is. Knows nothing of prompts.
"""

from functools import cache, lru_cache

from lens.nano.vocabulary_english import english_words
from lens.reasoner.nano_rules.english_lexicon import lexicon, lexicon_words, read_words

MIN_LETTERS = 4
"""Letters of the shortest word that is mended."""
LONG = 8
"""Letters from which on a word may have two slips."""


@lru_cache(maxsize=4096)
def mended(word: str) -> str:
    """Return the word that a word in lower case is a typo of, or the word itself."""
    if len(word) < MIN_LETTERS or not word.isalpha() or is_ordinary(word):
        return word
    letters = set(word)
    for limit in (1, 2) if len(word) >= LONG else (1,):
        near = [
            other
            for other, others in _letters()
            if len(other) >= (MIN_LETTERS if limit == 1 else LONG)
            and abs(len(other) - len(word)) <= limit
            and len((letters ^ others) - set("phf")) <= 2 * limit
            and _starts_alike(word, other)
            and num_slips(word.replace("ph", "f"), other.replace("ph", "f")) <= limit
        ]
        if near:
            return _only_meaning(word, near)
    return word


def is_ordinary(word: str) -> bool:
    """Return whether a word is one of the lists, or of English near to those of the world."""
    return any(form in _known() for form in _forms(word)) or word in _near_words()


def _forms(word: str) -> list[str]:
    """Return a word, and the word that it is the plural of."""
    forms = [word] if word.endswith("ss") else [word, word.removesuffix("s")]
    if word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")):
        forms.append(word[:-2])
    return [*forms, f"{word[:-3]}y"] if word.endswith("ies") else forms


def num_slips(a: str, b: str) -> int:
    """Return the slips by which somebody who means `b` writes `a`; more than any limit for letters at random.

    A letter is missing, or swapped with the next; it is doubled, or a vowel too many; or it is another one
    that is near on the keyboard, sounds alike, or is a vowel too.
    """
    before, row = [0] * (len(b) + 1), list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        older, before, row = before, row, [row[0] + _NO_SLIP]
        around = a[max(0, i - 2) : i - 1] + a[i : i + 1]
        is_extra = x in around or x in _VOWELS or any(x in _alike(other) for other in around)
        extra = 1 if is_extra else _NO_SLIP
        for j, y in enumerate(b, 1):
            other = 0 if x == y else 1 if y in _alike(x) else _NO_SLIP
            cost = min(before[j] + extra, row[j - 1] + 1, before[j - 1] + other)
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
    return row[-1]


_NO_SLIP = 9
_VOWELS = "aeiouyh"
_KEYS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_SOUNDS = ("ck", "cs", "sz", "fv", "fp", "gj", "mn", "dt", "bp", "qk", "uw", "vw", "kx", "xs", "lr", "aeiouy")
"""Letters that are written for each other."""


@cache
def _alike(letter: str) -> frozenset[str]:
    """Return the letters that are written for a letter by a slip."""
    near = "".join(letters for letters in _SOUNDS if letter in letters)
    for row, keys in enumerate(_KEYS):
        at = keys.find(letter)
        if at >= 0:
            near += keys[max(0, at - 1) : at + 2]
            rows = (other for other in (row - 1, row + 1) if 0 <= other < len(_KEYS))
            near += "".join(_KEYS[other][max(0, at - 1) : at + 2] for other in rows)
    return frozenset(near) - {letter}


@cache
def _letters() -> tuple[tuple[str, frozenset[str]], ...]:
    return tuple((word, frozenset(word)) for word in sorted(lexicon_words()))


def _starts_alike(word: str, other: str) -> bool:
    return word[0] == other[0] or (word[:2] == other[1::-1])


def _only_meaning(word: str, near: list[str]) -> str:
    """Return the one word that is meant; a plural and its singular are one, the longer of them by its end."""
    if len(near) > 1 and len({lexicon().get(other) for other in near}) > 1:
        same_end = [other for other in near if (other[-1] == "s") == (word[-1] == "s")]
        classes = {_class_of(other) for other in near}
        return same_end[0] if len(classes) == 1 and None not in classes and len(same_end) == 1 else word
    return sorted(near)[0]


def _class_of(word: str) -> str | None:
    meaning = lexicon().get(word)
    return meaning.value[0] if meaning and meaning.kind == "thing" else None


@cache
def _known() -> frozenset[str]:
    words = frozenset(word for phrase in lexicon() for word in phrase.split())
    return words | english_words()


@cache
def _near_words() -> frozenset[str]:
    return frozenset(word for line in read_words("near_words")["words"] for word in line.split())
