"""What words of the eleven other languages mean to the nano world: nouns and colours of its captions, and the
rest from other_languages.json.

Phrases are words in lower case with a space between; scripts without spaces have none. Knows nothing of
prompts.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from lens.nano.vocabulary_tables import LETTERS, caption_words
from lens.nano.world.colours import COLOURS
from lens.nano.world.languages.registry import LANGUAGES, language
from lens.reasoner.nano_rules.elements import FILLER, Meaning
from lens.reasoner.nano_rules.english_lexicon import read_words

UNSPACED = ("zh", "ja", "ko")
"""Languages whose words are found letter by letter."""
_COLOUR_FORMS = (
    "", "n", "d", "e", "fem", "noun", "m", "f", "pre", "ins", "gen", "acc", "oblique", "the m", "the f",
    "\uba85\uc0ac", "\uc73c\ub85c", "\u306e", "\u77ed",
)  # fmt: skip
"""Forms of background colours in any of the languages."""
_NUM_DRAWS = 12
_SAME_LETTERS = str.maketrans("\u0623\u0625\u0622\u0649\u0629\u0451", "\u0627\u0627\u0627\u064a\u0647\u0435")
"""Letters that people write for each other, in Arabic and Russian."""
_UMLAUTS = str.maketrans({"\u00e4": "ae", "\u00f6": "oe", "\u00fc": "ue", "\u00df": "ss"})


def key_of(text: str) -> str:
    """Return a phrase as lexicons have it."""
    words = re.findall(LETTERS, unicodedata.normalize("NFC", text).casefold().translate(_SAME_LETTERS))
    return " ".join(words) or text.strip()


def plain_key(key: str) -> str:
    """Return a phrase without accents, as hasty people write it."""
    return "".join(one for one in unicodedata.normalize("NFD", key) if not unicodedata.combining(one))


def stem_of(key: str, code: str) -> str:
    """Return a phrase without the endings of its words."""
    endings = read_words("other_languages")[code].get("endings", "").split()
    words = []
    for word in key.split():
        ending = next((one for one in endings if word.endswith(one) and len(word) - len(one) > 2), "")
        words.append(word.removesuffix(ending))
    return " ".join(words)


@cache
def foreign_lexicon(code: str) -> dict[str, Meaning]:
    """Return the meanings of a language by phrase, and by phrase without accents."""
    known: dict[str, Meaning] = {}
    colours = dict(_colours(code))
    is_latin = code in ("de", "fr", "es", "pt", "it")
    for phrase, meaning in _meanings(code):
        if meaning.kind == "thing" and phrase in colours:  # a rose, an orange
            meaning = Meaning("thing", (*meaning.value, colours[phrase].value))
        key = key_of(phrase)
        if code in UNSPACED:
            key = key.replace(" ", "")
        known.setdefault(key, meaning)
        if is_latin:
            for other in (plain_key(key), key.translate(_UMLAUTS)):
                if len(other) > 3 or meaning.kind != "thing":  # French "de" is no "d\u00e9"
                    known.setdefault(other, meaning)
    return known


@cache
def stems(code: str) -> dict[str, Meaning]:
    """Return the meanings of things, colours and sizes by phrase without endings, where there is only one."""
    found: dict[str, Meaning | None] = {}
    for key, meaning in foreign_lexicon(code).items():
        if meaning.kind not in ("thing", "colour", "size", "background"):
            continue
        stem = stem_of(key, code)
        other = found.get(stem, meaning)
        found[stem] = meaning if other and _is_same(other, meaning) else None
    return {stem: meaning for stem, meaning in found.items() if meaning is not None}


def _is_same(a: Meaning, b: Meaning) -> bool:
    if a.kind == b.kind == "thing":
        return a.value[0] == b.value[0]
    return a == b


def meaning_of_foreign_word(word: str, code: str) -> Meaning:
    """Return the meaning of a word that no phrase has."""
    is_filler = len(word) < 3 or word in caption_words(code)
    return FILLER if is_filler else Meaning("unknown", word)


def _meanings(code: str) -> Iterator[tuple[str, Meaning]]:
    own = read_words("other_languages")[code]
    last = {kind: own[kind] for kind in ("filler", "counter") if kind in own}
    first = {kind: table for kind, table in own.items() if kind not in ("endings", *last)}
    yield from _own_meanings(first)
    yield from _things(code)
    yield from _colours(code)
    yield from _own_meanings(last)


def _own_meanings(tables: dict[str, Any]) -> Iterator[tuple[str, Meaning]]:
    for kind, table in tables.items():
        groups = table.items() if isinstance(table, dict) else ((None, table),)
        for value, names in groups:
            number = int(value) if value and value.isdigit() else 1 if kind == "article" else value
            for phrase in names.split("|"):
                yield phrase, Meaning(kind, number)


def _things(code: str) -> Iterator[tuple[str, Meaning]]:
    nouns = language(code)
    if code in ("zh", "ja"):
        for name, entry in nouns.nouns().items():  # type: ignore[attr-defined]
            for noun in (text for texts in entry[:4] for text in texts):
                yield noun, Meaning("thing", (name, None))
    elif code == "ko":
        from lens.nano.world.languages.asian.korean import nouns as korean_nouns

        for name, (names, _) in korean_nouns().items():
            for noun in names:
                yield noun.rstrip("*"), Meaning("thing", (name, None))
    elif code == "ar":
        yield from _arabic_things()
    elif code == "hi":
        from lens.nano.world.languages.asian.hindi import nouns as hindi_nouns

        for name, names in hindi_nouns().items():
            for noun in names:
                is_plural = None if noun.inflect(True, False) == noun.text else False
                yield noun.text, Meaning("thing", (name, is_plural))
                yield noun.inflect(False, True), Meaning("thing", (name, False))
        for name, names in hindi_nouns().items():
            for noun in names:
                for is_oblique in (False, True):
                    yield noun.inflect(True, is_oblique), Meaning("thing", (name, True))
    else:
        yield from _european_things(code)


def _arabic_things() -> Iterator[tuple[str, Meaning]]:
    from lens.nano.world.languages.asian.arabic import nouns as arabic_nouns

    for name, names in arabic_nouns().items():
        for noun in names:
            spaced = re.sub("[_~]", " ", noun.singular)
            yield spaced, Meaning("thing", (name, None if noun.is_invariable else False))
            if not noun.is_invariable:
                for is_nominative in (True, False):
                    yield re.sub("[_~]", " ", noun.dual(is_nominative)), Meaning("pair", (name, True))
    for name, names in arabic_nouns().items():
        for noun in names:
            yield re.sub("[_~]", " ", noun.plural), Meaning("thing", (name, True))


def _european_things(code: str) -> Iterator[tuple[str, Meaning]]:
    from lens.nano.world.languages.european.inflected import read_nouns

    one_kinds = getattr(language(code), "one_kinds", ())
    for name, nouns in read_nouns(code).items():
        for noun in nouns:
            is_one = noun.kind in one_kinds or noun.kind.endswith("1")
            is_one = is_one or noun.forms[0] == noun.forms[-1]
            for number, form in enumerate(noun.forms):
                is_plural = number > (1 if code == "ru" else 0)
                for text in _spelled(form, code):
                    yield text, Meaning("thing", (name, None if is_one else is_plural))


def _spelled(form: str, code: str) -> list[str]:
    """Return the forms that a form of a table stands for."""
    if code == "de" and "~" in form:
        return [form.replace("~", ending) for ending in ("e", "er", "es", "en", "em")]
    return [form.replace("+", " ").replace("~", " ")]


def _colours(code: str) -> Iterator[tuple[str, Meaning]]:
    speaker = language(code)
    for colour in COLOURS:
        for form in _COLOUR_FORMS:
            for seed in range(_NUM_DRAWS):
                try:
                    text = speaker.background_colour(colour, form, np.random.default_rng(seed))
                except (KeyError, IndexError, ValueError):
                    break  # the language has no such form
                yield text, Meaning("colour", colour)


@cache
def words_known(code: str) -> frozenset[str]:
    """Return every word of the phrases and captions of a language."""
    captions = {key_of(word) for word in caption_words(code)}
    return frozenset(word for phrase in foreign_lexicon(code) for word in phrase.split()) | captions


LATIN = tuple(code for code in ("de", "fr", "es", "it", "pt") if code in LANGUAGES)
