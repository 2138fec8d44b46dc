"""Words and characters of a text in an image, as OneIG and LongText-Bench count them."""

import re
from collections import Counter

_CHINESE = "\u4e00-\u9fa5"
_FRENCH = (
    "\u00e0\u00e2\u00e4\u00e9\u00e8\u00ea\u00eb\u00ee\u00ef\u00f4\u00f6\u00f9\u00fb\u00fc\u00e7"
    "\u00c0\u00c2\u00c4\u00c9\u00c8\u00ca\u00cb\u00ce\u00cf\u00d4\u00d6\u00d9\u00db\u00dc\u00c7"
)
_DROPPED = re.compile(rf"[^{_CHINESE}a-zA-Z0-9\s{_FRENCH}]")
_HAS_CHINESE = re.compile(f"[{_CHINESE}]")
_SPACE = re.compile(r"\s+")


def keep_letters(text: str) -> str:
    """Return the letters, digits and white space of a text; nothing takes the place of the rest."""
    return _DROPPED.sub("", text)


def without_space(text: str) -> str:
    """Return a text without white space."""
    return _SPACE.sub("", text)


def with_single_blanks(text: str) -> str:
    """Return a text whose runs of white space are one blank, without those at its ends."""
    return _SPACE.sub(" ", text).strip()


def has_chinese(text: str) -> bool:
    """Return whether a text has a Chinese character."""
    return _HAS_CHINESE.search(text) is not None


def count_matches(reference: list[str], read: list[str]) -> int:
    """Return how many units of the reference were read, equal ones as often as both have them."""
    return (Counter(reference) & Counter(read)).total()
