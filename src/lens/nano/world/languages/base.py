"""A language of the nano world: names, inflections and sentence frames that turn a scene spec into a caption.

A language defines its nouns, colours and frames; everything else is here. Frames are format strings. Their
slots are noun phrases: {a}, {b} and {c} the groups, each with a form of the language's own, as in {a:dative};
{bg} the background colour, as in {bg:masculine}; {t} the text of a sign. Knows nothing of pixels.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lens.nano.world.scene_spec import ObjectGroup, SceneSpec


class Caption(NamedTuple):
    """A text about a scene, and the order in which it mentions the groups of objects."""

    text: str
    order: tuple[int, ...]

    def spec(self, spec: SceneSpec) -> SceneSpec:
        """Return the spec with the groups in the order of their mention."""
        return spec.reordered(self.order)


@dataclass(frozen=True)
class Frames:
    """Sentence frames of a language. A frame that occurs twice is twice as frequent."""

    one: Sequence[str]
    """One group: "{a}", "draw {a:accusative}"."""
    two: Sequence[str]
    """Two groups without a relation: "{a} and {b}"."""
    three: Sequence[str]
    """Three groups without a relation."""
    relations: Mapping[str, Sequence[str]]
    """By the relation of a to b, as phrases and as clauses; b may be mentioned first."""
    and_then: Sequence[str]
    """Two relations, {x} and {y}, each from a frame of `relations`: "{x}, {y}"."""
    backgrounds: Sequence[str]
    """A caption {x} with its background: "{x} on a {bg} background", "{bg} background, {x}"."""
    only_background: Sequence[str]
    """Nothing but a background: "a plain {bg} background"."""
    signs: Sequence[str]
    """A sign alone: 'a sign that says "{t}"'."""
    with_sign: Sequence[str]
    """A caption {x} and a sign: '{x} and a sign that says "{t}"'."""


class Language(ABC):
    """One language."""

    code: str
    """ISO 639-1."""
    name: str
    frames: Frames

    @abstractmethod
    def noun_phrase(self, group: ObjectGroup, form: str, rng: np.random.Generator) -> str:
        """Return a group with the number, colour, size and place that it states, in a form such as a case.

        A count of None is a bare plural or "some". Colour and size agree with the noun.
        """

    @abstractmethod
    def background_colour(self, colour: str, form: str, rng: np.random.Generator) -> str:
        """Return the name of a background colour, in a form such as a gender."""

    def caption(self, spec: SceneSpec, rng: np.random.Generator) -> Caption:
        """Return a caption that states all of a spec and nothing else."""
        names = [_Slot(self, index, group, rng) for index, group in enumerate(spec.groups)]
        text = self._groups(spec, names, rng) if names else ""
        if spec.text is not None:
            frame = _pick(rng, self.frames.with_sign if text else self.frames.signs)
            text = frame.replace("{x}", text).replace("{t}", spec.text)
        if spec.background is not None:
            frame = _pick(rng, self.frames.backgrounds if text else self.frames.only_background)
            text = frame.format(x=text, bg=_Colour(self, spec.background, rng))
        return read_markers(text, len(names))

    def _groups(self, spec: SceneSpec, names: "list[_Slot]", rng: np.random.Generator) -> str:
        relations = [self._relation(names, *relation, rng) for relation in spec.relations]
        if len(relations) == 2:
            return _pick(rng, self.frames.and_then).format(x=relations[0], y=relations[1])
        if relations and len(names) == 2:
            return relations[0]
        if relations:
            return self.relation_and_third(spec, relations[0], names, rng)
        frame = _pick(rng, (self.frames.one, self.frames.two, self.frames.three)[len(names) - 1])
        return frame.format(**dict(zip("abc", names, strict=False)))

    def relation_and_third(
        self, spec: SceneSpec, relation: str, names: Sequence[object], rng: np.random.Generator
    ) -> str:
        """Return the text of the only relation of three groups, and the group that it leaves out."""
        third = ({0, 1, 2} - {*spec.relations[0][::2]}).pop()
        # Bare phrases only: a request, or "and nothing else", does not go on after a relation.
        frames = [frame for frame in self.frames.one if _BARE_PHRASE.fullmatch(frame)]
        other = _pick(rng, frames).format(a=names[third])
        return _pick(rng, self.frames.and_then).format(x=relation, y=other)

    def _relation(
        self, names: "list[_Slot]", first: int, relation: str, second: int, rng: np.random.Generator
    ) -> str:
        return _pick(rng, self.frames.relations[relation]).format(a=names[first], b=names[second])


def mark(index: int, text: str) -> str:
    """Return the noun phrase of a group with an invisible mark, which `read_markers` reads."""
    return f"{chr(_FIRST_MARK + index)}{text}"


def read_markers(text: str, num_groups: int) -> Caption:
    """Return a text without marks, and the order in which it mentions the groups."""
    marks = [chr(_FIRST_MARK + index) for index in range(num_groups)]
    places = [text.find(character) for character in marks]
    assert min(places, default=0) >= 0, f"not every group is mentioned: {text!r}"
    order = tuple(sorted(range(num_groups), key=places.__getitem__))
    return Caption(text.translate({ord(character): None for character in marks}), order)


_BARE_PHRASE = re.compile(r"\{a(:[^}]*)?\}")
_FIRST_MARK = 0xE000
"""First code point of the private use area: no text has it."""


@dataclass
class _Slot:
    """A group in a format string; the part after the colon is the form."""

    language: Language
    index: int
    group: ObjectGroup
    rng: np.random.Generator

    def __format__(self, form: str) -> str:
        return mark(self.index, self.language.noun_phrase(self.group, form, self.rng))


class _Colour(NamedTuple):
    """A background colour in a format string."""

    language: Language
    colour: str
    rng: np.random.Generator

    def __format__(self, form: str) -> str:
        return self.language.background_colour(self.colour, form, self.rng)


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]
