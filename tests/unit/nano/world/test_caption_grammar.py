"""Captions are true of their scenes, and test wordings are none that training uses."""

import re
from itertools import permutations, product

import numpy as np
import pytest

from lens.nano.world.caption_grammar import (
    CaptionContent,
    brief_caption,
    dense_caption,
)
from lens.nano.world.colours import COLOUR_SYNONYMS, COLOURS
from lens.nano.world.english import article, capitalize_sentences, with_article
from lens.nano.world.objects import OBJECT_CLASSES
from lens.nano.world.phrases import (
    CONNECTIVES,
    FUNCTION_WORDS,
    MEDIA,
    NEUTRAL_ADJECTIVES,
    NUMERALS,
    PREPOSITIONS,
    RELATIVE_POSITIONS,
    REQUEST_OPENERS,
    SIDE_PHRASES,
    SIZE_ADJECTIVES,
    STYLES,
    TEST_PHRASES,
    TRAIN_PHRASES,
    TUNE_PHRASES,
)
from lens.nano.world.phrases import POSITION_PHRASES as PLACE_PHRASES
from lens.nano.world.scenes import (
    OPPOSITE,
    PLACES,
    RELATIONS,
    SCENE_KINDS,
    arrange_scene,
    clear_relation,
    random_scene,
)

SPLITS = [(caption, split) for caption in (brief_caption, dense_caption) for split in ("train", "test")]


def captioned(caption, split, count: int, kind: str | None = None):
    """Yield scenes with their caption in lower case."""
    rng = np.random.default_rng(7)
    for _ in range(count):
        scene = random_scene(rng, 128, 128, kind)
        yield scene, caption(scene, rng, split).lower()


def words_for(thing: str) -> list[tuple[str, str]]:
    named = OBJECT_CLASSES[thing]
    return [(one.lower(), many.lower()) for one, many in ((named.name, named.plural), *named.synonyms)]


def noun_pattern(thing: str) -> str:
    words = {word for pair in words_for(thing) for word in pair}
    return "(?:" + "|".join(sorted(words, key=len, reverse=True)) + ")"


def words_of(wording) -> set[str]:
    return set(re.findall("[a-z]+", re.sub(r"{.*?}", "", " ".join(map(" ".join, vars(wording).values())))))


@pytest.mark.parametrize(("caption", "split"), SPLITS)
def test_every_object_is_named_with_its_number(caption, split):
    for scene, text in captioned(caption, split, 400):
        for thing, count, *_ in scene.groups:
            nouns = "|".join(re.escape(pair[count > 1]) for pair in words_for(thing))
            pair = "|a pair of|a couple of" if count == 2 else ""
            number = rf"(?:{NUMERALS[count]}|{count}{pair}) ([a-z-]+ )?" if count > 1 else ""
            assert re.search(rf"(?:^|\b){number}(?:{nouns})\b", text), (thing, count, text)


@pytest.mark.parametrize(("caption", "split"), SPLITS)
def test_no_other_colour_is_given_to_the_background(caption, split):
    every_word = {colour: (colour, *COLOUR_SYNONYMS.get(colour, ())) for colour in COLOURS}
    told, asked = 0, 0
    for scene, text in captioned(caption, split, 400):
        if "orange" in [group.class_name for group in scene.groups]:
            continue  # a fruit that is named like a background
        asked += 1
        for thing, *_ in scene.groups:
            text = re.sub(noun_pattern(thing), "thing", text)
        own = max((word for word in every_word[scene.background]), key=lambda word: (word in text, len(word)))
        told += own in text
        rest = text.replace(own, "")
        others = [word for colour in COLOURS if colour != scene.background for word in every_word[colour]]
        assert not [word for word in others if re.search(rf"\b{word}\b", rest)], (scene.background, text)
    assert told == asked if caption is dense_caption else 0.7 * asked < told < 0.9 * asked


@pytest.mark.parametrize(("caption", "split"), SPLITS)
def test_every_stated_relation_holds(caption, split):
    relation_of = {phrase: relation for relation, phrases in PREPOSITIONS.items() for phrase in phrases}
    prepositions = "|".join(sorted(relation_of, key=len, reverse=True))
    verb = r"(?: that)?(?: is| are)?(?: placed| located| seen)?"
    adjectives = "|".join(NEUTRAL_ADJECTIVES)
    lead = rf"(?:(?:the|an?|one|single|exactly|two|three|\d|pair of|couple of|group of|{adjectives}) ){{0,4}}"
    checked = 0
    for scene, text in captioned(caption, split, 600):
        for first, second in permutations(range(len(scene.groups)), 2):
            a, b = (noun_pattern(scene.groups[group][0]) for group in (first, second))
            if found := re.search(rf"\b{a}{verb} ({prepositions}) {lead}{b}\b", text):
                assert relation_of[found[1]] == clear_relation(
                    scene.group_objects(first), scene.group_objects(second)
                ), text
                checked += 1
    assert checked > 60


def test_a_relation_reversed_in_words_is_the_same_in_the_image():
    rng = np.random.default_rng(0)
    for relation in RELATIONS:
        scene = arrange_scene(rng, (("fox", 1), ("key", 1)), "white", relation, 128, 128)
        told = {
            brief_caption(scene, rng, content=CaptionContent(False, True, False)).lower().strip(".")
            for _ in range(2500)
        }
        for phrase in PREPOSITIONS[relation]:
            assert f"a fox {phrase} a key" in told
        for phrase in PREPOSITIONS[OPPOSITE[relation]]:
            assert f"a key {phrase} a fox" in told
        for phrase in RELATIVE_POSITIONS[relation]:
            assert f"a key with a fox {phrase.format(its='its', it='it')}" in told
        for spot, other_spot in SIDE_PHRASES[relation]:
            assert f"a fox {spot} and a key {other_spot}" in told


@pytest.mark.parametrize("place", PLACES)
def test_the_place_of_an_object_alone_is_told_in_words_of_that_place(place):
    rng = np.random.default_rng(1)
    scene = next(
        scene for _ in range(999) if (scene := random_scene(rng, 128, 128, "single")).place() == place
    )
    rows = {"top": r"\b(?:top|upper)\b", "bottom": r"\b(?:bottom|lower)\b"}
    columns = {"left": r"\bleft\b", "right": r"\bright\b"}
    pattern_of = rows | columns | {"centre": r"\b(?:cent|midd)"}
    # "top hat" and "upper part" aside, a caption has the words of its own place and no others.
    text_only = [re.sub("top hat", "", dense_caption(scene, rng).lower()) for _ in range(50)]
    for text in text_only:
        for word, pattern in pattern_of.items():
            assert bool(re.search(pattern, text)) == (word in place.split()), text


def test_a_caption_tells_the_size_and_the_place_of_an_object_alone_that_are_not_the_usual_ones():
    rng = np.random.default_rng(4)
    told = {"size": 0, "place": 0}
    for _ in range(300):
        scene = random_scene(rng, 128, 128, "single")
        text = brief_caption(scene, rng).lower()
        if scene.size() == "small":
            told["size"] += 1
            assert any(word in text for word in SIZE_ADJECTIVES["small"]), text
        if scene.place() != "centre":
            told["place"] += 1
            assert any(word in text for word in ("left", "right", "top", "upper", "bottom", "lower")), text
    assert min(told.values()) > 50


def test_nothing_unasked_is_mentioned():
    rng = np.random.default_rng(2)
    for kind in SCENE_KINDS:
        for _ in range(60):
            scene = random_scene(rng, 128, 128, kind)
            text = brief_caption(
                scene, rng, "test", CaptionContent(background=False, relation=False, detail=False)
            )
            assert "background" not in text and "backdrop" not in text
            assert not [phrase for phrase in PLACE_PHRASES["left"] + PLACE_PHRASES["right"] if phrase in text]


def test_test_phrases_are_disjoint_from_training_phrases():
    for name in ("openers", "clause_openers", "there", "relations", "relation_clauses", "backgrounds",
                 "fronted_backgrounds", "background_sentences"):  # fmt: skip
        assert not set(getattr(TRAIN_PHRASES, name)) & set(getattr(TEST_PHRASES, name)), name
    assert "" not in TEST_PHRASES.openers + TEST_PHRASES.clause_openers + TEST_PHRASES.there


def beginnings_of_tests() -> re.Pattern[str]:
    """Return a pattern of everything that a test caption can begin with."""
    slots = {r"\{is_a\}": "(?:is|are)", r"\{an\}": "an?", r"\{c\}": "[a-z ]+"}
    phrases = (
        TEST_PHRASES.openers
        + TEST_PHRASES.clause_openers
        + TEST_PHRASES.there
        + TEST_PHRASES.fronted_backgrounds
    )
    text = "|".join(map(re.escape, phrases))
    for slot, pattern in slots.items():
        text = text.replace(slot, pattern)
    return re.compile(text)


def test_no_training_caption_begins_like_a_test_caption():
    beginning = beginnings_of_tests()
    both = (brief_caption, dense_caption)
    trained = {text for caption in both for _, text in captioned(caption, "train", 1500)}
    tested = {text for caption in both for _, text in captioned(caption, "test", 300)}
    assert not [text for text in trained if beginning.match(text)]
    assert all(beginning.match(text) for text in tested)
    assert not trained & tested


def test_no_composed_opener_begins_like_a_test_caption():
    beginning = beginnings_of_tests()
    for ask, style, medium, link in product(*map(set, (REQUEST_OPENERS, STYLES, MEDIA, CONNECTIVES))):
        assert not beginning.match(f"{ask}{with_article(style + medium)} {link}")


def test_training_says_no_word_that_only_tests_say():
    only_tests = (
        words_of(TEST_PHRASES)
        - words_of(TRAIN_PHRASES)
        - set(" ".join((*REQUEST_OPENERS, *STYLES, *MEDIA, *CONNECTIVES)).split())
    )
    only_tests -= {*FUNCTION_WORDS, "plus"}  # training joins two objects with it
    assert {"sketch", "graphic", "poster"} <= only_tests
    for _, text in captioned(brief_caption, "train", 5000):
        assert not (said := only_tests & set(re.findall("[a-z]+", text))), (said, text)


def test_words_of_prompts_for_tuning_are_new_to_training_and_none_that_only_tests_say():
    common = set(
        " ".join((*REQUEST_OPENERS, *STYLES, *MEDIA, *CONNECTIVES, *FUNCTION_WORDS)).split()
    ) | words_of(TRAIN_PHRASES)
    only_tests = words_of(TEST_PHRASES) - common - {"plus"}
    assert not only_tests & words_of(TUNE_PHRASES)
    assert {"mural", "doodle", "ornament"} <= words_of(TUNE_PHRASES) - common
    beginning = beginnings_of_tests()
    for _, text in captioned(brief_caption, "tune", 2000):
        assert not (said := only_tests & set(re.findall("[a-z]+", text))), (said, text)
        assert not beginning.match(text)


def test_training_captions_hold_thousands_of_words_of_no_language():
    texts = " ".join(text for _, text in captioned(brief_caption, "train", 5000))
    assert len(set(re.findall("[a-z]+", texts))) > 3000


def test_dense_captions_have_sentences_and_brief_ones_are_short():
    dense = [text for _, text in captioned(dense_caption, "train", 300)]
    brief = [text for _, text in captioned(brief_caption, "train", 300)]
    assert all(2 <= text.count(".") <= 6 and text.endswith(".") for text in dense)
    assert max(len(text.split()) for text in brief) < 35 < max(len(text.split()) for text in dense)
    assert np.mean([len(text.split()) for text in brief]) < 13


def test_articles_follow_the_sound():
    words = ("fox", "owl", "unicorn", "umbrella", "TV", "orange", "ear of corn")
    assert [article(word) for word in words] == ["a", "an", "a", "an", "a", "an", "an"]


def test_sentences_begin_with_capitals():
    assert capitalize_sentences("a TV. blue background") == "A TV. Blue background"
