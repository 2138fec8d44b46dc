"""French captions of the nano world: articles, elisions, and adjectives before and after the noun.

Forms of a noun phrase: n ("un renard"), de ("d'un renard"), du ("du renard" or "d'un renard"), r ("le renard"
or "un renard") and bare ("renard"); a verb may stand beside one, as in "n est/sont".
Forms of a background colour: m and f.
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

# Colours have a feminine after a slash; "!" marks one without endings.
_BACKGROUNDS = {
    "white": ("blanc/blanche", "blanc neige!"),
    "grey": ("gris/grise",),
    "black": ("noir/noire",),
    "red": ("rouge", "rouge vif!"),
    "orange": ("orange!", "orangé/orangée"),
    "yellow": ("jaune", "jaune vif!", "jaune d'or!"),
    "green": ("vert/verte", "vert émeraude!"),
    "blue": ("bleu/bleue", "bleu roi!"),
    "light blue": ("bleu clair!", "bleu ciel!", "bleu pâle!"),
    "purple": ("violet/violette", "mauve"),
    "pink": ("rose",),
    "brown": ("marron!", "brun/brune", "chocolat!"),
    "dark blue": ("bleu foncé!", "bleu marine!", "bleu nuit!"),
    "turquoise": ("turquoise!", "bleu turquoise!", "cyan!"),
    "light green": ("vert clair!", "vert pâle!", "vert menthe!", "vert pomme!"),
    "beige": ("beige", "couleur sable!", "crème!"),
}
_COLOURS = {
    "red": ("rouge",),
    "orange": ("orange!",),
    "yellow": ("jaune",),
    "green": ("vert/verte",),
    "blue": ("bleu/bleue",),
    "purple": ("violet/violette", "mauve"),
    "pink": ("rose",),
    "brown": ("marron!", "brun/brune"),
}
# "<" marks an adjective before the noun.
_SIZES = {
    "small": ("<petit/petite", "<tout petit/toute petite", "minuscule"),
    "large": ("<grand/grande", "<gros/grosse", "énorme", "<très grand/très grande"),
}
_NUMBERS = ("", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit")
_PLAIN_LETTERS = {**dict(zip(map(ord, "àâçéèêîïôùûÉ"), "aaceeeiiouuE", strict=True)), ord("œ"): "oe"}
_PLACES = {
    "centre": ("au centre", "au milieu", "en plein centre"),
    "left": ("à gauche", "sur la gauche", "du côté gauche"),
    "right": ("à droite", "sur la droite", "du côté droit"),
    "top": ("en haut", "tout en haut", "en haut au milieu"),
    "top left": ("en haut à gauche", "dans le coin supérieur gauche", "dans le coin en haut à gauche"),
    "top right": ("en haut à droite", "dans le coin supérieur droit", "dans le coin en haut à droite"),
    "bottom": ("en bas", "tout en bas", "en bas au milieu"),
    "bottom left": ("en bas à gauche", "dans le coin inférieur gauche", "dans le coin en bas à gauche"),
    "bottom right": ("en bas à droite", "dans le coin inférieur droit", "dans le coin en bas à droite"),
}
_ASPIRATED = ("hibou", "hérisson", "hamburger", "homard", "hot-dog", "haut", "huit")
"""Beginnings of words with an h that allows no elision."""


class French(TableLanguage):
    """French. Kinds of nouns: m, f, mp and fp (a plural for one thing), M and F (with the article "du")."""

    code = "fr"
    name = "French"
    frames = frames("fr")
    one_kinds = ("mp", "fp", "M", "F")
    relative_forms = ("du", "r")

    def caption(self, spec: SceneSpec, rng: np.random.Generator) -> Caption:
        """Return a caption, a few of them without accents."""
        return as_typed(super().caption(spec, rng), rng, _PLAIN_LETTERS)

    def noun_phrase(self, group: ObjectGroup, form: str, rng: np.random.Generator) -> str:
        """Return a noun phrase in a form: see the module."""
        noun = self.noun(group, rng)
        is_plural = group.count != 1 or noun.kind in ("mp", "fp")
        return agree(form, is_plural, lambda word, is_known: _phrase(group, noun, word, is_known, rng))

    def background_colour(self, colour: str, form: str, rng: np.random.Generator) -> str:
        """Return the name of a background colour in a form: see the module."""
        return _inflect(pick_usual(rng, _BACKGROUNDS[colour]), form == "f", is_plural=False)


def _phrase(group: ObjectGroup, noun: TableNoun, form: str, is_known: bool, rng: np.random.Generator) -> str:
    """Return a noun phrase; a known thing has the definite article and no place."""
    if is_known and form == "bare":
        form = "n"
    is_feminine, is_plural = noun.kind[0] in "fF", group.count != 1 or noun.kind in ("mp", "fp")
    before, after = [], []
    if group.size is not None:
        size = pick_usual(rng, _SIZES[group.size])
        words = before if size.startswith("<") else after
        words.append(_inflect(size.removeprefix("<"), is_feminine, is_plural))
    if group.colour is not None:
        after.insert(0, _inflect(pick_usual(rng, _COLOURS[group.colour]), is_feminine, is_plural))
    can_be_alone = group.count == 1 and noun.kind in ("m", "f") and form in ("n", "de") and not is_known
    if can_be_alone and rng.random() < 0.03:
        before.insert(0, _inflect("seul/seule", is_feminine, is_plural))
    name = " ".join((*before, noun.forms[group.count != 1], *after))

    if form in ("du", "r"):
        has_article = group.count is None or noun.kind not in ("m", "f")
        is_definite = is_known or rng.random() < (0.7 if has_article else 0.3)
        form = {"du": "de", "r": "n"}[form]
    else:
        is_definite = form != "bare" and (is_known or is_definite_at_first(group, rng))
    article = _definite if is_definite else _indefinite
    text = article(group, noun, name, form, bool(before), rng)
    if group.place is None or is_known:
        return text
    place = pick_usual(rng, _PLACES[group.place])
    if form == "n" and rng.random() < 0.2:
        return f"{place}, {text}" if rng.random() < 0.5 else f"{place} {text}"
    return f"{text}, {place}" if rng.random() < 0.25 else f"{text} {place}"


def _definite(
    group: ObjectGroup, noun: TableNoun, name: str, form: str, _: bool, rng: np.random.Generator
) -> str:
    """Return a name with the definite article: "le renard", "du renard", "les trois renards"."""
    if group.count != 1 or noun.kind in ("mp", "fp"):
        number = f"{_number(group.count, rng)} " if group.count not in (1, None) else ""
        return f"{'des' if form == 'de' else 'les'} {number}{name}"
    if _elides(name):
        return f"{'de ' if form == 'de' else ''}l'{name}"
    if noun.kind in "fF":
        return f"{'de ' if form == 'de' else ''}la {name}"
    return f"{'du' if form == 'de' else 'le'} {name}"


def _indefinite(
    group: ObjectGroup, noun: TableNoun, name: str, form: str, has_adjective: bool, rng: np.random.Generator
) -> str:
    """Return a name with an indefinite or partitive article or a number, after "de" if the form says so."""
    if group.count == 1 and noun.kind in ("m", "f") and form != "bare":
        article = "1" if rng.random() < 0.04 else "une" if noun.kind == "f" else "un"
        name = f"{article} {name}"
    elif group.count is None:
        # "Lunettes" are one pair, so several pairs are never bare.
        is_ambiguous = any(other.kind in French.one_kinds for other in read_nouns("fr")[group.class_name])
        draw = rng.random()
        if is_ambiguous or (draw < 0.5 and form != "bare"):
            name = f"{pick(rng, ('plusieurs', 'quelques'))} {name}"
        elif form == "n":
            name = f"{'de' if has_adjective else 'des'} {name}"
            return name if not (has_adjective and _elides(name[3:])) else f"d'{name[3:]}"
    elif group.count > 1:
        number = _number(group.count, rng)
        if rng.random() < 0.05:
            number = f"{group.count}x" if form == "bare" else f"exactement {number}"
        name = f"{number} {name}"
    elif form == "n":
        if noun.kind in ("mp", "fp"):
            return f"des {name}"
        return _definite(group, noun, name, "de", has_adjective, rng)
    if form != "de":
        return name
    return f"d'{name}" if _elides(name) else f"de {name}"


def _number(count: int, rng: np.random.Generator) -> str:
    return str(count) if rng.random() < 0.35 else _NUMBERS[count]


def _elides(text: str) -> bool:
    return text[0] in "aeiouyhéèêœ" and not text.startswith(_ASPIRATED)


def _inflect(word: str, is_feminine: bool, is_plural: bool) -> str:
    """Return an adjective in a gender and number."""
    if word.endswith("!"):
        return word[:-1]
    masculine, _, feminine = word.partition("/")
    word = feminine if is_feminine and feminine else masculine
    if not is_plural:
        return word
    if word.startswith(("tout ", "toute ")):
        # "Tout" is an adverb here; only its feminine has a plural: "tout petits", "toutes petites".
        word = word.replace("toute ", "toutes ")
    return word if word.endswith("s") else f"{word}s"
