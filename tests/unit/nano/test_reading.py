"""Labels of what a prompt says: every spec of the world is read back, and told in the order of mention."""

import numpy as np
import pytest

from lens.nano.reading import (
    LABELS,
    NUM_MENTIONS,
    NUM_SCAFFOLD_TOKENS,
    SEVERAL,
    mentions_of,
    reading_of,
    spec_of,
)
from lens.nano.world.colours import COLOURS, OBJECT_COLOURS
from lens.nano.world.full_scenes import random_full_scene, stated_spec
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scene_spec import OPPOSITE, PLACES, RELATIONS, ObjectGroup, SceneSpec

SPEC = SceneSpec(
    (
        ObjectGroup("fox", None, "red"),
        ObjectGroup("key", 1, None, "small", "top left"),
        ObjectGroup("dog", 8),
    ),
    "blue",
    ((1, "above", 0), (1, "left of", 2)),
    "A9",
)


def told(reading: np.ndarray) -> dict[str, object]:
    """The values of all labels that are not none."""
    values = {label.name: label.values[index] for label, index in zip(LABELS, reading, strict=True)}
    return {name: value for name, value in values.items() if value is not None}


def relations_both_ways(spec: SceneSpec) -> set[tuple[int, str, int]]:
    return {*spec.relations, *((b, OPPOSITE[relation], a) for a, relation, b in spec.relations)}


def test_the_labels_of_a_spec_are_its_facts_with_relations_in_the_order_of_the_pairs():
    assert told(reading_of(SPEC)) == {
        "background": "blue", "class_0": "fox", "count_0": SEVERAL, "colour_0": "red", "class_1": "key",
        "count_1": 1, "size_1": "small", "place_1": "top left", "class_2": "dog", "count_2": 8,
        "relation_01": "below", "relation_12": "left of", "letter_0": "A", "letter_1": "9",
    }  # fmt: skip
    assert told(reading_of(SceneSpec())) == {}


def test_each_group_pair_and_letter_has_a_token_of_its_own_after_the_prompt():
    tokens = {}
    for label in LABELS:
        part = label.name.removeprefix(label.kind)
        role = "group" if label.kind in ("class", "count", "colour", "size", "place") else label.kind
        tokens.setdefault((role, part), set()).add(label.token)
    assert all(len(places) == 1 for places in tokens.values())
    assert sorted(place for (place,) in tokens.values()) == list(range(NUM_SCAFFOLD_TOKENS))
    assert len(LABELS) == 1 + 3 * 5 + 3 + 8
    assert all(label.values[0] is None and len(set(label.values)) == len(label.values) for label in LABELS)


def test_every_spec_of_the_world_is_read_back():
    rng = np.random.default_rng(0)
    for _ in range(500):
        spec = stated_spec(random_full_scene(rng, 128, 128), rng)
        read = spec_of(reading_of(spec))
        assert (read.groups, read.background, read.text) == (spec.groups, spec.background, spec.text)
        assert relations_both_ways(read) == relations_both_ways(spec)


def test_facts_of_a_group_without_a_class_are_left_out():
    reading = reading_of(SPEC)
    index = {label.name: place for place, label in enumerate(LABELS)}
    reading[index["class_1"]] = 0
    reading[index["relation_02"]] = LABELS[index["relation_02"]].values.index("right of")
    spec = spec_of(reading)
    assert spec.groups == (SPEC.groups[0], SPEC.groups[2])
    assert spec.relations == ((0, "right of", 1),)
    assert spec_of([0] * len(LABELS)) == SceneSpec()


def test_a_group_whose_number_is_not_read_is_a_single_object():
    reading = reading_of(SceneSpec((ObjectGroup("fox", 5),)))
    reading[[label.name for label in LABELS].index("count_0")] = 0
    assert spec_of(reading).groups == (ObjectGroup("fox", 1),)


@pytest.mark.parametrize("spec", [SceneSpec((ObjectGroup("fox"),) * 4), SceneSpec(text="NINECHARS")])
def test_a_spec_with_more_than_there_are_labels_for_is_refused(spec):
    with pytest.raises(ValueError, match="at most 3 groups and 8 letters"):
        reading_of(spec)


def test_mentions_are_the_values_that_have_words_of_whichever_group():
    assert (
        len(COLOURS) + len(OBJECT_CLASSES) + SEVERAL + len(OBJECT_COLOURS) + 2 + len(PLACES) + len(RELATIONS)
    ) == NUM_MENTIONS
    everything = mentions_of(reading_of(SPEC))
    assert everything.shape == (NUM_MENTIONS,)
    # Background, three classes, the count of eight, a colour, a size, a place and two relations.
    assert everything.sum() == 10
    for spec in (SPEC.reordered((2, 0, 1)), SPEC.reordered((1, 2, 0))):
        without_direction = mentions_of(reading_of(spec))[: -len(RELATIONS)]
        assert (without_direction == everything[: -len(RELATIONS)]).all()


@pytest.mark.parametrize("count", [1, None])
def test_a_count_of_one_or_none_has_no_word(count):
    one = mentions_of(reading_of(SceneSpec((ObjectGroup("fox", count),))))
    assert one.sum() == 1
    assert mentions_of(reading_of(SceneSpec((ObjectGroup("fox", 2),)))).sum() == 2


def test_each_value_has_a_place_of_its_own():
    places = [
        mentions_of(reading_of(spec)).nonzero()[0].tolist()
        for spec in (
            *(SceneSpec(background=colour) for colour in COLOURS),
            *(SceneSpec((ObjectGroup(name),)) for name in OBJECT_CLASSES),
        )
    ]
    assert places == [[place] for place in range(len(COLOURS) + len(OBJECT_CLASSES))]
