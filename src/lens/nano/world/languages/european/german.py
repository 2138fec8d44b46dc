"""German captions of the nano world: cases, genders and declensions.

Forms of a noun phrase are n, a and d (cases), von ("von einem Fuchs", "vom Fuchs") and bare ("Fuchs"); a verb
may stand beside one, as in "n ist/sind". Forms of a background colour are n and d ("blauer", "blauem"),
e ("einem blauen"), fem ("eine blaue") and noun ("in Blau").
"""

import numpy as np

from lens.nano.world.languages.base import Caption
from lens.nano.world.languages.european.inflected import (
    TableLanguage,
    TableNoun,
    agree,
    as_typed,
    is_definite_at_first,
    pick_usual,
    read_nouns,
)
from lens.nano.world.languages.tables import frames, pick
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec

# "!" marks a colour without endings: "ein lila Auto".
_BACKGROUNDS = {
    "white": ("weiß", "schneeweiß"),
    "grey": ("grau",),
    "black": ("schwarz", "tiefschwarz", "pechschwarz"),
    "red": ("rot", "knallrot"),
    "orange": ("orange", "orange!", "orangefarben"),
    "yellow": ("gelb", "sonnengelb", "knallgelb"),
    "green": ("grün", "grasgrün", "smaragdgrün"),
    "blue": ("blau", "königsblau"),
    "light blue": ("hellblau", "himmelblau", "babyblau", "blassblau"),
    "purple": ("lila!", "violett", "lila!"),
    "pink": ("rosa!", "pink", "rosafarben"),
    "brown": ("braun", "schokobraun"),
    "dark blue": ("dunkelblau", "marineblau", "nachtblau", "tiefblau"),
    "turquoise": ("türkis", "türkisfarben"),
    "light green": ("hellgrün", "limettengrün", "mintgrün", "blassgrün"),
    "beige": ("beige", "beige!", "sandfarben", "cremefarben"),
}
_COLOURS = {
    "red": ("rot",),
    "orange": ("orange", "orange!", "orangefarben"),
    "yellow": ("gelb",),
    "green": ("grün",),
    "blue": ("blau",),
    "purple": ("lila!", "violett"),
    "pink": ("rosa!", "pink", "rosafarben"),
    "brown": ("braun",),
}
_SIZES = {"small": ("klein", "winzig", "klein"), "large": ("groß", "riesig", "groß")}
_NUMBERS = ("", "ein", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht")
_PLAIN_LETTERS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "Ä": "Ae", "Ö": "Oe", "Ü": "Ue", "ß": "ss"})
_SOME = ("einig", "mehrer", "ein paar!")
_PLACES = {
    "centre": ("in der Mitte", "mittig", "im Zentrum", "genau in der Mitte"),
    "left": ("links", "auf der linken Seite", "am linken Rand", "ganz links"),
    "right": ("rechts", "auf der rechten Seite", "am rechten Rand", "ganz rechts"),
    "top": ("oben", "am oberen Rand", "oben in der Mitte", "ganz oben"),
    "top left": ("oben links", "links oben", "in der oberen linken Ecke"),
    "top right": ("oben rechts", "rechts oben", "in der oberen rechten Ecke"),
    "bottom": ("unten", "am unteren Rand", "unten in der Mitte", "ganz unten"),
    "bottom left": ("unten links", "links unten", "in der linken unteren Ecke"),
    "bottom right": ("unten rechts", "rechts unten", "in der rechten unteren Ecke"),
}

# Endings of adjectives by declension and case, for the genders m, f, n and the plural p.
_ENDINGS = {
    "strong": {"n": "er e es e", "a": "en e es e", "d": "em er em en"},
    "mixed": {"n": "er e es en", "a": "en e es en", "d": "en en en en"},
    "weak": {"n": "e e e en", "a": "en e e en", "d": "en en en en"},
}
_INDEFINITE = {"n": "ein eine ein", "a": "einen eine ein", "d": "einem einer einem"}
_DEFINITE = {"n": "der die das die", "a": "den die das die", "d": "dem der dem den"}


class German(TableLanguage):
    """German. Kinds of nouns: m, f, n, w (weak masculine), p (plural, one thing), M and N (no article)."""

    code = "de"
    name = "German"
    frames = frames("de")
    one_kinds = ("p", "M", "N")
    relative_forms = ("von", "d")

    def caption(self, spec: SceneSpec, rng: np.random.Generator) -> Caption:
        """Return a caption, a few of them with "ae" for "ä"."""
        return as_typed(super().caption(spec, rng), rng, _PLAIN_LETTERS)

    def noun_phrase(self, group: ObjectGroup, form: str, rng: np.random.Generator) -> str:
        """Return a noun phrase in a form: see the module."""
        noun = self.noun(group, rng)
        is_plural = group.count != 1 or noun.kind == "p"
        return agree(form, is_plural, lambda case, is_known: _phrase(group, noun, case, is_known, rng))

    def background_colour(self, colour: str, form: str, rng: np.random.Generator) -> str:
        """Return the name of a background colour in a form: see the module."""
        if form == "noun":
            return _colour_noun(_BACKGROUNDS[colour][0])
        ending = {"n": "er", "d": "em", "e": "en", "fem": "e", "": ""}[form]
        return _inflect(pick_usual(rng, _BACKGROUNDS[colour]), ending)


def _phrase(group: ObjectGroup, noun: TableNoun, form: str, is_known: bool, rng: np.random.Generator) -> str:
    """Return a noun phrase; a known thing has the definite article and no place."""
    if is_known and form == "bare":
        form = "n"
    case = {"bare": "n", "von": "d"}.get(form, form)
    column = 3 if group.count != 1 else "mfnp".index(noun.kind.lower().replace("w", "m"))
    is_definite = is_known or is_definite_at_first(group, rng)
    article, declension = _determiner(group, noun, form, column, is_definite, rng)
    ending = _ENDINGS[declension][case].split()[column]
    adjectives, suffix = [], ""
    if declension == "mixed" and rng.random() < 0.03:
        adjectives.append(_inflect(pick(rng, ("einzeln", "einzig")), ending))
    if group.size is not None:
        adjectives.append(_inflect(pick_usual(rng, _SIZES[group.size]), ending))
    if group.colour is not None:
        colour = pick_usual(rng, _COLOURS[group.colour])
        if rng.random() < 0.1 and not is_known:
            suffix = f" in {_colour_noun(colour)}"
        else:
            adjectives.append(_inflect(colour, ending))
    words = (article, *adjectives, _decline(noun, case, column == 3, ending))
    text = " ".join(word for word in words if word) + suffix
    if form == "von":
        text = f"vom {text[4:]}" if text.startswith("dem ") else f"von {text}"
    if group.place is None or is_known:
        return text
    place = pick(rng, _PLACES[group.place])
    if form in ("n", "a") and rng.random() < 0.25:
        return f"{place} {text}"
    return f"{text}, {place}" if form == "bare" and rng.random() < 0.5 else f"{text} {place}"


def _determiner(
    group: ObjectGroup, noun: TableNoun, form: str, column: int, is_definite: bool, rng: np.random.Generator
) -> tuple[str, str]:
    """Return an article or number, and the declension of the adjectives after it."""
    case = "d" if form == "von" else form
    if is_definite and form != "bare":
        return _DEFINITE[case].split()[column], "weak"
    if group.count == 1:
        if form == "bare" or noun.kind in German.one_kinds:
            return "", "strong"
        return ("1" if rng.random() < 0.04 else _INDEFINITE[case].split()[column]), "mixed"
    if group.count is not None:
        number = str(group.count) if rng.random() < 0.35 else _NUMBERS[group.count]
        if rng.random() < 0.05:
            number = f"{group.count}x" if form == "bare" else f"genau {number}"
        return number, "strong"
    # "Pommes" is one portion, so several portions are never bare.
    is_ambiguous = any(other.kind in German.one_kinds for other in read_nouns("de")[group.class_name])
    if not is_ambiguous and (form == "bare" or rng.random() < 0.5):
        return "", "strong"
    ending = _ENDINGS["strong"]["d" if case == "d" else "n"].split()[3]
    return _inflect(pick(rng, _SOME), ending), "strong"


def _decline(noun: TableNoun, case: str, is_plural: bool, ending: str) -> str:
    """Return a noun in a case; its own adjectives, as in "fliegend~ Untertasse", take an ending."""
    is_weak = noun.kind == "w" and case != "n"
    words = noun.forms[is_plural or is_weak].split()
    words = [word[:-1] + ending if word.endswith("~") else word for word in words]
    head = sum(word.endswith("~") for word in noun.forms[0].split())
    if is_plural and case == "d" and not words[head].endswith(("n", "s")):
        words[head] += "n"
    return " ".join(words)


def _inflect(word: str, ending: str) -> str:
    """Return an adjective with an ending; "!" marks one that takes none, and "orange" has an e of its own."""
    if word.endswith("!"):
        return word[:-1]
    return word.removesuffix("e") + ending if ending else word


def _colour_noun(word: str) -> str:
    return word.removesuffix("!").removesuffix("farben").capitalize()
