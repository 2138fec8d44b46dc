"""Lines of a batch hold prompts or settings, as JSON or CSV; what they do not say is that of the options."""

import io
import json

import pytest

from lens.cli.generation.batch import batch_lines
from lens.cli.generation.request import GenerateArguments
from lens.errors import LensError, SettingError


def requests(tmp_path, content, name="batch.jsonl", **said):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return GenerateArguments(from_file=path, **said).complete()


def test_a_line_of_json_wins_over_the_options_and_they_over_the_defaults(tmp_path):
    first, second = requests(
        tmp_path,
        '{"path": "x.png", "prompt": "a fox", "seed": 7, "width": 80, "height": 48, "steps": 3}\n\n'
        '{"prompt": "two cats", "cfg": 2.5, "negative": "fog", "aspect_ratio": "16:9", "n": 2}\n',
        steps=9, guidance=1.0, size="64x64",
    )  # fmt: skip
    assert (first.prompts, first.first_seed, first.image_size) == (["a fox"], 7, (80, 48))
    assert (first.steps, first.guidance, first.num_images) == (3, 1.0, 1)
    assert (second.prompts, second.negative_prompt, second.guidance) == (["two cats"], "fog", 2.5)
    assert (second.steps, second.size, second.aspect_ratio, second.num_images) == (9, None, "16:9", 2)
    assert second.is_seed_random and not first.is_seed_random


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_rows_of_csv_are_lines_and_empty_cells_are_not_said(tmp_path, delimiter):
    table = 'prompt,Seed,steps,guidance\n"a fox, at sea",random,3,\ntwo cats,5,,2.5\n\n'
    quoted = table.replace("a fox, at sea", "a fox at sea").replace(",", delimiter)
    first, second = requests(tmp_path, quoted.encode("utf-8-sig"), "b.csv", steps=9)
    assert (first.prompts, first.is_seed_random) == (["a fox at sea"], True)
    assert (first.steps, first.guidance) == (3, None)
    assert (second.first_seed, second.steps, second.guidance) == (5, 9, 2.5)


@pytest.mark.parametrize("start", ["", "sep=;\r\n"])
def test_a_table_of_a_spreadsheet_is_read(tmp_path, start):
    table = f"{start}Prompt;Seed;Steps;;\r\na fox;7.0;3.0;;\r\n;;;;\r\ntwo cats;;;;\r\n"
    first, second = requests(tmp_path, table.encode("utf-8-sig"), "b.csv", steps=9, seed="5")
    assert (first.prompts, first.first_seed, first.steps) == (["a fox"], 7, 3)
    assert (second.prompts, second.first_seed, second.steps) == (["two cats"], 5, 9)


def test_settings_on_stdin_and_prompts_keep_their_order(monkeypatch):
    text = 'a bear\n{"prompt": "a fox", "seed": 1}\n{red|blue} cats\n{"subject": "a dog"}\n'
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    lines = batch_lines(["an owl", "-"], None, read_stdin=True)
    prompts = ["an owl", "a bear", "a fox", "{red|blue} cats", '{"subject": "a dog"}']
    assert [line.line.prompt for line in lines] == prompts


def test_a_prompt_per_line_gets_a_random_seed_of_its_own(tmp_path):
    drawn = requests(tmp_path, "a fox\na fox\na fox\n", "prompts.txt")
    assert len({one.first_seed for one in drawn}) == 3
    assert {one.first_seed for one in requests(tmp_path, "a fox\na cat\n", "p.txt", seed="4")} == {4}


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ('{"prompt": "a fox", "colour": 3}', "b.jsonl", r"colour is 3.*known name.*line 1"),
        ('{"prompt": "a fox"}\n{"seed": 3}', "b.jsonl", r"line 2"),
        ('{"prompt": "a fox", "steps": "many"}', "b.jsonl", r"steps is 'many'.*whole number.*line 1"),
        ('{"prompt": "a fox", "steps": 0}', "b.jsonl", r"line 1.*--steps"),
        ('{"prompt": "a fox", "seed": "x"}', "b.jsonl", r"line 1.*--seed is 'x'"),
        ('{"prompt": " "}', "b.jsonl", r"prompt of .*line 1"),
        ('{"prompt": "a fox", "width": 64}', "b.jsonl", r"height of .*line 1"),
        ('{"prompt": "a fox", "steps": 3, "num_inference_steps": 4}', "b.jsonl", r"given once"),
        ("a fox", "b.jsonl", r"line 1.*JSON object"),
        ("\n", "b.jsonl", r"at least one line"),
        ("seed,steps\n1,2\n", "b.csv", r"one of them prompt"),
        ("prompt,seed\na fox,1,2\n", "b.csv", r"row 1.*at most 2 cells"),
        ("prompt,seed\na fox,x\n", "b.csv", r"row 1.*--seed"),
        ('prompt\n"a fox', "b.csv", r"valid CSV"),
        (b"prompt\n\xff\xfe\xfa\n", "b.csv", r"UTF-8"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path, content, name, message):
    with pytest.raises(LensError, match=f"(?s){message}"):
        requests(tmp_path, content, name)


def test_loras_and_styles_are_lists_or_texts(tmp_path):
    for name in ("ink", "sea"):
        (tmp_path / f"{name}.safetensors").touch()
    ink, sea = tmp_path / "ink.safetensors", tmp_path / "sea.safetensors"
    listed = [{"path": str(ink), "weight": 0.8}, str(sea)]
    as_json = json.dumps({"prompt": "a fox", "loras": listed, "styles": ["night"]})
    as_csv = f"prompt,lora,style\na fox,{ink}:0.8; {sea},night\n"
    for content, name in ((as_json, "b.jsonl"), (as_csv, "b.csv")):
        [request] = requests(tmp_path, content, name)
        assert request.loras == ((ink, 0.8), (sea, 1.0)) and request.style == ["night"]
    with pytest.raises(SettingError, match=r"path is None.*line 1"):
        requests(tmp_path, '{"prompt": "a fox", "loras": [{"weight": 1}]}')
