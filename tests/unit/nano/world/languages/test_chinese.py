"""Chinese captions: classifiers, relations, both scripts and completeness."""
# ruff: noqa: RUF001  (full-width punctuation is what people type)

import numpy as np
import pytest

from lens.nano.world.colours import COLOURS, OBJECT_COLOURS
from lens.nano.world.languages.asian.chinese import Chinese, TraditionalChinese
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scene_spec import PLACES, RELATIONS, ObjectGroup, SceneSpec

CAT, FOX = ObjectGroup("cat"), ObjectGroup("fox")


def _captions(spec: SceneSpec, language: Chinese | None = None) -> set[str]:
    rng = np.random.default_rng(0)
    language = language or Chinese()
    return {language.caption(spec, rng).text for _ in range(12000)}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            SceneSpec((FOX,)),
            {"狐狸", "一只狐狸", "画一只狐狸", "狐狸的图片", "请帮我画1只狐狸，谢谢", "有一只狐狸。"},
        ),
        (SceneSpec((ObjectGroup("car", 2),)), {"两辆汽车", "2辆汽车", "２辆车", "兩輛汽車"}),
        (SceneSpec((ObjectGroup("cat", None),)), {"几只猫", "一些猫", "幾隻貓"}),
        (
            SceneSpec((ObjectGroup("owl", 1, "blue", "small", "top left"),)),
            {"左上角有一只蓝色的小猫头鹰", "一只蓝色的小猫头鹰在左上角", "在左上角画一只蓝色的小猫头鹰"},
        ),
        (SceneSpec((CAT, FOX)), {"猫和狐狸", "一只猫和一只狐狸", "猫，狐狸", "画猫和狐狸"}),
        (
            SceneSpec((CAT, FOX), None, ((1, "left of", 0),)),
            {"狐狸在猫左边", "一只狐狸在猫的左边", "猫左边有一只狐狸", "左边是狐狸，右边是猫"},
        ),
        (SceneSpec((CAT,), "light blue"), {"猫，浅蓝色背景", "天蓝色背景，猫", "猫，背景是浅蓝色的"}),
        (SceneSpec((), "dark blue"), {"深蓝色背景", "一片藏青色", "深藍色背景"}),
        (SceneSpec((CAT,), None, (), "HELLO"), {"猫，牌子上写着“HELLO”", "猫和一块写着“HELLO”的牌子"}),
    ],
)
def test_captions_are_what_people_type(spec, expected):
    assert expected - _captions(spec) == set()


def test_traditional_captions_use_the_words_of_their_regions():
    assert {"計程車", "兩輛計程車"} <= _captions(
        SceneSpec((ObjectGroup("taxi"),)), TraditionalChinese()
    ) | _captions(SceneSpec((ObjectGroup("taxi", 2),)), TraditionalChinese())


def test_a_size_makes_no_noun_of_another_class():
    captions = _captions(SceneSpec((ObjectGroup("panda", 1, None, "large"),)))
    assert {"一只很大的熊猫", "一只巨大的大熊猫"} <= captions
    assert not captions & {"大熊猫", "一只大熊猫"}


@pytest.mark.parametrize("language", [Chinese(), TraditionalChinese()])
def test_every_class_has_nouns_of_its_own(language):
    entries = language.nouns()
    assert entries.keys() == OBJECT_CLASSES.keys()
    nouns = [noun for entry in entries.values() for noun in entry.nouns]
    assert len(nouns) == len(set(nouns))


@pytest.mark.parametrize("language", [Chinese(), TraditionalChinese()])
def test_captions_state_every_group_and_the_sign(language):
    rng = np.random.default_rng(0)
    names, colours = list(OBJECT_CLASSES), list(OBJECT_COLOURS)
    for _ in range(300):
        groups = tuple(
            ObjectGroup(
                names[int(index)],
                (None, *range(1, 9))[int(rng.integers(9))],
                colours[int(rng.integers(8))] if rng.random() < 0.3 else None,
                (None, "small", "large")[int(rng.integers(3))],
            )
            for index in rng.choice(len(names), int(rng.integers(1, 4)), replace=False)
        )
        if len(groups) == 1 and groups[0].count == 1:
            groups = (groups[0]._replace(place=PLACES[int(rng.integers(9))]),)
        relations = tuple((k, RELATIONS[int(rng.integers(4))], k + 1) for k in range(len(groups) - 1))
        background = list(COLOURS)[int(rng.integers(16))]
        text, order = language.caption(SceneSpec(groups, background, relations, "OPEN24"), rng)
        assert sorted(order) == list(range(len(groups)))
        assert "OPEN24" in text and "{" not in text and "。。" not in text
        for group in groups:
            entry = Chinese().nouns()[group.class_name]
            nouns = [noun for kind in entry for noun in kind]
            known = [*nouns, *(TraditionalChinese().finish(noun, rng) for noun in nouns)]
            assert any(noun in text for noun in known), (group, text)
