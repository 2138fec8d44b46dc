"""Captions of the nano world in Russian: cases, gender, animacy and numbers of the noun phrases of `ru.json`.

An entry of its nouns is "kind:singular/genitive/plural/genitive plural", and the instrumentals after them
where they follow no rule. "adjective+" may stand before the first form, and "~" with words that never change
after the last. Kinds are m, f, n and p (a plural word); an a after it marks what is animate, a 1 what is one
thing only.
"""

# ruff: noqa: RUF001

import re
from functools import cache
from typing import NamedTuple

import numpy as np

from lens.nano.world.languages.base import Caption
from lens.nano.world.languages.european.inflected import TableLanguage, TableNoun, pick_usual
from lens.nano.world.languages.tables import frames, pick, read_table
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec

_CASES = ("gen", "acc", "ins", "pre")
_HUSHERS = "жшчщ"
_VELARS = "гкх"

_ENDINGS = {
    "m": {"gen": "ого", "ins": "ым", "pre": "ом"},
    "f": {"nom": "ая", "gen": "ой", "acc": "ую", "ins": "ой", "pre": "ой"},
    "n": {"nom": "ое", "gen": "ого", "acc": "ое", "ins": "ым", "pre": "ом"},
    "p": {"nom": "ые", "gen": "ых", "acc": "ые", "ins": "ыми", "pre": "ых"},
}
"""Endings of adjectives; none in the masculine nominative."""
_SOFT = {"о": "е", "ы": "и", "а": "я", "у": "ю"}
_LADYBUG = {
    "f": {"nom": "божья", "gen": "божьей", "acc": "божью", "ins": "божьей"},
    "p": {"nom": "божьи", "gen": "божьих", "ins": "божьими"},
}
"""The possessive adjective of the ladybug."""

_ONE = {
    "m": {"nom": "один", "acc": "один", "gen": "одного", "ins": "одним"},
    "f": {"nom": "одна", "acc": "одну", "gen": "одной", "ins": "одной"},
    "n": {"nom": "одно", "acc": "одно", "gen": "одного", "ins": "одним"},
    "p": {"nom": "одни", "acc": "одни", "gen": "одних", "ins": "одними"},
}
_NUMBERS = {
    2: ("два", "двух", "двумя"),
    3: ("три", "трёх", "тремя"),
    4: ("четыре", "четырёх", "четырьмя"),
    5: ("пять", "пяти", "пятью"),
    6: ("шесть", "шести", "шестью"),
    7: ("семь", "семи", "семью"),
    8: ("восемь", "восьми", "восемью"),
}
"""Nominative, genitive and instrumental."""
_COLLECTIVES = {2: "двое", 3: "трое", 4: "четверо"}
"""Numbers of plural words."""
_SOME = {
    "nom": ("несколько", "много"),
    "gen": ("нескольких", "многих"),
    "ins": ("несколькими", "многими"),
}
_VERBS = (("находится", "находятся"), ("находится", "находятся"), ("располагается", "располагаются"))


class _Noun(NamedTuple):
    """A noun with all its forms."""

    gender: str
    is_animate: bool
    adjective: str
    singular: dict[str, str]
    """By case."""
    plural: dict[str, str]
    tail: str


class _Number(NamedTuple):
    """A number before a noun, and what it asks of the noun and of adjectives."""

    word: str
    noun: tuple[bool, str]
    """Whether plural, and the case."""
    adjectives: tuple[bool, str]


@cache
def _read_noun(entry: TableNoun) -> _Noun:
    gender, is_animate = entry.kind[0], entry.kind.endswith("a")
    adjective, _, first = entry.forms[0].rpartition("+")
    last, tilde, tail = entry.forms[-1].partition("~")
    forms = (first, *entry.forms[1:-1], last)
    many, of_many = forms if gender == "p" else forms[2:4]
    plural = _with_accusative(many, of_many, is_animate)
    plural["ins"] = forms[5] if len(forms) == 6 else _plural_instrumental(many, of_many)
    singular = plural
    if gender != "p":
        one, of_one = forms[:2]
        singular = _with_accusative(one, of_one, is_animate and gender == "m")
        if one[-1] in "ая" and gender != "n":
            singular["acc"] = one[:-1] + {"а": "у", "я": "ю"}[one[-1]]
        singular["ins"] = forms[4] if len(forms) > 4 else _singular_instrumental(one, of_one, gender)
    return _Noun(gender, is_animate, adjective, singular, plural, f" {tail}" if tilde else "")


def _with_accusative(nominative: str, genitive: str, is_animate: bool) -> dict[str, str]:
    return {"nom": nominative, "gen": genitive, "acc": genitive if is_animate else nominative}


def _singular_instrumental(nominative: str, genitive: str, gender: str) -> str:
    last = nominative[-1]
    if nominative == genitive:
        return nominative
    if gender == "n":
        return f"{nominative}м"
    if last == "а":
        return nominative[:-1] + ("ей" if nominative[-2] in f"{_HUSHERS}ц" else "ой")
    if last == "я":
        return f"{nominative[:-1]}ей"
    if gender == "f":
        return f"{nominative}ю"
    return genitive[:-1] + ("ем" if genitive[-1] == "я" else "ом")


def _plural_instrumental(nominative: str, genitive: str) -> str:
    if nominative == genitive:
        return nominative
    stem, last = nominative[:-1], nominative[-1]
    is_hard = last in "ыае" or (last == "и" and stem[-1] in _HUSHERS + _VELARS)
    return stem + ("ами" if is_hard else "ями")


def decline_adjective(word: str, gender: str, case: str, is_animate: bool = False) -> str:
    """Return an adjective, or words with adjectives among them, in a gender (p: plural) and a case."""
    if " " in word:
        return " ".join(decline_adjective(part, gender, case, is_animate) for part in word.split())
    if word[-2:] not in ("ый", "ий", "ой"):
        return word
    if case == "acc" and gender in "mp":
        case = "gen" if is_animate else "nom"
    if word == "божий":
        return _LADYBUG[gender][case]
    ending = _ENDINGS[gender].get(case, "")
    if not ending:
        return word
    stem = word[:-2]
    if word[-2:] == "ий" and stem[-1] not in _VELARS and not (stem[-1] in _HUSHERS and ending[0] in "ау"):
        ending = _SOFT[ending[0]] + ending[1:]
    elif stem[-1] in _HUSHERS + _VELARS and ending[0] == "ы":
        ending = f"и{ending[1:]}"
    return stem + ending


class Russian(TableLanguage):
    """Russian. Forms are cases, nominative by default; "is" has the verb after a group, "there" before it.

    In the form "listed" the number or the colour may follow the noun.
    """

    code = "ru"
    name = "Russian"
    one_kinds = ("p1", "m1", "f1")
    relative_forms = ("gen", "ins")
    frames = frames("ru")

    def caption(self, spec: SceneSpec, rng: np.random.Generator) -> Caption:
        """Return a caption; every second person writes no dots on the letter yo."""
        text, order = super().caption(spec, rng)
        text = re.sub(r"\bс (?=[сзшж][бвгджзклмнпрстфхцчшщ]|льв|щен)", "со ", text)
        if rng.random() < 0.5:
            text = text.replace("ё", "е")
        return Caption(text, order)

    def background_colour(self, colour: str, form: str, rng: np.random.Generator) -> str:
        """Return a masculine adjective in the case of the form."""
        return decline_adjective(pick_usual(rng, read_table("ru")["backgrounds"][colour]), "m", form or "nom")

    def noun_phrase(self, group: ObjectGroup, form: str, rng: np.random.Generator) -> str:
        """Return a noun phrase in a case: see the class."""
        noun, words = _read_noun(self.noun(group, rng)), form.split()
        case = next((case for case in _CASES if case in words), "nom")
        number, after = _number(noun, group, case, "the" in words, rng), ""
        is_listed = "listed" in words and rng.random() < 0.4
        if is_listed and group.count not in (1, None) and noun.gender != "p":
            number, after = _Number("", (True, "nom"), (True, "nom")), _number_after(group.count or 0, rng)
        traits, tail = self._traits(group, rng)
        is_plural, adjective_case = number.adjectives
        gender = "p" if is_plural else noun.gender
        own, *traits = (
            decline_adjective(word, gender, adjective_case, noun.is_animate)
            for word in (noun.adjective, *traits)
        )
        is_plural, noun_case = number.noun
        name = [own, (noun.plural if is_plural else noun.singular)[noun_case] + noun.tail]
        ordered = [number.word, *name, *traits] if is_listed else [number.word, *traits, *name]
        text = " ".join(word for word in [*ordered, tail] if word) + after
        if group.place:
            text += f"{pick(rng, (' ', ' ', ', '))}{pick(rng, read_table('ru')['places'][group.place])}"
        if "is" in words or "there" in words:
            verb = pick(rng, _VERBS)[group.count != 1 or noun.gender == "p"]
            text = f"{text} {verb}" if "is" in words else f"{verb} {text}"
        return text

    def _traits(self, group: ObjectGroup, rng: np.random.Generator) -> tuple[list[str], str]:
        """Return the adjectives of a group, and words after the noun."""
        words = read_table("ru")
        traits = [pick(rng, words["sizes"][group.size])] if group.size else []
        if not group.colour:
            return traits, ""
        colour = pick(rng, words["colours"][group.colour])
        if rng.random() < 0.15:
            return traits, f"{decline_adjective(colour, 'm', 'gen')} цвета"
        return [*traits, colour], ""


def _number_after(count: int, rng: np.random.Generator) -> str:
    """Return a number that follows its noun, as in a list."""
    pieces = "штуки" if count < 5 else "штук"
    word = "две" if count == 2 else _NUMBERS[count][0]
    ways = (f": {count}", f" x{count}", f", {count} {pieces}", f", {word} {pieces}", f", {count} шт")
    return pick(rng, ways)


def _number(noun: _Noun, group: ObjectGroup, case: str, is_known: bool, rng: np.random.Generator) -> _Number:
    """Return the number of a group in a case."""
    count, is_word = group.count, noun.gender == "p"
    if count == 1:
        one = _ONE[noun.gender]["gen" if case == "acc" and noun.is_animate and noun.gender == "m" else case]
        word = one if not is_known and rng.random() < 0.08 else ""
        return _Number(word, (is_word, case), (is_word, case))
    direct = "nom" if case == "acc" else case
    if count is None:
        if not is_word and (is_known or rng.random() < 0.6):
            return _Number("", (True, case), (True, case))
        governed = "gen" if direct == "nom" else direct
        return _Number(pick(rng, _SOME[direct]), (True, governed), (True, governed))
    is_digit = rng.random() < 0.3 and not is_word
    # In digits, people count animals like things: "нарисуй 2 лисы" beside "нарисуй двух лис".
    if case == "acc" and count < 5 and noun.is_animate and not (is_digit and rng.random() < 0.5):
        direct = "gen"
    word = _NUMBERS[count][("nom", "gen", "ins").index(direct)]
    if direct != "nom":
        return _Number(str(count) if is_digit else word, (True, direct), (True, direct))
    if is_word and count < 5:
        word = _COLLECTIVES[count]
    elif noun.gender == "f" and count == 2:
        word = "две"
    word = str(count) if is_digit else word
    if count >= 5 or is_word:
        return _Number(word, (True, "gen"), (True, "gen"))
    return _Number(word, (False, "gen"), (True, "nom" if noun.gender == "f" else "gen"))
