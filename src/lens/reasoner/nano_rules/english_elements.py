"""English prompts as elements: the longest phrases with a meaning, with typos mended.

Knows nothing of what elements make together.
"""

import re

from lens.nano.vocabulary_tables import LETTERS, words_of
from lens.reasoner.nano_rules.elements import BREAKS, FILLER, Element, Meaning
from lens.reasoner.nano_rules.english_lexicon import MAX_WORDS, lexicon, meaning_of_word
from lens.reasoner.nano_rules.spelling import mended

_PIECE = re.compile(
    # Letters and digits together are the text of a sign, but for "3x" and "x3".
    r"(?!\d+[xX]\b|[xX]\d+\b)(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{2,}|"
    rf"{LETTERS}(?:['\u2019]{LETTERS})*|\d+|[^\s\w'\u2019-]|(?<=\s)-(?=\s)|\n"
)
MARKS = {
    **dict.fromkeys(",;:/|\n()[]-\u2013\u2014\u2022", "comma"),
    **dict.fromkeys(".!?", "stop"),
    **dict.fromkeys("*x\u00d7", "change"),
    "+": "and", "&": "and", "=": "equals",
}  # fmt: skip


def english_elements(text: str, start: int = 0) -> list[Element]:
    """Return the elements of a part of a prompt without quotes; `start` is its place in the prompt."""
    pieces = [(piece.group(), piece.start() + start) for piece in _PIECE.finditer(text)]
    words = [_key(piece) for piece, _ in pieces]
    elements, place = [], 0
    while place < len(pieces):
        length, meaning = _longest(words, place)
        first, (last, last_start) = pieces[place], pieces[place + length - 1]
        end = last_start + len(last)
        elements.append(Element(*meaning, text[first[1] - start : end - start], first[1], end))
        place += length
    return elements


def _key(piece: str) -> str:
    if not piece[0].isalpha():
        return piece
    word = "".join(words_of(piece)[:1]) or piece.lower()
    # "3x" and "x3" come as one piece of a digit and a letter each.
    return word if word in ("x", "w") or word in lexicon() else mended(word)


def _longest(words: list[str], place: int) -> tuple[int, Meaning]:
    for length in range(min(MAX_WORDS, len(words) - place), 0, -1):
        phrase = words[place : place + length]
        if length > 1 and any(not word[0].isalnum() for word in phrase):
            continue
        found = lexicon().get(" ".join(phrase))
        if found is not None:
            return length, found
    word = words[place]
    if word.isdigit():
        return 1, Meaning("number", int(word)) if int(word) else Meaning("negation")
    if word in MARKS:
        kind = MARKS[word]
        return 1, Meaning(kind, "plus" if word == "+" else word)
    return 1, meaning_of_word(word) if word[0].isalpha() else FILLER


def without(elements: list[Element], first: int, last: int, *, leaves: str = "comma") -> list[Element]:
    """Return the elements without those from `first` to `last`; a mark takes their place."""
    gone = Element(leaves, None, "", elements[first].start, elements[last].end)
    return [*elements[:first], gone, *elements[last + 1 :]]


def skip(elements: list[Element], place: int, kinds: tuple[str, ...], step: int = 1) -> int:
    """Return the first place from `place` on whose kind is none of these; it may be outside the list."""
    while 0 <= place < len(elements) and elements[place].kind in kinds:
        place += step
    return place


def kind_at(elements: list[Element], place: int) -> str:
    """Return the kind of the element in a place; outside of the list it is a stop."""
    return elements[place].kind if 0 <= place < len(elements) else "stop"


def is_break(kind: str) -> bool:
    """Return whether a kind separates things."""
    return kind in BREAKS
