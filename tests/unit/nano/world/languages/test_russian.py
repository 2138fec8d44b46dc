"""Russian captions: cases, animacy, numbers and adjectives."""

# ruff: noqa: RUF001

import numpy as np
import pytest

from lens.nano.world.languages.european.inflected import read_nouns
from lens.nano.world.languages.european.russian import Russian, decline_adjective
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec

RUSSIAN = Russian()
FOX, CAR = ObjectGroup("fox"), ObjectGroup("car")


def phrases(group, form="", draws=400):
    """All that a noun phrase comes out as."""
    rng = np.random.default_rng(1)
    return {RUSSIAN.noun_phrase(group, form, rng) for _ in range(draws)}


def texts(spec, draws=4000):
    rng = np.random.default_rng(2)
    return {RUSSIAN.caption(spec, rng).text for _ in range(draws)}


def test_every_class_has_nouns():
    assert list(read_nouns("ru")) == list(OBJECT_CLASSES)


@pytest.mark.parametrize(
    ("group", "form", "expected"),
    [
        (FOX, "", "лиса"),
        (FOX, "acc", "лису"),
        (ObjectGroup("rabbit"), "acc", "кролика"),
        (ObjectGroup("rabbit"), "ins", "зайцем"),
        (ObjectGroup("rocket", 2), "acc", "две ракеты"),
        (ObjectGroup("fox", 2), "acc", "двух лис"),
        (ObjectGroup("elephant", 3), "", "три слона"),
        (ObjectGroup("elephant", 3), "gen", "трёх слонов"),
        (ObjectGroup("elephant", 5), "acc", "пять слонов"),
        (ObjectGroup("elephant", 8), "ins", "восемью слонами"),
        (ObjectGroup("horse", 7), "ins", "семью лошадями"),
        (ObjectGroup("car", 1, "red"), "acc", "красную машину"),
        (ObjectGroup("car", 2, "red"), "", "две красные машины"),
        (ObjectGroup("house", 2, "blue", "small"), "", "два маленьких синих дома"),
        (ObjectGroup("house", 6, "blue", "large"), "", "шесть больших синих домов"),
        (ObjectGroup("cow", 1, None, "large"), "ins", "большой коровой"),
        (ObjectGroup("red apple", 4), "", "четыре красных яблока"),
        (ObjectGroup("red apple", 1, "purple"), "", "фиолетовое яблоко"),
        (ObjectGroup("bat", 3), "", "три летучие мыши"),
        (ObjectGroup("ladybug", 2), "", "две божьи коровки"),
        (ObjectGroup("teddy bear"), "acc", "плюшевого мишку"),
        (ObjectGroup("scissors"), "ins", "ножницами"),
        (ObjectGroup("scissors", 3), "", "трое ножниц"),
        (ObjectGroup("pizza", 5), "", "пять кусков пиццы"),
        (ObjectGroup("ice cream", 2, "pink"), "ins", "двумя розовыми морожеными"),
        (ObjectGroup("owl", None), "", "совы"),
        (ObjectGroup("owl", None), "gen", "нескольких сов"),
        (ObjectGroup("owl", 2), "is", "две совы находятся"),
        (ObjectGroup("owl", 4), "listed", "совы, 4 штуки"),
        (ObjectGroup("car", 1, "red"), "listed", "машина красная"),
        (ObjectGroup("owl", 1, None, None, "bottom left"), "", "сова в левом нижнем углу"),
    ],
)
def test_noun_phrases_agree(group, form, expected):
    assert expected in phrases(group, form)


@pytest.mark.parametrize(
    ("word", "gender", "case", "expected"),
    [
        ("большой", "f", "acc", "большую"),
        ("большой", "m", "ins", "большим"),
        ("маленький", "n", "gen", "маленького"),
        ("тёмно-синий", "m", "pre", "тёмно-синем"),
        ("летающий", "f", "nom", "летающая"),
        ("ночной синий", "m", "ins", "ночным синим"),
        ("очень большой", "p", "gen", "очень больших"),
    ],
)
def test_adjectives(word, gender, case, expected):
    assert decline_adjective(word, gender, case) == expected


def test_captions_of_a_relation():
    spec = SceneSpec((ObjectGroup("lion"), ObjectGroup("star", 3)), "dark blue", ((0, "below", 1),))
    found = texts(spec, 30000)
    assert {
        "лев под тремя звёздами на темно-синем фоне".replace("ё", "е"),
        "три звезды над львом, тёмно-синий фон",
        "нарисуй льва под тремя звёздами на тёмно-синем фоне",
    } <= found


def test_with_becomes_longer_before_two_consonants():
    spec = SceneSpec((FOX, ObjectGroup("elephant")))
    assert any("лиса со слоном" in text for text in texts(spec))


def test_signs_and_bare_backgrounds():
    assert "табличка с надписью «HELLO»" in texts(SceneSpec(text="HELLO"))
    assert "фон светло-зелёного цвета" in texts(SceneSpec(background="light green"))
