"""Evaluation on files of prompts: truth passes line by line, groups are counted, and bad lines are told."""

import json
from pathlib import Path

import numpy as np
import pytest

from lens.errors import MissingExtraError, SettingError
from lens.evals.nano import NanoEvalOptions
from lens.evals.nano_prompts import (
    TRUTH,
    evaluate_prompts,
    groups_of,
    prompts_table,
    prompts_to_json,
    read_lines,
    total_of,
)
from lens.nano.prompt_scenes import scene_of
from lens.nano.scoring.scorer import score_image
from lens.nano.world.scene_spec import ObjectGroup, SceneSpec
from lens.nano.world.scenes import draw_scene


def line(prompt: str, *objects: tuple, **fields) -> dict:
    names = ("name", "count", "color", "size")
    named = [dict(zip(names, values, strict=False)) for values in objects]
    return {"prompt": prompt, "objects": named, **fields}


def write(path: Path, *lines: dict) -> Path:
    path.write_text("\n".join(map(json.dumps, lines)) + "\n", "utf-8")
    return path


def test_rendered_truth_passes_and_is_counted_by_line_file_and_language(tmp_path):
    first = write(
        tmp_path / "first.jsonl",
        line("ein Fuchs", ("fox", 1), language="de"),
        line("deux chats", ("cat", 2, None, None), language="fr", background="blue"),
    )
    second = write(
        tmp_path / "second.jsonl",
        line("a green car and a red car", ("car", 1, "green"), ("car", 1, "red")),
        line("bees", ("bee", None)),
        line("nothing", background="red"),
    )
    (run,) = evaluate_prompts([], read_lines([first, second]), 2, None, NanoEvalOptions(seed=3))
    assert run.name == TRUTH and total_of(run) == (10, 10)
    assert [result.item.seed for result in run.of_line(1)] == [3, 4]
    assert groups_of(run) == {
        "file": {"first.jsonl": (4, 4), "second.jsonl": (6, 6)},
        "language": {"de": (2, 2), "fr": (2, 2)},
    }
    assert "2/2  deux chats" in prompts_table(run)
    values = prompts_to_json(run, {"command": "as typed"}, NanoEvalOptions(seed=3))
    assert (values["model"], values["share"], values["command"]) == (TRUTH, 1.0, "as typed")
    assert [one["passed"] for one in json.loads(json.dumps(values))["lines"]] == [2] * 5


def test_a_failed_line_says_why_and_how_often(tmp_path, monkeypatch):
    path = write(tmp_path / "one.jsonl", line("two foxes", ("fox", 2)))
    lines = read_lines([path])
    monkeypatch.setattr(
        "lens.evals.nano_prompts.scene_of",
        lambda spec, *rest: scene_of(SceneSpec((ObjectGroup("fox", 3),)), *rest),
    )
    (run,) = evaluate_prompts([], lines, 2, (160, 96), NanoEvalOptions())
    assert {result.image.shape for result in run.results} == {(96, 160, 3)}
    assert "0/2  two foxes\n     2 x: 3 x fox found, 2 expected" in prompts_table(run)
    (told,) = json.loads(json.dumps(prompts_to_json(run, {}, NanoEvalOptions())))["lines"]
    assert (told["share"], told["of"], told["reasons"]) == (0.0, 2, {"3 x fox found, 2 expected": 2})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"background": "mauve"}, "background"),
        ({"objects": [{"name": "mermaid"}]}, "name"),
        ({"objects": [{"name": "fox", "count": 0}]}, "count"),
        ({"objects": [{"name": "fox", "color": "teal"}]}, "color"),
        ({"objects": [{"name": "fox"}], "relations": [[0, "above", 1]]}, "relations"),
        ({"text": "hello"}, "text"),
        ({"prompt": ""}, "prompt"),
        ({"colour": "red"}, "fields"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named_with_its_field(tmp_path, changes, message):
    path = write(tmp_path / "bad.jsonl", line("a fox", ("fox", 1)), line("x") | changes)
    with pytest.raises(SettingError, match=f"{message} .*bad.jsonl, line 2"):
        read_lines([path])


def test_a_reader_of_text_is_needed_only_for_lines_with_text(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "rapidocr", None)
    without = write(tmp_path / "without.jsonl", line("a fox", ("fox", 1)))
    assert len(read_lines([without])) == 1
    with pytest.raises(MissingExtraError, match="Reading signs needs the package rapidocr"):
        read_lines([write(tmp_path / "with.jsonl", line("a sign", text="OPEN"))])


def group(name: str, count: int | None = 1, colour: str | None = None, size=None) -> ObjectGroup:
    return ObjectGroup(name, count, colour, size)


@pytest.mark.parametrize(
    "spec",
    [
        SceneSpec((group("fox", 1, None, "small"),)),
        SceneSpec((group("fox", size="large"), group("cat", 2, size="small")), "white", ((0, "above", 1),)),
        SceneSpec((group("fox", size="small"), group("cat", size="large")), None, ((1, "left of", 0),)),
        SceneSpec((group("fox"), group("cat"), group("owl")), None, ((0, "left of", 1), (2, "below", 1))),
        SceneSpec((group("star", 7), group("house", 1)), None, ((0, "above", 1),)),
        SceneSpec((group("balloon", 2, "blue"), group("balloon", 3, "red")), "white"),
        SceneSpec((group("bee", 8),)),
        SceneSpec((), "turquoise"),
    ],
)  # fmt: skip
def test_a_scene_of_any_spec_shows_it(spec):
    for seed in range(4):
        scene = scene_of(spec, np.random.default_rng(seed), 128, 128)
        picture = np.round((draw_scene(scene).transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8)
        verdict = score_image(picture, spec)
        assert verdict.passed, (seed, verdict.reasons)
