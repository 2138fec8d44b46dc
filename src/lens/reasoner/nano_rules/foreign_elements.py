"""Prompts in other languages as elements, and which language a prompt is in.

Knows nothing of what elements make together.
"""

import re
import unicodedata

from lens.nano.vocabulary_tables import LETTERS
from lens.nano.world.languages.asian.chinese import TO_TRADITIONAL
from lens.reasoner.nano_rules.elements import FILLER, Element, Meaning
from lens.reasoner.nano_rules.english_elements import MARKS
from lens.reasoner.nano_rules.english_lexicon import lexicon, read_words
from lens.reasoner.nano_rules.foreign_lexicon import (
    LATIN,
    UNSPACED,
    foreign_lexicon,
    key_of,
    meaning_of_foreign_word,
    plain_key,
    stem_of,
    stems,
    words_known,
)
from lens.reasoner.nano_rules.spelling import is_ordinary, mended

_SCRIPTS = {
    "ru": "[\u0400-\u04ff]", "ar": "[\u0600-\u06ff]", "hi": "[\u0900-\u097f]", "ko": "[\uac00-\ud7af]",
    "ja": "[\u3041-\u30ff]", "zh": "[\u4e00-\u9fff]",
}  # fmt: skip
_MARK = r"\d+|(?<=\s)-(?=\s)|[^\s\w'\u2019-]|\n"
_PIECE = re.compile(f"{LETTERS}|{_MARK}")
_PIECE_OF_SCRIPT = re.compile(f"[A-Za-z][A-Za-z0-9]*|(?:(?![A-Za-z]){LETTERS[:-1]})+|{_MARK}")
"""The same where Latin letters end a word of another script."""
_MARKS = {
    **MARKS,
    **dict.fromkeys("\u3001\uff0c\u060c\uff1b\uff1a\u061b\uff08\uff09\u00b7\u30fb", "comma"),
    **dict.fromkeys("\u3002\uff01\uff1f\u0964\u061f", "stop"),
    "\uff0b": "and",
}
_PLURAL_ENDINGS = (
    "\u0430\u043c\u0438", "\u044f\u043c\u0438", "\u0430\u0445", "\u044f\u0445",
    "\u0430\u043c", "\u044f\u043c",
)  # fmt: skip
_MAX_WORDS = 6
_MAX_LETTERS = 10
_TO_SIMPLIFIED = {other: one for one, other in TO_TRADITIONAL.items()}
_ARABIC_PREFIXES = (
    "\u0648\u0627\u0644", "\u0628\u0627\u0644", "\u0644\u0644", "\u0627\u0644", "\u0648", "\u0628", "\u0644",
)  # fmt: skip
"""And the, with the, for the, the, and, with, for."""


def language_of(prompt: str) -> str:
    """Return the code of the language of a prompt; English where another is no better."""
    for code, letters in _SCRIPTS.items():
        if re.search(letters, prompt):
            return code
    words = key_of(prompt).split()
    votes: dict[str, float] = {"en": sum(map(_english_vote, words))}
    if votes["en"] < len(words):
        for code in LATIN:
            votes[code] = sum(word in words_known(code) or _find(word, code) is not None for word in words)
    return max(votes, key=lambda code: votes[code])


def _english_vote(word: str) -> float:
    """Return 1 for an English word, and less for one that may be a typo of it."""
    return 1 if word in lexicon() or is_ordinary(word) else 0.5 if mended(word) != word else 0


def foreign_elements(text: str, code: str, start: int = 0) -> list[Element]:
    """Return the elements of a part of a prompt without quotes; `start` is its place in the prompt."""
    composed = unicodedata.normalize("NFKC", text)
    text = composed if len(composed) == len(text) else text  # places in the prompt must stay
    if code == "zh":
        text = text.translate(_TO_SIMPLIFIED)
    elements: list[Element] = []
    pattern = _PIECE if code in LATIN else _PIECE_OF_SCRIPT
    pieces = [(piece.group(), piece.start()) for piece in pattern.finditer(text)]
    place = 0
    while place < len(pieces):
        piece, at = pieces[place]
        if not re.match(LETTERS, piece):
            elements.append(_of_mark(piece, at + start))
            place += 1
        elif code in UNSPACED and (num_pieces := _num_joined(pieces, place, code)):
            last, last_at = pieces[place + num_pieces - 1]
            end = last_at + len(last)
            meaning = foreign_lexicon(code)["".join(one for one, _ in pieces[place : place + num_pieces])]
            elements.append(Element(*meaning, text[at:end], at + start, end + start))
            place += num_pieces
        elif code in UNSPACED:
            elements += _segments(piece, code, at + start, elements[-1:])
            place += 1
        else:
            length, meanings = _longest([one for one, _ in pieces[place : place + _MAX_WORDS]], code)
            last, last_at = pieces[place + length - 1]
            end = last_at + len(last)
            elements += [Element(*one, text[at:end], at + start, end + start) for one in meanings]
            place += length
    return elements


def _num_joined(pieces: list[tuple[str, int]], place: int, code: str) -> int:
    """Return the number of pieces that are one phrase with spaces in it, or 0."""
    for number in (3, 2):
        words = [piece for piece, _ in pieces[place : place + number]]
        if len(words) == number and "".join(words) in foreign_lexicon(code):
            return number
    return 0


def _of_mark(piece: str, at: int) -> Element:
    if piece.isdigit():
        return Element("number", int(piece), piece, at, at + len(piece))
    kind = _MARKS.get(piece, "filler")
    return Element(kind, "plus" if piece == "+" else piece, piece, at, at + len(piece))


def _longest(pieces: list[str], code: str) -> tuple[int, list[Meaning]]:
    """Return the longest phrase with a meaning, as a number of pieces and what it means."""
    keys = [key_of(piece) if re.match(LETTERS, piece) else "" for piece in pieces]
    length = next((number for number, key in enumerate(keys) if not key), len(keys))
    for num_words in range(length, 0, -1):
        found = _find(" ".join(keys[:num_words]), code)
        if found is not None:
            return num_words, _spread(found)
    if code == "ar" and (parts := _without_prefix(keys[:length])):
        return parts
    english = lexicon().get(keys[0])
    if english is not None and code != "ar" and len(keys[0]) > 2:
        return 1, [english]
    return 1, [meaning_of_foreign_word(keys[0], code)]


def _find(key: str, code: str) -> Meaning | None:
    known = foreign_lexicon(code)
    found = known.get(key) or (known.get(plain_key(key)) if code in LATIN else None)
    if found is not None or len(key) < 4:
        return found
    endings = read_words("other_languages")[code].get("endings", "").split()
    shorter = (known.get(key.removesuffix(ending)) for ending in endings if key.endswith(ending))
    inflected = (one for one in shorter if one is not None and one.kind in ("thing", "colour", "size"))
    found = next(inflected, None) or stems(code).get(stem_of(key, code))
    if found is None or found.kind != "thing":
        return found
    # A case of a noun tells its number by its ending alone.
    is_plural = key.endswith(_PLURAL_ENDINGS) if code == "ru" else found.value[1]
    return Meaning("thing", (found.value[0], is_plural, *found.value[2:]))


def _spread(meaning: Meaning) -> list[Meaning]:
    """Return the meanings of a dual: the number two, and the thing."""
    return [Meaning("number", 2), Meaning("thing", meaning.value)] if meaning.kind == "pair" else [meaning]


def _without_prefix(keys: list[str]) -> tuple[int, list[Meaning]] | None:
    """Return the longest Arabic phrase whose first word has a prefix; articles on later words are dropped."""
    article = "\u0627\u0644"
    bare = [key.removeprefix(article) if len(key) > 4 else key for key in keys]
    for prefix in ("", *_ARABIC_PREFIXES):
        if not keys[0].startswith(prefix) or len(keys[0]) - len(prefix) < 2:
            continue
        first = keys[0].removeprefix(prefix)
        for num_words in range(len(keys), 0, -1):
            for rest in (keys[1:num_words], bare[1:num_words]):
                found = _find(" ".join((first, *rest)), "ar")
                if found is not None:
                    lead = [Meaning("and")] if prefix.startswith("\u0648") else []
                    if prefix.endswith(article) and found.kind == "thing":
                        lead.append(Meaning("definite"))
                    return num_words, [*lead, *_spread(found)]
    return None


def _segments(piece: str, code: str, at: int, before: list[Element]) -> list[Element]:
    """Return the elements of a run of letters without spaces."""
    elements: list[Element] = []
    place, unknown = 0, ""
    while place < len(piece):
        previous = (elements or before)[-1:]
        follows_number = bool(previous) and previous[0].kind in ("number", "several")
        length, meaning = _longest_segment(piece[place:], code, follows_number and not unknown)
        if meaning is None:
            unknown += piece[place]
            place += 1
            continue
        if unknown:
            elements.append(_unknown(unknown, at + place - len(unknown)))
            unknown = ""
        elements.append(Element(*meaning, piece[place : place + length], at + place, at + place + length))
        place += length
    if unknown:
        elements.append(_unknown(unknown, at + place - len(unknown)))
    return elements


def _unknown(text: str, at: int) -> Element:
    """Return a run that no list has; a single letter is taken for an ending."""
    kind, value = Meaning("unknown", text) if len(text) > 1 else FILLER
    return Element(kind, value, text, at, at + len(text))


def _longest_segment(rest: str, code: str, follows_number: bool) -> tuple[int, Meaning | None]:
    known, counters = foreign_lexicon(code), _counters(code)
    for length in range(min(_MAX_LETTERS, len(rest)), 0, -1):
        part = rest[:length].casefold()
        if follows_number and part in counters:
            return length, FILLER
        found = known.get(part)
        if found is not None:
            return length, FILLER if found.kind == "counter" else found
    return 1, None


def _counters(code: str) -> frozenset[str]:
    return frozenset(read_words("other_languages")[code].get("counter", "").split("|"))
