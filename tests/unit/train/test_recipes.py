"""Recipes as they ship: the paper's numbers in them; bad ones, told before anything is loaded or written."""

import subprocess
import sys
from pathlib import Path

import pytest

from lens.config import read_recipe
from lens.core.schedule import training_mu
from lens.train.run import STAGES, parse_settings

RECIPES = Path(__file__).parents[3] / "recipes"
TRAINED = sorted(
    path
    for folder in ("nano", "lens", "toy")
    for path in (RECIPES / folder).glob("*.yaml")
    if path.stem != "rl_prompts"  # of prompts, not of a run
)


def of(path: Path):
    values = read_recipe(path)
    return parse_settings(values["stage"], values, str(path))


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recipe_that_ships_is_valid(path):
    assert of(path).stage in STAGES


@pytest.mark.parametrize(("name", "lr", "bases"), [
    ("pretrain_512", 2e-4, (512,)), ("pretrain_mixed", 1e-4, (512, 768, 1024)),
])  # fmt: skip
def test_pre_training_has_the_papers_numbers(name, lr, bases):
    settings = of(RECIPES / "lens" / f"{name}.yaml")
    optimizer = settings.optimizer
    assert (optimizer.lr, optimizer.schedule, optimizer.muon_lr) == (lr, "constant", 0)
    assert (optimizer.betas, optimizer.max_grad_norm) == ((0.9, 0.999), 1.0)
    assert (settings.steps, settings.precision, settings.data.bases) == (400_000, "bf16", bases)
    assert settings.gradient_checkpointing == "full"
    assert (settings.prompt_dropout, settings.ema_decay) == (0.1, 0.9999)


def test_the_mean_of_training_times_is_the_papers_in_both_stages():
    low, mixed = (of(RECIPES / "lens" / f"pretrain_{name}.yaml") for name in ("512", "mixed"))
    assert training_mu(1024, low.timestep_mu, low.timestep_tokens) == pytest.approx(1.06)
    for tokens, mu in ((256, 1.0), (1024, 1.06), (4096, 1.3)):
        assert training_mu(tokens, mixed.timestep_mu, mixed.timestep_tokens) == pytest.approx(mu)


def test_distillation_has_the_papers_numbers():
    settings = of(RECIPES / "lens" / "turbo.yaml")
    assert (settings.dm_weight, settings.ca_weight, settings.adversarial_weight) == (0.1, 0.1, 0.001)
    assert (settings.ca_scale, settings.r1_gamma, settings.ida_share) == (5.0, 1.0, 0.03)
    assert (settings.student_steps, settings.critic_updates, settings.simulation) == (4, 4, "renoise")
    assert settings.steps == 1000 * (settings.critic_updates + 1)
    optimizer = settings.optimizer
    assert (optimizer.lr, optimizer.rates, optimizer.betas) == (5e-7, {"heads": 1e-4}, (0, 0.9))
    largest = 1472 // 16 * 736 // 16
    assert (settings.micro_batches, settings.pack_tokens // largest) == (8, 4)
    assert (settings.lora, settings.data.bases) == (None, (512, 768, 1024))


def test_rl_has_the_papers_numbers():
    settings = of(RECIPES / "lens" / "rl.yaml")
    assert (settings.steps, settings.prompts_per_step, settings.images_per_prompt) == (180, 48, 24)
    assert (settings.bases, settings.ratios, settings.model) == ((1024,), (), "lens-base")
    assert (settings.rollout_steps, settings.times_per_image, settings.solver) == (10, 9, "ab2")
    assert (settings.nft_beta, settings.kl_weight, settings.old_decay) == (1.0, 1e-4, "grown")
    assert (settings.advantage_clip, settings.advantage_width) == (1.0, 2.0)
    assert (settings.lora.rank, settings.lora.alpha, settings.reward.kind) == (64, 128, "judge")
    optimizer = settings.optimizer
    assert (optimizer.lr, optimizer.betas, optimizer.weight_decay) == (3e-4, (0.9, 0.999), 1e-4)
    assert (optimizer.schedule, optimizer.max_grad_norm) == ("constant", 1.0)


def test_bad_recipes_name_the_key_before_torch_is_loaded_and_anything_is_written(tmp_path):
    cases = [
        ("nano/language", "learning_rate=1", "learning_rate"),
        ("nano/language", "optimizer.lrr=1", "optimizer.lrr"),
        ("nano/vae", "steps=many", "steps"),
        ("nano/pretrain", "vae=no/such/vae", "vae"),
        ("nano/ablations/micro", "world=small", "world"),
        ("nano/ablations/micro", 'ratios=["5:4"]', "ratios"),
        ("nano/ablations/micro_rl", "nano_prompts.world=small", "world"),
        ("nano/ablations/micro_turbo", "nano.world=small", "world"),
        ("nano/vae", "micro_batches=3", "batch_size"),
        ("lens/lora", "data.folder=no/such/pictures", "data.folder"),
        ("lens/pretrain_512", "steps=10", "data.shards"),
        ("lens/pretrain_512", "data.folder=somewhere", "data"),
        ("lens/finetune", "start_from=no/such/model", "start_from"),
        ("lens/finetune", "data.bases=[]", "data.bases"),
        ("lens/rl", "prompts=no/such/prompts.jsonl", "prompts"),
        ("lens/rl", "micro_batches=48", "micro_batches"),
        ("nano/turbo", "ca_scale=0.5", "ca_scale"),
        ("nano/turbo", 'nano.ratios=["5:4"]', "nano.ratios"),
        ("lens/turbo", "steps=10", "data.shards"),
    ]
    script = f"""
import sys
from pathlib import Path
from lens.errors import SettingError
from lens.train.run import train
for recipe, change, key in {cases!r}:
    try:
        train(Path({str(RECIPES)!r}) / (recipe + ".yaml"), [change, "out=run"])
    except SettingError as error:
        assert str(error).startswith(key + " is "), (change, str(error))
    else:
        raise AssertionError(change)
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
