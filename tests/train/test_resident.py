"""Pre-training on resident examples: the losses of the cache, no work per sample, an exact resume."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lens.errors import SettingError
from lens.models.checkpoints.registry import KNOWN_MODELS
from lens.models.prompt_template import pad_features
from lens.nano.captions import CaptionMix
from lens.nano.world.patch_labels import patch_labels
from lens.train.run import STAGES, parse_settings, train
from lens.train.trainer import fit

NANO = KNOWN_MODELS["lens-nano"].folder
VALUES = {
    "stage": "pretrain", "steps": 6, "precision": "float32", "device": "cpu", "log_every": 1,
    "probe_every": 1000, "probe_prompts": 1, "bases": [48], "ratios": ["2:3"],
    "batch_size": 6, "captions": {"others": 0.2}, "ema_decay": 0.9, "resident": True,
    "layout_weight": 0.1, "layout_block": 0, "vae": str(NANO / "vae"), "text": str(NANO),
    "optimizer": {"lr": 1e-3, "schedule": "cosine", "warmup_steps": 2},
    "config": {
        "num_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2, "inner_dim": 32,
        "axes_dims_rope": [4, 6, 6], "selected_layer_index": [1, 3],
    },
}  # fmt: skip
ALIKE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Validated settings and a fresh stage, with the encoders that ship and one cache for all."""
    cache = str(tmp_path_factory.mktemp("cache"))

    def make(out, **changes):
        values = VALUES | {"cache": cache, "out": str(out)} | changes
        settings = parse_settings("pretrain", values, "the test").model_copy(update={"examples": 24})
        return settings, STAGES["pretrain"].stage_class(settings)

    return make


@pytest.fixture
def fitted(made, stopped_at):
    """Train in a folder, if asked with a stop signal at a step; return the state and the metrics."""

    def train(out, interrupt_at=None, **changes):
        settings, stage = made(out, **changes)
        run = fit(stage if interrupt_at is None else stopped_at(stage, interrupt_at), settings)
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        numbers = ("step", "loss", "flow", "layout", "grad_norm", "lr", "skipped", "probe/loss")
        return run, [{name: line[name] for name in numbers if name in line} for line in lines]

    return train


@pytest.fixture(scope="module")
def stages(made, tmp_path_factory):
    """A stage of cached examples and one of the same examples, resident."""
    out = tmp_path_factory.mktemp("resident")
    cached = made(out / "cached", resident=False)[1]
    resident = made(out / "resident")[1]
    for stage in (cached, resident):
        with torch.no_grad():  # a new denoiser has no velocity, whatever it reads
            for index, parameter in enumerate(stage.model.parameters()):
                draws = torch.Generator().manual_seed(index)
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=draws))
    return cached, resident


@pytest.mark.parametrize("kind", [0, 1, 2, "scaffold"])
def test_a_resident_batch_has_the_loss_of_the_same_examples_from_the_cache(kind, stages):
    cached, resident = stages
    (from_cache,), (bucket,) = cached._buckets, resident._objective._buckets
    shown = bucket.scaffold if kind == "scaffold" else bucket.length_classes[kind]
    batch = bucket.sample(torch.Generator().manual_seed(3), 6, shown)
    clean, noise, t = batch.latents.float(), torch.randn(batch.latents.shape), torch.linspace(0.1, 0.9, 6)
    has_text = torch.tensor([True, True, False, True, True, True])[:, None]
    terms = resident._loss(clean, t, noise, batch.features, batch.mask & has_text, batch.labels)
    items = batch.items.tolist()
    rows = [from_cache._features[item][:, -shown.most_tokens :] for item in items]
    features, mask = pad_features([row.unbind(0) for row in rows])
    latents, labels = from_cache._latents[items].float(), from_cache._labels[items]
    other = cached._loss(latents, t, noise, features, mask & has_text, labels)
    assert len({*items}) > 1 and float(terms.layout) > 0
    for one, another in zip(terms, other, strict=True):
        torch.testing.assert_close(one, another, **ALIKE)
    (image,) = {tuple(part.shape[2:]) for part in (latents, labels)}
    assert (image[0] * image[1] + batch.mask.shape[1]) % 8 == 0


def test_length_classes_hold_every_example_once_and_show_whole_captions(stages):
    bucket = stages[1]._objective._buckets[0]
    classes = bucket.length_classes
    assert [one.stop for one in classes[:-1]] == [one.start for one in classes[1:]]
    assert (classes[0].start, classes[-1].stop) == (0, len(bucket)) == (0, 24)
    for one in classes:
        batch = bucket.batch(bucket._order[one.start : one.stop], one)
        assert torch.equal(batch.mask.sum(1), bucket._lengths[batch.items])
        assert batch.mask.sum(1).float().mean() == pytest.approx(one.mean_tokens)
    whole = bucket.batch(bucket._order, bucket.scaffold)
    assert (whole.mask.sum(1) == bucket.scaffold.most_tokens).all()


def test_the_labels_of_a_bucket_are_those_of_its_scenes(stages):
    cached, resident = stages
    world, bucket = CaptionMix(**cached.settings.captions), resident._objective._buckets[0]
    sample = cached._buckets[0].sample(np.random.default_rng(0), 6)
    h, w = sample.latents.shape[2:]
    for item, labels in zip(sample.example_indices, sample.labels, strict=True):
        scene, _ = world.example(0, item, 16 * h, 16 * w)
        assert np.array_equal(labels.numpy(), np.stack(patch_labels(scene)))
        assert torch.equal(bucket._labels[item], labels)


def test_a_step_calls_as_much_python_for_a_hundred_samples_as_for_two(made, tmp_path):
    calls = []
    for batch_size in (2, 100):
        _, stage = made(tmp_path / "run", batch_size=batch_size)
        stage.objective(0, 0).loss.backward()  # fills caches
        count = 0

        def profile(_frame: object, event: str, _argument: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        sys.setprofile(profile)
        try:
            output = stage.objective(0, 0)
        finally:
            sys.setprofile(None)
        assert output.stats.num_samples == batch_size
        calls.append(count)
    assert calls[1] <= 1.02 * calls[0], "a mask without padding costs a few calls less"


def test_a_resident_run_that_was_stopped_goes_on_bit_for_bit(fitted, tmp_path):
    changes = {"prompt_token_share": 0.5, "guard": {"read_every": 4}}
    whole, whole_numbers = fitted(tmp_path / "whole", **changes)
    half, _ = fitted(tmp_path / "run", interrupt_at=2, **changes)
    assert half.step == 3
    resumed, resumed_numbers = fitted(tmp_path / "run", **changes)
    for one, another in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, another)
    assert resumed_numbers == whole_numbers


def test_minutes_that_are_over_stop_a_run_with_a_checkpoint_and_it_goes_on(fitted, tmp_path):
    for step in (1, 2):
        assert fitted(tmp_path / "run", max_minutes=1e-9)[0].step == step
        assert (tmp_path / "run" / "export" / "model_index.json").is_file()
    assert fitted(tmp_path / "run", max_minutes=60)[0].step == 6


def test_without_a_cuda_device_steps_are_not_captured_and_the_log_says_so(made, tmp_path, caplog):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    plain, captured = (made(tmp_path / "run", capture=capture)[1] for capture in (False, True))
    assert torch.equal(captured.objective(0, 0).loss, plain.objective(0, 0).loss)
    assert "no CUDA device" in caplog.text


@pytest.mark.parametrize(("changes", "says"), [
    ({"micro_batches": 2}, "micro_batches is 2, but it needs 1"),
    ({"capture": True, "resident": False}, "capture is True, but it needs resident: true"),
    ({"guard": {"read_every": 2}, "optimizer": {"muon_lr": 0.1}}, "guard.read_every is 2, but it needs 1"),
    ({"guard": {"read_every": 2, "max_ratio": 3}}, "guard.max_ratio is 3.0, but it needs 0"),
])  # fmt: skip
def test_settings_that_a_resident_run_cannot_have_are_refused(changes, says, tmp_path):
    with pytest.raises(SettingError, match=says):
        parse_settings("pretrain", VALUES | {"cache": "none", "out": "none"} | changes, "the test")


def test_processes_draw_the_examples_that_one_draws(made, tmp_path):
    one, several = (
        made(tmp_path / "run", cache=str(tmp_path / str(count)), drawing_processes=count)[1]
        for count in (0, 2)
    )
    (expected,), (bucket,) = one._objective._buckets, several._objective._buckets
    for name in ("_latents", "_tokens", "_labels"):
        assert torch.equal(getattr(bucket, name), getattr(expected, name))


def test_the_recipe_for_a_gpu_in_small_stops_when_its_minutes_are_over_and_goes_on(tmp_path):
    small = {
        "out": tmp_path / "run", "cache": tmp_path / "cache", "vae": NANO / "vae", "text": NANO,
        "bases": [48], "examples": 256, "batch_size": 6, "steps": 3, "probe_prompts": 1, "device": "cpu",
        "precision": "float32", "compile": "false", "drawing_processes": 2, "threads": 1,
        "config.num_layers": 2, "config.selected_layer_index": [1, 3], "layout_block": 1,
    }  # fmt: skip
    overrides = [f"{name}={value}" for name, value in small.items()]
    recipe = Path(__file__).parents[2] / "recipes" / "nano" / "pretrain_gpu.yaml"
    markers = tmp_path / "run" / "checkpoints"
    for minutes, step in ((1e-9, 1), (9, 3)):
        assert train(recipe, [*overrides, f"max_minutes={minutes}"]) == tmp_path / "run"
        (marker,) = markers.glob("*/run.json")
        assert json.loads(marker.read_text())["step"] == step
    assert (tmp_path / "run" / "export" / "model_index.json").is_file()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_step_has_the_loss_and_the_gradients_of_an_ordinary_one(made, tmp_path):
    changes = {"device": "cuda", "prompt_token_share": 0.5}
    stages = [made(tmp_path / "run", capture=capture, **changes)[1] for capture in (False, True)]
    for step in range(8):  # several shapes, and each more than once
        losses = [stage.objective(step, 0).loss for stage in stages]
        torch.testing.assert_close(*losses, **ALIKE)
        for loss in losses:
            loss.backward()
        for one, another in zip(*(stage.model.parameters() for stage in stages), strict=True):
            torch.testing.assert_close(one.grad, another.grad, **ALIKE)
            one.grad = another.grad = None
    assert len(stages[1]._objective._loss._graphs) > 1
