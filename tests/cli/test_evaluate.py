"""`lens eval nano`: one table of several models on stdout, and a file with an object each."""

import json

import pytest

from lens.cli.evaluate import repeat_list_options
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
               "--prompts", 1, "--json", path, "--contact-sheet", tmp_path / "sheet.png")  # fmt: skip
    assert ran.status == 0, ran
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
        assert one["hash"] == content_hash(resolve_model(one["name"]))
        assert list(one["tables"]["model"]) == [*TASKS, "mean"] and len(one["pictures"]) == len(TASKS)
        assert 0 < one["denoiser_seconds_a_picture"] < one["seconds_a_picture"]
    speed = nano["denoiser_seconds_a_picture"] / base["denoiser_seconds_a_picture"]
    assert rows["denoiser speed"].split()[2:] == [f"{speed:.2f}x", "1.00x"]
    assert len(list(tmp_path.glob("sheet_*.png"))) == 2
