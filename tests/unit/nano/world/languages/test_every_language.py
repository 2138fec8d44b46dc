"""Captions of every language state all of a scene: each group once in the order of mention, and the sign."""

import numpy as np
import pytest

from lens.nano.world.colours import COLOURS, OBJECT_COLOURS
from lens.nano.world.languages.english.dense import EnglishDense
from lens.nano.world.languages.english.own_words import English
from lens.nano.world.languages.registry import LANGUAGES, language
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scene_spec import OPPOSITE, PLACES, RELATIONS, ObjectGroup, SceneSpec


def random_spec(rng):
    num_groups = int(rng.integers(4))
    kinds = rng.choice(len(OBJECT_CLASSES), num_groups, replace=False)
    groups = [
        ObjectGroup(
            list(OBJECT_CLASSES)[kind],
            (1, 1, 2, 8, None)[rng.integers(5)],
            (None, *OBJECT_COLOURS)[rng.integers(9)],
            (None, "small", "large")[rng.integers(3)],
        )
        for kind in kinds
    ]
    if num_groups == 1:
        groups = [groups[0]._replace(count=1, place=(None, *PLACES)[rng.integers(10)])]
    relations = [(k, RELATIONS[rng.integers(4)], k + 1) for k in range(num_groups - 1)]
    background = None if num_groups and rng.random() < 0.5 else list(COLOURS)[rng.integers(16)]
    text = "LENS8" if rng.random() < 0.3 else None
    return SceneSpec(tuple(groups), background, tuple(relations if rng.random() < 0.5 else ()), text)


@pytest.mark.parametrize("code", sorted(LANGUAGES))
def test_every_caption_mentions_all_groups_and_the_sign(code):
    rng = np.random.default_rng(5)
    for _ in range(300):
        spec = random_spec(rng)
        caption = language(code).caption(spec, rng)
        assert sorted(caption.order) == list(range(len(spec.groups)))
        assert spec.text is None or spec.text in caption.text.upper()
        assert not set("{}!~_") & set(caption.text) and "  " not in caption.text, caption.text


@pytest.mark.parametrize("code", [*sorted(LANGUAGES), "en", "dense"])
@pytest.mark.parametrize("pair", [(0, 1), (2, 0), (1, 2)])
def test_a_single_relation_of_three_groups_is_stated(code, pair):
    """The same draws give another text for the opposite relation, and every group has its mention."""
    speaker = {"en": English, "dense": EnglishDense}.get(code, lambda: language(code))()
    names = ("fox", "key", "teddy bear")
    spec, opposite = (
        SceneSpec(tuple(map(ObjectGroup, names)), relations=((pair[0], relation, pair[1]),))
        for relation in ("left of", OPPOSITE["left of"])
    )
    for seed in range(30):
        one, other = (speaker.caption(each, np.random.default_rng(seed)) for each in (spec, opposite))
        assert sorted(one.order) == [0, 1, 2]
        assert one.text != other.text, one.text
        assert not set("{}!~_") & set(one.text) or code in ("en", "dense"), one.text
