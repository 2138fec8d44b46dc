"""Training on pictures with captions: the store against the encoders, packs, LoRA and whole, resume."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_models import randomise

from lens.errors import SettingError

STEPS = 6
SIZES = ((70, 40), (48, 48), (40, 75), (100, 60), (50, 52))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """A plain folder of pictures of several ratios, with captions."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, (width, height) in enumerate(SIZES):
        pixels = np.random.default_rng(number).integers(0, 255, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("a red apple" + " and a fox" * number)
    return folder


@pytest.fixture
def assembled(finished, pictures, tmp_path):
    """Return settings and stage of a tiny run; changes are settings by name."""

    def assemble(out="run", **changes):
        from lens.train.run import STAGES, parse_settings

        values = {
            "stage": "denoiser", "model": str(finished("pretrain").out / "export"),
            "out": str(tmp_path / out), "store": str(tmp_path / "store"), "steps": STEPS,
            "data": {"folder": str(pictures), "bases": [48]}, "precision": "float32",
            "frozen_dtype": "float32", "device": "cpu", "log_every": 1,
            "probe_every": 3, "pack_tokens": 20, "micro_batches": 2, "ema_decay": 0.9,
            "optimizer": {"lr": 1e-3, "warmup_steps": 2},
        } | changes  # fmt: skip
        settings = parse_settings("denoiser", values, "the test")
        return settings, STAGES["denoiser"].stage_class(settings)

    return assemble


def losses_of(out) -> list[float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_the_store_gives_the_very_tensors_of_the_encoders(assembled, pictures, finished):
    from lens.data.image_text_dataset import ImageTextSettings, image_text_samples
    from lens.train.data.encode import Encoders

    _, stage = assembled()
    encoders = Encoders(finished("pretrain").out / "export", (0, 1, 2, 3), torch.device("cpu"), torch.float32)
    found = list(image_text_samples(ImageTextSettings(folder=pictures, bases=(48,))))
    assert len(found) == len(stage._keys) == len(SIZES)
    for key, picture in zip(stage._keys, found, strict=True):
        fresh = encoders.encode(picture.image, picture.caption)
        for stored, wanted in zip(stage._latent_cache[key], fresh, strict=True):
            assert torch.equal(stored, wanted)
    _, again = assembled("other")
    assert again._keys == stage._keys
    assert len(list(again._latent_cache.folder.iterdir())) == 1, "what is stored is not encoded again"


def test_an_update_sees_its_packs_and_counts_every_picture_the_same(assembled):
    settings, stage = assembled(prompt_dropout=0.0)
    packs = stage._batch_sampler.batches_of_step(0, settings.micro_batches)
    lengths = [stage._latent_cache.token_counts(key).num_image_tokens for key in stage._keys]
    assert all(sum(lengths[item] for item in pack) <= 20 for pack in packs)
    sizes = [len(pack) for pack in packs]
    parts = [stage.objective(0, index) for index in range(2)]
    assert [part.stats.num_samples for part in parts] == sizes
    mean = sum(part.terms["flow"] * size for part, size in zip(parts, sizes, strict=True)) / sum(sizes)
    torch.testing.assert_close(sum(part.loss for part in parts).detach() / 2, mean)


@pytest.mark.parametrize("lora", [None, {"rank": 3, "alpha": 6}])
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(
    assembled, stopped_at, tmp_path, lora
):
    from lens.train.trainer import fit

    settings, stage = assembled("whole", lora=lora, held_out=1)
    whole = fit(stage, settings)
    settings, stage = assembled("parts", lora=lora, held_out=1)
    assert fit(stopped_at(stage, 2), settings).step == 3
    settings, stage = assembled("parts", lora=lora, held_out=1)
    resumed = fit(stage, settings)
    assert losses_of(tmp_path / "parts") == losses_of(tmp_path / "whole")
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight), name


def test_a_lora_leaves_the_model_alone_and_is_read_by_the_pipeline_in_both_key_styles(
    assembled, tmp_path, finished
):
    from lens import LensPipeline
    from lens.train.trainer import fit

    quick = {"lr": 0.1, "warmup_steps": 0}
    settings, stage = assembled(lora={"rank": 3, "alpha": 6}, previews=["a fox"], optimizer=quick)
    before = {name: weight.clone() for name, weight in stage.model.state_dict().items()}
    fit(stage, settings)
    after = stage.model.state_dict()
    changed = {name for name, weight in after.items() if not torch.equal(before[name], weight)}
    assert changed and all(".lora_" in name for name in changed)
    assert list((tmp_path / "run" / "samples").glob("*.png"))
    pictures = {}
    for file in ("", "lora.safetensors", "lora_kohya.safetensors"):
        model = finished("pretrain").out / "export"
        pipeline = LensPipeline.from_pretrained(model, torch_dtype=torch.float32)
        pipeline.set_progress_bar_config(disable=True)
        if file:
            pipeline.load_lora_weights(tmp_path / "run" / "export" / file)
        drawn = pipeline(
            "a red apple", height=48, width=64, num_inference_steps=2, output_type="pt",
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        pictures[file] = drawn.images
    without, one, other = pictures.values()
    torch.testing.assert_close(one, other)
    assert (without - one).abs().max() > 1e-4


def test_a_denoiser_from_nothing_is_exported_as_diffusers_lays_it_out(assembled, tmp_path):
    from lens.models.denoiser import LensTransformer2DModel
    from lens.train.trainer import fit

    _, like = assembled("like")
    config = {name: value for name, value in like.model.config.items() if not name.startswith("_")}
    settings, stage = assembled("fresh", config=config, steps=2)
    fit(stage, settings)
    folder = tmp_path / "fresh" / "export" / "transformer"
    assert LensTransformer2DModel.from_pretrained(folder).config.inner_dim == config["inner_dim"]
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}


@pytest.mark.parametrize("lora", [None, {"rank": 8, "alpha": 8}])
def test_one_pack_can_be_learned_by_heart(assembled, lora):
    from lens.train.ema import Ema
    from lens.train.optimizer import build_optimizers
    from lens.train.step import TrainState, train_step

    quick = {"lr": 1e-2, "schedule": "cosine", "warmup_steps": 2}
    settings, stage = assembled(lora=lora, steps=60, micro_batches=1, optimizer=quick, prompt_dropout=0.0)
    randomise(stage.model, seed=0)  # the model was hardly trained: its gates let no adapter learn
    optimizer = build_optimizers(stage.model, settings.optimizer)
    run = TrainState(
        settings, stage.model, optimizer, Ema(stage.model, 0.9), lambda *_: stage.objective(0, 0)
    )
    losses = [float(train_step(run)["loss"]) for _ in range(settings.steps)]
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"held_out": 5}, "held_out is 5, but it needs fewer than the 5 images"),
        ({"pack_tokens": 3}, "pack_tokens is 3, but it needs at least"),
        ({"lora": {"targets": ["nothing"]}}, "lora.targets"),
        ({"lora": {}, "config": {}}, "lora is .* to be left out if `config`"),
        ({"model": "no-such-model"}, "no-such-model"),
    ],
)
def test_settings_that_do_not_fit_are_named(assembled, changes, says):
    with pytest.raises(SettingError, match=says):
        assembled(**changes)
