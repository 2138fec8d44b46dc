"""The score of several nano models: one table, each by its own steps and guidance, an object a model."""

import json
import sys

import numpy as np
import pytest
import torch

from lens.errors import CheckpointError, SettingError
from lens.models.checkpoints.hashing import content_hash
from lens.models.checkpoints.lora_formats import LoraWeights, write_adapter
from lens.models.checkpoints.registry import resolve_model
from lens.nano.scoring.scorer import SceneScore
from lens.nano.tasks import TASKS, task_prompts


@pytest.fixture
def run(load, monkeypatch):
    """Run the benchmark with some arguments."""

    def call(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["nano_score.py", *map(str, arguments)])
        return load("nano_score").main()

    return call


def options_of(load, monkeypatch, *arguments: str):
    monkeypatch.setattr(sys, "argv", ["nano_score.py", *arguments])
    return load("nano_score").parsed()


def test_each_model_draws_by_its_own_numbers_unless_options_say_others(load, monkeypatch):
    contenders = load("nano_score").contenders_of

    def drawn(*arguments: str):
        found = contenders(options_of(load, monkeypatch, *arguments))
        return [(one.model, one.steps, one.guidance) for one in found]

    assert drawn() == [("lens-nano", 20, 2.0)]
    assert drawn("--model", "lens-nano-base") == [("lens-nano-base", 20, 2.0)]
    both, extra = ("--models", "lens-nano", "lens-nano-base"), ("--extra", "lens-nano:4:1.0")
    assert drawn(*both, "--guidance", "5", *extra) == [
        ("lens-nano", 20, 5.0),
        ("lens-nano-base", 20, 5.0),
        ("lens-nano", 4, 1.0),
    ]


@pytest.mark.parametrize("extra", ["lens-nano", "lens-nano:4", "lens-nano:four:1", "lens-nano:4:"])
def test_an_extra_that_says_something_else_is_refused(load, monkeypatch, extra):
    with pytest.raises(SettingError, match="MODEL:STEPS:GUIDANCE"):
        load("nano_score").contenders_of(options_of(load, monkeypatch, "--extra", extra))


def test_an_adapter_is_drawn_with_at_the_weight_that_is_asked_for(load, monkeypatch, tmp_path):
    score, layer = load("nano_score"), "transformer_blocks.1.attn.img_qkv"
    contender = score.contender_of("lens-nano-turbo")

    def weight(*arguments: str):
        pipeline = score.pipeline_of(contender, options_of(load, monkeypatch, *arguments))
        if arguments:
            pipeline.fuse_lora()
        return pipeline.transformer.get_submodule(layer).weight.detach().float()

    plain = weight()
    generator = torch.Generator().manual_seed(0)
    down = torch.randn(2, plain.shape[1], generator=generator)
    up = torch.randn(plain.shape[0], 2, generator=generator)
    write_adapter({layer: LoraWeights(down, up, alpha=6.0)}, tmp_path / "bold.safetensors")
    added = weight("--lora", str(tmp_path / "bold.safetensors"), "--lora-weight", "0.25") - plain
    torch.testing.assert_close(added, 0.25 * 6.0 / 2 * up @ down, rtol=0.01, atol=0.02)  # of bfloat16


def test_a_model_that_is_not_here_is_refused_before_anything_is_drawn(run, capsys, monkeypatch, tmp_path):
    from lens.models.checkpoints import registry

    monkeypatch.setattr(registry, "PACKAGED_WEIGHTS", tmp_path)
    with pytest.raises(CheckpointError, match="lens-nano-turbo is not in this installation") as refused:
        resolve_model("lens-nano-turbo")
    with pytest.raises(SystemExit, match="lens-nano-turbo is not in this installation") as ended:
        run("--models", "lens-nano-turbo")
    assert ended.value.code == str(refused.value)
    assert capsys.readouterr().out == ""


def test_the_mean_is_of_all_tasks_with_wilsons_interval(load):
    results = load("nano_results")
    ask = [results.Ask(task, next(iter(task_prompts(task, 1, 0))), "1:1", 0) for task in TASKS]
    picture = np.zeros((2, 3, 3), np.uint8)
    judged = [
        results.Result(one, picture, SceneScore(index < 3, (), ()), seconds=0.5, denoiser_seconds=0.2)
        for index, one in enumerate(ask)
    ]
    mean = results.total_of(results.tallied(judged))
    assert tuple(mean) == (3, 6) and mean.fraction == 0.5
    # (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n) with z = 1.96, n = 6, by hand
    assert mean.interval == pytest.approx((0.18761, 0.81239), abs=1e-4)
    assert results.as_numbers({"model": results.tallied(judged)})["model"]["mean"]["fraction"] == 0.5
    assert results.times(judged) == pytest.approx(
        {"seconds_a_picture": 0.5, "denoiser_seconds_a_picture": 0.2}
    )


def test_one_table_holds_all_models_and_the_file_an_object_each(run, capsys, tmp_path):
    path = tmp_path / "scores.json"
    assert run("--models", "lens-nano-base", "--extra", "lens-nano:1:1.0", "--steps", 3, "--prompts", 1,
               "--json", path, "--contact-sheet", tmp_path / "sheet.png") == 0  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    head = lines.index("", 3) + 1
    assert lines[head].split() == ["lens-nano-base", "lens-nano"]
    assert lines[head + 1].split("  ")[-2:] == ["3 steps, guidance 2", "1 steps, guidance 1"]
    rows = {line.split("  ")[0]: line for line in lines[head + 2 :]}
    assert {*TASKS, "mean", "s a picture", "s in denoiser", "denoiser speed"} <= set(rows)
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
