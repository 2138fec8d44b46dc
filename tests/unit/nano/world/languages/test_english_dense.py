"""Dense English captions: their length, truth and completeness."""

import re
from collections import Counter

import numpy as np

from lens.nano.world.colours import COLOURS, EVERYDAY_COLOUR_NAMES, OBJECT_COLOURS
from lens.nano.world.languages.english import words as english_words
from lens.nano.world.languages.english.dense import EnglishDense, dense_caption
from lens.nano.world.languages.english.dense_groups import background_names, class_names
from lens.nano.world.languages.english.dense_templates import dense_table
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.scene_spec import (
    OPPOSITE,
    PLACES,
    RELATIONS,
    SIGN_CHARACTERS,
    ObjectGroup,
    SceneSpec,
)

SIZES = {
    "small": "small|little|tiny|miniature|not much|a bit",
    "large": "large|big|huge|giant|enormous|oversized|much|a lot|plenty",
}
SIDES = {
    "top": "top|upper", "bottom": "bottom|lower", "centre": "cent|middle", "left of": "left",
    "right of": "right", "above": "above|over|higher", "below": "below|under|beneath|lower",
}  # fmt: skip
COLLECTIVES = {2: "couple", 3: "trio", 4: "quartet", 6: "half a dozen"}
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")


def choose(rng: np.random.Generator, choices):
    return choices[int(rng.integers(len(choices)))]


def random_group(rng: np.random.Generator, class_name: str) -> ObjectGroup:
    count = int(rng.integers(1, 9)) if rng.random() < 0.7 else 1
    colour = choose(rng, tuple(OBJECT_COLOURS)) if rng.random() < 0.3 else None
    size = choose(rng, ("small", "large")) if rng.random() < 0.3 else None
    place = choose(rng, PLACES) if count == 1 and rng.random() < 0.4 else None
    return ObjectGroup(class_name, count, colour, size, place)


def random_spec(rng: np.random.Generator) -> SceneSpec:
    names = rng.choice(list(OBJECT_CLASSES), int(rng.integers(0, 4)), replace=False)
    groups = tuple(random_group(rng, str(name)) for name in names)
    relations = tuple((index, choose(rng, RELATIONS), index + 1) for index in range(len(groups) - 1))
    text = "".join(rng.choice(list(SIGN_CHARACTERS), int(rng.integers(1, 9))))
    return SceneSpec(groups, choose(rng, tuple(COLOURS)), relations, text if rng.random() < 0.3 else None)


def samples(count: int) -> list[tuple[SceneSpec, str]]:
    rng = np.random.default_rng(11)
    specs = [random_spec(rng) for _ in range(count)]
    return [(spec, dense_caption(spec, rng).text) for spec in specs]


def words_of(text: str) -> str:
    """Return a text in lower case with spaces around its words."""
    return f" {' '.join(re.findall(r'[a-z0-9]+', text.lower()))} "


def names_of(class_name: str) -> set[str]:
    names = {*class_names(class_name, False), *class_names(class_name, True)}
    return {words_of(form) for name in names for form in name[:2]}


def colours_of(colour: str | None) -> set[str]:
    names = (colour, *english_words.EVERYDAY_OBJECT_COLOURS[colour]) if colour else ()
    return {words_of(name) for name in names}


def test_captions_have_60_to_120_words():
    assert all(60 <= len(text.split()) <= 120 for _, text in samples(500))


def test_captions_mention_every_group_with_its_facts():
    for spec, text in samples(500):
        words = words_of(text)
        for group in spec.groups:
            assert any(name in words for name in names_of(group.class_name)), text
            assert group.colour is None or any(name in words for name in colours_of(group.colour)), text
            count = group.count or 0
            if count > 1:
                forms = (NUMBERS[count - 1], str(count), COLLECTIVES.get(count, "-"))
                assert any(f" {form} " in words for form in forms), text
            if group.size is not None:
                assert re.search(f" ({SIZES[group.size]}) ", words), text
            if group.place is not None:
                assert all(re.search(SIDES.get(part, part), words) for part in group.place.split()), text


def test_captions_state_background_relations_and_sign():
    for spec, text in samples(500):
        assert any(name in text.lower() for name in background_names(spec.background)), text
        assert spec.text is None or spec.text in text, text
        for _, relation, _ in spec.relations:
            assert re.search(f"{SIDES[relation]}|{SIDES[OPPOSITE[relation]]}", text.lower()), text


def test_relations_are_true_both_ways_round():
    rng = np.random.default_rng(6)
    spec = SceneSpec((ObjectGroup("fox", 3), ObjectGroup("owl", 2)), "blue", ((0, "left of", 1),))
    # A clause that begins with the side, or with what to look from, names the other group first.
    other_first = "to the|left of|right of|on the|looking|if you|relative to|seen from|compared|with respect"
    ways = Counter()
    for _ in range(300):
        for clause in re.split(r"\. |; |, while |, and ", dense_caption(spec, rng).text):
            words = words_of(clause).replace(" right away ", " ")
            sides = {side for side in ("left", "right") if f" {side} " in words}
            places = [[words.find(name) for name in names_of(thing)] for thing in ("fox", "owl")]
            fox, owl = (min((place for place in found if place >= 0), default=-1) for found in places)
            if sides and min(fox, owl) >= 0:
                is_other_first = bool(re.match(f" ({other_first}) ", words))
                assert sides == {"left" if (fox < owl) != is_other_first else "right"}, clause
                ways[fox < owl, is_other_first] += 1
    assert len(ways) == 4


def test_the_order_is_that_of_first_mention():
    rng = np.random.default_rng(4)
    groups = (ObjectGroup("fox", 3), ObjectGroup("owl"), ObjectGroup("car", 2))
    spec = SceneSpec(groups, "blue", ((0, "above", 1),))
    orders = Counter()
    for _ in range(300):
        text, order = dense_caption(spec, rng)
        words = words_of(text)
        places = [[words.find(name) for name in names_of(group.class_name)] for group in groups]
        first = [min(place for place in found if place >= 0) for found in places]
        assert order == tuple(np.argsort(first)), text
        orders[order] += 1
    assert len(orders) == 6


def test_captions_name_no_other_class_number_or_colour():
    nouns = {name: thing for thing in OBJECT_CLASSES for name in names_of(thing)}
    colours = {words_of(name) for colour in COLOURS for name in (colour, *EVERYDAY_COLOUR_NAMES[colour])}
    for spec, text in samples(500):
        rest = words_of(text)
        if spec.text is not None:
            rest = rest.replace(words_of(spec.text), "  ")
        own = {name for group in spec.groups for name in names_of(group.class_name)}
        own |= {words_of(name) for name in background_names(spec.background)}
        own |= {colour for group in spec.groups for colour in colours_of(group.colour)}
        # The colours of parts of a drawing are no facts of a scene.
        for group in spec.groups:
            for trait in dense_table()["traits"].get(group.class_name, ()):
                rest = rest.replace(words_of(f"has {trait}"), "  ")
        for name in sorted(own, key=len, reverse=True):
            rest = rest.replace(name, "  ")
        assert not [name for name in (nouns.keys() | colours) if name in rest], (text, rest)
        counts = {group.count for group in spec.groups}
        for number, word in enumerate(NUMBERS, start=1):
            assert number in counts or f" {word} " not in rest.replace("every one of", ""), text


def test_a_text_has_no_traces_of_its_templates():
    for _, text in samples(500):
        assert not re.search(r"\ba (?!uni|one|ewe|ufo|eu)[aeiou]|\ban [^aeiou]", text.lower()), text
        assert not re.search(r"[\[\]{}|~\ue000-\uf8ff]|  | [.,]|\.\.| an? (an?|the) ", text), text
        assert all(part[:1].isupper() or part[:1].isdigit() for part in text.split(". ")), text


def test_a_sign_is_never_denied():
    rng = np.random.default_rng(2)
    spec = SceneSpec((ObjectGroup("fox", 3),), "blue", (), "HELLO")
    for _ in range(200):
        text = EnglishDense().caption(spec, rng).text
        sentences = [part for part in text.split(". ") if "HELLO" not in part]
        denials = [part for part in sentences if re.search(r"\bno (text|writing)\b|free of text", part)]
        assert not denials, text


def test_500_captions_of_a_spec_share_few_sentences():
    rng = np.random.default_rng(3)
    groups = (ObjectGroup("fox", 3, size="small"), ObjectGroup("owl", 2))
    spec = SceneSpec(groups, "blue", ((0, "left of", 1),))
    texts = [EnglishDense().caption(spec, rng).text for _ in range(500)]
    sentences = Counter(part for text in texts for part in text.split(". "))
    assert len(sentences) > 0.5 * sentences.total()
    assert max(sentences.values()) < 50
