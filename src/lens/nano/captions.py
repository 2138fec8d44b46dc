"""Captions of the grown nano world for training: a scene, a text about it, and what the text states.

Kinds: people's own words, dense captions, the grammar of the six tasks, and other languages. A caption
depends on its seed, its number, the shares of the kinds and the image size only.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from lens.errors import SettingError
from lens.nano.world.caption_grammar import CaptionContent, brief_caption
from lens.nano.world.full_scenes import complete_spec, random_full_scene, stated_spec
from lens.nano.world.languages.base import Language
from lens.nano.world.languages.english.dense import EnglishDense
from lens.nano.world.languages.english.own_words import English
from lens.nano.world.languages.registry import LANGUAGES, language
from lens.nano.world.languages.text_noise import typing_noise
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec
from lens.nano.world.scenes import Scene, random_scene

"""Codes of the languages in scripts that typos of Latin letters do not fit."""


MANY_NAMES_SHARE = 0.5
"""Share of captions in other languages that name two or three classes."""
MANY_NAMES_KINDS = ("three", "three", "three_related", "two")


@dataclass(frozen=True)
class CaptionMix:
    """Shares of the kinds of captions; what is left over are people's own words in English.

    Raises: SettingError for an unknown language, or shares that cannot be.
    """

    dense: float = 0.15
    tasks: float = 0.15
    """In the grammar of the six tasks."""
    others: float = 0.0
    """In other languages."""
    languages: Sequence[str] = tuple(LANGUAGES)
    """Codes of the other languages."""

    def __post_init__(self) -> None:
        if unknown := [code for code in self.languages if code not in LANGUAGES]:
            raise SettingError("captions.languages", unknown, f"codes among {', '.join(LANGUAGES)}")
        shares = self.dense, self.tasks, self.others
        if min(shares) < 0 or sum(shares) > 1 + 1e-9:
            raise SettingError("captions", shares, "shares of at least 0 with a sum of at most 1")
        if self.others and not self.languages:
            raise SettingError("captions.languages", list(self.languages), "a code if `others` is not 0")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "CaptionMix":
        """Return the mix of a recipe.

        Raises: SettingError for an unknown name too.
        """
        known = [field.name for field in fields(cls)]
        if unknown := [name for name in values if name not in known]:
            raise SettingError("captions", unknown, f"names among {', '.join(known)}")
        return cls(**values)

    def example(self, seed: int, index: int, height_px: int, width_px: int) -> tuple[Scene, str]:
        """Return one scene and its caption, which depend on the arguments only."""
        caption = nano_caption(seed, index, self, height_px, width_px)
        return caption.scene, caption.text


class NanoCaption(NamedTuple):
    """A scene, a text about it, and what the text states, with the groups in the order of their mention."""

    text: str
    spec: SceneSpec
    scene: Scene
    language: str


def nano_caption(
    seed: int, index: int, mix: CaptionMix, height_px: int = 128, width_px: int = 128
) -> NanoCaption:
    """Return one caption, which depends on the arguments only."""
    rng = np.random.default_rng([seed, index])
    kind = rng.random()
    if kind < mix.tasks:
        return _task_caption(rng, height_px, width_px)
    is_other = kind >= mix.tasks + mix.dense and kind < mix.tasks + mix.dense + mix.others
    # Many names in a caption are more to learn from one, and other languages have few captions each.
    has_many = is_other and rng.random() < MANY_NAMES_SHARE
    scene_kind = MANY_NAMES_KINDS[int(rng.integers(len(MANY_NAMES_KINDS)))] if has_many else None
    scene = random_full_scene(rng, height_px, width_px, kind=scene_kind)
    if kind < mix.tasks + mix.dense:
        spec = complete_spec(scene) if rng.random() < 0.5 else scene.spec
        caption = EnglishDense().caption(spec, rng)
        return NanoCaption(typing_noise(caption.text, rng), caption.spec(spec), scene, "en")
    spec = stated_spec(scene, rng)
    code = mix.languages[int(rng.integers(len(mix.languages)))] if is_other else "en"
    caption = _language(code).caption(spec, rng)
    text = typing_noise(
        caption.text, rng, protected=(spec.text,) if spec.text else (), typos=code == "en"
    )
    return NanoCaption(text, caption.spec(spec), scene, code)


def _task_caption(rng: np.random.Generator, height_px: int, width_px: int) -> NanoCaption:
    """Return a brief caption in the grammar of the six tasks, without size and place."""
    scene = random_scene(rng, height_px, width_px)
    has_background, has_relation = rng.random() < 0.6, rng.random() < 0.85
    content = CaptionContent(has_background, has_relation, detail=False)
    text = brief_caption(scene, rng, "train", content)
    groups = tuple(ObjectGroup(group.class_name, group.count) for group in scene.groups)
    relations = ((0, scene.relation, 1),) if scene.relation and has_relation else ()
    spec = SceneSpec(groups, scene.background if has_background else None, relations)
    order = order_of_mention(text, [group.class_name for group in groups])
    return NanoCaption(typing_noise(text, rng), spec.reordered(order), scene, "en")


def order_of_mention(text: str, class_names: Sequence[str]) -> tuple[int, ...]:
    """Return the order in which a text names some classes by the names and synonyms of OBJECT_CLASSES."""
    forms = {
        form.lower(): index
        for index, name in enumerate(class_names)
        for pair in ((OBJECT_CLASSES[name].name, OBJECT_CLASSES[name].plural), *OBJECT_CLASSES[name].synonyms)
        for form in pair
    }
    places, rest = {}, text.lower()
    for form in sorted(forms, key=len, reverse=True):  # "teddy bear" before "bear"
        for found in re.finditer(rf"(?<!\w){re.escape(form)}(?!\w)", rest):
            places[forms[form]] = min(places.get(forms[form], len(text)), found.start())
            rest = rest[: found.start()] + "_" * len(form) + rest[found.end() :]
    return tuple(sorted(range(len(class_names)), key=lambda index: places[index]))


@cache
def _language(code: str) -> Language:
    return English() if code == "en" else language(code)
