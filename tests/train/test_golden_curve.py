"""The first 100 losses of the nano pre-training recipe, two examples an update, against those kept in git."""

import json
from pathlib import Path
from statistics import mean

import pytest

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests" / "golden" / "train_losses.json").read_text())
STEPS = 100
RECIPE = "recipes/nano/pretrain.yaml"
SMALL = {
    "batch_size": 2, "micro_batches": 1, "bases": [64], "examples": 256, "precision": "float32",
    "compile": False, "device": "cpu",
}  # fmt: skip
TOLERANCE = 1e-4
"""Relative. All four curves together differ by at most 1.1e-6 between AMX, AVX-512, AVX2 and SSE 4, emulated
with ONEDNN_MAX_CPU_ISA, ATEN_CPU_CAPABILITY and MKL_ENABLE_INSTRUCTIONS (docs/log.md). A learning rate of
1.23e-3 in place of 1.2e-3 changes this curve by 1.4e-2."""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The recipe's own network, losses and schedule over the encoders that ship, on few examples."""
    from lens.config import read_recipe
    from lens.models.checkpoints.registry import resolve_model
    from lens.train.data import nano_cache
    from lens.train.ema import Ema
    from lens.train.optimizer import build_optimizers
    from lens.train.stages import nano_pretrain
    from lens.train.step import TrainState

    for module in (nano_cache, nano_pretrain):
        monkeypatch.setattr(module, "NANO_EXAMPLES_PER_SHARD", 16)
    nano = resolve_model("lens-nano")
    paths = {"vae": nano / "vae", "text": nano, "cache": tmp_path / "cache"}
    settings = nano_pretrain.NanoPretrainSettings.of(read_recipe(ROOT / RECIPE) | SMALL | paths)
    stage = nano_pretrain.NanoPretrainStage(settings)
    optimizer = build_optimizers(stage.model, settings.optimizer)
    return TrainState(settings, stage.model.train(), optimizer, Ema(stage.model, 0.9), stage.objective)


def test_the_first_100_losses_of_the_nano_recipe_are_the_golden_ones(run, tmp_path):
    from lens.train.step import train_step

    losses = [round(float(train_step(run)["loss"]), 6) for _ in range(STEPS)]
    (tmp_path / "losses.json").write_text(json.dumps({RECIPE: losses}))
    assert losses == pytest.approx(GOLDEN[RECIPE], rel=TOLERANCE), f"see {tmp_path}/losses.json"
    assert mean(losses[-20:]) < 0.7 * mean(losses[:20])
