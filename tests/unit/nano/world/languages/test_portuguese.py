"""Portuguese captions: articles, contractions, agreement, letters without accents."""

import numpy as np
import pytest

from lens.nano.world.languages.european.inflected import read_nouns
from lens.nano.world.languages.european.portuguese import Portuguese
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec

PORTUGUESE = Portuguese()
FOX, HOUSE = ObjectGroup("fox"), ObjectGroup("house")


def phrases(group, form="", draws=300):
    """All that a noun phrase comes out as."""
    rng = np.random.default_rng(1)
    return {PORTUGUESE.noun_phrase(group, form, rng) for _ in range(draws)}


def texts(spec, draws=4000):
    rng = np.random.default_rng(2)
    return {PORTUGUESE.caption(spec, rng).text for _ in range(draws)}


def test_every_class_has_nouns():
    assert list(read_nouns("pt")) == list(OBJECT_CLASSES)


@pytest.mark.parametrize(
    ("group", "form", "expected"),
    [
        (FOX, "", "uma raposa"),
        (FOX, "of the", "da raposa"),
        (ObjectGroup("dog", 2), "of the", "dos dois cachorros"),
        (ObjectGroup("dog", 2), "of", "de dois cães"),
        (ObjectGroup("cow", 2), "", "duas vacas"),
        (HOUSE, "is", "a casa está"),
        (ObjectGroup("lion", 4), "is", "os quatro leões estão"),
        (ObjectGroup("key", 3, "blue"), "", "três chaves azuis"),
        (ObjectGroup("duck", 8, "brown", "small"), "", "oito pequenos patos marrons"),
        (ObjectGroup("green apple"), "bare", "maçã verde"),
        (ObjectGroup("green apple", 1, "yellow"), "bare", "maçã amarela"),
        (ObjectGroup("glasses"), "", "uns óculos"),
        (ObjectGroup("glasses", 2), "", "dois pares de óculos"),
        (ObjectGroup("sun", None), "", "alguns sóis"),
        (ObjectGroup("bus", 1, None, None, "bottom right"), "", "um ônibus no canto inferior direito"),
    ],
)
def test_noun_phrases_agree(group, form, expected):
    assert expected in phrases(group, form)


def test_captions_of_a_relation():
    found = texts(SceneSpec((FOX, HOUSE), "dark blue", ((0, "right of", 1),)), 30000)
    assert {
        "uma raposa à direita da casa, fundo azul escuro",
        "à direita uma raposa, à esquerda uma casa, fundo azul escuro",
        "fundo azul escuro, uma casa à esquerda de uma raposa",
    } <= found


def test_the_second_relation_names_a_known_thing():
    groups = (ObjectGroup("cow"), ObjectGroup("tiger", 1, None, "small"), ObjectGroup("star", 2))
    spec = SceneSpec(groups, None, ((0, "above", 1), (1, "above", 2)))
    assert "uma vaca acima de um tigre pequeno, o tigre acima de duas estrelas" in texts(spec, 30000)


def test_some_people_write_no_accents():
    found = texts(SceneSpec((ObjectGroup("bread", 3),)))
    assert {"três pães", "tres paes"} <= found


def test_signs_and_bare_backgrounds():
    assert 'uma placa que diz "HOLA"' in texts(SceneSpec(text="HOLA"))
    assert "um fundo roxo liso" in texts(SceneSpec(background="purple"))
