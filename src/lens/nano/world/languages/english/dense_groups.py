"""Groups of objects in a dense English caption: their names, and noun phrases with the facts they state.

A group keeps its name for most of a caption. Knows nothing of sentences.
"""

import functools
import random
import re
from collections.abc import Sequence

from lens.nano.world.colours import COLOURS, EVERYDAY_COLOUR_NAMES
from lens.nano.world.languages.base import mark
from lens.nano.world.languages.english import words
from lens.nano.world.languages.english.dense_templates import dense_table
from lens.nano.world.languages.english.nouns import EnglishNoun, colourless_nouns_of, nouns_of
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scene_spec import ObjectGroup

_COLLECTIVES = {2: "a couple of", 3: "a trio of", 4: "a quartet of", 6: "half a dozen"}
_SIZE_WORDS = {
    "small": (*["small"] * 6, "little", "little", "tiny", "tiny", "very small", "miniature", "small-sized"),
    "large": (*["large"] * 6, "big", "big", "huge", "huge", "very large", "giant", "enormous", "oversized"),
}
_ADJECTIVES = (
    "cute", "friendly", "cheerful", "cartoon", "stylised", "simple", "glossy", "charming", "neat", "lovely",
    "emoji-style", "playful", "flat", "smooth", "adorable", "neatly drawn", "carefully drawn", "colourful",
)  # fmt: skip
"""Words that state no fact."""
_COLOUR_AFTER = ("in {}", "coloured {}", "of {} colour", "painted {}", "drawn in {}")


class DenseGroup:
    """A group of objects in a text: its facts, which of them are yet to state, and its names.

    `mentioned` collects the classes that the text has mentioned; its groups share it.
    """

    def __init__(
        self, index: int, groups: Sequence[ObjectGroup], choice: random.Random, mentioned: list[str]
    ):
        self.mentioned, self.is_other = mentioned, False
        self.group, self.choice, self.index = groups[index], choice, index
        others = (*groups[:index], *groups[index + 1 :])
        self.names = class_names(self.group.class_name, self.group.colour is not None)
        if {"red apple", "green apple"} <= {other.class_name for other in groups} and not self.group.colour:
            self.names = self.names[-1:]
        # The usual name in half of the texts; a text changes names rarely.
        self.name = self.names[0] if choice.random() < 0.5 else choice.choice(self.names)
        self.twins = [other for other in others if other.class_name == self.group.class_name]
        self.is_mentioned = False
        self.is_plural = self.group.count != 1
        facts = ("count", "colour", "size", "place")
        self.unstated = {fact for fact in facts if getattr(self.group, fact) is not None}
        self.colour = self.group.colour
        if self.colour and choice.random() < 0.25:
            self.colour = choice.choice(words.EVERYDAY_OBJECT_COLOURS[self.colour])
        self.size = choice.choice(_SIZE_WORDS[self.group.size]) if self.group.size else None

    def noun(self) -> str:
        """Return a name, in most cases the same one."""
        name = self.name if self.choice.random() < 0.9 else self.names[0]
        return name.plural if self.is_plural else name.singular

    def phrase(self, deferred: frozenset[str] = frozenset()) -> str:
        """Return the group as a marked noun phrase, indefinite at its first mention."""
        text = self._definite() if self.is_mentioned else self._indefinite(deferred)
        return mark(self.index, text)

    def number(self) -> str:
        """Return how many objects there are."""
        count = self.group.count
        if count is None:
            return self.choice.choice(("some", "several", "a few", "a number of", "various"))
        return str(count) if count > 1 and self.choice.random() < 0.1 else words.NUMBERS[count]

    def _indefinite(self, deferred: frozenset[str]) -> str:
        self.is_mentioned = True
        self.is_other = self.group.class_name in self.mentioned
        self.mentioned.append(self.group.class_name)
        parts = [self.noun()]
        for fact, word in (("colour", self.colour), ("size", self.size)):
            if word and fact not in deferred:
                if fact == "colour" and self.choice.random() < 0.12:
                    parts.append(self.choice.choice(_COLOUR_AFTER).format(word))
                else:
                    parts.insert(0, word)
                self.unstated.discard(fact)
            if fact == "colour" and self.choice.random() < 0.1:
                parts.insert(0, self.choice.choice(_ADJECTIVES))
        noun = " ".join(parts)
        if "count" in deferred:
            return f"{self.choice.choice(('', 'some '))}{noun}"
        self.unstated.discard("count")
        if not self.is_plural:
            return f"{self.choice.choice(('a~', 'a~', 'a~', 'a~', 'one', 'a single'))} {noun}"
        collective = _COLLECTIVES.get(self.group.count or 0)
        if collective and " of " not in noun and self.choice.random() < 0.15:
            return f"{collective} {noun}"
        return f"{self.number()} {noun}"

    def _definite(self) -> str:
        group, choice = self.group, self.choice
        if self.twins:
            count = self.number() if any(twin.count != group.count for twin in self.twins) else ""
            parts = [count if self.is_plural and group.count else "", self.size, self.colour]
            if self.is_other and not parts[0] and any(_includes(twin, group) for twin in self.twins):
                parts.insert(0, "other")
        else:
            parts = [
                self.number() if self.is_plural and group.count and choice.random() < 0.25 else "",
                self.size if choice.random() < 0.2 else "",
                self.colour if choice.random() < 0.3 else "",
            ]
        return " ".join(("the", *(word for word in parts if word), self.noun()))


def _includes(other: ObjectGroup, group: ObjectGroup) -> bool:
    """Return whether the colour and size that tell a group also hold for another one of its class."""
    return group.colour in (None, other.colour) and group.size in (None, other.size)


@functools.cache
def class_names(class_name: str, is_recoloured: bool) -> tuple[EnglishNoun, ...]:
    """Return the names that count objects of a class, the usual one first: "loaf of bread", not "bread"."""
    names = colourless_nouns_of(class_name) if is_recoloured else nouns_of(class_name)
    return tuple(name for name in names if name.takes_article and name.has_bare_plural)


@functools.cache
def background_names(colour: str | None) -> tuple[str, ...]:
    """Return what to call a background colour; no word that also names an object."""
    if colour is None:
        return ("",)
    nouns = {noun.singular for class_name in OBJECT_CLASSES for noun in nouns_of(class_name)}
    names = EVERYDAY_COLOUR_NAMES[colour]
    return (colour, *(name for name in names if not nouns & set(re.findall(r"[a-z]+", name))))


@functools.cache
def traits(class_name: str, is_recoloured: bool) -> tuple[str, ...]:
    """Return what the drawing of a class has, as objects of "has"."""
    known = dense_table()["traits"].get(class_name, ())
    return tuple(text for text in known if not (is_recoloured and set(text.split()) & set(COLOURS)))
