"""What Spanish and Portuguese share: noun phrases of article, number, noun, colour, size and place.

Forms of a noun phrase are words that go together: "" has an indefinite article, "the" a definite one,
"bare" none, "listed" none and a number after the noun; "of" is the phrase after the preposition "de", "is"
has the verb "to be" after it, "there" before it. Kinds of nouns are m and f; fe is feminine with masculine
articles; mp and fp are plural words for one thing.
"""

from abc import ABC
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lens.nano.world.languages.base import Caption
from lens.nano.world.languages.european.inflected import TableLanguage
from lens.nano.world.languages.tables import pick
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec

Forms = tuple[str, str, str, str]
"""A word in masculine, feminine, masculine plural and feminine plural."""


class Words(NamedTuple):
    """The closed words of a language."""

    a: Forms
    the: Forms
    of_the: Forms
    some: Sequence[Forms]
    """Words before a plural of unknown number."""
    numbers: Sequence[str]
    """Feminine ones after a slash."""
    pair: str
    """Before a plural: two of it."""
    verbs: Sequence[tuple[str, str]]
    """To be at a place: singular and plural."""
    sizes: Mapping[str, Sequence[str]]
    """Adjectives, after the noun; with a "<" before it."""
    colours: Mapping[str, Sequence[str]]
    """Adjectives of the colours of objects."""
    backgrounds: Mapping[str, Sequence[str]]
    """Names of background colours."""
    places: Mapping[str, Sequence[str]]
    accents: Mapping[int, int]
    """Plain letters for those that hasty people leave out."""


class Iberian(TableLanguage, ABC):
    """Spanish or Portuguese."""

    one_kinds = ("mp", "fp")
    relative_forms = ("of",)
    words: Words

    def caption(self, spec: SceneSpec, rng: np.random.Generator) -> Caption:
        """Return a caption; one of ten has no accents, as from a hasty person."""
        text, order = super().caption(spec, rng)
        return Caption(text.translate(dict(self.words.accents)) if rng.random() < 0.1 else text, order)

    def background_colour(self, colour: str, form: str, rng: np.random.Generator) -> str:
        """Return the name of a colour; every second time the commonest."""
        names = self.words.backgrounds[colour]
        return names[0] if rng.random() < 0.5 else pick(rng, names)

    def noun_phrase(self, group: ObjectGroup, form: str, rng: np.random.Generator) -> str:
        """Return a noun phrase in a form: see the module."""
        noun, words = self.noun(group, rng), self.words
        is_plural = group.count != 1 or noun.kind in self.one_kinds
        row = 2 * is_plural + (noun.kind[0] == "f")
        text = noun.forms[group.count != 1]
        if group.colour:
            colour = inflect(pick(rng, words.colours[group.colour]), row)
            text += f" {colour}"
        starts_with_noun = True
        if group.size:
            size = pick(rng, words.sizes[group.size])
            starts_with_noun = not size.startswith("<")
            adjective = inflect(size.removeprefix("<"), row)
            text = f"{text} {adjective}" if starts_with_noun else f"{adjective} {text}"
        article_row = 0 if noun.kind == "fe" and row == 1 and starts_with_noun else row
        text = self._with_determiner(text, group, form.split(), article_row, row, rng)
        if group.place:
            text += f"{pick(rng, (' ', ' ', ', '))}{pick(rng, words.places[group.place])}"
        if {"is", "there"} & {*form.split()}:
            verb = pick(rng, words.verbs)[is_plural]
            text = f"{verb} {text}" if "there" in form else f"{text} {verb}"
        return text

    def _with_determiner(
        self,
        noun: str,
        group: ObjectGroup,
        form: list[str],
        article_row: int,
        row: int,
        rng: np.random.Generator,
    ) -> str:
        """Return a noun after its article or number, and after "de" if the form says so."""
        words = self.words
        if "listed" in form and group.count not in (None, 1):
            count = group.count, self._number(group, row, rng).strip()
            return pick(rng, ("{1}: {0[1]}", "{1} x{0[0]}", "{0[0]}x {1}", "{1}, {0[1]}")).format(count, noun)
        may_be_definite = "bare" not in form and bool({"of", "is"} & {*form})
        is_definite = "the" in form or (may_be_definite and rng.random() < 0.5)
        number = self._number(group, row, rng)
        if is_definite:
            article = (words.of_the if "of" in form else words.the)[article_row]
            return f"{article} {number}{noun}"
        if group.count == 1 and "bare" not in form:
            noun = f"{pick(rng, (words.a[article_row],) * 12 + ('1',) * (row < 2))} {noun}"
        elif group.count is None and "bare" not in form and rng.random() < 0.6:
            noun = f"{pick(rng, words.some)[row]} {noun}"
        elif group.count == 2 and rng.random() < 0.08:
            noun = f"{words.pair} {noun}"
        else:
            noun = f"{number}{noun}"
        return f"de {noun}" if "of" in form else noun

    def _number(self, group: ObjectGroup, row: int, rng: np.random.Generator) -> str:
        """Return a number above one with a space, as a word or in digits."""
        if group.count is None or group.count == 1:
            return ""
        word = self.words.numbers[group.count].split("/")[-1 if row % 2 else 0]
        return f"{group.count} " if rng.random() < 0.3 else f"{word} "


def inflect(adjective: str, row: int) -> str:
    """Return an adjective in the gender and number of a row of Forms; one with a hyphen never changes."""
    if adjective.endswith("-"):
        return adjective[:-1]
    if "/" in adjective:
        return adjective.split("/")[row]
    if adjective.endswith("o"):
        return adjective[:-1] + ("o", "a", "os", "as")[row]
    plural = adjective + "s" if adjective[-1] in "aeiou" else adjective + "es"
    return plural if row >= 2 else adjective


def beside(frames: Sequence[str], side: str, other: str) -> tuple[str, ...]:
    """Return frames of a thing beside another: SIDE and OTHER are nouns, SIDO and OTHO adjectives."""
    words = {"SIDE": side, "SIDO": f"{side[:-1]}o", "OTHER": other, "OTHO": f"{other[:-1]}o"}
    for slot, word in words.items():
        frames = [frame.replace(slot, word) for frame in frames]
    return tuple(frames)
