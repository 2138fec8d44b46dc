"""Training captions: reproducible, of the kinds asked for, and with specs that are true of their scenes."""

from collections import Counter

import numpy as np
import pytest

from lens.errors import SettingError
from lens.nano.captions import CaptionMix, NanoCaption, nano_caption, order_of_mention
from lens.nano.world.languages.registry import LANGUAGES
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scene_spec import OPPOSITE

KINDS = {
    "own words": CaptionMix(dense=0, tasks=0),
    "dense": CaptionMix(dense=1, tasks=0),
    "tasks": CaptionMix(dense=0, tasks=1),
    "others": CaptionMix(dense=0, tasks=0, others=1),
}


def captions(mix: CaptionMix, count: int = 60) -> list[NanoCaption]:
    return [nano_caption(3, index, mix) for index in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_caption_depends_on_its_seed_and_number_only(kind):
    mix = KINDS[kind]
    some = captions(mix, 12)
    assert captions(mix, 12)[::-1] == some[::-1]
    assert [nano_caption(3, index, mix) for index in (7, 2)] == [some[7], some[2]]
    assert [nano_caption(4, index, mix).text for index in range(12)] != [one.text for one in some]
    assert len({one.text for one in some}) > 8


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_caption_states_is_true_of_its_scene(kind):
    for caption in captions(KINDS[kind]):
        stated, scene = caption.spec, caption.scene
        assert stated.background in (None, scene.background)
        assert stated.text == (scene.sign.text if scene.sign else None)
        assert stated.text is None or stated.text in caption.text.upper()
        counts = Counter(thing.class_name for thing in scene.objects)
        assert set(counts) == {group.class_name for group in stated.groups}
        for group in stated.groups:
            same = [other for other in stated.groups if other.class_name == group.class_name]
            assert group.count is None or len(same) > 1 or group.count == counts[group.class_name]
        known = {*scene.spec.relations, *((b, OPPOSITE[way], a) for a, way, b in scene.spec.relations)}
        known |= {(0, scene.relation, 1)} if scene.relation else set()
        named = {
            (scene.groups[a].class_name, way, scene.groups[b].class_name)
            for a, way, b in {*known, *((b, OPPOSITE[way], a) for a, way, b in known)}
        }
        for a, way, b in stated.relations:
            assert (stated.groups[a].class_name, way, stated.groups[b].class_name) in named


@pytest.mark.parametrize("kind", ["own words", "dense", "others"])
def test_all_relations_of_a_scene_are_stated(kind):
    related = [caption for caption in captions(KINDS[kind], 120) if caption.scene.spec.relations]
    assert len(related) > 20
    assert all(len(one.spec.relations) == len(one.scene.spec.relations) for one in related)


def test_groups_of_a_task_caption_are_in_the_order_of_their_mention():
    orders = Counter()
    for caption in captions(KINDS["tasks"], 300):
        names = [group.class_name for group in caption.spec.groups]
        if len(names) == 2 and len(set(names)) == 2:
            forms = [(OBJECT_CLASSES[name].name, OBJECT_CLASSES[name].plural) for name in names]
            places = [max(caption.text.lower().find(form) for form in pair) for pair in forms]
            if min(places) >= 0 and not any(one in other for one in forms[0] for other in forms[1]):
                orders[places[0] < places[1]] += 1
    assert orders[True] > 50
    # A name may be a part of another word of the caption.
    assert orders[False] <= 0.03 * orders[True]


@pytest.mark.parametrize(("text", "names", "order"), [
    ("A fox to the left of two KEYS", ("key", "fox"), (1, 0)),
    ("a teddy bear beside a bear", ("bear", "teddy bear"), (1, 0)),
    ("a bear beside a teddy bear", ("teddy bear", "bear"), (1, 0)),
    ("foxes, a dog", ("fox", "dog"), (0, 1)),
    ("a hotdog stand? no: a fox. a dog", ("dog", "fox"), (1, 0)),
])  # fmt: skip
def test_the_order_of_mention_is_that_of_whole_names(text, names, order):
    assert order_of_mention(text, [name for name in names if name in OBJECT_CLASSES]) == order


def test_the_kinds_come_in_the_shares_of_the_mix():
    mix = CaptionMix(dense=0.0, tasks=0.0, others=0.5, languages=("ja", "de"))
    counts = Counter(caption.language for caption in captions(mix, 200))
    assert set(counts) == {"en", "ja", "de"}
    assert 0.4 < counts["en"] / 200 < 0.6


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_language_can_be_asked_for(code):
    mix = CaptionMix(dense=0, tasks=0, others=1, languages=(code,))
    assert {caption.language for caption in captions(mix, 5)} == {code}


def test_a_scene_has_the_size_that_is_asked_for():
    scene, text = KINDS["dense"].example(3, 0, 96, 176)
    assert (scene.height_px, scene.width_px) == (96, 176)
    assert text == nano_caption(3, 0, KINDS["dense"], 96, 176).text


@pytest.mark.parametrize(("values", "says"), [
    ({"languages": ["en", "xx"]}, r"captions.languages is \['en', 'xx'\]"),
    ({"others": 0.1, "languages": []}, "captions.languages"),
    ({"dense": 0.6, "tasks": 0.5}, "a sum of at most 1"),
    ({"dense": -0.5, "tasks": 0.9}, "at least 0"),
    ({"dens": 0.5}, r"captions is \['dens'\].*dense, tasks, others, languages"),
])  # fmt: skip
def test_a_mix_that_cannot_be_is_refused(values, says):
    with pytest.raises(SettingError, match=says):
        CaptionMix.of(values)


def test_a_mix_may_be_without_a_rest():
    assert CaptionMix.of({"dense": 0.7, "tasks": 0.2, "others": 0.1}).others == 0.1
    assert np.isclose(0.7 + 0.2 + 0.1, 1)
