"""A folder that takes components from the one beside it: read, checked, hashed and saved like a whole one."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import tiny_denoiser, tiny_pipeline

from lens import LensPipeline
from lens.cli.info import describe_model
from lens.errors import CheckpointError
from lens.models.checkpoints.convert import convert
from lens.models.checkpoints.diffusers_folder import (
    SHARED_KEY,
    check_folder,
    component_folder,
    missing_files,
    shared_components,
)
from lens.models.checkpoints.hashing import content_hash
from lens.models.checkpoints.single_file import load_denoiser
from lens.train.data.encode import Encoders

OTHERS = ("scheduler", "text_encoder", "tokenizer", "vae")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Two folders side by side, one whole, the other with a denoiser of its own alone."""
    models = tmp_path_factory.mktemp("models")
    tiny_pipeline().save_pretrained(models / "whole")
    tiny_denoiser(seed=9).save_pretrained(models / "shares" / "transformer")
    write_index(models / "shares", "../whole")
    return models


@pytest.fixture
def models(saved, tmp_path):
    """The same, to be changed."""
    return shutil.copytree(saved, tmp_path / "models")


def write_index(folder, where):
    index = json.loads((folder.parent / "whole" / "model_index.json").read_text())
    index |= {SHARED_KEY: where, "lens_variant": "nano-base"}
    (folder / "model_index.json").write_text(json.dumps(index))


def draw(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    request = {"num_inference_steps": 2, "guidance_scale": 2.0, "output_type": "pt", "generator": generator}
    return pipeline("a fox", **request).images


@pytest.mark.parametrize("settings", [{}, {"low_cpu_mem_usage": True}], ids=["directly", "by diffusers"])
def test_a_sharing_folder_gives_the_image_of_a_whole_folder_with_its_denoiser(saved, settings):
    other = LensPipeline.from_pretrained(saved / "whole", transformer=tiny_denoiser(seed=9))
    loaded = LensPipeline.from_pretrained(saved / "shares", **settings)
    assert loaded.defaults == (20, 2.0, 64)
    torch.testing.assert_close(draw(loaded), draw(other), atol=2e-5, rtol=0)
    own = LensPipeline.from_pretrained(saved / "whole")
    assert (draw(loaded) - draw(own)).abs().max() > 1e-3


@pytest.mark.parametrize("settings", [{}, {"low_cpu_mem_usage": True}], ids=["directly", "by diffusers"])
def test_it_is_saved_whole(saved, tmp_path, settings):
    LensPipeline.from_pretrained(saved / "shares", **settings).save_pretrained(tmp_path / "alone")
    assert SHARED_KEY not in (tmp_path / "alone" / "model_index.json").read_text()
    assert shared_components(tmp_path / "alone") == {}
    check_folder(tmp_path / "alone")
    assert LensPipeline.from_pretrained(tmp_path / "alone").defaults == (20, 2.0, 64)


def test_each_component_is_where_it_is(saved):
    folder = saved / "shares"
    assert component_folder(folder, "transformer") == folder / "transformer"
    assert shared_components(folder) == {name: saved / "whole" / name for name in OTHERS}
    assert shared_components(saved / "whole") == {} and missing_files(folder) == []
    check_folder(folder)


def test_its_hash_covers_what_it_shares_and_that_of_a_whole_folder_is_of_its_own_files(models):
    shares, whole = content_hash(models / "shares"), content_hash(models / "whole")
    assert shares != whole
    (models / "whole" / "README.md").write_text("card")
    assert content_hash(models / "shares") == shares
    file = models / "whole" / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert content_hash(models / "shares") != shares
    before = content_hash(models / "whole")
    assert before != whole
    (models / "shares" / "transformer" / "config.json").write_text("{}")
    assert content_hash(models / "whole") == before


def test_a_component_of_its_own_comes_before_the_shared_one(models):
    shutil.copytree(models / "whole" / "vae", models / "shares" / "vae")
    assert component_folder(models / "shares", "vae") == models / "shares" / "vae"
    assert "vae" not in shared_components(models / "shares")


@pytest.mark.parametrize(
    "where", ["../../whole", "..", "../..", "../.", "whole", "./whole", "/whole", "../a/b", "../whole/", 7]
)
def test_a_path_that_is_not_beside_it_is_refused(models, where):
    write_index(models / "shares", where)
    for use in (LensPipeline.from_pretrained, content_hash, check_folder, missing_files):
        with pytest.raises(CheckpointError, match="Only a folder beside its own may be named"):
            use(models / "shares")


def test_a_link_to_somewhere_else_is_refused(models, tmp_path):
    shutil.move(models / "whole", tmp_path / "elsewhere")
    (models / "whole").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"is a link to .*elsewhere"):
        LensPipeline.from_pretrained(models / "shares")


def test_a_folder_without_the_folder_it_shares_with_is_an_error_that_says_so(models, tmp_path):
    moved = shutil.move(models / "shares", tmp_path / "alone")
    with pytest.raises(CheckpointError, match=r"the others are in .*whole.*side by side"):
        LensPipeline.from_pretrained(moved)


def test_shared_weights_are_checked_as_strictly(models):
    file = models / "whole" / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["post_quant_conv.bias"]
    save_file(weights, file)
    with pytest.raises(CheckpointError, match=r"post_quant_conv\.bias"):
        check_folder(models / "shares")
    file.unlink()
    assert missing_files(models / "shares") == ["vae/diffusion_pytorch_model.safetensors"]


def test_its_description_counts_everything_and_says_what_is_shared(saved):
    shares, whole = describe_model(str(saved / "shares")), describe_model(str(saved / "whole"))
    assert shares["components"] == whole["components"]
    assert shares["shared"] == {name: str(saved / "whole" / name) for name in OTHERS}
    assert whole["shared"] == {}


def test_a_shared_component_is_converted_and_the_denoiser_is_its_own(saved, tmp_path):
    vae = convert(saved / "shares", tmp_path / "vae", "vae-diffusers")
    name = "diffusion_pytorch_model.safetensors"
    assert load_file(vae / name).keys() == load_file(saved / "whole" / "vae" / name).keys()
    folder = convert(saved / "shares", tmp_path / "denoiser", "folder")
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", name]
    own = tiny_denoiser(seed=9).state_dict()["proj_out.weight"]
    assert torch.equal(load_denoiser(folder, None).state_dict()["proj_out.weight"], own)


def test_training_encodes_by_the_same_encoders(saved):
    layers, device = (0, 1, 3, 4), torch.device("cpu")
    shares, whole = (Encoders(saved / name, layers, device, torch.float32) for name in ("shares", "whole"))
    assert shares.revision == whole.revision
    assert torch.equal(shares.encode_caption("a fox"), whole.encode_caption("a fox"))
