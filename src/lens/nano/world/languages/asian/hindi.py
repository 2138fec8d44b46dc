"""Hindi captions of the nano world.

Forms: "" direct case, "oblique" before a postposition, "है" the verb of a group already named.
Words and frames are in hi.json.
"""

from functools import cache
from typing import NamedTuple

import numpy as np

from lens.nano.world.languages.base import Caption
from lens.nano.world.languages.tables import OWN_COLOURS, ReferringLanguage, frames, pick, read_table
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec

_TABLE = read_table("hi")
_NUMBERS = (("एक",), ("दो",), ("तीन",), ("चार",), ("पाँच",), ("छह", "छः", "छे"), ("सात",), ("आठ",))
_DEVANAGARI_ZERO = 0x0966
_NUKTA = "\u093c"


class HindiNoun(NamedTuple):
    """A name of a class."""

    text: str
    is_feminine: bool
    is_invariable: bool
    """Whether the direct plural equals the singular: loan words."""
    states_colour: bool
    """Whether the name needs the colour of its class: a green apple."""

    def inflect(self, is_plural: bool, is_oblique: bool) -> str:
        """Return a case and number of the name; its last word is inflected."""
        text = self.text
        if is_plural or is_oblique:
            # Genitives and adjectives inside a name agree with its last word.
            text = text.replace(" का ", " के ").replace(" वाला ", " वाले ").replace("तला हुआ ", "तले हुए ")
        if self.is_feminine:
            return self._feminine(text, is_oblique) if is_plural else text
        if text[-1] in "ाआ" and not self.is_invariable and (is_plural or is_oblique):
            one, many = ("े", "ों") if text[-1] == "ा" else ("ए", "ओं")
            return text[:-1] + (many if is_plural and is_oblique else one)
        return self._oblique_plural(text) if is_plural and is_oblique else text

    def _feminine(self, text: str, is_oblique: bool) -> str:
        if is_oblique:
            return self._oblique_plural(text.removesuffix("ा") if text.endswith("िया") else text)
        if self.is_invariable:
            return text
        if text.endswith("िया"):
            return text + "ँ"
        if text[-1] in "ीि":
            return text[:-1] + "ियाँ"
        return text + ("एँ" if text[-1] in _VOWEL_SIGNS else "ें")

    def _oblique_plural(self, text: str) -> str:
        if text[-1] in "ोओं":
            return text
        if text[-1] in "ीि":
            return text[:-1] + "ियों"
        if text[-1] == "ू":
            return text[:-1] + "ुओं"
        return text + ("ओं" if text[-1] in _VOWEL_SIGNS else "ों")


_VOWEL_SIGNS = "ािीुूेैोौंँईओआऊए"


class Hindi(ReferringLanguage):
    """Hindi."""

    code = "hi"
    name = "हिन्दी"
    frames = frames("hi")

    def caption(self, spec: SceneSpec, rng: np.random.Generator) -> Caption:
        """Return a caption in one of the spellings of nasal vowels and of loaned consonants."""
        text, order = super().caption(spec, rng)
        if rng.random() < 0.4:
            text = text.replace("ँ", "ं")
        if rng.random() < 0.3:
            for letter in "जफकखग":
                text = text.replace(letter + _NUKTA, letter)
        return Caption(text, order)

    def noun_phrase(self, group: ObjectGroup, form: str, rng: np.random.Generator) -> str:
        """Return a group in a case, or its verb."""
        if form == "है":
            return "है" if group.count == 1 else "हैं"
        phrase = self._phrase(group, form == "oblique", rng)
        if not group.place:
            return phrase
        place = pick(rng, _TABLE["places"][group.place])
        follows = not form and rng.random() < 0.5
        return f"{phrase} {place}" if follows else f"{place} {phrase}"

    def noun_phrase_again(self, group: ObjectGroup, form: str, rng: np.random.Generator) -> str:
        """Return a group by the noun of its first mention, without number and size."""
        if form == "है":
            return self.noun_phrase(group, form, rng)
        noun = self._noun(group, rng)
        is_plural = group.count != 1
        adjectives = self._adjectives(group._replace(size=None), noun, is_plural, form == "oblique", rng)
        words = [*adjectives, noun.inflect(is_plural, form == "oblique")]
        if rng.random() < 0.4:
            that = ("वे", "उन") if is_plural else ("वह", "उस")
            words.insert(0, that[form == "oblique"])
        return " ".join(words)

    def _noun(self, group: ObjectGroup, rng: np.random.Generator) -> HindiNoun:
        names = nouns()[group.class_name]
        return names[0] if rng.random() < 0.55 else pick(rng, names)

    def _phrase(self, group: ObjectGroup, is_oblique: bool, rng: np.random.Generator) -> str:
        noun = self._noun(group, rng)
        is_plural = group.count != 1
        inflected = noun.inflect(is_plural, is_oblique)
        number = self._number(group.count, noun, inflected == noun.text, rng)
        return " ".join([*number, *self._adjectives(group, noun, is_plural, is_oblique, rng), inflected])

    def _number(
        self, count: int | None, noun: HindiNoun, looks_singular: bool, rng: np.random.Generator
    ) -> list[str]:
        if count is None:
            many = ["कुछ", "कई", "बहुत सारी" if noun.is_feminine else "बहुत सारे", "अनेक"]
            return [] if not looks_singular and rng.random() < 0.5 else [pick(rng, many)]
        if count == 1 and rng.random() < 0.5:
            return []
        style = rng.random()
        if style < 0.2:
            return [str(count)]
        return [chr(_DEVANAGARI_ZERO + count)] if style < 0.3 else [pick(rng, _NUMBERS[count - 1])]

    def _adjectives(
        self, group: ObjectGroup, noun: HindiNoun, is_plural: bool, is_oblique: bool, rng: np.random.Generator
    ) -> list[str]:
        ending = "ी" if noun.is_feminine else "े" if is_plural or is_oblique else "ा"
        words = [_agree(pick(rng, _TABLE["sizes"][group.size]), ending)] if group.size else []
        colour = group.colour or (OWN_COLOURS[group.class_name] if noun.states_colour else None)
        if colour:
            name = pick(rng, _TABLE["colours"][colour])
            # "nile rang ka" is "of blue colour".
            in_full = rng.random() < 0.2
            words.append(f"{_agree(name, 'े')} रंग क{ending}" if in_full else _agree(name, ending))
        return words

    def background_colour(self, colour: str, form: str, rng: np.random.Generator) -> str:
        """Return a colour that agrees with a noun: "m", "f", or "oblique" of the masculine."""
        endings = {"m": "ा", "f": "ी", "oblique": "े"}
        return _agree(pick(rng, _TABLE["colours"][colour]), endings[form])


def _agree(adjectives: str, ending: str) -> str:
    """Return adjectives with the ending of -a; those of -iya are invariable, as all others."""
    return " ".join(
        word[:-1] + ending if word.endswith("ा") and not word.endswith("िया") else word
        for word in adjectives.split()
    )


@cache
def nouns() -> dict[str, list[HindiNoun]]:
    """Return the names of each class, the usual one first."""
    return {name: [_read(text) for text in names.split("|")] for name, names in _TABLE["nouns"].items()}


def _read(entry: str) -> HindiNoun:
    kind, text = entry.split(" ", 1)
    return HindiNoun(text.lstrip("+"), kind.lower() == "f", kind.isupper(), text.startswith("+"))
