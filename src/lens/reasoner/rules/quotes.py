"""Quoted text: what stands between quotation marks of any script, and which apostrophes are none.

A quotation ends at the mark that fits the one it began with; quotations inside it belong to it.
"""

import re
from typing import NamedTuple

from lens.reasoner.rules.tables import is_unspaced, normal

PAIRS = {
    '"': '"\u201d', "'": "'\u2019", "\u201c": '\u201d\u201c"', "\u201d": "\u201d\u201c",
    "\u201e": '\u201c\u201d\u201f"', "\u201f": "\u201d", "\u2018": "\u2019'\u2018", "\u201a": "\u2018\u2019'",
    "\u201b": "\u2019", "\u2019": "\u2019",
    "\u00ab": "\u00bb", "\u00bb": "\u00ab\u00bb", "\u2039": "\u203a", "\u203a": "\u2039\u203a",
    "\u300c": "\u300d", "\u300e": "\u300f", "\u300a": "\u300b", "\u3008": "\u3009", "\ufe41": "\ufe42",
    "\ufe43": "\ufe44", "\uff62": "\uff63", "\u301d": "\u301e\u301f", "\uff02": "\uff02", "\uff07": "\uff07",
    "\u275d": "\u275e", "\u275b": "\u275c", "\u2e42": "\u201c\u201d", "`": "`'", "\u00b4": "\u00b4",
    "\u05f4": "\u05f4",
}  # fmt: skip
"""Closing marks by the opening one. Some languages turn them round, and people mix them."""
MARKS = frozenset("".join((*PAIRS, *PAIRS.values())))
SYMMETRIC = frozenset("\"'\u201d\u2019\uff02\uff07`\u00b4\u05f4\u00bb\u203a")
"""Marks that may open and close, so the letters around them decide."""
SINGLE = frozenset("'\u2019\u2018\u00b4`\u201b\u201a")
"""Marks that are also apostrophes."""
ELISION = re.compile(
    r"'(?:\d0s|n'(?=\s+[a-z])|(?:[Tt]is|[Tt]was|em|til|cause|cos|bout|round|neath|s|t|ne?n?)(?![\w']))"
)
"""Words that begin with an apostrophe: '90s, rock 'n' roll, 'tis, German 's and 'ne."""
MAX_LENGTH = 2000
"""Characters of a quotation; what is longer is none."""
MAX_UNCLOSED = 30
"""Marks that open and never close, after which a text has no quotations: the time to read it is bounded."""
MAX_AFTER_POSSESSIVE = 40
"""How far the end of a quotation may lie behind a mark that is perhaps the apostrophe of a plural."""


class Quote(NamedTuple):
    """A quotation in a text."""

    start: int
    """Place of its opening mark."""
    end: int
    """Place after its closing mark."""
    text: str


def quotes_of(text: str) -> list[Quote]:
    """Return the outermost quotations of a text, in order."""
    found: list[Quote] = []
    place, num_unclosed = 0, 0
    while place < len(text) and num_unclosed < MAX_UNCLOSED:
        is_open = _opens(text, place)
        end = _end_of_quote(text, place) if is_open else None
        if end is None:
            num_unclosed += is_open
            place += 1
            continue
        inner = text[place + 1 : end - 1]
        if inner.startswith("`") and text[end : end + 1] == "'":  # ``as in TeX''
            inner, end = inner[1:], end + 1
        inner = inner.strip()
        if inner:
            found.append(Quote(place, end, inner))
        place = end
    return found


def without_quotes(text: str) -> str:
    """Return a text with a mark of omission in place of each quotation."""
    for quote in reversed(quotes_of(text)):
        text = f"{text[: quote.start]} \u2026 {text[quote.end :]}"
    return text


def comparable(quoted: str) -> str:
    """Return the letters of a quotation: marks inside it, the form of spaces and a final stop may differ."""
    text = normal(quoted)
    one_mark = ('"' if one in MARKS and not _joins_letters(text, at) else one for at, one in enumerate(text))
    text = "".join(one_mark)
    return re.sub(r"\s+", " ", text).strip().rstrip(",.\u3002\uff0c\u060c\u0964").strip()


def missing_quotes(original: str, refined: str) -> list[str]:
    """Return the quotations of a request that a refined prompt does not quote letter by letter."""
    known = {comparable(one) for one in _all_quotes(refined)}
    distinct = dict.fromkeys(quote.text for quote in quotes_of(original))
    return [text for text in distinct if (letters := comparable(text)) and letters not in known]


def without_outer_marks(text: str) -> str:
    """Return a text without the quotation marks around the whole of it; a short quotation keeps them."""
    if len(text) > 3 and text[-1] in ".\u3002" and text[-2] in MARKS:
        text = text[:-1] if without_outer_marks(text[:-1]) != text[:-1] else text
    if len(text) < 3 or text[-1] not in PAIRS.get(text[0], ""):
        return text
    inner = text[1:-1].strip()
    has_quotes = bool(quotes_of(inner))
    rest = without_quotes(inner)
    is_balanced = not any(
        one in text[0] + text[-1] and not _joins_letters(rest, at) for at, one in enumerate(rest)
    )
    is_short = len(inner.split()) < 4 and not (len(inner) > 8 and is_unspaced(inner))
    return inner if is_balanced and (has_quotes or not is_short) else text


def _all_quotes(text: str) -> list[str]:
    """Return the quotations of a text, and those inside them."""
    found = [quote.text for quote in quotes_of(text)]
    return found + [inner for one in found for inner in _all_quotes(one)]


def _opens(text: str, place: int) -> bool:
    mark = text[place]
    if mark not in PAIRS or place + 1 >= len(text) or (mark in SYMMETRIC and text[place + 1].isspace()):
        return False
    before = text[place - 1] if place else " "
    if mark in SINGLE and ELISION.match(normal(text[place : place + 9])):
        return False
    if mark in SYMMETRIC or mark in SINGLE:
        return not before.isdigit() and not _is_spaced_letter(before)
    return True


def _end_of_quote(text: str, place: int) -> int | None:
    """Return the place after the mark that closes a quotation, None where nothing closes it."""
    opening, closings = text[place], PAIRS[text[place]]
    depth, possible = 0, None
    for at in range(place + 1, min(len(text), place + MAX_LENGTH)):
        mark = text[at]
        # A quotation inside of this one, whose closing mark would close this one too.
        if mark in PAIRS and mark not in SYMMETRIC and mark not in closings and {*PAIRS[mark]} & {*closings}:
            depth += 1
        elif mark in closings and _closes(text, at, opening):
            if depth:
                depth -= 1
            elif opening in SINGLE and _may_be_possessive(text, at):
                possible = possible or at + 1
            elif possible and at + 1 - possible > MAX_AFTER_POSSESSIVE:
                return possible
            else:
                return at + 1
        elif possible and mark == opening and _opens(text, at):
            break
    return possible


def _closes(text: str, at: int, opening: str) -> bool:
    mark, before = text[at], text[at - 1]
    after = text[at + 1] if at + 1 < len(text) else " "
    if mark not in SYMMETRIC and mark not in SINGLE and mark != "\u201c":
        return True
    if before.isspace() and mark == opening and not (after.isspace() or after in ".,;:!?)"):
        return False  # it opens another one
    if mark in SINGLE:
        return not _is_spaced_letter(after) and not after.isdigit()
    return not (before.isspace() and _is_spaced_letter(after))


def _may_be_possessive(text: str, at: int) -> bool:
    """Return whether the mark may be the apostrophe of a plural, as in the dogs' house."""
    return text[at] in "'\u2019" and text[at - 1] in "sSzZxX" and text[at + 1 : at + 2] == " " and (
        text[at + 2 : at + 3].isalpha()
    )  # fmt: skip


def _is_spaced_letter(character: str) -> bool:
    """Return whether a character is a letter of a script that puts spaces between words and has cases."""
    return character.isalpha() and character.lower() != character.upper()


def _joins_letters(text: str, at: int) -> bool:
    """Return whether a mark is the apostrophe of a word such as don't."""
    around = text[max(at - 1, 0) : at], text[at + 1 : at + 2]
    return text[at] in SINGLE and all(one.isalnum() for one in around)
