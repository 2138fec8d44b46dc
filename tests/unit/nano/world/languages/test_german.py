"""German captions: cases, contractions, words without endings."""

import numpy as np
import pytest

from lens.nano.world.languages.european.german import German
from lens.nano.world.languages.european.inflected import read_nouns
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec

GERMAN = German()


def phrases(form, draws=200, **group):
    """All that a noun phrase comes out as."""
    rng = np.random.default_rng(1)
    return {GERMAN.noun_phrase(ObjectGroup(**group), form, rng) for _ in range(draws)}


def captions(spec, draws=3000):
    rng = np.random.default_rng(2)
    return {GERMAN.caption(spec, rng).text for _ in range(draws)}


def test_every_class_has_nouns():
    assert list(read_nouns("de")) == list(OBJECT_CLASSES)


@pytest.mark.parametrize(
    ("form", "group", "expected"),
    [
        ("n", ObjectGroup("fox"), "ein Fuchs"),
        ("a", ObjectGroup("lion"), "einen Löwen"),
        ("d", ObjectGroup("elephant"), "einem Elefanten"),
        ("von", ObjectGroup("fox", 3), "von drei Füchsen"),
        ("von the", ObjectGroup("fox", 3), "von den Füchsen"),
        ("von the", ObjectGroup("fox"), "vom Fuchs"),
        ("von the", ObjectGroup("duck"), "von der Ente"),
        ("n ist/sind", ObjectGroup("duck", 2), "zwei Enten sind"),
        ("ist/sind n", ObjectGroup("horse"), "ist ein Pferd"),
        ("bare", ObjectGroup("horse", 1, "brown"), "braunes Pferd"),
        ("d", ObjectGroup("cow", 2, "purple"), "zwei lila Kühen"),
        ("a", ObjectGroup("cactus", 1, "yellow", "small"), "einen kleinen gelben Kaktus"),
        ("d", ObjectGroup("flying saucer"), "einer fliegenden Untertasse"),
        ("n", ObjectGroup("red apple", 2), "zwei rote Äpfel"),
        ("n", ObjectGroup("red apple", 1, "yellow"), "ein gelber Apfel"),
        ("d", ObjectGroup("cheese", 2), "zwei Stücken Käse"),
        ("n", ObjectGroup("fox", None), "einige Füchse"),
        ("bare", ObjectGroup("fox", None), "Füchse"),
        ("bare", ObjectGroup("fox", 1, None, None, "top left"), "Fuchs, oben links"),
        ("a", ObjectGroup("fox", 1, None, None, "bottom"), "unten einen Fuchs"),
    ],
)
def test_noun_phrases_agree(form, group, expected):
    assert expected in phrases(form, **group._asdict())


def test_weak_nouns_keep_the_nominative():
    assert {text.split()[-1] for text in phrases("n", class_name="lion")} == {"Löwe"}
    assert {text.split()[-1] for text in phrases("d", class_name="lion")} == {"Löwen"}


def test_what_people_write():
    fox, cat = ObjectGroup("fox"), ObjectGroup("duck", 2)
    relation = SceneSpec((fox, cat), relations=((0, "left of", 1),))
    assert {
        "ein Fuchs links von zwei Enten",
        "links von zwei Enten ist ein Fuchs",
        "links ein Fuchs, rechts zwei Enten",
        "zwei Enten mit einem Fuchs links daneben",
    } <= captions(relation)
    assert {
        "Fuchs",
        "ein Bild von einem Fuchs",
        "zeichne einen Fuchs",
        "bitte male einen Fuchs",
    } <= captions(SceneSpec((fox,)))
    assert {
        "Fuchs, blauer Hintergrund",
        "blauer Hintergrund, ein Fuchs",
        "ein Fuchs vor einem blauen Hintergrund",
    } <= captions(SceneSpec((fox,), "blue"))
    assert {
        'ein Schild, auf dem "HI" steht',
        "ein Schild mit der Aufschrift „HI“",
    } <= captions(SceneSpec(text="HI"))


def test_a_second_mention_is_definite():
    spec = SceneSpec(
        (ObjectGroup("fox"), ObjectGroup("duck"), ObjectGroup("horse")),
        relations=((0, "left of", 1), (1, "above", 2)),
    )
    assert "ein Fuchs links von einer Ente, die Ente über einem Pferd" in captions(spec)
