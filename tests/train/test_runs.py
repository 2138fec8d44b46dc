"""Whole runs of every stage: exact resume, clean stop, golden curves, exports, recipes that cannot be run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

STAGES = ("vae", "language", "pretrain")
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "train_losses.json").read_text())
TOLERANCE = 1e-4
"""Relative; where it comes from is in test_golden_curve.py."""


def assert_equal_states(one: object, other: object) -> None:
    """Compare nested states bit for bit."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal_states(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_equal_states(*pair)
    else:
        assert one == other


@pytest.mark.parametrize("name", STAGES)
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(name, finished, fitted, tmp_path):
    whole, out = finished(name), tmp_path / "run"
    half = fitted(name, out, interrupt_at=2)
    assert half.run.step == 3, "the step that the signal came in is finished, no other is begun"
    resumed = fitted(name, out)
    assert resumed.run.step == whole.run.step
    for part in ("model", "optimizer", "ema"):
        assert_equal_states(getattr(resumed.run, part).state_dict(), getattr(whole.run, part).state_dict())
    assert resumed.numbers == whole.numbers


def test_a_killed_run_that_goes_on_has_every_step_once_in_its_metrics(fitted, tmp_path):
    out = tmp_path / "run"
    half = fitted("vae", out, interrupt_at=2)
    before = half.lines
    with (out / "metrics.jsonl").open("a") as lines:
        lines.write('{"step": 4, "loss": 9.0}\n{"step": 5, "lo')
    resumed = fitted("vae", out)
    assert resumed.lines[:3] == before
    assert [line["step"] for line in resumed.lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert all(line.get("loss") != 9.0 for line in resumed.lines)


def test_only_models_with_blocks_that_repeat_can_be_compiled(fitted, tmp_path):
    from lens.errors import SettingError

    with pytest.raises(SettingError, match="AutoencoderKLFlux2 declares no repeated blocks"):
        fitted("vae", tmp_path / "run", compile=True)


@pytest.mark.parametrize("name", STAGES)
def test_the_losses_of_the_first_steps_are_the_golden_ones(name, finished, tmp_path):
    losses = [line["loss"] for line in finished(name).lines if "loss" in line]
    (tmp_path / "losses.json").write_text(json.dumps({name: losses}))
    assert losses == pytest.approx(GOLDEN[name], rel=TOLERANCE), f"see {tmp_path}/losses.json"


@pytest.mark.parametrize("name", STAGES)
def test_metrics_are_one_object_a_line_for_every_step_and_one_for_the_probe(name, finished):
    done = finished(name)
    *steps, last, probe = done.lines
    assert [line["step"] for line in (*steps, last)] == list(range(1, done.run.step + 1))
    assert all({"loss", "grad_norm", "lr", "samples_per_s"} <= line.keys() for line in (*steps, last))
    assert probe["step"] == done.run.step
    assert all(name == "step" or name.startswith("probe/") for name in probe)
    assert list(done.out.glob("tensorboard/events.*"))


def test_a_sample_grid_is_saved_with_the_probe_of_stages_that_make_pictures(finished):
    for name, has_pictures in (("vae", True), ("language", False), ("pretrain", True)):
        grids = [path.name for path in finished(name).out.glob("samples/*.png")]
        assert grids == (["step_0000006.png"] if has_pictures else [])


@pytest.mark.parametrize(("name", "share_left"), [("vae", 0.4), ("language", 0.4), ("pretrain", 0.6)])
def test_one_batch_can_be_learned_by_heart(name, share_left, settings_and_stage, tmp_path):
    from lens.train.ema import Ema
    from lens.train.optimizer import build_optimizers
    from lens.train.step import TrainState, train_step

    quick = {"lr": 5e-3, "muon_lr": 0.03, "schedule": "cosine", "warmup_steps": 2}
    settings, stage = settings_and_stage(name, tmp_path / "run", steps=60, micro_batches=1, optimizer=quick)
    optimizer = build_optimizers(stage.model, settings.optimizer)
    run = TrainState(
        settings, stage.model, optimizer, Ema(stage.model, 0.9), lambda *_: stage.objective(0, 0)
    )
    losses = [float(train_step(run)["loss"]) for _ in range(settings.steps)]
    assert losses[-1] < share_left * losses[0]


def test_the_export_of_the_last_stage_is_a_model_that_draws(finished):
    from lens import LensPipeline

    pipeline = LensPipeline.from_pretrained(finished("pretrain").out / "export", torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a red apple", height=48, width=64, num_inference_steps=2, output_type="pt").images
    assert picture.shape == (1, 3, 48, 64)
    assert torch.isfinite(picture).all()


def test_the_export_does_not_tell_where_its_parts_were_loaded_from(finished):
    files = list((finished("pretrain").out / "export").rglob("*.json"))
    assert {"vae", "transformer", "text_encoder"} <= {path.parent.name for path in files}
    assert [path for path in files if str(finished("vae").out) in path.read_text()] == []
    assert [path for path in files if str(finished("language").out) in path.read_text()] == []


def test_the_weights_of_an_export_can_be_read_by_others_as_its_configuration_can(finished):
    for stage in ("vae", "language", "pretrain"):
        modes = {
            path.stat().st_mode for path in (finished(stage).out / "export").rglob("*") if path.is_file()
        }
        assert len(modes) == 1


def test_the_export_holds_the_averaged_weights(finished):
    from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2

    done = finished("vae")
    exported = AutoencoderKLFlux2.from_pretrained(done.out / "export" / "vae")
    for name, average in done.run.ema.average.items():
        assert torch.equal(exported.get_parameter(name), average)
    assert (exported.bn.running_var != 1).all(), "latent statistics are measured"


def test_a_warm_start_begins_with_the_exported_weights(finished, settings_and_stage, tmp_path):
    export = finished("vae").out / "export" / "vae"
    _, stage = settings_and_stage("vae", tmp_path / "run", start_from=str(export))
    for name, average in finished("vae").run.ema.average.items():
        assert torch.equal(stage.model.get_parameter(name), average)


def test_the_resolved_recipe_is_kept_in_the_run_and_repeats_it(values_of, tmp_path):
    from lens.train.run import train

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values_of("language", tmp_path / "run", steps=1)))
    out = train(recipe, ["optimizer.lr=0.002"])
    kept = yaml.safe_load((out / "recipe.yaml").read_text())
    assert kept["optimizer"]["lr"] == 0.002
    assert train(out / "recipe.yaml") == out, "and a finished run is not trained again"
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 2


def test_sigterm_stops_the_command_cleanly_and_the_same_command_goes_on(values_of, tmp_path):
    from lens.train.run import train

    recipe, out = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(yaml.safe_dump(values_of("language", out, steps=100_000)))
    command = [sys.executable, "-m", "lens", "train", str(recipe)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes)
    metrics, given_up_at = out / "metrics.jsonl", time.monotonic() + 240
    while not (metrics.is_file() and metrics.read_text()):
        assert process.poll() is None and time.monotonic() < given_up_at, process.stderr.read()
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    printed, log = process.communicate(timeout=120)
    assert (process.returncode, printed.strip()) == (0, str(out)), log
    (marker,) = out.glob("checkpoints/*/run.json")
    stopped_at = json.loads(marker.read_text())["step"]
    assert 1 <= stopped_at < 100_000
    train(recipe, [f"steps={stopped_at + 2}"])
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps[: stopped_at + 2] == list(range(1, stopped_at + 3)), "no step twice, none left out"


def test_a_run_that_is_stopped_before_its_first_step_says_so_and_what_it_was_loading(values_of, tmp_path):
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(yaml.safe_dump(values_of("language", out)))
    command = [sys.executable, "-m", "lens", "train", str(recipe)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes)
    assert process.stderr is not None
    assert process.stderr.readline() == f"lens: {out}: stage language; loading PyTorch and diffusers\n"
    process.send_signal(signal.SIGTERM)
    printed, log = process.communicate(timeout=120)
    assert (process.returncode, printed) == (128 + signal.SIGTERM, "")
    assert f"{out}: stopped while it was prepared, before a step." in log
    assert log.endswith("lens: stopped by SIGTERM.\n")


def test_examples_that_do_not_fill_the_image_sizes_are_refused_at_once_with_their_origin(
    values_of, finished, tmp_path, monkeypatch
):
    from lens.errors import SettingError
    from lens.train.run import load_settings

    finished("pretrain")
    monkeypatch.setattr("lens.train.settings.stages.NANO_EXAMPLES_PER_SHARD", 256)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values_of("pretrain", tmp_path / "run")))
    says = (
        r"examples is 600, but it needs at least 768: 256 for each of 3 image sizes\. Raise it, or name "
        r"fewer ratios or bases\. It comes from --set examples=600\."
    )
    with pytest.raises(SettingError, match=says):
        load_settings(recipe, ["ratios=['1:1','1:2','2:1']", "examples=600"])
    enough = load_settings(recipe, ["ratios=['1:1','1:2','2:1']", "examples=768"])
    assert enough.examples == 768


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"stage": "dream"}, "one of vae, language, pretrain, denoiser"),
        ({"learning_rate": 1}, "Known in .*batch_size"),
        ({"optimizer": {"learning_rate": 1}}, "optimizer.learning_rate"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": "many"}, "steps is 'many'"),
        ({"optimizer": 3}, "optimizer is 3"),
        ({"start_from": "no/such/model"}, "start_from is 'no/such/model'"),
        ({"batch_size": 5, "micro_batches": 2}, "a multiple of micro_batches"),
    ],
)
def test_a_recipe_that_cannot_be_run_says_why_before_anything_is_written(changes, says, values_of, tmp_path):
    from lens.errors import SettingError
    from lens.train.run import train

    recipe, out = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(yaml.safe_dump(values_of("language", out) | changes))
    with pytest.raises(SettingError, match=says):
        train(recipe)
    assert not out.exists()


def test_two_runs_at_once_do_not_share_a_folder(values_of, tmp_path, monkeypatch):
    from lens.errors import SettingError
    from lens.files import hold_folder
    from lens.train.run import train

    monkeypatch.setattr("lens.files.MAX_HELD_S", 0.0)
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(yaml.safe_dump(values_of("language", out)))
    with hold_folder(out, "out"), pytest.raises(SettingError, match="no other run is writing into"):
        train(recipe)
    assert list(out.iterdir()) == []


def test_a_checkpoint_of_another_network_is_refused(finished, fitted, tmp_path):
    from lens.errors import CheckpointError

    shutil.copytree(finished("vae").out, tmp_path / "run")
    wider = finished("vae").run.settings.config | {"block_out_channels": [8, 8, 16, 32]}
    with pytest.raises(CheckpointError, match="Choose another `out`"):
        fitted("vae", tmp_path / "run", config=wider)


def test_a_layout_loss_on_a_block_that_is_not_there_is_refused(settings_and_stage, finished, tmp_path):
    from lens.errors import SettingError

    finished("pretrain")
    with pytest.raises(SettingError, match=r"layout_block.*below num_layers = 2"):
        settings_and_stage("pretrain", tmp_path / "run", layout_block=2)


def test_probes_draw_the_ratios_and_ask_by_the_captions_that_the_recipe_says(
    settings_and_stage, finished, tmp_path, monkeypatch
):
    finished("pretrain")
    _, stage = settings_and_stage(
        "pretrain", tmp_path / "run", ratios=["1:1", "16:9"], probe_ratios=["2:3", "3:2"], probe_prompts=2,
        probe_styles=["brief", "dense"], world="micro", dense_share=1.0,
    )  # fmt: skip
    drawn = []

    def black(_pipeline: object, prompts: list[str], *size: int) -> np.ndarray:
        drawn.append(size)
        return np.zeros((len(prompts), *size, 3))

    monkeypatch.setattr(stage._nano_eval, "_generate", black)
    with torch.no_grad():
        numbers = stage.evaluate()
    assert set(drawn) == {(64, 32), (32, 64)}
    assert {"mean", "single", "dense/mean", "dense/combined", "loss_t0.9"} <= numbers.keys()
    assert [bucket._latents.shape[2:] for bucket in stage._buckets] == [(3, 3), (2, 4)]


def test_a_ratio_that_is_none_of_the_nine_is_refused_with_their_names(settings_and_stage, finished, tmp_path):
    from lens.errors import SettingError

    finished("pretrain")
    with pytest.raises(SettingError, match=r"probe_ratios is \['5:4'\], but it needs ratios among 1:2, 9:16"):
        settings_and_stage("pretrain", tmp_path / "run", probe_ratios=["5:4"])


def test_a_denoiser_of_one_captured_layer_reads_the_last_of_the_cached_ones(
    settings_and_stage, finished, tmp_path
):
    finished("pretrain")
    _, all_layers = settings_and_stage("pretrain", tmp_path / "all")
    config = all_layers.settings.config | {"selected_layer_index": [3]}
    _, last = settings_and_stage("pretrain", tmp_path / "last", config=config)
    held_out = [stage._held_out[""] for stage in (all_layers, last)]
    four, one = (bucket.sample(np.random.default_rng(0), 3).features for bucket in held_out)
    assert (len(four), len(one)) == (4, 1)
    assert torch.equal(one[0], four[3])
    assert torch.isfinite(last.objective(0, 0).loss)


def test_of_several_folders_of_encoders_the_first_that_is_there_is_read(
    settings_and_stage, finished, tmp_path
):
    from lens.errors import SettingError

    finished("pretrain")
    there = str(finished("vae").out / "export" / "vae")
    settings, _ = settings_and_stage("pretrain", tmp_path / "run", vae=[str(tmp_path / "gone"), there])
    assert settings.vae[1] == Path(there)
    with pytest.raises(SettingError, match=r"vae is '.*gone', but it needs an existing folder"):
        settings_and_stage("pretrain", tmp_path / "run", vae=str(tmp_path / "gone"))
