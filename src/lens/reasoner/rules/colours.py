"""Named colours of a text, in the forms of several languages, and colours in hexadecimal digits.

Shades of one name are kept by that name: a red fox may not become crimson.
"""

import re
from collections.abc import Iterator

from lens.reasoner.rules.languages import language_of
from lens.reasoner.rules.numbers import ARABIC_PREFIX, HEX_COLOUR
from lens.reasoner.rules.quotes import without_quotes
from lens.reasoner.rules.tables import colour_forms, normal, tables, words_of

CONTAINED = ("ja", "ko", "zh")
"""Languages whose colours are looked for inside of words."""
GERMAN_PREFIX = re.compile(
    r"^(?:dunkel|hell|tief|feuer|knall|blut|wein|rubin|himmel|schnee|pech|gras|zitronen|marine|kohl|raben|stahl)"
)
CJK_LETTERS = {
    "red": "\u7ea2\u7d05\u8d64", "yellow": "\u9ec4\u9ec3", "green": "\u7eff\u7da0\u7dd1",
    "blue": "\u84dd\u85cd\u9752",
    "purple": "\u7d2b", "black": "\u9ed1", "white": "\u767d", "gray": "\u7070", "orange": "\u6a59\u6a58",
    "brown": "\u68d5\u8910\u8336", "pink": "\u7c89\u6843", "golden": "\u91d1", "silver": "\u94f6\u9280",
}  # fmt: skip
"""Letters that name a colour by themselves; in a refined prompt they are enough."""
MIN_PREFIX = 3
NEVER_ALONE = frozenset(("golden", "silver", "brown", "pink"))
"""Colours whose letters mean a metal or a plant as often."""


def lost_colours(original: str, refined: str) -> list[str]:
    """Return the colours of a request that a refined prompt lost, as the request writes them."""
    text, refined = normal(without_quotes(original)), normal(refined)
    lost = [code for code in HEX_COLOUR.findall(text) if code.casefold() not in refined.casefold()]
    kept: dict[str, bool] = {}
    for colour, shown in _colours(text):
        if colour not in kept:
            kept[colour] = _has_colour(refined, colour)
            lost += [] if kept[colour] else [shown]
    return lost


def _colours(text: str) -> Iterator[tuple[str, str]]:
    """Yield the colours that a request names, with the words that name them."""
    language = language_of(text)
    if language.script in ("Han", "Kana", "Hangul"):
        for code in CONTAINED:
            if code in language.candidates:
                yield from _contained_colours(text, code)
        return
    every = tables()["colour_endings"].keys()
    codes = language.candidates & every or every
    forms = {form: colour for code in sorted(codes) for form, colour in colour_forms(code).items()}
    for word in words_of(text):
        bare = ARABIC_PREFIX.sub("", word) if language.script == "Arabic" else word
        bare = GERMAN_PREFIX.sub("", bare) if "de" in codes else bare
        colour = forms.get(word) or forms.get(bare)
        if colour:
            yield colour, word


def _contained_colours(text: str, code: str) -> Iterator[tuple[str, str]]:
    for colour, listed in tables()["colours"].items():
        for form in listed.get(code, "").split():
            before = "(?<!\u9762)" if code == "ja" else ""  # not the white of "interesting"
            if re.search(before + re.escape(form), text):
                yield colour, form
                break
    if code == "zh":
        counters = tables()["counters"]["zh"]
        for colour in CJK_LETTERS.keys() - NEVER_ALONE:  # behind a counter, as in "a red apple"
            if match := re.search(rf"[{counters}]([{CJK_LETTERS[colour]}])", text):
                yield colour, match[1]


def _has_colour(text: str, colour: str) -> bool:
    """Return whether a text names a colour in any language."""
    if any(letter in text for letter in CJK_LETTERS.get(colour, "")):
        return True
    listed = tables()["colours"][colour]
    if any(form in text for code in CONTAINED for form in listed.get(code, "").split()):
        return True
    forms = {code: colour_forms(code).items() for code in tables()["colour_endings"]}
    known = {form for all_ in forms.values() for form, one in all_ if one == colour}
    german = tuple(form for form, one in forms["de"] if one == colour)
    for word in words_of(text):
        bare = ARABIC_PREFIX.sub("", word)
        if word in known or bare in known:
            return True
        if any(word.endswith(form) and len(word) - len(form) >= MIN_PREFIX for form in german):
            return True
    return False
