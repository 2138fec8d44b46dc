"""Arabic captions: number, gender, definiteness and completeness."""

import numpy as np
import pytest

from lens.nano.world.languages.asian.arabic import Arabic, nouns
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec


@pytest.mark.parametrize(
    ("group", "form", "expected"),
    [
        (ObjectGroup("fox", 2, None, "small"), "", "ثعلبان صغيران"),
        (ObjectGroup("fox", 2, None, "small"), "genitive", "ثعلبين صغيرين"),
        (ObjectGroup("fox", 3, None, "small"), "", "ثلاثة ثعالب صغيرة"),
        (ObjectGroup("car", 3, "red"), "", "ثلاث سيارات حمراء"),
        (ObjectGroup("car", 2, "red"), "", "سيارتان حمراوان"),
        (ObjectGroup("car", 3), "the genitive", "السيارات الثلاث"),
        (ObjectGroup("fox", 1, "blue", "large"), "object", "ثعلبا كبيرا أزرق"),
        (ObjectGroup("pine tree", 2), "", "شجرتا صنوبر"),
        (ObjectGroup("pine tree", 1), "the genitive", "شجرة الصنوبر"),
        (ObjectGroup("motorcycle", 1, None, "large"), "the genitive", "الدراجة النارية الكبيرة"),
        (ObjectGroup("green apple", 1), "", "تفاحة خضراء"),
        (ObjectGroup("star", 1, None, None, "top left"), "", "نجمة في أعلى اليسار"),
        (ObjectGroup("lion", None), "", "أسود"),
    ],
)
def test_noun_phrases_agree(group, form, expected):
    phrases = {Arabic().noun_phrase(group, form, np.random.default_rng(seed)) for seed in range(500)}
    assert expected in phrases


def test_every_class_has_a_noun_that_can_be_counted():
    assert nouns().keys() == OBJECT_CLASSES.keys()
    assert all(any(not noun.is_collective for noun in names) for names in nouns().values())


def _captions(spec: SceneSpec) -> set[str]:
    return {Arabic().caption(spec, np.random.default_rng(seed)).text for seed in range(4000)}


def test_captions_are_what_people_type():
    fox = SceneSpec((ObjectGroup("fox"),))
    assert {"ثعلب", "صورة ثعلب", "ارسم ثعلب", "ارسم ثعلبا", "هناك ثعلب"} <= _captions(fox)
    cars = SceneSpec((ObjectGroup("car", 3),), "blue")
    assert {"ثلاث سيارات على خلفية زرقاء", "خلفية زرقاء، ثلاث سيارات"} <= _captions(cars)
    pair = SceneSpec((ObjectGroup("lion"), ObjectGroup("cow")), None, ((0, "left of", 1),))
    captions = _captions(pair)
    assert {"أسد على يسار بقرة", "أسد على يسار البقرة", "بقرة وعلى يسارها أسد"} <= captions
    assert "على اليسار أسد وعلى اليمين بقرة" in captions
    sign = SceneSpec((ObjectGroup("lion"),), None, (), "HELLO")
    assert 'أسد ولافتة مكتوب عليها "HELLO"' in _captions(sign)
