"""Folders written and read: the same images, the same defaults, and nothing loaded that does not fit."""

import json
import shutil
import threading
import time

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_pipeline
from torch import nn

from lens import LensPipeline
from lens.errors import CheckpointError, SettingError
from lens.models.checkpoints.module_loader import init_empty

LOADED_TOLERANCE = 2e-5
"""Weights mapped from a file lie at other addresses, where sums run in another order: 2.9e-6 was measured."""


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline(lens_variant="turbo", default_guidance=3.0)


@pytest.fixture(scope="module")
def folder(pipeline, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "lens-tiny"
    pipeline.save_pretrained(path)
    return path


def draw(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    return pipeline("a fox", num_inference_steps=2, output_type="pt", generator=generator).images


def test_a_saved_folder_names_the_classes_as_published_ones_do(folder):
    index = json.loads((folder / "model_index.json").read_text())
    assert index["_class_name"] == "LensPipeline"
    assert index["transformer"] == ["diffusers", "LensTransformer2DModel"]
    assert index["text_encoder"] == ["transformers", "LensGptOssEncoder"]
    assert index["vae"] == ["diffusers", "AutoencoderKLFlux2"]
    assert index["lens_variant"] == "turbo" and index["default_guidance"] == 3.0


@pytest.mark.parametrize(
    "load",
    [
        LensPipeline.from_pretrained,
        lambda folder: LensPipeline.from_pretrained(folder, low_cpu_mem_usage=True),
        diffusers.DiffusionPipeline.from_pretrained,
    ],
    ids=["directly", "by diffusers with its settings", "by plain diffusers"],
)
def test_a_loaded_pipeline_gives_the_same_image_with_the_same_defaults(pipeline, folder, load):
    loaded = load(folder)
    assert type(loaded) is LensPipeline
    assert loaded.defaults == (4, 3.0, 64)
    torch.testing.assert_close(draw(loaded), draw(pipeline), atol=LOADED_TOLERANCE, rtol=0)


def test_two_loads_give_the_same_bits(folder):
    first, second = LensPipeline.from_pretrained(folder), LensPipeline.from_pretrained(folder)
    assert torch.equal(draw(first), draw(second))


def test_a_folder_without_defaults_has_those_of_the_variant_in_its_name(pipeline, tmp_path):
    bare = LensPipeline(**pipeline.components)
    bare.save_pretrained(tmp_path / "Lens-Base-Diffusers")
    assert LensPipeline.from_pretrained(tmp_path / "Lens-Base-Diffusers").defaults == (50, 5.0, 1024)


def test_dtypes_are_one_for_all_or_one_by_component(folder):
    loaded = LensPipeline.from_pretrained(folder, torch_dtype=torch.bfloat16)
    assert {loaded.transformer.dtype, loaded.text_encoder.dtype, loaded.vae.dtype} == {torch.bfloat16}
    mixed = {"transformer": torch.bfloat16, "default": torch.float32}
    loaded = LensPipeline.from_pretrained(folder, torch_dtype=mixed)
    assert (loaded.transformer.dtype, loaded.vae.dtype) == (torch.bfloat16, torch.float32)
    with pytest.raises(SettingError, match=r"a torch\.dtype"):
        LensPipeline.from_pretrained(folder, torch_dtype="bfloat16")


def test_loaded_components_can_be_passed(pipeline, folder):
    loaded = LensPipeline.from_pretrained(folder, vae=pipeline.vae, text_encoder=None, tokenizer=None)
    assert loaded.vae is pipeline.vae and loaded.text_encoder is None
    with pytest.raises(SettingError, match="a text encoder"):
        loaded("a fox")
    features, mask, *_ = pipeline.encode_prompt("a fox")
    request = {"num_inference_steps": 2, "output_type": "pt", "generator": torch.Generator().manual_seed(0)}
    drawn = loaded(prompt_embeds=features, prompt_mask=mask, **request).images
    torch.testing.assert_close(drawn, draw(pipeline), atol=LOADED_TOLERANCE, rtol=0)


@pytest.mark.parametrize("settings", [{}, {"low_cpu_mem_usage": True}])
def test_weights_that_do_not_fit_are_refused(folder, tmp_path, settings):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    file = broken / "transformer" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["proj_out.extra"] = weights.pop("proj_out.bias")
    save_file(weights, file)
    with pytest.raises(CheckpointError, match=r"proj_out\.(bias|extra)"):
        LensPipeline.from_pretrained(broken, **settings)


def test_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(SettingError, match="Known: lens-nano"):
        LensPipeline.from_pretrained("lens-nona")


def test_threads_that_load_at_once_leave_later_modules_their_memory():
    """Without exclusion the second to enter restores what the first had replaced, once the first has left."""
    second_builds, first_left = threading.Event(), threading.Event()

    def first():
        init_empty(lambda: (second_builds.wait(0.3), nn.Identity())[-1])
        first_left.set()

    def second():
        init_empty(lambda: (second_builds.set(), first_left.wait(5), nn.Identity())[-1])

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    assert nn.Linear(3, 2).weight.device.type == "cpu"


def test_a_variant_that_was_saved_is_loaded_with_its_dtype_and_in_any_way(pipeline, folder, tmp_path):
    half = LensPipeline.from_pretrained(folder, torch_dtype=torch.float16)
    half.save_pretrained(tmp_path / "Lens-Turbo", variant="fp16", max_shard_size="20KB")
    assert list((tmp_path / "Lens-Turbo").rglob("*.index.fp16.json"))
    for settings in ({}, {"low_cpu_mem_usage": True, "torch_dtype": torch.float16}, {"memory": "8GB"}):
        loaded = LensPipeline.from_pretrained(tmp_path / "Lens-Turbo", variant="fp16", **settings)
        assert loaded.config._name_or_path == str(tmp_path / "Lens-Turbo")
        for name in ("transformer", "text_encoder", "vae"):
            assert getattr(loaded, name).dtype == torch.float16
            expected = getattr(half, name).state_dict()
            for key, value in getattr(loaded, name).state_dict().items():
                assert torch.equal(value, expected[key].to(value.dtype)), key
    with pytest.raises(CheckpointError, match=r"no weights of the variant 'bf16'. It has fp16"):
        LensPipeline.from_pretrained(tmp_path / "Lens-Turbo", variant="bf16")


def test_a_component_without_the_variant_has_its_plain_weights_and_that_is_told(folder, tmp_path, caplog):
    mixed = tmp_path / "mixed"
    shutil.copytree(folder, mixed)
    weights = mixed / "transformer" / "diffusion_pytorch_model.safetensors"
    halves = {name: tensor.half() for name, tensor in load_file(weights).items()}
    save_file(halves, mixed / "transformer" / "diffusion_pytorch_model.fp16.safetensors")
    loaded = LensPipeline.from_pretrained(mixed, variant="fp16")
    assert loaded.transformer.dtype == torch.float16 and loaded.vae.dtype == torch.float32
    assert "no variant fp16 of: vae, text_encoder" in caplog.text
    assert LensPipeline.from_pretrained(mixed).transformer.dtype == torch.float32


def test_hub_settings_of_another_library_are_refused_where_they_would_be_ignored(folder):
    assert LensPipeline.from_pretrained(folder, token="t", cache_dir=None).transformer is not None
    with pytest.raises(SettingError, match=r"^token is 'given'.*HF_TOKEN"):
        LensPipeline.from_pretrained("someone/lens", token="t")
