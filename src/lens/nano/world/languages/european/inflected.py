"""Languages whose nouns lie in a table by class, and captions of two relations, which name a thing twice.

A table is {"nouns": {class: [entry, ...]}}, the commonest noun first. An entry is "kind:form/form". A mark
before it says when it fits: "!" not with a colour (the noun has its own), "?" only with one. Knows nothing of
what kinds and forms a language has.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from lens.nano.world.languages.base import Caption, Language, mark
from lens.nano.world.languages.tables import pick, read_table
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec

UNIQUE = ("sun", "moon")
"""Classes of which there is one in the sky."""


class TableNoun(NamedTuple):
    """An entry of a table."""

    kind: str
    """Gender and whatever else inflects the words around it."""
    forms: tuple[str, ...]
    when: str
    """ "!" only without a colour, "?" only with one, "" always."""


@cache
def read_nouns(code: str) -> dict[str, tuple[TableNoun, ...]]:
    """Return the nouns of a language by class."""
    return {name: tuple(map(_noun, entries)) for name, entries in read_table(code)["nouns"].items()}


def _noun(entry: str) -> TableNoun:
    when = entry[0] if entry[0] in "!?" else ""
    kind, _, forms = entry.removeprefix(when).partition(":")
    return TableNoun(kind, tuple(forms.split("/")), when)


class TableLanguage(Language):
    """A language with a table of nouns. In the form "the" a thing is known already."""

    one_kinds: tuple[str, ...] = ()
    """Kinds of nouns that name one thing only, such as plural words for a single thing."""
    relative_forms: tuple[str, ...]
    """Forms after a preposition. Two frames without them, "a left, b right", would contradict each other."""

    def noun(self, group: ObjectGroup, rng: np.random.Generator) -> TableNoun:
        """Return a noun that fits a group; every second time the commonest."""
        draw = rng.random()
        nouns = [
            noun
            for noun in read_nouns(self.code)[group.class_name]
            if (group.count == 1 or noun.kind not in self.one_kinds)
            and noun.when != ("?" if group.colour is None else "!")
        ]
        return nouns[0] if draw < 0.5 else nouns[int((draw - 0.5) * 2 * len(nouns))]

    def _groups(self, spec: SceneSpec, names: list[Any], rng: np.random.Generator) -> str:
        if len(spec.relations) != 2:
            return super()._groups(spec, names, rng)
        seeds = rng.integers(2**32, size=len(spec.groups))
        texts, known = [], set()
        for first, relation, second in spec.relations:
            a, b = (
                _Mention(self, index, _short(spec, index, index in known), int(seeds[index]), index in known)
                for index in (first, second)
            )
            texts.append(pick(rng, self._relative_frames(relation, bool(texts))).format(a=a, b=b))
            known |= {first, second}
        return pick(rng, self.frames.and_then).format(x=texts[0], y=texts[1])

    def _relative_frames(self, relation: str, is_second: bool) -> list[str]:
        """Return frames of a relation after which another may follow; a second one makes no request."""
        frames = self.frames.relations[relation]
        relative = [frame for frame in frames if any(f":{form}" in frame for form in self.relative_forms)]
        return [frame for frame in relative if frame.startswith("{")] if is_second else relative


@dataclass(frozen=True)
class _Mention:
    """A group in a format string. The seed chooses the noun, so that each mention has the same."""

    language: Language
    index: int
    group: ObjectGroup
    seed: int
    is_known: bool

    def __format__(self, form: str) -> str:
        rng = np.random.default_rng(self.seed)
        form = f"{form} the" if self.is_known else form
        return mark(self.index, self.language.noun_phrase(self.group, form, rng))


def _short(spec: SceneSpec, index: int, is_known: bool) -> ObjectGroup:
    """Return a group without its size if it is known already and of a class of its own."""
    group = spec.groups[index]
    is_only = sum(group.class_name == other.class_name for other in spec.groups) == 1
    return group._replace(size=None) if is_known and is_only else group


def agree(form: str, is_plural: bool, phrase: Callable[[str, bool], str]) -> str:
    """Return a form such as "n ist/sind": a noun phrase beside a verb that agrees with it.

    A word with a slash is a singular and a plural, with "_" for a space; any other but "the" goes to
    `phrase`, with whether the form has "the".
    """
    words, texts = form.split(), []
    for word in words:
        one, slash, many = word.partition("/")
        if slash:
            texts.append((many if is_plural else one).replace("_", " "))
        elif word != "the":
            texts.append(phrase(word, "the" in words))
    return " ".join(texts)


def is_definite_at_first(group: ObjectGroup, rng: np.random.Generator) -> bool:
    """Return whether a thing that nobody mentioned yet is "the sun" or "the fox"."""
    return group.count == 1 and rng.random() < (0.4 if group.class_name in UNIQUE else 0.03)


def as_typed(caption: Caption, rng: np.random.Generator, plain_letters: Mapping[int, str]) -> Caption:
    """Return a caption as keyboards and hasty people write it: curly apostrophes, letters without accents."""
    text = caption.text
    if rng.random() < 0.2:
        text = re.sub(r"(?<=\w)'(?=\w)", "\u2019", text)
    if rng.random() < 0.08:
        text = text.translate(dict(plain_letters))
    return caption._replace(text=text)


def pick_usual(rng: np.random.Generator, words: Sequence[str]) -> str:
    """Return one of the words, every second time the first."""
    return words[0] if rng.random() < 0.5 else pick(rng, words)
