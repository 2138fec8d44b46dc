"""Spanish captions: articles, agreement, contractions, what a second mention keeps."""

import numpy as np
import pytest

from lens.nano.world.languages.european.inflected import read_nouns
from lens.nano.world.languages.european.spanish import Spanish
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec

SPANISH = Spanish()
FOX, HOUSE = ObjectGroup("fox"), ObjectGroup("house")


def phrases(group, form="", draws=300):
    """All that a noun phrase comes out as."""
    rng = np.random.default_rng(1)
    return {SPANISH.noun_phrase(group, form, rng) for _ in range(draws)}


def captions(spec, draws=4000):
    rng = np.random.default_rng(2)
    return {SPANISH.caption(spec, rng) for _ in range(draws)}


def texts(spec, draws=4000):
    return {caption.text for caption in captions(spec, draws)}


def test_every_class_has_nouns():
    assert list(read_nouns("es")) == list(OBJECT_CLASSES)


@pytest.mark.parametrize(
    ("group", "form", "expected"),
    [
        (FOX, "", "un zorro"),
        (HOUSE, "", "una casa"),
        (FOX, "of the", "del zorro"),
        (HOUSE, "of the", "de la casa"),
        (FOX, "of", "de un zorro"),
        (FOX, "is", "el zorro está"),
        (ObjectGroup("fox", 3), "there", "están tres zorros"),
        (ObjectGroup("eagle"), "the", "el águila"),
        (ObjectGroup("eagle", 1, "red"), "", "un águila roja"),
        (ObjectGroup("eagle", 1, None, "small"), "the", "la pequeña águila"),
        (ObjectGroup("lion", 1, "blue", "large"), "bare", "gran león azul"),
        (ObjectGroup("key", 2, "brown"), "bare", "dos llaves marrones"),
        (ObjectGroup("red apple", 5), "bare", "cinco manzanas rojas"),
        (ObjectGroup("red apple", 1, "blue"), "", "una manzana azul"),
        (ObjectGroup("glasses"), "", "unas gafas"),
        (ObjectGroup("glasses", 4), "", "cuatro pares de gafas"),
        (ObjectGroup("chair", None), "", "unas sillas"),
        (ObjectGroup("chair", None), "bare", "sillas"),
        (ObjectGroup("chair", 2), "listed", "sillas: dos"),
        (ObjectGroup("owl", 1, None, None, "top left"), "", "un búho arriba a la izquierda"),
    ],
)
def test_noun_phrases_agree(group, form, expected):
    assert expected in phrases(group, form)


def test_a_plural_word_for_one_thing_stands_for_no_number_of_things():
    assert phrases(ObjectGroup("glasses", 3)) == {"tres pares de gafas", "3 pares de gafas"}


def test_captions_of_a_relation():
    spec = SceneSpec((FOX, ObjectGroup("house", 3)), "light blue", ((0, "left of", 1),))
    assert {
        ("un zorro a la izquierda de tres casas sobre fondo azul claro", (0, 1)),
        ("tres casas a la derecha del zorro, fondo celeste", (1, 0)),
    } <= captions(spec, 30000)


def test_the_second_relation_names_a_known_thing():
    groups = (ObjectGroup("cow"), ObjectGroup("tiger", 1, None, "small"), ObjectGroup("star", 2))
    spec = SceneSpec(groups, None, ((0, "above", 1), (1, "above", 2)))
    assert "una vaca encima de un tigre diminuto, el tigre encima de dos estrellas" in texts(spec, 30000)


def test_y_becomes_e_before_the_sound_of_i():
    found = texts(SceneSpec((FOX, ObjectGroup("church", None))))
    assert "zorro e iglesias" in found
    assert not any("zorro y iglesias" in text for text in found)


def test_signs_and_bare_backgrounds():
    assert 'un cartel que dice "HOLA"' in texts(SceneSpec(text="HOLA"))
    assert "un fondo verde claro liso" in texts(SceneSpec(background="light green"))
