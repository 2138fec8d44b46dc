"""Languages that count with classifiers: nouns without number, and verbs at the end of a request.

A frame that ends with a full stop is a sentence; one without is a phrase. A group that is mentioned twice
keeps its noun and loses its number. Knows nothing of a single language.
"""

import json
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import NamedTuple, TypeVar

import numpy as np

from lens.nano.world.languages.base import Caption, Language, mark, read_markers
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec

_Choice = TypeVar("_Choice")

STOP = "\u3002"
"""The full stop of Chinese and Japanese."""
_FULL_WIDTH = {ord("0") + digit: 0xFF10 + digit for digit in range(10)}
_COMMA = re.compile("[\u3001\uff0c]")
_LATIN_SHARE = 0.08
_MARKS = "\uff01!"
"""Marks that end a caption without a full stop."""
_DOUBLE_STOP = re.compile("\u3002+(?=[\u3002\u3001\uff0c\uff1b,;\uff08\uff09 ])")
"""A full stop before another mark."""


class CountedNoun(NamedTuple):
    """A noun of a class with a classifier of it."""

    text: str
    classifier: str


class NounEntry(NamedTuple):
    """The nouns and the classifiers of a class."""

    nouns: tuple[str, ...]
    coloured_nouns: tuple[str, ...]
    """Nouns that take a colour."""
    regional_nouns: tuple[str, ...]
    """Nouns of a second script; the same ones where the data have no others."""
    coloured_regional_nouns: tuple[str, ...]
    """Those of them that take a colour."""
    classifiers: tuple[str, ...]


class EastAsianLanguage(Language):
    """A language with classifiers, whose nouns are a data file."""

    phrase_backgrounds: Sequence[str] = ()
    """Frames of a background for phrases alone: "{x}" is no sentence."""
    phrase_signs: Sequence[str] = ()
    """Frames of a sign beside a phrase."""
    colour_prefixes: str
    """Characters at the start of nouns that name a colour: such nouns take no other."""
    endings: Sequence[str]
    """Ends of a caption: a full stop, an exclamation mark or none."""

    @abstractmethod
    def phrase(
        self, group: ObjectGroup, noun: CountedNoun, form: str, rng: np.random.Generator, *, is_repeated: bool
    ) -> str:
        """Return the noun phrase of a group with a noun; a repeated one has no number and no place."""

    def word(self, group: ObjectGroup, noun: CountedNoun, form: str) -> str | None:
        """Return the verb or pronoun that a form stands for, or None where it is a form of a noun phrase."""
        return None

    def nouns(self) -> Mapping[str, NounEntry]:
        """Return the nouns of all classes by name."""
        return _read_nouns(self.code, self.colour_prefixes)

    def pick_noun(self, group: ObjectGroup, rng: np.random.Generator) -> CountedNoun:
        """Return a noun of a group; the first ones are the more frequent."""
        entry = self.nouns()[group.class_name]
        names = entry.coloured_nouns if group.colour else entry.nouns
        return CountedNoun(_pick_early(rng, names), _pick_early(rng, entry.classifiers))

    def noun_phrase(self, group: ObjectGroup, form: str, rng: np.random.Generator) -> str:
        """Return a group as a noun phrase."""
        return self.phrase(group, self.pick_noun(group, rng), form, rng, is_repeated=False)

    def caption(self, spec: SceneSpec, rng: np.random.Generator) -> Caption:
        """Return a caption that states all of a spec and nothing else."""
        mentions = [
            _Mention(self, index, group, self.pick_noun(group, rng), rng)
            for index, group in enumerate(spec.groups)
        ]
        frames = self.frames
        text = self._body(spec, mentions, rng) if mentions else ""
        is_phrase = not text.endswith(STOP)
        if spec.text is not None:
            extra = self.phrase_signs if is_phrase else ()
            frame = pick(rng, (*frames.with_sign, *extra) if text else frames.signs)
            is_phrase = is_phrase and (not text or frame in extra) and not frame.endswith(STOP)
            text = frame.replace("{x}", text).replace("{t}", spec.text)
        if spec.background is not None:
            extra = self.phrase_backgrounds if is_phrase else ()
            frame = pick(rng, (*frames.backgrounds, *extra) if text else frames.only_background)
            text = frame.format(x=text, bg=_Background(self, spec.background, rng))
        text = _DOUBLE_STOP.sub("", text).removesuffix(STOP)
        text += pick(rng, self.endings) if text[-1] not in _MARKS else ""
        return read_markers(self.finish(text, rng), len(mentions))

    def finish(self, text: str, rng: np.random.Generator) -> str:
        """Return a caption as it is written in the end: now and then with the commas of a Latin keyboard."""
        if rng.random() < _LATIN_SHARE:
            return _COMMA.sub(pick(rng, (",", ", ", " ")), text)
        return text

    def _body(self, spec: SceneSpec, mentions: "list[_Mention]", rng: np.random.Generator) -> str:
        relations = [
            pick(rng, self.frames.relations[relation]).format(a=mentions[first], b=mentions[second])
            for first, relation, second in spec.relations
        ]
        if len(relations) == 2:
            return pick(rng, self.frames.and_then).format(x=relations[0], y=relations[1])
        if relations and len(mentions) == 2:
            return relations[0]
        if relations:
            return self.relation_and_third(spec, relations[0], mentions, rng)
        frame = pick(rng, (self.frames.one, self.frames.two, self.frames.three)[len(mentions) - 1])
        return frame.format(**dict(zip("abc", mentions, strict=False)))


@dataclass
class _Mention:
    """A group in a format string; the part after the colon is the form."""

    language: EastAsianLanguage
    index: int
    group: ObjectGroup
    noun: CountedNoun
    rng: np.random.Generator
    num_mentions: int = 0

    def __format__(self, form: str) -> str:
        word = self.language.word(self.group, self.noun, form)
        if word is not None:
            return word
        self.num_mentions += 1
        is_repeated = self.num_mentions > 1
        return mark(
            self.index,
            self.language.phrase(self.group, self.noun, form, self.rng, is_repeated=is_repeated),
        )


class _Background(NamedTuple):
    """A background colour in a format string."""

    language: Language
    colour: str
    rng: np.random.Generator

    def __format__(self, form: str) -> str:
        return self.language.background_colour(self.colour, form, self.rng)


def pick(rng: np.random.Generator, choices: Sequence[_Choice]) -> _Choice:
    """Return a random choice."""
    return choices[int(rng.integers(len(choices)))]


def full_width(number: int) -> str:
    """Return a number in full-width digits."""
    return str(number).translate(_FULL_WIDTH)


def _pick_early(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[0] if rng.random() < 0.4 else pick(rng, choices)


@cache
def _read_nouns(code: str, colour_prefixes: str) -> dict[str, NounEntry]:
    """Read `classifier/classifier noun noun ~noun | noun`: a tilde is a noun of coloured things alone."""
    text = (files("lens.nano.world.languages") / f"{code}.json").read_text(encoding="utf-8")
    entries: dict[str, NounEntry] = {}
    for name, line in json.loads(text).items():
        words, _, regional = line.partition(" | ")
        classifiers, *nouns = words.split()
        kinds = tuple(classifiers.split("/"))
        regional_nouns = tuple(regional.split()) or tuple(nouns)
        entries[name] = NounEntry(
            *_plain_and_coloured(nouns, colour_prefixes),
            *_plain_and_coloured(regional_nouns, colour_prefixes),
            kinds,
        )
    return entries


def _plain_and_coloured(
    nouns: Sequence[str], colour_prefixes: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the nouns that stand alone, and those that take a colour."""
    plain = tuple(noun for noun in nouns if not noun.startswith("~"))
    coloured = tuple(noun.lstrip("~") for noun in nouns if noun[0] not in colour_prefixes)
    return plain, coloured or plain
