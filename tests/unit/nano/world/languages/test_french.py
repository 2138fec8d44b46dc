"""French captions: articles, elisions, agreement."""

import numpy as np
import pytest

from lens.nano.world.languages.european.french import French
from lens.nano.world.languages.european.inflected import read_nouns
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec

FRENCH = French()


def phrases(form, group, draws=300):
    """All that a noun phrase comes out as."""
    rng = np.random.default_rng(1)
    return {FRENCH.noun_phrase(group, form, rng) for _ in range(draws)}


def captions(spec, draws=3000):
    rng = np.random.default_rng(2)
    return {FRENCH.caption(spec, rng).text for _ in range(draws)}


def test_every_class_has_nouns():
    assert list(read_nouns("fr")) == list(OBJECT_CLASSES)


@pytest.mark.parametrize(
    ("form", "group", "expected"),
    [
        ("n", ObjectGroup("bee"), "une abeille"),
        ("de", ObjectGroup("bee"), "d'une abeille"),
        ("de the", ObjectGroup("bee"), "de l'abeille"),
        ("de the", ObjectGroup("fox"), "du renard"),
        ("de the", ObjectGroup("fox", 3), "des trois renards"),
        ("n the", ObjectGroup("hedgehog"), "le hérisson"),
        ("n the", ObjectGroup("egg"), "l'œuf au plat"),
        ("n the", ObjectGroup("tree", 1, None, "large"), "l'arbre énorme"),
        ("du", ObjectGroup("cow"), "de la vache"),
        ("de", ObjectGroup("eagle", None), "d'aigles"),
        ("n", ObjectGroup("eagle", None), "des aigles"),
        ("n", ObjectGroup("horse", None, "brown", "small"), "de petits chevaux marron"),
        ("n", ObjectGroup("car", 2, "green"), "deux voitures vertes"),
        ("n", ObjectGroup("glasses"), "des lunettes"),
        ("n", ObjectGroup("cheese"), "du fromage"),
        ("n", ObjectGroup("red apple", 1, "yellow"), "une pomme jaune"),
        ("n est/sont", ObjectGroup("duck", 2), "deux canards sont"),
        ("se_trouve/se_trouvent n", ObjectGroup("duck", 2), "se trouvent deux canards"),
        ("bare", ObjectGroup("fox", 1, None, None, "top left"), "renard, en haut à gauche"),
    ],
)
def test_noun_phrases_agree(form, group, expected):
    assert expected in phrases(form, group)


def test_what_people_write():
    fox, ducks = ObjectGroup("fox"), ObjectGroup("duck", 2)
    assert {
        "un renard à gauche de deux canards",
        "à gauche un renard, à droite deux canards",
        "à gauche des deux canards se trouve un renard",
        "deux canards, et à gauche un renard",
    } <= captions(SceneSpec((fox, ducks), relations=((0, "left of", 1),)))
    assert {"renard", "une image d'un renard", "dessine un renard"} <= captions(SceneSpec((fox,)))
    assert {
        "renard, fond bleu marine",
        "un renard sur fond bleu foncé",
        "sur un fond bleu foncé, un renard",
    } <= captions(SceneSpec((fox,), "dark blue"))
    assert {
        'un panneau qui dit "HI"',
        "un panneau sur lequel est écrit « HI »",
    } <= captions(SceneSpec(text="HI"))


def test_a_second_mention_is_definite():
    spec = SceneSpec(
        (ObjectGroup("fox"), ObjectGroup("duck"), ObjectGroup("horse")),
        relations=((0, "left of", 1), (1, "above", 2)),
    )
    assert "un renard à gauche d'un canard, le canard au-dessus d'un cheval" in captions(spec, 20000)
