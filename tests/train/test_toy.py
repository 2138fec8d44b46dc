"""The ablation model: its size, and its recipe end to end with tiny networks of the same kinds."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import DENOISER_CONFIG, tiny_qwen3, tiny_qwen3_tokenizer, tiny_vae

from lens.config import deep_merge, read_recipe
from lens.models.denoiser import LensTransformer2DModel
from lens.train.cost.from_recipe import read_run_specs

RECIPE = Path(__file__).parents[2] / "recipes" / "toy" / "pretrain.yaml"


def test_the_denoiser_has_1_2_billion_parameters_and_is_planned():
    with torch.device("meta"):
        denoiser = LensTransformer2DModel(**read_recipe(RECIPE)["config"])
    count = sum(parameter.numel() for parameter in denoiser.parameters())
    assert count == pytest.approx(1.2e9, rel=0.02)
    (run,) = read_run_specs(RECIPE, None, None).values()
    assert run.num_parameters == count
    assert run.num_images == pytest.approx(130e6, rel=0.01), "each pair once"


@pytest.fixture
def folders(tmp_path):
    """Encoders as the recipe's comment says they are prepared, and a plain folder of pictures."""
    model, pictures = tmp_path / "encoders", tmp_path / "pictures"
    tiny_vae().save_pretrained(model / "vae")
    tiny_qwen3().save_pretrained(model / "text_encoder")
    tiny_qwen3_tokenizer().save_pretrained(model / "tokenizer")
    (model / "model_index.json").write_text('{"_class_name": "LensPipeline"}')
    pictures.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (48, 64), np.uint8)
        Image.fromarray(pixels).convert("RGB").save(pictures / f"{number}.png")
        (pictures / f"{number}.txt").write_text("a red apple" + " and a fox" * number)
    return model, pictures


def test_the_recipe_trains_on_features_of_qwen3(folders, tmp_path):
    from lens.train.run import STAGES, parse_settings
    from lens.train.trainer import fit

    model, pictures = folders
    small = {
        "out": str(tmp_path / "run"), "store": str(tmp_path / "store"), "model": str(model), "steps": 2,
        "config": DENOISER_CONFIG | {"enc_hidden_dim": 16, "selected_layer_index": [0, 2, 4]}, "held_out": 1,
        "data": {"shards": None, "folder": str(pictures), "bases": [48]}, "compile": False, "device": "cpu",
        "micro_batches": 1, "pack_tokens": 30, "precision": "float32", "log_every": 1,
    }  # fmt: skip
    settings = parse_settings("denoiser", deep_merge(read_recipe(RECIPE), small), "the test")
    stage = STAGES["denoiser"].stage_class(settings)
    key = stage._keys[0]
    layers, num_text, width = stage._latent_cache[key].features.shape
    assert (layers, width) == (3, 16) and num_text == stage._latent_cache.token_counts(key).num_text_tokens
    run = fit(stage, settings)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert run.step == 2 and all(np.isfinite(line["loss"]) for line in lines if "loss" in line)
    exported = LensTransformer2DModel.from_pretrained(tmp_path / "run" / "export" / "transformer")
    assert exported.config.enc_hidden_dim == 16
