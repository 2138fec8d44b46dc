"""models, info, convert and train: results on stdout, mistakes in one line."""

import json
import shutil
from math import prod
from pathlib import Path

import pytest
from safetensors import safe_open

MIXED = Path(__file__).parents[2] / "recipes" / "lens" / "pretrain_mixed.yaml"


def test_models_lists_every_known_model_with_where_it_comes_from(lens):
    from lens.models.checkpoints.registry import KNOWN_MODELS

    rows = {row["name"]: row for row in map(json.loads, lens("models", "--json").out.splitlines())}
    assert list(rows) == list(KNOWN_MODELS)
    assert (rows["lens-turbo"]["steps"], rows["lens-turbo"]["guidance"]) == (4, 1.0)
    assert rows["lens-base"]["steps"] == 50
    assert rows["lens"]["folder"] is None
    assert any(source["is_withdrawn"] for source in rows["lens"]["sources"])
    text = lens("models").out
    for name, row in rows.items():
        assert name in text
        assert all(source["hub_id"] in text for source in row["sources"])


def test_info_counts_the_released_model_without_its_weights(lens):
    facts = json.loads(lens("info", "lens", "--json").out)
    denoiser = facts["components"]["denoiser"]
    assert (denoiser["parameters"], denoiser["tensors"]) == (4104225152, 1264)
    assert denoiser["memory_bytes"]["bfloat16"] == 2 * 4104225152
    assert facts["folder"] is None
    assert 12e9 < facts["components"]["text_encoder"]["memory_bytes"]["mxfp4"] < 14e9
    assert "4,104,225,152" in lens("info", "lens").out


def test_info_counts_a_folder_as_its_own_modules_do(lens, tiny_model):
    from lens import LensPipeline

    pipeline = LensPipeline.from_pretrained(tiny_model)
    facts = json.loads(lens("info", tiny_model, "--json").out)
    parts = {"denoiser": pipeline.transformer, "text_encoder": pipeline.text_encoder, "vae": pipeline.vae}
    for name, module in parts.items():
        counted = facts["components"][name]
        assert counted["parameters"] == sum(p.numel() for p in module.parameters()), name
        assert counted["tensors"] == len(list(module.parameters())), name
        assert counted["class"] == type(module).__name__
        assert counted["memory_bytes"]["float32"] == 4 * counted["parameters"]
    assert facts["parameters"] == sum(part["parameters"] for part in facts["components"].values())


def test_info_names_the_kind_of_a_single_file(lens, tiny_model):
    file = tiny_model / "transformer" / "diffusion_pytorch_model.safetensors"
    facts = json.loads(lens("info", file, "--json").out)
    assert "Lens denoiser" in facts["kind"]
    assert facts["stored_bytes"] == {"F32": 4 * facts["numbers"]}
    assert "Lens denoiser" in lens("info", file).out


@pytest.mark.parametrize(
    ("model", "said"),
    [("lense", "Did you mean lens?"), ("gone/", "model"), ("some/repository", "hf download")],
)
def test_info_on_what_is_not_here_says_what_to_do(lens, model, said):
    assert said in lens("info", model).error_line


def test_info_on_a_config_of_another_model_says_what_it_lacks(lens, tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "other")
    (tmp_path / "other" / "transformer" / "config.json").write_text('{"num_layers": 2}')
    assert "num_attention_heads" in lens("info", "other").error_line


def tensors_of(path) -> dict:
    with safe_open(path, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def test_convert_writes_a_single_file_and_back_to_the_same_weights(lens, tiny_model, tmp_path):
    assert lens("convert", tiny_model, "one.safetensors", "--format", "single-f32").out == "one.safetensors\n"
    assert lens("convert", "one.safetensors", "folder", "--format", "folder").out == "folder\n"
    before = tensors_of(tiny_model / "transformer" / "diffusion_pytorch_model.safetensors")
    after = tensors_of(tmp_path / "folder" / "diffusion_pytorch_model.safetensors")
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)
    assert sum(prod(value.shape) for value in after.values()) > 10_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{model}", "a.safetensors", "--format", "zip"], "single-bf16"),
        (["{model}", "taken.safetensors", "--format", "single-bf16"], "does not exist yet"),
        (["gone", "a.safetensors", "--format", "single-bf16"], "gone does not exist"),
        (["{model}", "a.bin", "--format", "single-bf16"], ".safetensors"),
        (["words.safetensors", "a.safetensors", "--format", "single-bf16"], "words.safetensors"),
    ],
)
def test_convert_refuses_and_leaves_nothing(lens, tiny_model, tmp_path, arguments, said):
    (tmp_path / "taken.safetensors").write_text("")
    (tmp_path / "words.safetensors").write_text("not weights")
    line = lens("convert", *(argument.format(model=tiny_model) for argument in arguments)).error_line
    assert said in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken.safetensors", "words.safetensors"]


@pytest.mark.parametrize(
    ("recipe", "overrides", "said"),
    [
        ("gone.yaml", [], "RECIPE is 'gone.yaml'"),
        ("broken.yaml", [], "valid YAML"),
        ("good.yaml", ["--set", "steps"], "key=value"),
    ],
)
def test_train_refuses_a_bad_recipe_before_loading_anything(lens, tmp_path, recipe, overrides, said):
    (tmp_path / "broken.yaml").write_text("a: [")
    (tmp_path / "good.yaml").write_text("steps: 1")
    assert said in lens("train", recipe, *overrides).error_line


def test_train_plan_estimates_the_papers_gpu_hours_for_the_papers_recipe(lens):
    asked = ("--gpu", "a100", "--gpus", 128, "--mfu", 0.17)
    facts = json.loads(lens("train", "plan", MIXED, *asked, "--json").out)
    assert facts["gpu_hours"] == pytest.approx(192_000, rel=0.15)
    assert facts["parameters"] == 4_104_225_152
    text = lens("train", "plan", MIXED, *asked).out
    assert f"total: {facts['gpu_hours']:,.0f} a100-hours at 17% of the peak" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpu", "t4"], "--gpu is 't4', but it needs one of a100, h100"),
        (["--mfu", "1.7"], "--mfu is 1.7"),
        (["--set", "pack_token=3"], "pack_token is 3, but it needs a known name"),
    ],
)
def test_train_plan_names_invalid_options_and_settings(lens, arguments, said):
    assert said in lens("train", "plan", MIXED, *arguments).error_line
