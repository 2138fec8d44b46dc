"""What English words and phrases mean to the nano world: from its captions, and from what else people write.

A phrase is words in lower case with a space between; hyphens are spaces. Knows nothing of prompts.
"""

import json
from functools import cache
from importlib.resources import files
from typing import Any

from lens.nano.vocabulary_tables import harmless_words, other_things, singulars, words_of
from lens.nano.world import phrases as task_phrases
from lens.nano.world.colours import COLOUR_SYNONYMS, COLOURS, EVERYDAY_COLOUR_NAMES, OBJECT_COLOURS
from lens.nano.world.languages.english import frames, words
from lens.nano.world.languages.english.nouns import nouns_of
from lens.nano.world.objects import OBJECT_CLASSES
from lens.reasoner.nano_rules.elements import Meaning

MAX_WORDS = 7
"""Words of the longest phrase."""
_INTENSIFIERS = ("", "right ", "directly ", "just ", "exactly ", "immediately ", "straight ")
_MEDIA_ENDINGS = ("", " of the picture", " of the image", " of the scene", " of the frame", " of the canvas")


@cache
def read_words(name: str) -> Any:
    """Return what a data file of this package holds."""
    return json.loads(files("lens.reasoner.nano_rules").joinpath(f"{name}.json").read_text(encoding="utf-8"))


@cache
def lexicon() -> dict[str, Meaning]:
    """Return the meaning of every phrase with one; where there are several, the one that is met first."""
    known: dict[str, Meaning] = {}

    def add(phrase: str, kind: str, value: Any = None) -> None:
        key = " ".join(words_of(phrase)) or phrase
        known.setdefault(key, Meaning(kind, value))

    _add_own_words(add)
    _add_relations(add)
    _add_things(add)
    _add_colours(add)
    for size, adjectives in words.SIZE_ADJECTIVES.items():
        for phrase in (*adjectives, *words.SIZE_PREDICATES[size]):
            add(phrase, "size", size)
    for phrase in words.MEDIA:
        add(phrase, "medium")
    texts = (
        *words.GREETINGS, *words.REQUESTS, *words.QUESTION_STARTS, *words.QUESTION_VERBS, *words.QUESTIONS,
        *words.STYLES, *words.THANKS, *words.BOILERPLATE, *words.NEUTRAL_ADJECTIVES, *words.CLAUSE_OPENERS,
        *words.THERE, *words.PURPOSES, *frames.BACKGROUND_MODIFIERS, *task_phrases.REQUEST_OPENERS,
        *task_phrases.STYLES,
    )  # fmt: skip
    for phrase in texts:
        if "{" not in phrase and len(words_of(phrase)) > 1:
            add(phrase, "purpose" if phrase.startswith(("for ", "like in")) else "filler")
    return known


def meaning_of_word(word: str) -> Meaning:
    """Return the meaning of a single word that no phrase has."""
    forms = singulars(word)
    things = other_things("en")
    is_other = any(form in things.names for form in forms)
    if is_other and things.weak.isdisjoint(forms) and things.ambiguous.isdisjoint(forms):
        return Meaning("other", word)
    if any(form in harmless_words() for form in forms):
        return Meaning("filler", word)  # as a noun of its own, it is told
    return Meaning("other" if is_other else "unknown", word)


@cache
def lexicon_words() -> frozenset[str]:
    """Return the words of all phrases that are worth mending a typo for: without those that mean nothing."""
    useful = (
        "thing", "number", "colour", "relation", "side", "place", "background", "sign", "several", "landmark",
        "aside", "size",
    )  # fmt: skip
    return frozenset(
        word for phrase, meaning in lexicon().items() if meaning.kind in useful for word in phrase.split()
    )


def _add_own_words(add: Any) -> None:
    own = read_words("english_words")
    for kind, table in own.items():
        if isinstance(table, str):
            value = 1 if kind == "article" else "plus" if kind == "and" else None
            for phrase in table.split("|"):
                is_plus = phrase in ("+", "plus", "and")
                add(phrase, kind, phrase if kind == "and" and is_plus else None if kind == "and" else value)
        else:
            for value, names in table.items():
                for phrase in names.split("|"):
                    add(phrase, kind, int(value) if value.isdigit() else value)


def _add_relations(add: Any) -> None:
    for relation, phrases in frames.PREPOSITIONS.items():
        for phrase in (*phrases, *task_phrases.PREPOSITIONS[relation]):
            for lead in _INTENSIFIERS:
                add(lead + phrase, "relation", relation)
    asides = (frames.ASIDES, task_phrases.RELATIVE_POSITIONS)
    for relation, phrases in ((relation, texts) for table in asides for relation, texts in table.items()):
        for phrase in phrases:
            for its, it in (("its", "it"), ("their", "them"), ("his", "him"), ("her", "her"), ("that",) * 2):
                if "{" in phrase or phrase in ("higher up", "lower down"):
                    add(phrase.format(its=its, it=it), "aside", relation)
    for relation in ("left of", "right of"):
        side = relation.split()[0]
        for it in ("it", "them"):
            add(f"on the {side} side of {it}", "aside", relation)
        for frame in frames.SIDE_PLACES:
            for ending in _MEDIA_ENDINGS:
                add(frame.format(x=side) + ending, "side", side)
        add(f"{side} hand side", "side", side)
        add(f"on the {side} hand side", "side", side)
    for place, phrases in (*frames.PLACES.items(), *task_phrases.POSITION_PHRASES.items()):
        for phrase in phrases:
            for ending in _MEDIA_ENDINGS:
                add(phrase + ending, "place" if place == "centre" else "side", place)
    for first, pairs in frames.SIDES.items():
        sides = ("left", "right") if first == "left of" else ("top", "bottom")
        for pair in pairs:
            for phrase, side in zip(pair, sides, strict=True):
                add(phrase, "side", side)
    for row, names in (*frames.ROWS.items(), ("top", ("top",)), ("bottom", ("bottom",))):
        for column in ("left", "right"):
            for name in names:
                for frame in (*frames.CORNERS, *task_phrases.CORNER_PHRASES):
                    for ending in ("", " of the picture", " of the image"):
                        phrase = frame.format(y=name, x=column, row=name, column=column)
                        add(phrase + ending, "place", f"{row} {column}")


def _add_things(add: Any) -> None:
    for class_name in OBJECT_CLASSES:
        # Not the synonyms with a colour, such as "red car": a colour that is said must be read.
        pairs = [(noun.singular, noun.plural) for noun in nouns_of(class_name)]
        for singular, plural in pairs:
            if " of " in singular:  # one thing, where "a pair of" are two, and "a bunch of" several
                add(f"a {singular}", "thing", (class_name, False))
                add(f"one {singular}", "thing", (class_name, False))
            colour = (singular,) if singular in COLOURS else ()
            add(singular, "thing", (class_name, None if singular == plural else False, *colour))
        for _, plural in pairs:
            add(plural, "thing", (class_name, True))
    for class_name in OBJECT_CLASSES:
        for noun in nouns_of(class_name):
            if noun.takes_article:  # what people write by a rule that has exceptions
                add(f"{noun.singular}s", "thing", (class_name, True))
                add(f"{noun.singular}es", "thing", (class_name, True))


def _add_colours(add: Any) -> None:
    tables = (EVERYDAY_COLOUR_NAMES, words.EVERYDAY_OBJECT_COLOURS, COLOUR_SYNONYMS)
    for colour in COLOURS:
        add(colour, "colour", colour)
    for colour in OBJECT_COLOURS:
        add(colour, "colour", colour)
    for colour, names in ((colour, names) for table in tables for colour, names in table.items()):
        for name in names:
            for ending in ("", " coloured", " colored", " colour", " color"):
                add(name + ending, "colour", colour)
    for colour in COLOURS:
        for ending in (" coloured", " colored", " colour", " color"):
            add(colour + ending, "colour", colour)
