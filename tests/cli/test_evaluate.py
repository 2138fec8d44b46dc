"""`lens eval`: nano models side by side, and scores of what models saw in images."""

import json

import pytest

from lens.cli.evaluate import complete_json_option, repeat_list_options
from lens.errors import CheckpointError
from lens.models.checkpoints.hashing import content_hash
from lens.models.checkpoints.registry import resolve_model
from lens.nano.tasks import TASKS


def test_a_list_option_takes_several_values_and_stops_at_the_next_option():
    names = {"--models", "--extra"}
    typed = ["--models", "a", "b", "--extra=c:4:1", "d:4:1", "--prompts", "1", "--models", "e"]
    assert repeat_list_options(typed, names) == [
        "--models", "a", "--models", "b", "--extra=c:4:1", "--extra", "d:4:1", "--prompts", "1",
        "--models", "e",
    ]  # fmt: skip


def test_a_model_that_is_not_here_is_refused_before_anything_is_drawn(lens, monkeypatch, tmp_path):
    from lens.models.checkpoints import registry

    monkeypatch.setattr(registry, "PACKAGED_WEIGHTS", tmp_path)
    with pytest.raises(CheckpointError, match="lens-nano-turbo is not in this installation") as refused:
        resolve_model("lens-nano-turbo")
    assert lens("eval", "nano", "--models", "lens-nano-turbo").error_line == f"lens: {refused.value}\n"


def test_one_table_holds_all_models_and_the_file_an_object_each(lens, tmp_path):
    path = tmp_path / "scores.json"
    ran = lens("eval", "nano", "--models", "lens-nano-base", "--extra", "lens-nano:1:1.0", "--steps", 3,
               "--cache", "taylorseer", "--prompts", 1, "--json", path,
               "--contact-sheet", tmp_path / "sheet.png")  # fmt: skip
    assert ran.status == 0, ran
    assert [f"--cache taylorseer saves next to nothing at {n} steps" in ran.err for n in (1, 2, 3)] == [
        True, False, True
    ]  # fmt: skip
    lines = ran.out.splitlines()
    assert lines[0].startswith("command  lens eval nano --models lens-nano-base --extra lens-nano:1:1.0 ")
    head = lines.index("", 3) + 1
    assert lines[head].split() == ["lens-nano-base", "lens-nano"]
    assert lines[head + 1].split("  ")[-2:] == ["3 steps, guidance 2", "1 steps, guidance 1"]
    rows = {line.split("  ")[0]: line for line in lines[head + 2 :]}
    assert {*TASKS, "mean", "s per image", "s in denoiser", "denoiser speed"} <= set(rows)
    assert all(rows[task].count("(") == 3 and "1.000 (0.21-1.00)" in rows[task] for task in TASKS)
    base, nano = json.loads(path.read_text())
    assert [one["name"] for one in (base, nano)] == ["lens-nano-base", "lens-nano"]
    assert [(one["steps"], one["guidance"]) for one in (base, nano)] == [(3, 2.0), (1, 1.0)]
    for one in (base, nano):
        assert one["cache"] == "taylorseer"
        assert one["hash"] == content_hash(resolve_model(one["name"]))
        assert list(one["tables"]["model"]) == [*TASKS, "mean"] and len(one["pictures"]) == len(TASKS)
        assert 0 < one["denoiser_seconds_a_picture"] < one["seconds_a_picture"]
    speed = nano["denoiser_seconds_a_picture"] / base["denoiser_seconds_a_picture"]
    assert rows["denoiser speed"].split()[2:] == [f"{speed:.2f}x", "1.00x"]
    assert len(list(tmp_path.glob("sheet_*.png"))) == 2


FOX = '{"prompt": "a fox", "objects": [{"name": "fox", "count": 1}]}'
TWO = '{"prompt": "two cats", "background": "blue", "objects": [{"name": "cat", "count": 2}]}'


def test_files_of_prompts_are_scored_line_by_line_and_json_alone_goes_to_stdout(lens, tmp_path):
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_text(FOX), two.write_text(TWO)
    ran = lens("eval", "nano", "--prompts", one, two, "--model", "lens-nano", "--steps", 1, "--seeds", 2,
               "--json", "--size", "96x128", "--contact-sheet", tmp_path / "sheet.png")  # fmt: skip
    assert ran.status == 0, ran
    told = json.loads(ran.out)
    assert (told["model"], told["steps"], told["of"]) == ("lens-nano", 1, 4)
    assert [(entry["prompt"], entry["of"]) for entry in told["lines"]] == [("a fox", 2), ("two cats", 2)]
    assert set(told["groups"]["file"]) == {"one.jsonl", "two.jsonl"}
    assert 0 <= told["interval"][0] <= told["share"] <= told["interval"][1] <= 1
    assert (tmp_path / "sheet.png").is_file()


def test_truth_of_a_file_is_printed_as_a_table_and_saved(lens, tmp_path):
    path, saved = tmp_path / "one.jsonl", tmp_path / "scores.json"
    path.write_text(FOX)
    ran = lens("eval", "nano", "--truth", "--json", saved, "--prompts", path)
    assert ran.status == 0, ran
    assert "1/1  a fox" in ran.out and "all      1/1     1.000 (0.21-1.00)" in ran.out
    assert json.loads(saved.read_text())["share"] == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompts", 0], "--prompts is '0', but it needs one number from 1, or files of prompts"),
        (["--prompts", "absent.jsonl"], "--prompts is 'absent.jsonl', but it needs a readable"),
        (["--prompts", 1, "--seeds", 2], "--seeds is 2, but it needs files of prompts"),
        (["--prompts", "one.jsonl", "--diversity", 2], "--diversity is 2, but it needs the six tasks"),
        (["--prompts", "bad.jsonl"], "name (bad.jsonl, line 1) is 'mermaid', but it needs a name"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_prompts_are_refused(lens, tmp_path, options, message):
    (tmp_path / "one.jsonl").write_text(FOX)
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a mermaid", "objects": [{"name": "mermaid"}]}')
    assert lens("eval", "nano", *options).error_line.startswith(f"lens: {message}")


def test_json_takes_a_file_or_nothing():
    assert complete_json_option(["--json"]) == ["--json", "-"]
    assert complete_json_option(["--json", "--truth"]) == ["--json", "-", "--truth"]
    assert complete_json_option(["--json", "a.json", "--truth"]) == ["--json", "a.json", "--truth"]


def test_observations_are_scored_without_a_model_and_errors_name_the_line(lens, tmp_path):
    file = tmp_path / "seen.jsonl"
    line = {"type": "text", "length": "long", "index": 0, "answers": ["yes", "no"]}
    line["predictions"] = ["Yes", "yes"]
    file.write_text(json.dumps(line))
    ran = lens("eval", "score", "tiif", file, "--json")
    assert (ran.status, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert (found["benchmark"], found["headline"]) == ("tiif", 0.5)
    assert found["cases"] == [{"questions": 2, "right": 1}]
    assert "headline                                 0.5000" in lens("eval", "score", "tiif", file).out
    file.write_text(json.dumps(line) + "\n" + json.dumps(line | {"index": "three"}))
    told = lens("eval", "score", "tiif", file).error_line
    assert "index is 'three'" in told and "line 2" in told
    assert "BENCHMARK is 'tif'" in lens("eval", "score", "tif", file).error_line
