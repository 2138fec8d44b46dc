"""`lens info lens-nano` lists what the model knows, as the evaluation of prompts names it."""

import json

import pytest

from lens.cli.info import describe_model, info
from lens.nano.vocabulary import vocabulary_warning
from lens.nano.world.colours import COLOURS, OBJECT_COLOURS
from lens.nano.world.objects import KINDS, OBJECT_CLASSES
from lens.nano.world.recolouring import COLOURABLE
from lens.nano.world_guide import LANGUAGE_NAMES, examples, world_guide


def test_every_class_is_of_one_kind_and_in_the_list_with_its_names():
    names = [name for kind in KINDS.values() for name in kind]
    assert sorted(names) == sorted(OBJECT_CLASSES)
    things = {thing["name"]: thing for thing in world_guide()["objects"]}
    assert list(things) == list(OBJECT_CLASSES)
    assert things["cat"] == {"name": "cat", "plural": "cats", "synonyms": ["kitty"], "colours": True}
    assert {name for name, thing in things.items() if thing["colours"]} == set(COLOURABLE) & set(things)


def test_colours_relations_limits_and_languages_are_listed():
    world = world_guide()
    assert (world["backgrounds"], world["object_colors"]) == (list(COLOURS), list(OBJECT_COLOURS))
    assert world["relations"] == ["left of", "right of", "above", "below"]
    assert (world["max_count"], world["max_text_length"]) == (8, 8)
    assert set(world["languages"]) == set(LANGUAGE_NAMES)


@pytest.mark.parametrize("example", examples())
def test_the_examples_name_only_known_things(example):
    assert vocabulary_warning(example) is None


def test_the_command_prints_it_for_nano_models_alone(capsys):
    info("lens-nano", as_json=True)
    world = json.loads(capsys.readouterr().out)["world"]
    assert world == json.loads(json.dumps(describe_model("lens-nano")["world"]))
    info("lens-nano-turbo")
    printed = capsys.readouterr().out
    assert "hedgehog" in printed and "dark blue" in printed and examples()[0] in printed
    assert "world" not in describe_model("lens")
