"""Tables of the vocabulary check: names of the world in twelve languages, other things, and harmless words.

Tables are built when they are first asked for, from the words that captions are made of. Knows nothing of
prompts.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from importlib import import_module
from importlib.resources import files
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from lens.nano.world.colours import COLOURS, EVERYDAY_COLOUR_NAMES, OBJECT_COLOURS
from lens.nano.world.languages.asian.chinese import TO_TRADITIONAL
from lens.nano.world.languages.base import Frames
from lens.nano.world.languages.english.nouns import nouns_of
from lens.nano.world.languages.registry import LANGUAGES
from lens.nano.world.objects import OBJECT_CLASSES

LATIN_LANGUAGES = ("en", "de", "fr", "it", "es", "pt")
"""In the order of preference, where a prompt could be of several."""
_SHARED = {
    "es": ("european.iberian",), "pt": ("european.iberian",), "ja": ("asian.east_asian",),
    "zh": ("asian.east_asian",),
    "en": (
        "english.own_words", "english.dense", "text_noise", "english.words", "english.frames",
        "english.relations", "english.dense_templates", "english.dense_groups",
    ),
}  # fmt: skip
"""Modules beside a language's own whose texts captions are made of."""
_TABLES = {"en": ("english_dense",)}
_MARKS = "\u0300-\u036f\u064b-\u065f\u0670\u0900-\u0903\u093a-\u094f\u0951-\u0957\u0962\u0963"
"""Vowel signs and accents, which Python's `\\w` leaves out."""
LETTERS = rf"(?:[^\W\d_]|[{_MARKS}])+"
SIGN_TEXT = "\u2026"
"""Stands for quoted text."""
_WORD = re.compile(rf"{LETTERS}(?:'{LETTERS})*")
_RUNS = re.compile("[\u30a1-\u30fc]+|[\u3041-\u309f]+|[\u4e00-\u9fff]+")
_PACKAGE = "lens.nano.world.languages"


_SAME_LETTERS = str.maketrans("\u2019\u0623\u0625\u0622\u0649", "'\u0627\u0627\u0627\u064a")
"""Letters that people write for others: apostrophes, Arabic alefs with and without their hamza."""


class OtherThings(NamedTuple):
    """Things that are not in the world."""

    names: dict[str, tuple[str, ...]]
    """By name, the names of the world's things that are most like it."""
    weak: frozenset[str]
    """Names that mean little beside a known thing: parts of things, kinds of things."""
    ambiguous: frozenset[str]
    """Names that are things only after an article: "a saw", "a watch"."""


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case; hyphens separate words."""
    text = unicodedata.normalize("NFC", text).lower().translate(_SAME_LETTERS)
    return [word.removesuffix("'s") for word in _WORD.findall(text)]


@lru_cache(maxsize=8192)
def singulars(word: str) -> tuple[str, ...]:
    """Return an English word, and what its singular may be."""
    endings = (("ies", "y"), ("ves", "f"), ("ves", "fe"), ("es", ""), ("s", ""), ("men", "man"))
    fitting = [pair for pair in endings if word.endswith(pair[0]) and len(word) > len(pair[0]) + 1]
    return word, *(word.removesuffix(ending) + other for ending, other in fitting)


@cache
def english_names() -> dict[str, str]:
    """Return the class of every English name, singular and plural."""
    names: dict[str, str] = {}
    for thing in OBJECT_CLASSES.values():
        pairs = [(thing.name, thing.plural), *thing.synonyms]
        pairs += [(noun.singular, noun.plural) for noun in nouns_of(thing.name)]
        for name in (name for pair in pairs for name in pair):
            names.setdefault(" ".join(words_of(name)), thing.name)
    return names


@cache
def name_words() -> frozenset[str]:
    """Return the words of all English names."""
    return frozenset(word for name in english_names() for word in name.split())


@cache
def longest_phrases() -> dict[str, int]:
    """Return the number of words of the longest English name of a thing that begins with a word."""
    lengths: dict[str, int] = {}
    for name in (*english_names(), *other_things("en").names):
        words = name.split()
        lengths[words[0]] = max(lengths.get(words[0], 1), len(words))
    return lengths


@cache
def colour_words() -> frozenset[str]:
    """Return the English words that colours are called by."""
    names = [*COLOURS, *OBJECT_COLOURS, *(name for names in EVERYDAY_COLOUR_NAMES.values() for name in names)]
    return frozenset(word for name in names for word in words_of(name))


@cache
def caption_words(code: str) -> frozenset[str]:
    """Return every word that the captions of a language are made of, in the forms that the tables have."""
    return frozenset(word for text in _caption_texts(code) for word in words_of(text))


@cache
def caption_pieces(code: str) -> frozenset[str]:
    """Return every run of letters in the captions of a language that puts no spaces between words."""
    pieces = {piece for text in _caption_texts(code) for piece in _WORD.findall(text)}
    pieces |= {run for piece in pieces for run in _RUNS.findall(piece)}
    if code == "zh":
        pieces |= {piece.translate(TO_TRADITIONAL) for piece in pieces}
    return frozenset(pieces)


@cache
def noun_words(code: str) -> frozenset[str]:
    """Return the words of the nouns of a language other than English, without those of other nouns' forms."""
    table = _read_json(code)
    return frozenset(word for text in _texts(table.get("nouns", table)) for word in words_of(text))


@cache
def prompt_words(kind: str) -> frozenset[str]:
    """Return English words of a kind that tells what stands around them."""
    return frozenset(_read_json("../prompt_words")[kind].split())


@cache
def letters(kind: str) -> str:
    """Return letters of a kind: vowels of all scripts; numbers and counters of Chinese and Japanese."""
    return _read_json("../prompt_words")[kind]


@cache
def abstract_endings() -> tuple[str, ...]:
    """Return the endings of words that are adjectives, or nouns for what cannot be touched."""
    return tuple(prompt_words("endings"))


@cache
def harmless_words() -> frozenset[str]:
    """Return English words that name nothing to draw: of captions, and others that people write."""
    return prompt_words("harmless") | caption_words("en") | colour_words()


@cache
def other_things(code: str) -> OtherThings:
    """Return the things in a language that are not in the world."""
    table = _read_json("../other_things")
    groups = [tuple(group) for group in table["neighbours"]]
    numbers = table["names"].get(code, {})
    names = {name.translate(_SAME_LETTERS): groups[number] for name, number in numbers.items()}
    is_english = code == "en"
    weak, ambiguous = (frozenset(table[kind] if is_english else ()) for kind in ("weak", "ambiguous"))
    return OtherThings(names, weak, ambiguous)


@cache
def _deletions(words: frozenset[str]) -> dict[str, list[str]]:
    """Return the words by what is left of them without one letter, and by themselves."""
    index: dict[str, list[str]] = {}
    for word in words:
        for part in _without_a_letter(word):
            index.setdefault(part, []).append(word)
    return index


def is_typo(word: str, words: frozenset[str]) -> bool:
    """Return whether a word is one edit from one of the words, as `typo_of` finds it."""
    return typo_of(word, words) is not None


def typo_of(word: str, words: frozenset[str]) -> str | None:
    """Return a word that is one edit away; from seven letters on, one of its letters may be in any place."""
    if len(word) < 4:
        return None
    index = _deletions(words)
    near = sorted({other for part in _without_a_letter(word) for other in index.get(part, ())})
    fits = (other for other in near if len(other) > 3 and (len(word) > 6 or _is_one_edit(word, other)))
    return next(fits, None)


def _without_a_letter(word: str) -> set[str]:
    return {word, *(word[:place] + word[place + 1 :] for place in range(len(word)))}


def _is_one_edit(a: str, b: str) -> bool:
    if len(a) != len(b):
        short, long = sorted((a, b), key=len)
        return len(long) - len(short) == 1 and short in _without_a_letter(long)
    places = [place for place in range(len(a)) if a[place] != b[place]]
    if len(places) == 2 and places[1] == places[0] + 1:
        return a[places[0]] == b[places[1]] and a[places[1]] == b[places[0]]
    return len(places) < 2


def _caption_texts(code: str) -> Iterator[str]:
    for name in _TABLES.get(code, (code,)):
        yield from _texts(_read_json(name))
    own = (LANGUAGES[code].partition(":")[0],) if code in LANGUAGES else ()
    for name in (*own, *_SHARED.get(code, ())):
        yield from _texts(_constants(import_module(f"{_PACKAGE}.{name}")))


def _constants(module: ModuleType) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if not name.startswith("__")}


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts inside nested values; slots of format strings are no texts."""
    if isinstance(value, str):
        yield re.sub(r"\{[^}]*\}", " ", value)
    elif isinstance(value, Mapping):
        # Keys are classes and colours in English.
        yield from (text for inner in value.values() for text in _texts(inner))
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from (text for inner in value for text in _texts(inner))
    elif isinstance(value, FunctionType):
        yield from _texts(tuple(one for one in value.__code__.co_consts if one != value.__doc__))
    elif isinstance(value, Frames) or (isinstance(value, type) and value.__module__.startswith(_PACKAGE)):
        yield from _texts({name: inner for name, inner in vars(value).items() if not name.startswith("__")})


@cache
def _read_json(name: str) -> Any:
    path = files(_PACKAGE).joinpath(f"{name}.json")
    return json.loads(path.read_text(encoding="utf-8"))
