"""Files of prompts with what their images must show: what is read, what is refused, what counts as stated."""

import json
from pathlib import Path

import pytest

from lens.errors import SettingError
from lens.nano.evaluation_prompts import is_stated, read_prompts
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec

SHIPPED = sorted((Path(__file__).parents[3] / "recipes" / "nano" / "prompts").rglob("*.jsonl"))
FOX = {"name": "fox", "count": 2, "color": "red", "size": "small"}
LINE = {
    "prompt": "2 small red foxes left of a key, blue, sign OPEN", "background": "blue",
    "objects": [FOX, {"name": "key"}], "relations": [[0, "left of", 1]], "text": "OPEN", "language": "en",
}  # fmt: skip


def written(tmp_path: Path, *lines: object) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_a_line_is_read_with_its_spec_and_its_labels(tmp_path):
    full, bare = read_prompts(written(tmp_path, LINE, "", "  ", {"prompt": "nothing at all"}))
    assert full.prompt == LINE["prompt"]
    assert full.spec == SceneSpec(
        (ObjectGroup("fox", 2, "red", "small"), ObjectGroup("key", None)),
        "blue",
        ((0, "left of", 1),),
        "OPEN",
    )
    assert full.fields == LINE
    assert bare.spec == SceneSpec()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_files_that_ship_are_read_whole(path):
    assert len(read_prompts(path)) == len(path.read_text("utf-8").splitlines())


@pytest.mark.parametrize(("line", "says"), [
    ("{", r"line \(.*\) is '{', but it needs a JSON object"),
    ("[1, 2]", r"line \(.*\) is '\[1, 2\]'"),
    ({}, "prompt .* is None"),
    ({"prompt": " "}, "prompt .* needs a text"),
    ({"prompt": 3}, "prompt .* is 3"),
    ({"background": "mauve"}, "background .* is 'mauve', but it needs null or one of .*blue"),
    ({"background": ["blue"]}, "background .* null or one of"),
    ({"objects": {"name": "fox"}}, "objects .* needs a list"),
    ({"objects": None}, "objects .* needs a list"),
    ({"objects": ["fox"]}, "objects .* is 'fox', but it needs objects of name, count, color, size"),
    ({"objects": [FOX | {"colour": "red"}]}, "objects of name, count, color, size"),
    ({"objects": [FOX | {"name": "vixen"}]}, "name .* is 'vixen'.*lens info lens-nano"),
    ({"objects": [FOX | {"name": {}}]}, "name .*lens info"),
    ({"objects": [{}]}, "name .* is None"),
    ({"objects": [FOX | {"count": 0}]}, "count .* is 0, but it needs null or a number from 1 to 8"),
    ({"objects": [FOX | {"count": 9}]}, "count .* is 9"),
    ({"objects": [FOX | {"count": True}]}, "count .* is True"),
    ({"objects": [FOX | {"count": 2.0}]}, r"count .* is 2\.0"),
    ({"objects": [FOX | {"color": "mauve"}]}, "color .* is 'mauve'.* null or one of .*red"),
    ({"objects": [FOX | {"color": []}]}, "color .* null or one of"),
    ({"objects": [FOX | {"size": "huge"}]}, "size .* is 'huge', but it needs null or one of small, large"),
    ({"relations": None}, "relations .* needs a list"),
    ({"relations": [[0, "beside", 1]]}, "relations .*one of left of, right of, above, below"),
    ({"relations": [[0, "left of", 2]]}, "the numbers of two objects"),
    ({"relations": [[0, "left of", 0]]}, "the numbers of two objects"),
    ({"relations": [[0, "left of"]]}, "relations"),
    ({"relations": [[0, ["left of"], 1]]}, "relations"),
    ({"relations": [[False, "left of", True]]}, "the numbers of two objects"),
    ({"text": "open"}, "text .* is 'open', but it needs null or 1 to 8 capitals and digits"),
    ({"text": ""}, "text .* is ''"),
    ({"text": "NINECHARS"}, "text"),
    ({"text": 12}, "text .* is 12"),
    ({"colour": "red", "size": 1}, "fields .* is 'colour, size', but it needs names among prompt"),
])  # fmt: skip
def test_a_line_that_cannot_be_used_is_named_with_its_field(line, says, tmp_path):
    is_part = isinstance(line, dict) and line and "prompt" not in line
    path = written(tmp_path, LINE, "", LINE | line if is_part else line)
    with pytest.raises(SettingError, match=says) as error:
        read_prompts(path)
    assert f"{path}, line 3" in str(error.value)


def test_a_file_without_prompts_is_refused(tmp_path):
    with pytest.raises(SettingError, match="at least one line with a prompt"):
        read_prompts(written(tmp_path, "", " "))
    with pytest.raises(SettingError, match="a readable UTF-8 file"):
        read_prompts(tmp_path / "gone.jsonl")
    (tmp_path / "latin.jsonl").write_bytes(b"caf\xe9")
    with pytest.raises(SettingError, match="a readable UTF-8 file"):
        read_prompts(tmp_path / "latin.jsonl")


FULL = SceneSpec(
    (ObjectGroup("fox", 2, "red", "small"), ObjectGroup("key", 1)), "blue", ((0, "left of", 1),), "OPEN"
)


@pytest.mark.parametrize(("required", "is_so"), [
    (FULL, True),
    (FULL.reordered((1, 0)), True),
    (SceneSpec(FULL.groups, "blue", ((1, "right of", 0),), "OPEN"), True),
    (SceneSpec((ObjectGroup("key", None), ObjectGroup("fox", None)), text="OPEN"), True),
    (SceneSpec(FULL.groups, "red", FULL.relations, "OPEN"), False),
    (SceneSpec(FULL.groups, "blue", ((0, "right of", 1),), "OPEN"), False),
    (SceneSpec(FULL.groups, "blue", FULL.relations, "SHUT"), False),
    (SceneSpec(FULL.groups, "blue", FULL.relations), False),
    (SceneSpec(FULL.groups[:1], "blue", text="OPEN"), False),
    (SceneSpec((*FULL.groups, ObjectGroup("dog")), "blue", FULL.relations, "OPEN"), False),
    (SceneSpec((ObjectGroup("fox", 3), FULL.groups[1]), text="OPEN"), False),
    (SceneSpec((ObjectGroup("fox", 2, "blue"), FULL.groups[1]), text="OPEN"), False),
    (SceneSpec((ObjectGroup("fox", 2, None, "large"), FULL.groups[1]), text="OPEN"), False),
    (SceneSpec((ObjectGroup("fox", 2), ObjectGroup("key", 1, "red")), text="OPEN"), False),
])  # fmt: skip
def test_a_spec_states_what_is_required_in_any_order_of_the_groups(required, is_so):
    assert is_stated(required, FULL) is is_so


def test_of_groups_of_one_class_any_may_be_the_one_that_is_required():
    foxes = ObjectGroup("fox", 1, "red"), ObjectGroup("fox", 1, "blue")
    stated = SceneSpec(foxes, relations=((0, "above", 1),))
    for order in ((0, 1), (1, 0)):
        assert is_stated(stated.reordered(order), stated)
    swapped = SceneSpec(stated.groups, relations=((1, "above", 0),))
    assert not is_stated(swapped, stated)
