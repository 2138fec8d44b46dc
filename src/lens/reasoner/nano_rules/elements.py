"""The parts of a prompt that mean something to the nano world, in the order in which they are said.

Knows nothing of languages and of what the parts make together.
"""

from typing import Any, NamedTuple


class Meaning(NamedTuple):
    """What a word or a phrase means.

    thing: (class, whether it is plural, or None for either, and the colour that the word can also mean).
    number, colour and size: their value.
    several: more than one. article: one, or some. definite: something that may be known already.
    relation: a relation to the thing that follows; landmark: to the thing before it; aside: to what a
    pronoun stands for. side: a place of the image that is also a side of another thing; place: any other one.
    background, sign, says: words for these. behind: everything else. on: what may stand before a background.
    and, with, comma, stop: what separates. near: next to. ordinal: the first, the second. of_them: of what
    was said before. negation: what follows is not wanted. purpose: what follows is no content. medium: the
    image itself. verb: to be somewhere. that: of the thing before. pronoun. filler: nothing. unknown: in no
    list; other: a thing outside the world; shade: of a colour. answer: to a sum; change: its operators.
    action: what things do together, which the world does not have.
    """

    kind: str
    value: Any = None


class Element(NamedTuple):
    """A meaning in its place."""

    kind: str
    value: Any
    text: str
    """As it is written."""
    start: int
    """Place of its first character in the prompt."""
    end: int


FILLER = Meaning("filler")
BREAKS = ("comma", "stop", "and", "with")
"""Kinds that separate one thing from another."""
