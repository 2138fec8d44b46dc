"""Japanese captions: counters, verbs, relations and completeness."""

import numpy as np
import pytest

from lens.nano.world.colours import COLOURS, OBJECT_COLOURS
from lens.nano.world.languages.asian.japanese import Japanese
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scene_spec import PLACES, RELATIONS, ObjectGroup, SceneSpec

CAT, DOG, EGG = ObjectGroup("cat"), ObjectGroup("dog"), ObjectGroup("egg")


def _captions(spec: SceneSpec, num_captions: int = 12000) -> set[str]:
    rng = np.random.default_rng(0)
    return {Japanese().caption(spec, rng).text for _ in range(num_captions)}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            SceneSpec((ObjectGroup("fox"),)),
            {"キツネ", "狐の絵", "キツネを描いて", "一匹のキツネ", "キツネがいます"},
        ),
        (SceneSpec((ObjectGroup("car", 3),)), {"車3台", "三台の車", "車を3台描いて。", "車が３台ある"}),
        (SceneSpec((ObjectGroup("cat", None),)), {"数匹の猫", "猫たち", "猫が何匹かいる絵"}),
        (SceneSpec((ObjectGroup("owl", 1, "blue", "small", "top left"),)), {"左上に小さな青いフクロウ"}),
        (SceneSpec((CAT, EGG)), {"猫と目玉焼き", "猫、目玉焼き", "猫がいて、目玉焼きがある"}),
        (
            SceneSpec((CAT, DOG), None, ((1, "left of", 0),)),
            {"猫の左に犬", "猫の左にいる犬", "左に犬、右に猫", "犬の右に猫", "犬が猫の左にいる"},
        ),
        (SceneSpec((CAT,), "light blue"), {"猫、水色の背景", "水色の背景に猫", "猫。背景は水色です"}),
        (SceneSpec((), "dark blue"), {"紺色の背景", "ネイビー一色"}),
        (
            SceneSpec((CAT,), None, (), "HELLO"),
            {"猫と「HELLO」と書かれた看板", "猫。看板には「HELLO」と書いてある"},
        ),
    ],
)
def test_captions_are_what_people_type(spec, expected):
    assert expected - _captions(spec) == set()


def test_a_caption_about_one_thing_never_speaks_of_several():
    assert not [text for text in _captions(SceneSpec((CAT,))) if "たち" in text or "数" in text]


def test_the_order_is_that_of_the_mentions():
    spec = SceneSpec((CAT, DOG), None, ((0, "above", 1),))
    rng = np.random.default_rng(0)
    for _ in range(300):
        text, order = Japanese().caption(spec, rng)
        cat = min(at for noun in ("猫", "ネコ", "ねこ") if (at := text.find(noun)) >= 0)
        dog = min(at for noun in ("犬", "イヌ", "いぬ", "わんこ") if (at := text.find(noun)) >= 0)
        assert order == ((0, 1) if cat < dog else (1, 0)), text


def test_every_class_has_nouns_of_its_own():
    entries = Japanese().nouns()
    assert entries.keys() == OBJECT_CLASSES.keys()
    nouns = [noun for entry in entries.values() for noun in entry.nouns]
    assert len(nouns) == len(set(nouns))


def test_captions_state_every_group_and_the_sign():
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
        text, order = Japanese().caption(SceneSpec(groups, background, relations, "OPEN24"), rng)
        assert sorted(order) == list(range(len(groups)))
        assert "OPEN24" in text and "{" not in text and "。。" not in text
        for group in groups:
            entry = Japanese().nouns()[group.class_name]
            assert any(noun in text for noun in (*entry.nouns, *entry.coloured_nouns)), (group, text)
