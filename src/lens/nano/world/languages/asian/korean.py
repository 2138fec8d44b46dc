"""Korean captions of the nano world.

A form is the particle after a noun phrase, in its shape after a consonant, as in {a:을}.
Words and frames are in ko.json.
"""

from functools import cache

import numpy as np

from lens.nano.world.languages.base import Caption
from lens.nano.world.languages.tables import ReferringLanguage, frames, pick, read_table
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec

_AFTER_VOWEL = {
    "이": "가", "을": "를", "과": "와", "은": "는", "이랑": "랑", "의": "의", "하고": "하고", "으로": "로",
}  # fmt: skip
_TABLE = read_table("ko")
_BEFORE_COUNTER = ("한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟")
_ALONE = ("하나", "둘", "셋", "넷", "다섯", "여섯", "일곱", "여덟")
_PLAIN_NAMES = {"red apple": "사과", "green apple": "사과", "red heart": "하트"}
"""Names without their colour of the classes that are named with one."""


def with_particle(phrase: str, particle: str) -> str:
    """Attach a particle in the shape that the last syllable asks for."""
    last = ord(phrase[-1])
    # Names in Latin letters (TV, UFO) all end in a vowel when read.
    ends_in_consonant = 0xAC00 <= last <= 0xD7A3 and (last - 0xAC00) % 28 > 0
    return phrase + (particle if ends_in_consonant else _AFTER_VOWEL[particle])


class Korean(ReferringLanguage):
    """Korean."""

    code = "ko"
    name = "한국어"
    frames = frames("ko")

    def caption(self, spec: SceneSpec, rng: np.random.Generator) -> Caption:
        """Return a caption, now and then without some of its spaces, as people type."""
        text, order = super().caption(spec, rng)
        if rng.random() < 0.1:
            text = "".join("" if letter == " " and rng.random() < 0.4 else letter for letter in text)
        return Caption(text, order)

    def noun_phrase(self, group: ObjectGroup, form: str, rng: np.random.Generator) -> str:
        """Return a group; a form is a particle, "" for none, or "홀로" for a group alone."""
        noun, counter = self._noun(group, rng)
        words = [pick(rng, _TABLE["sizes"][group.size])] if group.size else []
        if group.colour:
            words.append(pick(rng, _TABLE["colours"][group.colour][0]))
        phrase = self._counted(" ".join([*words, noun]), group, counter, rng)
        if not group.place:
            return with_particle(phrase, form) if form in _AFTER_VOWEL else phrase
        place = pick(rng, _TABLE["places"][group.place])
        if form == "홀로":
            frames = ("{0}에 {1}", "{0}에 있는 {1}", "{1}, {0}에", "{1}, {0}", "{0}: {1}")
            return pick(rng, frames).format(place, phrase)
        # The verb of a subject says already that it is there.
        joints = ("에",) if form == "이" else ("에 있는", "의")
        phrase = f"{place}{pick(rng, joints)} {phrase}"
        return with_particle(phrase, form) if form in _AFTER_VOWEL else phrase

    def noun_phrase_again(self, group: ObjectGroup, form: str, rng: np.random.Generator) -> str:
        """Return a group by the noun of its first mention, without number and size."""
        noun = self._noun(group, rng)[0].rstrip("*")
        words = [pick(rng, _TABLE["colours"][group.colour][0])] if group.colour else []
        words = ["그", *words, noun] if rng.random() < 0.4 else [*words, noun]
        phrase = " ".join(words) + ("" if group.count == 1 else "들")
        return with_particle(phrase, form) if form in _AFTER_VOWEL else phrase

    def _noun(self, group: ObjectGroup, rng: np.random.Generator) -> tuple[str, str]:
        """Return a noun and its counter."""
        names, counters = nouns()[group.class_name]
        if group.colour and group.class_name in _PLAIN_NAMES:
            return _PLAIN_NAMES[group.class_name], counters[0]
        # The first name is the everyday one.
        noun = names[0] if rng.random() < 0.55 else pick(rng, names)
        return noun, pick(rng, counters)

    def _counted(self, noun: str, group: ObjectGroup, counter: str, rng: np.random.Generator) -> str:
        # A starred noun has a namesake in the world that is counted in another way.
        is_unclear, noun = noun.endswith("*"), noun.rstrip("*")
        noun_alone, noun = noun, noun.removesuffix(f" {counter}")
        if group.count is None:
            many = (f"{noun} 여러 {counter}", f"여러 {counter}의 {noun}", f"{noun} 몇 {counter}")
            return pick(rng, many if is_unclear else (f"{noun_alone}들", f"{noun_alone}들", *many))
        if group.count == 1 and not is_unclear and rng.random() < 0.5:
            return noun_alone
        number, digit = _BEFORE_COUNTER[group.count - 1], str(group.count)
        counted = [
            f"{noun} {number} {counter}",
            f"{noun} {number} {counter}",
            f"{number} {counter}의 {noun}",
            f"{noun} {digit}{counter}",
            f"{noun} {digit} {counter}",
            f"{digit}{counter}의 {noun}",
        ]
        if not is_unclear:
            counted.append(f"{noun} {_ALONE[group.count - 1]}")
        return pick(rng, counted)

    def background_colour(self, colour: str, form: str, rng: np.random.Generator) -> str:
        """Return a colour before its noun, as a noun for the form "명사", or as a noun with a particle."""
        before_noun, as_noun = _TABLE["colours"][colour]
        if not form:
            return pick(rng, before_noun)
        name = pick(rng, as_noun)
        return with_particle(name, form) if form in _AFTER_VOWEL else name


@cache
def nouns() -> dict[str, tuple[list[str], list[str]]]:
    """Return the names and the counters of each class."""
    return {
        name: (names.split("|"), counters.split("/"))
        for counters, classes in _TABLE["nouns"].items()
        for name, names in classes.items()
    }
