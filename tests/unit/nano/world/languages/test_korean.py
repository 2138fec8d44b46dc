"""Korean captions: particles, counters and completeness."""

import numpy as np
import pytest

from lens.nano.world.languages.asian.korean import Korean, nouns, with_particle
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec


@pytest.mark.parametrize(
    ("phrase", "particle", "expected"),
    [("여우", "을", "여우를"), ("곰", "을", "곰을"), ("별", "과", "별과"), ("TV", "은", "TV는")],
)
def test_a_particle_has_the_shape_that_the_last_syllable_asks_for(phrase, particle, expected):
    assert with_particle(phrase, particle) == expected


def test_every_class_has_a_noun_and_a_counter():
    assert nouns().keys() == OBJECT_CLASSES.keys()


def _captions(spec: SceneSpec) -> set[str]:
    return {Korean().caption(spec, np.random.default_rng(seed)).text for seed in range(3000)}


def test_captions_are_what_people_type():
    fox = SceneSpec((ObjectGroup("fox"),))
    assert {"여우", "여우 한 마리", "여우를 그려줘", "여우 그림"} <= _captions(fox)
    books = SceneSpec((ObjectGroup("book", 3, "red"),), "light blue")
    assert {"하늘색 배경에 빨간 책 세 권", "빨간 책 세 권, 하늘색 배경"} <= _captions(books)
    pair = SceneSpec((ObjectGroup("cat"), ObjectGroup("bear")), None, ((0, "left of", 1),))
    assert {"곰 왼쪽에 고양이", "고양이는 왼쪽, 곰은 오른쪽", "왼쪽에 고양이, 오른쪽에 곰"} <= _captions(pair)
    sign = SceneSpec((ObjectGroup("owl"),), None, (), "HELLO")
    assert '"HELLO"라고 적힌 팻말과 부엉이' in _captions(sign)


def test_a_ship_is_never_named_as_a_bare_pear():
    assert "배" not in _captions(SceneSpec((ObjectGroup("ship"),)))
