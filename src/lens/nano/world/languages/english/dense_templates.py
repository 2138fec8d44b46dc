"""Templates of dense English captions: their table, and how one becomes a sentence.

A template has choices, [x|y], slots, {a}, and `a~` for a or an. Knows nothing of what fills a slot.
"""

import functools
import random
import re

from lens.nano.world.languages.tables import read_table

_NOT_AFTER_AN = ("uni", "one", "ewe", "ufo", "eu")
"""Beginnings that are written with a vowel and spoken with a consonant."""


@functools.cache
def dense_table() -> dict:
    """Return the templates by what they state."""
    return read_table("english_dense")


@functools.cache
def parse(template: str) -> tuple:
    """Return a template as a tuple of texts and of lists of alternatives, each such a tuple."""
    stack: list[list] = [[[]]]
    for token in re.findall(r"[\[\]|]|[^\[\]|]+", template):
        if token == "[":
            stack.append([[]])
        elif token == "|":
            stack[-1].append([])
        elif token == "]":
            alternatives = stack.pop()
            stack[-1][-1].append([tuple(alternative) for alternative in alternatives])
        else:
            stack[-1][-1].append(token)
    return tuple(stack[0][0])


def expand(parts: tuple, choice: random.Random) -> str:
    """Return a parsed template with its choices made."""
    return "".join(part if isinstance(part, str) else expand(choice.choice(part), choice) for part in parts)


def finish(text: str) -> str:
    """Return a sentence with its articles, spaces and capital."""
    text = re.sub(r"\ba~ +(\w+)", _with_article, " ".join(text.split()), flags=re.IGNORECASE)
    text = text.replace(" ,", ",").replace(" .", ".")
    start = 0 if text[:1].isprintable() else 1  # a mark of a group may come first
    return text[:start] + text[start : start + 1].upper() + text[start + 1 :]


def _with_article(match: re.Match[str]) -> str:
    word = match[1].lower()
    an = word[0] in "aeiou" and not word.startswith(_NOT_AFTER_AN)
    return f"{'an' if an else 'a'} {match[1]}"
