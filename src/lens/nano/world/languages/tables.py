"""Languages whose words and frames lie in tables, JSON files beside the modules."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar, cast

import numpy as np

from lens.nano.world.languages.base import Frames, Language, mark
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec

T = TypeVar("T")


@cache
def read_table(code: str) -> Any:
    """Return what `CODE.json` holds."""
    return json.loads(files("lens.nano.world.languages").joinpath(f"{code}.json").read_text(encoding="utf-8"))


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    """Return one of the choices, each as likely."""
    return choices[int(rng.integers(len(choices)))]


OWN_COLOURS = {"red apple": "red", "green apple": "green", "red heart": "red"}
"""Colours of the classes that are named with a colour."""

_LAYOUT = "|"
"""Mark of a frame that places both groups in the image, "a left, b right": two of them would contradict."""


def frames(code: str) -> Frames:
    """Return the sentence frames that `CODE.json` holds."""
    table = read_table(code)["frames"]
    relations = {name: [text.lstrip(_LAYOUT) for text in texts] for name, texts in table["relations"].items()}
    return Frames(**{**table, "relations": relations})


class ReferringLanguage(Language):
    """A language that names a thing again by the same noun, and has its frames in a table."""

    def noun_phrase_again(self, group: ObjectGroup, form: str, rng: np.random.Generator) -> str:
        """Return a group that is mentioned already; `rng` is in the state of its first mention."""
        return self.noun_phrase(group, form, rng)

    def _groups(self, spec: SceneSpec, names: list[Any], rng: np.random.Generator) -> str:
        mentions = [
            _Mention(self, index, group, int(rng.integers(2**32))) for index, group in enumerate(spec.groups)
        ]
        if len(spec.relations) < 2:
            return super()._groups(spec, cast(Any, mentions), rng)
        table = read_table(self.code)["frames"]["relations"]
        texts = []
        for first, relation, second in spec.relations:
            frame = pick(rng, [text for text in table[relation] if not text.startswith(_LAYOUT)])
            texts.append(frame.format(a=mentions[first], b=mentions[second]))
        return pick(rng, self.frames.and_then).format(x=texts[0], y=texts[1])


@dataclass
class _Mention:
    """A group in a format string; every mention draws from the same seed, the noun first."""

    language: ReferringLanguage
    index: int
    group: ObjectGroup
    seed: int
    is_known: bool = False

    def __format__(self, form: str) -> str:
        phrase = self.language.noun_phrase_again if self.is_known else self.language.noun_phrase
        self.is_known = True
        return mark(self.index, phrase(self.group, form, np.random.default_rng(self.seed)))
