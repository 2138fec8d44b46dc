"""The tables of languages: function words, numbers, colours, talk. They lie in languages.json."""

import json
import re
import unicodedata
from functools import cache
from importlib.resources import files
from itertools import product
from typing import Any

WORD = re.compile(r"[^\W\d_]+(?:[\u0300-\u036f\u0900-\u0963\u0981-\u0dff\u0e31-\u0e4e]+[^\W\d_]*)*")
"""Letters with their marks; Python counts vowel signs of Indic scripts as no letters."""
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
"""Thai, Lao, Burmese, Khmer, kana, Han."""


@cache
def tables() -> dict[str, Any]:
    """Return all tables by name."""
    text = files("lens.reasoner.rules").joinpath("languages.json").read_text("utf-8")
    return json.loads(unicodedata.normalize("NFC", text))


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case; a sequence of characters without spaces is one word."""
    return WORD.findall(normal(text).casefold())


def is_unspaced(text: str) -> bool:
    """Return whether a text has letters of a script that puts no spaces between words."""
    return UNSPACED.search(text) is not None


def normal(text: str) -> str:
    """Return a text as checks compare it: composed letters, digits of ASCII, one apostrophe."""
    text = unicodedata.normalize("NFC", text)
    return "".join(map(_plain, text)) if not text.isascii() else text


def _plain(character: str) -> str:
    if character in "\u2019\u02bc\uff07":
        return "'"
    if character.isdecimal():
        return str(unicodedata.decimal(character))
    return character


@cache
def colour_forms(code: str) -> dict[str, str]:
    """Return every form of a language's colours with the name of the colour."""
    endings = tables()["colour_endings"].get(code, ())
    return {
        stem + ending: colour
        for colour, listed in tables()["colours"].items()
        for stem, ending in product(listed.get(code, "").split(), endings)
    }


@cache
def pattern_of(name: str) -> re.Pattern[str]:
    """Return a table of regular expressions as one."""
    value = tables()[name]
    alternatives = value if isinstance(value, list) else [value]
    return re.compile("|".join(f"(?:{one})" for one in alternatives), re.IGNORECASE)
