"""Typos of English words: a word in no list is taken for a word of the world that is one slip away.

A word that is ordinary English is left alone, however near it is. Knows nothing of prompts.
"""

from functools import cache, lru_cache

from lens.nano.vocabulary_english import english_words
from lens.nano.vocabulary_tables import singulars
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
    for limit in (1, 2) if len(word) >= LONG else (1,):
        near = [
            other
            for other in lexicon_words()
            if len(other) >= (MIN_LETTERS if limit == 1 else LONG)
            and abs(len(other) - len(word)) <= limit
            and _starts_alike(word, other)
            and num_slips(word, other) <= limit
        ]
        if near:
            return _only_meaning(word, near)
    return word


def is_ordinary(word: str) -> bool:
    """Return whether a word is one of the lists, or of English near to those of the world."""
    return any(form in _known() for form in singulars(word)) or word in _near_words()


def num_slips(a: str, b: str) -> int:
    """Return the letters that are wrong, missing, too many or swapped with their neighbour."""
    before, row = [0] * (len(b) + 1), list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        older, before, row = before, row, [i]
        for j, y in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
    return row[-1]


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
    return frozenset(read_words("near_words")["words"].split())
