"""Models of several files on the server: settings, names, sharing, and metadata without private folders."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from model_files import write_gguf_encoder, write_tree
from safetensors.torch import load_file, save_file
from tiny_models import tiny_pipeline

from lens import LensPipeline
from lens.config import read_recipe
from lens.errors import CheckpointError, SettingError
from lens.models.checkpoints.hashing import file_hash
from lens.models.checkpoints.reader import read_header
from lens.serve.api.token_counter import TokenCounter
from lens.serve.engine.engine import Engine
from lens.serve.engine.model_registry import LoadedModels, ModelRegistry
from lens.serve.engine.request import GenerationRequest, ModelInfo
from lens.serve.settings.server import ServedModel, ServerSettings

WAIT_S = 60.0


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A tree of two denoisers that draw at base 64, a text encoder in two layouts, and a VAE."""
    files = write_tree(tmp_path_factory.mktemp("comfy"))
    metadata = read_header(files.denoiser)[1] | {"default_base_resolution": "64"}
    save_file(load_file(files.denoiser), files.denoiser, metadata)
    shutil.copy(files.denoiser, files.denoiser.with_name("lens_bf16.safetensors"))
    write_gguf_encoder(files.text_encoder.with_name("gpt-oss.gguf"))
    return files


def test_a_settings_file_names_models_by_name_file_or_parts(tree, tmp_path):
    parts = {"model": str(tree.denoiser), "name": "dated", "vae": str(tree.vae), "prompt_date": "2026-04-02"}
    text = yaml.safe_dump({"models": ["lens-nano", str(tree.denoiser), parts]}).replace("'2026", "2026")
    (tmp_path / "server.yaml").write_text(text.replace("04-02'", "04-02"))
    settings = ServerSettings.of(read_recipe(tmp_path / "server.yaml"))
    assert [model.served_name for model in settings.models] == ["lens-nano", "lens_turbo_bf16", "dated"]
    assert settings.models[2] == ServedModel(
        model=str(tree.denoiser), name="dated", vae=tree.vae, prompt_date="2026-04-02"
    )
    assert [model.served_name for model in ServerSettings.of({}).models][:2] == [
        "lens-nano-turbo",
        "lens-nano",
    ]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            {"model": "lens-nano", "encoder": "x"},
            r"models\.0\.encoder is 'x', but it needs a known name.*text_encoder",
        ),
        ({"model": "lens-nano", "prompt_date": "soon"}, r"models\.prompt_date is 'soon'.*needs a date"),
        ({"name": "x"}, r"models\.0\.model is"),
    ],
)
def test_an_entry_that_does_not_fit_is_named(entry, message):
    with pytest.raises(SettingError, match=message):
        ServerSettings.of({"models": [entry]})


def test_two_models_of_one_name_are_refused(tree):
    entries = [
        ServedModel(model=str(tree.denoiser)),
        ServedModel(model=str(tree.denoiser), prompt_date="2026-01-01"),
    ]
    with pytest.raises(SettingError, match=r"models is 'lens_turbo_bf16'.*name: \.\.\."):
        ModelRegistry.from_names(entries)
    assert list(ModelRegistry.from_names([entries[0], str(tree.denoiser)]).models) == ["lens_turbo_bf16"]


def test_a_file_is_served_under_its_name_with_its_images_and_defaults(tree):
    registry = ModelRegistry.from_names([str(tree.denoiser)])
    assert registry.models["lens_turbo_bf16"].info == ModelInfo(
        "lens_turbo_bf16", 4, 1.0, 64, "turbo", trained_bases=(64,)
    )
    request = GenerationRequest(
        "lens_turbo_bf16", "a fox", seed=3, height=64, width=48, steps=2, guidance=1.0
    )
    with Engine(registry) as engine:
        engine.wait_until_ready(WAIT_S)
        finished = engine.submit(request).result(WAIT_S)
    pipeline = LensPipeline.from_single_file(tree.denoiser, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    expected = pipeline("a fox", height=64, width=48, num_inference_steps=2, generator=generator).images[0]
    levels = [np.asarray(image).astype(int) for image in (finished.image, expected)]
    assert np.abs(levels[0] - levels[1]).max() <= 1, (
        "the preamble's keys are computed once, so rounding differs"
    )
    metadata = finished.metadata
    assert (metadata.model, metadata.prompt_date) == ("lens_turbo_bf16", "2026-05-01")
    assert {part: (record.path, record.sha256) for part, record in metadata.parts.items()} == {
        part: (path.name, file_hash(path))
        for part, path in registry.models["lens_turbo_bf16"].model.parts.items()
    }


def test_models_share_the_parts_that_are_the_same_file(tree):
    entries = [
        {"model": str(tree.denoiser)},
        {"model": str(tree.denoiser.with_name("lens_bf16.safetensors")), "prompt_date": "2026-01-01"},
        {"model": str(tree.denoiser), "name": "gguf",
         "text_encoder": str(tree.text_encoder.with_name("gpt-oss.gguf"))},
    ]  # fmt: skip
    registry = ModelRegistry.from_names([ServedModel.of(entry) for entry in entries])
    models = LoadedModels(registry, "cpu", "float32")
    turbo, plain, gguf = (models[name] for name in registry.models)
    assert turbo.pipeline.text_encoder is plain.pipeline.text_encoder
    assert turbo.pipeline.vae is plain.pipeline.vae is gguf.pipeline.vae
    assert turbo.pipeline.tokenizer is plain.pipeline.tokenizer is not turbo.pipeline.text_encoder
    assert turbo.pipeline.text_encoder is not gguf.pipeline.text_encoder
    assert turbo.pipeline.transformer is not plain.pipeline.transformer
    keys = {model.text_encoder_key for model in (turbo, plain, gguf)}
    assert len(keys) == 3, "text features of another date or encoder are never reused"


def test_tokens_are_counted_by_the_tokenizer_inside_a_file(tree):
    registry = ModelRegistry.from_names([str(tree.denoiser)])
    paths = {name: entry.model.component_path("tokenizer") for name, entry in registry.models.items()}
    tokenizer = LensPipeline.from_single_file(tree.denoiser).tokenizer
    text = "two red apples, 1234"
    count = TokenCounter(paths)("lens_turbo_bf16", text)
    assert count.num_tokens == count.num_read == len(tokenizer(text, add_special_tokens=False).input_ids)


def test_a_folder_may_lack_the_part_that_a_file_replaces(tree, tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "tiny")
    shutil.rmtree(tmp_path / "tiny" / "vae")
    with pytest.raises(CheckpointError, match=r"lacks vae/"):
        ModelRegistry.from_names([str(tmp_path / "tiny")])
    registry = ModelRegistry.from_names([ServedModel(model=str(tmp_path / "tiny"), vae=tree.vae)])
    entry = registry.models["tiny"]
    assert (entry.folder, entry.paths()["vae"]) == (Path(tmp_path / "tiny"), tree.vae)
    assert LoadedModels(registry, "cpu", "float32")["tiny"].pipeline.vae.config["latent_channels"] == 4
