"""Hindi captions: cases, genders, numbers and completeness."""

from itertools import product

import numpy as np
import pytest

from lens.nano.world.languages.asian.hindi import Hindi, nouns
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec


@pytest.mark.parametrize(
    ("class_name", "one", "one_oblique", "many", "many_oblique"),
    [
        ("fox", "लोमड़ी", "लोमड़ी", "लोमड़ियाँ", "लोमड़ियों"),
        ("horse", "घोड़ा", "घोड़े", "घोड़े", "घोड़ों"),
        ("panda", "पांडा", "पांडा", "पांडा", "पांडाओं"),
        ("book", "किताब", "किताब", "किताबें", "किताबों"),
        ("pine tree", "चीड़ का पेड़", "चीड़ के पेड़", "चीड़ के पेड़", "चीड़ के पेड़ों"),
        ("turtle", "कछुआ", "कछुए", "कछुए", "कछुओं"),
        ("elephant", "हाथी", "हाथी", "हाथी", "हाथियों"),
    ],
)
def test_nouns_are_inflected(class_name, one, one_oblique, many, many_oblique):
    noun = nouns()[class_name][0]
    forms = [noun.inflect(*number_and_case) for number_and_case in product((False, True), repeat=2)]
    assert forms == [one, one_oblique, many, many_oblique]


def test_every_class_has_a_noun():
    assert nouns().keys() == OBJECT_CLASSES.keys()


def _captions(spec: SceneSpec) -> set[str]:
    return {Hindi().caption(spec, np.random.default_rng(seed)).text for seed in range(3000)}


def test_captions_are_what_people_type():
    fox = SceneSpec((ObjectGroup("fox"),))
    assert {"लोमड़ी", "एक लोमड़ी", "एक लोमड़ी का चित्र", "एक लोमड़ी बनाओ"} <= _captions(fox)
    books = SceneSpec((ObjectGroup("book", 3, "blue"),), "yellow")
    assert {"पीली पृष्ठभूमि पर तीन नीली किताबें", "तीन नीली किताबें, पीला बैकग्राउंड"} <= _captions(books)
    pair = SceneSpec((ObjectGroup("bear"), ObjectGroup("horse")), None, ((0, "left of", 1),))
    assert {"घोड़े के बाईं ओर भालू", "बाएँ भालू और दाएँ घोड़ा"} <= _captions(pair)
    sign = SceneSpec((ObjectGroup("bear"),), None, (), "HELLO")
    assert '"HELLO" लिखा बोर्ड और भालू' in _captions(sign)
