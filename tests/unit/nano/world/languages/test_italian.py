"""Italian captions: articles by sound, contracted prepositions, agreement."""

import numpy as np
import pytest

from lens.nano.world.languages.european.inflected import read_nouns
from lens.nano.world.languages.european.italian import Italian
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec

ITALIAN = Italian()


def phrases(form, group, draws=300):
    """All that a noun phrase comes out as."""
    rng = np.random.default_rng(1)
    return {ITALIAN.noun_phrase(group, form, rng) for _ in range(draws)}


def captions(spec, draws=3000):
    rng = np.random.default_rng(2)
    return {ITALIAN.caption(spec, rng).text for _ in range(draws)}


def test_every_class_has_nouns():
    assert list(read_nouns("it")) == list(OBJECT_CLASSES)


@pytest.mark.parametrize(
    ("form", "group", "expected"),
    [
        ("n", ObjectGroup("fox"), "una volpe"),
        ("n", ObjectGroup("bee"), "un'ape"),
        ("n", ObjectGroup("backpack"), "uno zaino"),
        ("n", ObjectGroup("backpack", 1, None, "small"), "un piccolo zaino"),
        ("n the", ObjectGroup("shark"), "lo squalo"),
        ("n the", ObjectGroup("tree"), "l'albero"),
        ("n the", ObjectGroup("tree", 3), "i tre alberi"),
        ("del the", ObjectGroup("squirrel"), "dello scoiattolo"),
        ("del", ObjectGroup("fox"), "della volpe"),
        ("del", ObjectGroup("fox"), "di una volpe"),
        ("al the", ObjectGroup("bear"), "all'orso"),
        ("al", ObjectGroup("bear", 2), "a due orsi"),
        ("n", ObjectGroup("unicorn", None), "degli unicorni"),
        ("di", ObjectGroup("unicorn", None), "di unicorni"),
        ("n", ObjectGroup("car", 2, "green"), "due macchine verdi"),
        ("n", ObjectGroup("car", 2, "purple"), "due macchine viola"),
        ("n", ObjectGroup("egg", 3, "red"), "tre uova rosse"),
        ("n", ObjectGroup("egg"), "un uovo"),
        ("n", ObjectGroup("glasses"), "degli occhiali"),
        ("n", ObjectGroup("glasses", 2), "due paia di occhiali"),
        ("n", ObjectGroup("red apple", 1, "yellow"), "una mela gialla"),
        ("c'è/ci_sono n", ObjectGroup("duck", 2), "ci sono due anatre"),
        ("bare", ObjectGroup("fox", 1, None, None, "top left"), "volpe, in alto a sinistra"),
    ],
)
def test_noun_phrases_agree(form, group, expected):
    assert expected in phrases(form, group)


def test_what_people_write():
    fox, ducks = ObjectGroup("fox"), ObjectGroup("duck", 2)
    assert {
        "una volpe a sinistra di due anatre",
        "a sinistra una volpe, a destra due anatre",
        "a sinistra delle due anatre c'è una volpe",
        "due anatre, e a sinistra una volpe",
    } <= captions(SceneSpec((fox, ducks), relations=((0, "left of", 1),)))
    assert {"volpe", "un'immagine di una volpe", "disegna una volpe"} <= captions(SceneSpec((fox,)))
    assert {
        "volpe, sfondo blu notte",
        "una volpe su uno sfondo blu scuro",
        "su sfondo blu scuro, una volpe",
    } <= captions(SceneSpec((fox,), "dark blue"))
    assert {
        'un cartello con la scritta "HI"',
        "un cartello con la parola «HI»",
    } <= captions(SceneSpec(text="HI"))


def test_a_second_mention_is_definite():
    spec = SceneSpec(
        (ObjectGroup("fox"), ObjectGroup("duck"), ObjectGroup("horse")),
        relations=((0, "left of", 1), (1, "above", 2)),
    )
    assert "una volpe a sinistra di un'anatra, l'anatra sopra un cavallo" in captions(spec, 20000)
