"""The vocabulary check in English: the phrases of a prompt, and the nouns among them that are unknown.

Beside the lists, it uses where a word stands: after an article or a number, at the end of its phrase. A long
prompt is a description, which names parts of things and what is absent; only what it introduces is told.
"""

import re
from collections import Counter
from functools import cache, lru_cache
from typing import NamedTuple

from lens.nano import vocabulary_tables as tables
from lens.nano.vocabulary_tables import prompt_words

LONG_PROMPT = 30
"""Words above which a prompt is a description."""


class _Phrase(NamedTuple):
    """A phrase of a prompt, in lower case, with its kind.

    known: a thing of the world; other: a thing outside it; colour; sign: a text or a word for it; determiner;
    stop: a function word; filler: a word that names nothing to draw; mark: punctuation; unknown: in no list.
    """

    text: str
    kind: str


_NOTHING = _Phrase("", "mark")


@cache
def english_words() -> frozenset[str]:
    """Return every word that the check knows in English."""
    names = (*tables.english_names(), *tables.other_things("en").names)
    words = frozenset(word for name in names for word in name.split())
    return tables.harmless_words() | words | prompt_words("function") | prompt_words("determiners")


def unknown_in_english(text: str) -> tuple[dict[str, tuple[str, ...]], bool]:
    """Return the unknown words of a text with their neighbours, and whether it names anything known."""
    prompt = _Prompt(_phrases(text))
    told: dict[str, tuple[str, ...]] = {}
    for place, phrase in enumerate(prompt.phrases):
        if phrase.kind == "other" and prompt.is_told_place(place) and prompt.is_told_thing(place):
            told[phrase.text] = _neighbours(phrase.text)
        elif phrase.kind == "unknown" and prompt.is_told_place(place) and prompt.is_noun(place):
            told[phrase.text] = _neighbours_of_typo(phrase.text)
    return told, prompt.names_known


class _Prompt:
    """The phrases of a prompt, and what follows from where they stand."""

    def __init__(self, phrases: list[_Phrase]):
        self.phrases = phrases
        kinds = Counter(phrase.kind for phrase in phrases)
        num_words = len(phrases) - kinds["mark"]
        self.is_long = num_words > LONG_PROMPT
        self.has_thing = kinds["known"] + kinds["sign"] > 0
        self.names_known = self.has_thing or kinds["colour"] > 0
        self.is_english = num_words < 3 or kinds["unknown"] * 2 < num_words - kinds["sign"]
        self._mentions = Counter(phrase.text for phrase in phrases)
        self._absent = self._absent_places()

    def _absent_places(self) -> set[int]:
        """Return the places in clauses about what is absent, whom the image is for, or what it is like."""
        absent, is_absent, before = set(), False, _NOTHING
        for place, phrase in enumerate(self.phrases):
            if phrase.kind == "mark":
                is_absent = is_absent and self.is_long and phrase.text not in ".!?"
            elif phrase.text in prompt_words("negations"):
                is_absent = True
            elif phrase.text in ("for", "by"):
                is_absent = is_absent or before.text not in prompt_words("asking")
            elif phrase.text in prompt_words("comparisons"):
                is_absent = is_absent or self.is_long
            if is_absent:
                absent.add(place)
            before = phrase
        return absent

    def is_told_place(self, place: int) -> bool:
        """Return whether a thing in this place is one that the image is to show."""
        before, after = self._at(place - 1), self._at(place + 1)
        if place in self._absent or before.text in prompt_words("possessives"):
            return False
        if after.text in prompt_words("styles") or after.kind == "colour":
            return False  # oil painting, chocolate brown
        if self.is_long and self.names_known:
            is_repeated = self._mentions[self.phrases[place].text] > 1
            return self._is_introduced(place) and (is_repeated or not self.has_thing)
        return True

    def is_told_thing(self, place: int) -> bool:
        """Return whether a thing outside the world is told; parts and ambiguous words are not always."""
        things, names = tables.other_things("en"), _singular_names(self.phrases[place].text)
        if self.has_thing and not things.weak.isdisjoint(names):
            return False
        if things.ambiguous.isdisjoint(names):
            return True
        is_quantity = self._at(place + 1).text == "of"  # a crowd of
        return not is_quantity and self._is_head(place) and self._has_article(place)

    def is_noun(self, place: int) -> bool:
        """Return whether a word in no list must be a noun for a thing."""
        word = self.phrases[place].text
        if self.is_long or not self.is_english or len(word) < 3 or word.endswith(tables.abstract_endings()):
            return False
        starts = not self.names_known and self._begins_clause(place)
        return self._is_head(place) and (starts or self._has_article(place))

    def _at(self, place: int) -> _Phrase:
        return self.phrases[place] if 0 <= place < len(self.phrases) else _NOTHING

    def _is_head(self, place: int) -> bool:
        return self._at(place + 1).kind in ("mark", "stop", "determiner")

    def _has_article(self, place: int) -> bool:
        """Return whether an article or a number stands before, with nothing but adjectives between."""
        return self._before_adjectives(place, ("filler", "unknown", "colour")).kind == "determiner"

    def _begins_clause(self, place: int) -> bool:
        before = self._before_adjectives(place, ("filler", "unknown"))
        return before.kind == "mark" or before.text in prompt_words("openers")

    def _before_adjectives(self, place: int, kinds: tuple[str, ...]) -> _Phrase:
        return next((one for one in reversed(self.phrases[:place]) if one.kind not in kinds), _NOTHING)

    def _is_introduced(self, place: int) -> bool:
        """Return whether a description introduces a thing, and not a part of one or another word for it."""
        while place and self.phrases[place].text not in prompt_words("indefinite"):
            place -= 1
            if self.phrases[place].kind not in ("filler", "unknown", "colour", "determiner"):
                return False
        before = self._at(place - 1)
        is_start = before.kind == "mark" and before.text in ".!?"
        is_new = self.phrases[place].text in prompt_words("indefinite")
        return is_new and (is_start or before.text in prompt_words("introductions"))


def _phrases(text: str) -> list[_Phrase]:
    pieces = _PIECES.findall(text.replace("\u2019", "'"))
    words = ["".join(tables.words_of(piece)[:1]) or piece.lower() for piece in pieces]
    is_shouted, phrases = text.isupper(), []
    place, left_of_sign = 0, 0
    while place < len(words):
        length, phrase = _longest_phrase(words, place)
        piece = pieces[place]
        is_thing = phrase.kind in ("other", "unknown")
        is_name = is_thing or phrase.kind == "known" or piece.isupper()
        if left_of_sign and phrase.kind != "mark" and is_name:
            phrase, left_of_sign = _Phrase(phrase.text, "sign"), 0
        elif is_thing and piece.isupper() and len(piece) > 2 and not is_shouted:
            phrase = _Phrase(phrase.text, "filler")  # the letters of a sign, or an abbreviation
        elif is_thing and length == 1 and piece.lower().endswith("'s"):
            phrase = _Phrase(phrase.text, "filler")  # a children's book
        left_of_sign = max(0, left_of_sign - 1)
        if words[place] in prompt_words("sign"):
            left_of_sign = 2
            is_plain = phrase.kind in ("filler", "unknown", "stop")
            phrase = _Phrase(phrase.text, "sign" if is_plain else phrase.kind)
        phrases.append(phrase)
        place += length
    return phrases


_PIECES = re.compile(
    rf"{tables.LETTERS}(?:'{tables.LETTERS})*|\d[\d.]*(?:[^\W\d_]+)?|[.,;:!?()\n+|&/{tables.SIGN_TEXT}]|--\w+"
)


def _longest_phrase(words: list[str], place: int) -> tuple[int, _Phrase]:
    """Return the longest phrase with a meaning that starts at a word, after its number of words."""
    names, things, word = tables.english_names(), tables.other_things("en").names, words[place]
    plain = ("function", "determiners", "sign")
    shortest = 1 + any(word in prompt_words(kind) for kind in plain)
    longest = min(tables.longest_phrases().get(word, 1), len(words) - place)
    for length in range(longest, shortest - 1, -1):
        phrase = " ".join(words[place : place + length])
        if phrase in names or (length > 1 and any(one in names for one in _singular_names(phrase))):
            return length, _Phrase(phrase, "known")
        if any(one in things for one in _singular_names(phrase)):
            return length, _Phrase(phrase, "other")
    return 1, _Phrase(word, _kind_of(word))


@lru_cache(maxsize=8192)
def _kind_of(word: str) -> str:
    if not word[:1].isalpha():
        return "determiner" if word.isdigit() else "sign" if word == tables.SIGN_TEXT else "mark"
    forms, names = tables.singulars(word), tables.english_names()
    colours, harmless = tables.colour_words(), tables.harmless_words()
    kinds = (
        ("determiner", word in prompt_words("determiners")),
        ("stop", word in prompt_words("function")),
        ("known", any(one in names for one in forms)),
        ("colour", word in colours),
        ("filler", any(one in harmless for one in forms)),
    )
    for kind, is_kind in kinds:
        if is_kind:
            return kind
    if tables.is_typo(word, tables.name_words()) or _is_known_elsewhere(word):
        return "known"
    lists = (("colour", colours), ("filler", harmless))
    return next((kind for kind, words in lists if tables.is_typo(word, words)), "unknown")


def _is_known_elsewhere(word: str) -> bool:
    """Return whether another language has a word among its nouns: people mix languages."""
    return len(word) > 3 and any(word in tables.noun_words(code) for code in tables.LATIN_LANGUAGES[1:])


def _singular_names(phrase: str) -> list[str]:
    """Return a phrase, and what its singular may be."""
    head, _, last = phrase.rpartition(" ")
    return [f"{head} {one}".lstrip() for one in tables.singulars(last)]


def _neighbours(phrase: str) -> tuple[str, ...]:
    """Return the neighbours of a thing outside the world."""
    names = tables.other_things("en").names
    return next(names[one] for one in _singular_names(phrase) if one in names)


@cache
def _other_names() -> frozenset[str]:
    return frozenset(tables.other_things("en").names)


def _neighbours_of_typo(word: str) -> tuple[str, ...]:
    """Return the neighbours of the thing that a word is a typo of, if there is one."""
    near = tables.typo_of(word, _other_names())
    return _neighbours(near) if near else ()
