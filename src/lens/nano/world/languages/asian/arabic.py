"""Arabic captions of the nano world, unvocalised, as people type.

Forms: "" the nominative, "object", "genitive", each after "the" for a definite phrase; "pronoun" the suffix
that stands for a group. Words and frames are in ar.json: "_" joins the words of a construct, a space a noun
and its adjective, "~" the words of a loan. The plural of a noun of kind "c" is a collective, which is not
counted.
"""

# ruff: noqa: RUF001
# The letters alif and heh are no Latin letters.

from functools import cache
from typing import NamedTuple

import numpy as np

from lens.nano.world.languages.base import Caption
from lens.nano.world.languages.tables import OWN_COLOURS, ReferringLanguage, frames, pick, read_table
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec

_TABLE = read_table("ar")
_BEFORE_MASCULINE = ("ثلاثة", "أربعة", "خمسة", "ستة", "سبعة", "ثمانية")
_BEFORE_FEMININE = ("ثلاث", "أربع", "خمس", "ست", "سبع", "ثماني")
_ARABIC_ZERO = 0x0660
_COLOUR_ROOTS = ("بيض", "سود", "حمر", "صفر", "خضر", "زرق")
_VERY = "جدا"
_UNIQUE = ("sun", "moon", "globe")
"""Classes with an article where there is one of them."""
_LOAN_COLOURS = ("موف", "بيج", "تركواز")
_WITHOUT_HAMZA = str.maketrans("أإآ", "ااا")


class ArabicNoun(NamedTuple):
    """A name of a class."""

    singular: str
    plural: str
    is_feminine: bool
    is_collective: bool
    states_colour: bool
    """Whether the name needs the colour of its class: a green apple."""

    @property
    def is_invariable(self) -> bool:
        return self.singular == self.plural

    def dual(self, is_nominative: bool) -> str:
        """Return the dual; a construct loses its final n."""
        if "_" in self.singular:
            head, rest = self.singular.split("_", 1)
            return f"{_dual(head, self.is_feminine, is_nominative)[:-1]}_{rest}"
        words = self.singular.split()
        return " ".join(_dual(word, self.is_feminine, is_nominative) for word in words)


class _Adjective(NamedTuple):
    masculine: str
    feminine: str

    def agree(self, number: int | None, is_feminine: bool, is_nominative: bool) -> str:
        """Return the form beside a noun; plurals of things take the feminine singular."""
        if number not in (1, 2) or self.masculine == self.feminine:
            return self.feminine
        words = (self.feminine if is_feminine else self.masculine).split()
        if number == 1:
            return " ".join(words)
        return " ".join(word if word == _VERY else _dual(word, is_feminine, is_nominative) for word in words)


class Arabic(ReferringLanguage):
    """Arabic."""

    code = "ar"
    name = "العربية"
    frames = frames("ar")

    def caption(self, spec: SceneSpec, rng: np.random.Generator) -> Caption:
        """Return a caption, now and then without the hamza on its alif."""
        text, order = super().caption(spec, rng)
        return Caption(text.translate(_WITHOUT_HAMZA) if rng.random() < 0.2 else text, order)

    def noun_phrase(self, group: ObjectGroup, form: str, rng: np.random.Generator) -> str:
        """Return a group in a case, definite or not, or its pronoun."""
        noun = self._noun(group, rng)
        if form == "pronoun":
            return self._pronoun(group, noun)
        if group.class_name in _UNIQUE and group.count == 1 and rng.random() < 0.4:
            form = f"the {form.removeprefix('the ')}"
        phrase = self._phrase(group, noun, form, rng)
        return f"{phrase} {pick(rng, _TABLE['places'][group.place])}" if group.place else phrase

    def noun_phrase_again(self, group: ObjectGroup, form: str, rng: np.random.Generator) -> str:
        """Return a group by the noun of its first mention, definite, without size."""
        noun = self._noun(group, rng)
        if form == "pronoun":
            return self._pronoun(group, noun)
        count = group.count if group.count in (1, 2) else None
        return self._phrase(group._replace(size=None, count=count), noun, f"the {form}", rng)

    def _pronoun(self, group: ObjectGroup, noun: ArabicNoun) -> str:
        if group.count == 1:
            return "ها" if noun.is_feminine else "ه"
        return "هما" if group.count == 2 else "ها"

    def _noun(self, group: ObjectGroup, rng: np.random.Generator) -> ArabicNoun:
        names = nouns()[group.class_name]
        if group.count not in (1, None):
            names = [noun for noun in names if not noun.is_collective]
        return names[0] if rng.random() < 0.55 else pick(rng, names)

    def _phrase(self, group: ObjectGroup, noun: ArabicNoun, form: str, rng: np.random.Generator) -> str:
        is_definite, case = form.startswith("the"), form.removeprefix("the").strip()
        # In speech the dual has one case.
        is_nominative = not case and rng.random() < 0.6
        takes_alif = case == "object" and not is_definite and rng.random() < 0.5
        adjectives = self._adjectives(group, noun, is_nominative, rng)
        if group.count == 1:
            words = [noun.singular, *adjectives]
            # A rare "one" stands for the English numeral.
            if not is_definite and rng.random() < 0.12:
                words.insert(1, "واحدة" if noun.is_feminine else "واحد")
            return _finish(words, is_definite, takes_alif and not noun.is_feminine)
        if group.count == 2 and not noun.is_invariable and (is_definite or rng.random() < 0.8):
            return _finish([noun.dual(is_nominative), *adjectives], is_definite)
        if group.count == 2:
            adjectives = self._adjectives(group._replace(count=None), noun, is_nominative, rng)
        return self._plural([noun.plural, *adjectives], group.count, noun, case, is_definite, takes_alif, rng)

    def _plural(
        self,
        words: list[str],
        count: int | None,
        noun: ArabicNoun,
        case: str,
        is_definite: bool,
        takes_alif: bool,
        rng: np.random.Generator,
    ) -> str:
        indefinite, definite = _finish(words, False), _finish(words, True)
        if count is None and is_definite:
            return definite
        if count is None:
            many = (f"بعض {definite}", f"عدة {indefinite}", f"مجموعة من {definite}", f"الكثير من {definite}")
            is_clear = not noun.is_invariable and rng.random() < 0.5
            return _finish(words, False, takes_alif) if is_clear else pick(rng, many)
        if count == 2:
            two = "اثنان من" if not case else "اثنين من"
            return f"{two} {definite}" if noun.is_invariable and rng.random() < 0.6 else f"2 {indefinite}"
        number = (_BEFORE_FEMININE if noun.is_feminine else _BEFORE_MASCULINE)[count - 3]
        if is_definite:
            return _finish([words[0], number, *words[1:]], True)
        style = rng.random()
        if style < 0.3:
            number = str(count) if style < 0.18 else chr(_ARABIC_ZERO + count)
        return f"{number} {indefinite}"

    def _adjectives(
        self, group: ObjectGroup, noun: ArabicNoun, is_nominative: bool, rng: np.random.Generator
    ) -> list[str]:
        colour = group.colour or (OWN_COLOURS[group.class_name] if noun.states_colour else None)
        kinds = [("colours", colour)] if colour else []
        if group.size:
            kinds.insert(int(rng.integers(len(kinds) + 1)), ("sizes", group.size))
        number = None if noun.is_invariable and group.count != 1 else group.count
        return [
            _read_adjective(pick(rng, _TABLE[kind][name])).agree(number, noun.is_feminine, is_nominative)
            for kind, name in kinds
        ]

    def background_colour(self, colour: str, form: str, rng: np.random.Generator) -> str:
        """Return a colour that agrees with a noun: "m" or "f", with "the" for a definite one."""
        adjective = _read_adjective(pick(rng, _TABLE["colours"][colour]))
        text = adjective.agree(1, form.endswith("f"), True)
        return _definite(text) if form.startswith("the") else text


def _dual(word: str, is_feminine: bool, is_nominative: bool) -> str:
    ending = "ان" if is_nominative else "ين"
    if word.endswith("اء") and is_feminine:
        return f"{word[:-1]}و{ending}"
    if word[-1] == "ة" or word[-1] == "ا":
        return f"{word[:-1]}ت{ending}"
    return f"{word[:-1]}ي{ending}" if word[-1] == "ى" else word + ending


def _finish(words: list[str], is_definite: bool, takes_alif: bool = False) -> str:
    """Return a noun and its adjectives, definite or not, or with the alif of an indefinite object."""
    if is_definite:
        text = " ".join(map(_definite, words))
    elif takes_alif and "_" not in words[0]:
        text = " ".join(_with_alif(word) for phrase in words for word in phrase.split())
    else:
        text = " ".join(words)
    return text.replace("_", " ").replace("~", " ")


def _definite(phrase: str) -> str:
    """Put the article on each word, of a construct on the last."""
    words = []
    for word in phrase.split():
        head, joint, last = word.rpartition("_")
        has_article = last.startswith("ال") or last == _VERY
        words.append(f"{head}{joint}{last}" if has_article else f"{head}{joint}ال{last}")
    return " ".join(words)


def _with_alif(word: str) -> str:
    """Return an indefinite object; feminine endings and words of some patterns have no alif."""
    is_colour = word.startswith("أ") and len(word) == 4 and word[1:] in _COLOUR_ROOTS
    is_broken = len(word) >= 5 and word[2] == "ا"
    is_loan = "~" in word or word in _LOAN_COLOURS
    has_ending = word[-1] in "ةىاء" or word.endswith("ات")
    return word if has_ending or is_loan or is_colour or is_broken else f"{word}ا"


def _read_adjective(entry: str) -> _Adjective:
    return _Adjective(*entry.split("/"))


@cache
def nouns() -> dict[str, list[ArabicNoun]]:
    """Return the names of each class, the usual one first."""
    return {name: [_read(text) for text in names.split("|")] for name, names in _TABLE["nouns"].items()}


def _read(entry: str) -> ArabicNoun:
    kind, text = entry.split(" ", 1)
    singular, _, plural = text.lstrip("+").partition("/")
    return ArabicNoun(singular, plural or singular, kind.lower() != "m", kind == "c", text.startswith("+"))
