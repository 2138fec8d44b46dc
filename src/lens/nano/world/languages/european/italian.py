"""Italian captions of the nano world: articles by gender and first sound, contracted prepositions, agreement.

Forms of a noun phrase: n ("una volpe"), di ("di una volpe"), del ("della volpe" or "di una volpe"), al ("alla
volpe" or "a una volpe"), r ("la volpe" or "una volpe") and bare ("volpe"); a verb may stand beside one, as in
"n sta/stanno". Forms of a background colour: m and f.
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

# "!" marks a colour without endings.
_BACKGROUNDS = {
    "white": ("bianco", "bianco neve!"),
    "grey": ("grigio",),
    "black": ("nero", "nero pece!"),
    "red": ("rosso", "rosso acceso!"),
    "orange": ("arancione", "arancio!"),
    "yellow": ("giallo", "giallo oro!", "giallo sole!"),
    "green": ("verde", "verde smeraldo!"),
    "blue": ("blu!", "blu reale!"),
    "light blue": ("azzurro", "celeste", "azzurro chiaro!", "blu chiaro!"),
    "purple": ("viola!", "lilla!"),
    "pink": ("rosa!",),
    "brown": ("marrone", "marrone cioccolato!"),
    "dark blue": ("blu scuro!", "blu notte!", "blu navy!", "blu marino!"),
    "turquoise": ("turchese", "acquamarina!", "color turchese!"),
    "light green": ("verde chiaro!", "verde menta!", "verde lime!", "verde pallido!"),
    "beige": ("beige!", "color sabbia!", "crema!"),
}
_COLOURS = {
    "red": ("rosso",),
    "orange": ("arancione", "arancio!"),
    "yellow": ("giallo",),
    "green": ("verde",),
    "blue": ("blu!",),
    "purple": ("viola!",),
    "pink": ("rosa!",),
    "brown": ("marrone",),
}
# "<" marks an adjective before the noun.
_SIZES = {
    "small": ("<piccolo", "piccolo", "minuscolo", "<piccolissimo"),
    "large": ("<grande", "grande", "enorme", "<grandissimo"),
}
_NUMBERS = ("", "un", "due", "tre", "quattro", "cinque", "sei", "sette", "otto")
_PLAIN_LETTERS = dict(zip(map(ord, "àèéìòùÈ"), "aeeiouE", strict=True))
_SOME = (("alcuni", "alcune"), ("diversi", "diverse"), ("vari", "varie"))
_PLACES = {
    "centre": ("al centro", "nel mezzo", "in mezzo", "proprio al centro"),
    "left": ("a sinistra", "sulla sinistra", "sul lato sinistro"),
    "right": ("a destra", "sulla destra", "sul lato destro"),
    "top": ("in alto", "in alto al centro", "in cima"),
    "top left": (
        "in alto a sinistra",
        "nell'angolo superiore sinistro",
        "nell'angolo in alto a sinistra",
    ),
    "top right": (
        "in alto a destra",
        "nell'angolo in alto a destra",
        "nell'angolo superiore destro",
    ),
    "bottom": ("in basso", "in basso al centro", "in fondo"),
    "bottom left": (
        "in basso a sinistra",
        "nell'angolo in basso a sinistra",
        "nell'angolo inferiore sinistro",
    ),
    "bottom right": (
        "in basso a destra",
        "nell'angolo in basso a destra",
        "nell'angolo inferiore destro",
    ),
}
_ARTICLES = {"il": "il lo l' i gli", "la": "la la l' le le"}
"""Before most sounds, before s with a consonant, before a vowel; plurals before most sounds and others."""
_THE = ("il", "lo", "l'", "i", "gli", "la", "le")
_JOINED = {
    "di": dict(zip(_THE, ("del", "dello", "dell'", "dei", "degli", "della", "delle"), strict=True)),
    "a": dict(zip(_THE, ("al", "allo", "all'", "ai", "agli", "alla", "alle"), strict=True)),
}
"""Prepositions with an article."""
_IMPURE = ("z", "gn", "ps", "pn", "x", "y", *(f"s{consonant}" for consonant in "bcdfgklmnpqrtvw"))
"""Beginnings of words that have "lo" and "uno"."""


class Italian(TableLanguage):
    """Italian. Kinds of nouns: m, f, mf (un uovo, due uova), mp and fp (a plural), M and F (mass)."""

    code = "it"
    name = "Italian"
    frames = frames("it")
    one_kinds = ("mp", "fp", "M", "F")
    relative_forms = ("del", "al", "r")

    def caption(self, spec: SceneSpec, rng: np.random.Generator) -> Caption:
        """Return a caption, a few of them without accents."""
        return as_typed(super().caption(spec, rng), rng, _PLAIN_LETTERS)

    def noun_phrase(self, group: ObjectGroup, form: str, rng: np.random.Generator) -> str:
        """Return a noun phrase in a form: see the module."""
        noun = self.noun(group, rng)
        return agree(
            form, _is_plural(group, noun), lambda word, is_known: _phrase(group, noun, word, is_known, rng)
        )

    def background_colour(self, colour: str, form: str, rng: np.random.Generator) -> str:
        """Return the name of a background colour in a form: see the module."""
        return _inflect(pick_usual(rng, _BACKGROUNDS[colour]), form == "f", is_plural=False)


def _is_plural(group: ObjectGroup, noun: TableNoun) -> bool:
    return group.count != 1 or noun.kind in ("mp", "fp")


def _is_feminine(group: ObjectGroup, noun: TableNoun) -> bool:
    return noun.kind[0] in "fF" or (noun.kind == "mf" and group.count != 1)


def _phrase(group: ObjectGroup, noun: TableNoun, form: str, is_known: bool, rng: np.random.Generator) -> str:
    """Return a noun phrase; a known thing has the definite article and no place."""
    if is_known and form == "bare":
        form = "n"
    endings = _is_feminine(group, noun), _is_plural(group, noun)
    before, after = [], []
    if group.colour is not None:
        after.append(_inflect(pick_usual(rng, _COLOURS[group.colour]), *endings))
    if group.size is not None:
        size = pick(rng, _SIZES[group.size])
        words = before if size.startswith("<") else after
        words.append(_inflect(size.removeprefix("<"), *endings))
    can_be_alone = group.count == 1 and noun.kind in ("m", "f") and form in ("n", "di") and not is_known
    if can_be_alone and rng.random() < 0.03:
        before.insert(0, _inflect("solo", *endings))
    name = " ".join((*before, noun.forms[group.count != 1], *after))

    has_article = group.count is None or noun.kind in Italian.one_kinds
    is_often_definite = form in ("del", "al", "r") and rng.random() < (0.7 if has_article else 0.3)
    is_definite = form != "bare" and (is_known or is_often_definite or is_definite_at_first(group, rng))
    preposition = {"di": "di", "del": "di", "al": "a"}.get(form, "")
    text = (_definite if is_definite else _indefinite)(group, noun, name, preposition, form == "bare", rng)
    if group.place is None or is_known:
        return text
    place = pick_usual(rng, _PLACES[group.place])
    if form == "n" and rng.random() < 0.2:
        return f"{place}, {text}" if rng.random() < 0.5 else f"{place} {text}"
    return f"{text}, {place}" if rng.random() < 0.25 else f"{text} {place}"


def _definite(
    group: ObjectGroup, noun: TableNoun, name: str, preposition: str, _: bool, rng: np.random.Generator
) -> str:
    """Return a name with the definite article: "la volpe", "della volpe", "le tre volpi"."""
    if group.count is not None and group.count > 1:
        name = f"{_number(group.count, rng)} {name}"
    return _with_article(name, _is_feminine(group, noun), _is_plural(group, noun), preposition)


def _indefinite(
    group: ObjectGroup, noun: TableNoun, name: str, preposition: str, is_bare: bool, rng: np.random.Generator
) -> str:
    """Return a name with an indefinite article, a partitive one or a number, after any preposition."""
    is_feminine, is_plural = _is_feminine(group, noun), _is_plural(group, noun)
    if group.count is None:
        # "Occhiali" are one pair, so several pairs are never bare.
        is_ambiguous = any(other.kind in Italian.one_kinds for other in read_nouns("it")[group.class_name])
        draw = rng.random()
        if is_ambiguous or (draw < 0.4 and not is_bare):
            name = f"{pick(rng, _SOME)[is_feminine]} {name}"
        elif not preposition and not is_bare and draw < 0.8:
            return _with_article(name, is_feminine, is_plural, "di")
    elif group.count > 1:
        number = _number(group.count, rng)
        if rng.random() < 0.05:
            number = f"{group.count}x" if is_bare else f"esattamente {number}"
        name = f"{number} {name}"
    elif not is_bare and noun.kind in ("m", "f", "mf"):
        one = _one(name, is_feminine)
        name = f"1 {name}" if rng.random() < 0.04 else f"{one}{'' if one.endswith(chr(39)) else ' '}{name}"
    elif not is_bare and not preposition:
        return _with_article(name, is_feminine, is_plural, "di")
    return f"{preposition} {name}" if preposition else name


def _with_article(name: str, is_feminine: bool, is_plural: bool, preposition: str) -> str:
    """Return a name with the definite article, joined to a preposition if there is one."""
    forms = _ARTICLES["la" if is_feminine else "il"].split()
    sound = 1 if _is_impure(name) else 2 if _starts_with_vowel(name) else 0
    article = forms[3 + (sound > 0)] if is_plural else forms[sound]
    if preposition:
        article = _JOINED[preposition][article]
    return f"{article}{name}" if article.endswith("'") else f"{article} {name}"


def _one(name: str, is_feminine: bool) -> str:
    if is_feminine:
        return "un'" if _starts_with_vowel(name) else "una"
    return "uno" if _is_impure(name) else "un"


def _is_impure(name: str) -> bool:
    return name.startswith(_IMPURE)


def _starts_with_vowel(name: str) -> bool:
    return name[0].lower() in "aeiouh"


def _number(count: int, rng: np.random.Generator) -> str:
    return str(count) if rng.random() < 0.35 else _NUMBERS[count]


def _inflect(word: str, is_feminine: bool, is_plural: bool) -> str:
    """Return an adjective in a gender and number; "!" marks one that never changes."""
    if word.endswith("!"):
        return word[:-1]
    if word.endswith("o"):
        return word[:-1] + "oaie"[is_feminine + 2 * is_plural]
    return word[:-1] + "i" if is_plural else word
