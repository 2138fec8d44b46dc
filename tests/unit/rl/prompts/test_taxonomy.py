import pytest
import yaml

from lens.errors import SettingError
from lens.rl.prompts.taxonomy import CATEGORIES, DIMENSIONS, TEXT_CATEGORIES, read_taxonomy, subjects

SMALL = {category: {"kind": [f"thing {place}" for place in range(3)]} for category in CATEGORIES}


def test_the_taxonomy_has_ten_categories_with_hundreds_of_objects_in_dozens_of_kinds():
    taxonomy = read_taxonomy()
    assert tuple(taxonomy) == CATEGORIES
    assert sum(map(len, taxonomy.values())) >= 4000
    for items in taxonomy.values():
        assert len(items) >= 300
        assert len({item.kind for item in items}) >= 20


def test_objects_are_few_words_and_stand_once_in_their_category():
    for items in read_taxonomy().values():
        names = [item.name.lower() for item in items]
        assert len(set(names)) == len(names)
        assert [name for name in names if len(name.split()) > 7 or name != name.strip()] == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"animal": None}, "a list of items|kinds, each"),
        ({"animal": {"dogs": ["poodle", "Poodle"]}}, "once in a category"),
        ({"animal": {"dogs": ["poodle", True]}}, "words"),
        ({"animal": {"dogs": []}}, "a list of items"),
        ({"mineral": {"stones": ["agate"]}}, "exactly these categories"),
    ],
)
def test_a_taxonomy_that_is_none_is_refused(tmp_path, change, told):
    path = tmp_path / "taxonomy.yaml"
    path.write_text(yaml.safe_dump(SMALL | change))
    with pytest.raises(SettingError, match=told):
        read_taxonomy(path)


def test_categories_take_turns_and_a_set_begins_with_the_smaller_one():
    drawn = subjects(read_taxonomy(), CATEGORIES, 5, 0.1, 0, 40)
    assert [one.item.category for one in drawn] == [*CATEGORIES] * 4
    assert subjects(read_taxonomy(), CATEGORIES, 5, 0.1, 13, 31) == drawn[13:31]
    assert subjects(read_taxonomy(), CATEGORIES, 6, 0.1, 0, 40) != drawn


def test_without_one_category_the_others_are_what_they_were():
    taxonomy = read_taxonomy()
    nine = [category for category in CATEGORIES if category != "text"]
    others = [one for one in subjects(taxonomy, CATEGORIES, 0, 0.1, 0, 50) if one.item.category != "text"]
    assert subjects(taxonomy, nine, 0, 0.1, 0, 45) == others


def test_every_object_comes_once_before_one_comes_again(tmp_path):
    path = tmp_path / "taxonomy.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    drawn = subjects(read_taxonomy(path), ["food"], 0, 0.0, 0, 6)
    assert {one.item.name for one in drawn[:3]} == {one.item.name for one in drawn[3:]}
    assert len({one.name for one in drawn}) == 6


def test_one_to_four_dimensions_are_drawn_and_writing_where_it_is_asked_for():
    drawn = subjects(read_taxonomy(), CATEGORIES, 0, 0.1, 0, 2000)
    assert {len(one.dimensions) for one in drawn} == {1, 2, 3, 4}
    assert {each for one in drawn for each in one.dimensions} == {*DIMENSIONS, "text"}
    with_text = [one for one in drawn if "text" in one.dimensions]
    assert all(one in with_text for one in drawn if one.item.category in TEXT_CATEGORIES)
    others = [one for one in with_text if one.item.category not in TEXT_CATEGORIES]
    assert len(others) / 1600 == pytest.approx(0.1, abs=0.03)
    assert not any("text" in one.dimensions for one in subjects(read_taxonomy(), ["food"], 0, 0.0, 0, 99))
