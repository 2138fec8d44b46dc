"""Estimates against the paper's cost and the real model's parameters.

What blocks save for the backward pass is in test_activation_checkpointing.py.
"""

import importlib.util
from pathlib import Path

import pytest

from lens.errors import MemoryNeedError, SettingError
from lens.train.cost.from_recipe import read_run_specs, resolve_mfu
from lens.train.cost.training import (
    check_memory,
    estimate_cost,
    estimate_memory_gib,
    estimate_to_dict,
    num_image_tokens,
)

RECIPES = Path(__file__).parents[4] / "recipes"
MIXED = RECIPES / "lens" / "pretrain_mixed.yaml"


def bill(recipe: Path, gpu: str, gpus: int, mfu: float, overrides=None, num_text_tokens=None) -> dict:
    return estimate_to_dict(
        estimate_cost(tuple(read_run_specs(recipe, overrides, num_text_tokens).values()), gpu, gpus, mfu)
    )


def test_the_papers_recipe_on_its_own_cards_costs_what_the_paper_says():
    found = bill(MIXED, "a100", 128, 0.17)
    assert found["gpu_hours"] == pytest.approx(192_000, rel=0.15)
    assert found["parameters"] == 4_104_225_152
    assert len(found["gpu_hours_by_run"]) == 2
    assert sum(found["gpu_hours_by_run"]) == pytest.approx(found["gpu_hours"])
    assert found["days"] == pytest.approx(found["gpu_hours"] / 128 / 24)


def test_hours_follow_the_peak_and_the_share_of_it():
    old, new = bill(MIXED, "a100", 128, 0.17)["gpu_hours"], bill(MIXED, "h100", 128, 0.45)["gpu_hours"]
    assert old / new == pytest.approx(989 * 0.45 / (312 * 0.17))


def test_a_share_that_was_measured_goes_before_the_assumed_one_and_after_the_asked_one(tmp_path):
    recipe = tmp_path / "pretrain.yaml"
    assert resolve_mfu(recipe, "h100", None) == (None, "assumed; set it with --mfu")
    (tmp_path / "cards").mkdir()
    card = tmp_path / "cards" / "h100.yaml"
    card.write_text("mfu: 0.25\ndate: '2026-01-02'\ngradient_checkpointing: selective\n")
    share, source = resolve_mfu(recipe, "h100", None)
    assert share == 0.25 and source.startswith("measured 2026-01-02") and str(card) in source
    assert resolve_mfu(recipe, "h100", 0.3) == (0.3, "from --mfu")
    assert resolve_mfu(recipe, "a100", None)[0] is None
    card.write_text("card: NVIDIA H100\ninference: {date: '2026-01-02'}\n")
    assert resolve_mfu(recipe, "h100", None)[0] is None


def test_plans_read_what_the_benchmark_stores_of_a_card_and_take_the_lower_of_both_streams(tmp_path):
    path = RECIPES.parent / "benchmarks" / "train_gpu.py"
    spec = importlib.util.spec_from_file_location("train_gpu", path)
    assert spec and spec.loader
    train_gpu = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train_gpu)
    report = {"card": "NVIDIA H100 80GB HBM3", "date": "2026-01-02", "torch": "2.11", "state": "bfloat16"}
    kinds = [("square", "full", 0.3, 9), ("square", "selective", 0.4, 5), ("mixed", "selective", 0.2, 5)]
    rows = [
        {
            "stream": stream, "checkpointing": mode, "mfu": mfu, "pack_tokens": tokens, "compile": True,
            "padded": False, "tokens_per_s": 7.0, "peak_memory_gib": 60.0,
        }
        for stream, mode, mfu, tokens in kinds
    ]  # fmt: skip
    failed = {"stream": "square", "compile": True, "padded": False, "failed": "out of memory"}
    assert "nothing stored" in train_gpu.store_best(report | {"settings": [failed]}, tmp_path / "cards")
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "h100.yaml").write_text("mfu: 0.9\ninference: {date: '2026-01-01'}\n")
    train_gpu.store_best(report | {"settings": [failed, *rows]}, tmp_path / "cards")
    assert resolve_mfu(tmp_path / "recipe.yaml", "h100", None)[0] == 0.2
    text = (tmp_path / "cards" / "h100.yaml").read_text()
    assert "gradient_checkpointing: selective" in text and "date: '2026-01-01'" in text


def test_a_pack_holds_the_papers_pictures_by_base():
    _, run = read_run_specs(MIXED, None, None).values()
    assert [run.images_per_pack(base) for base in run.bases] == [24, 10, 6]
    first, _ = read_run_specs(MIXED, None, None).values()
    assert first.num_images / first.steps == 3072
    assert [num_image_tokens(base) for base in (512, 768, 1024)] == [1024, 2304, 4096]


def test_short_captions_make_it_cheaper():
    short, long = (bill(MIXED, "a100", 128, 0.17, num_text_tokens=count)["flops"] for count in (150, None))
    assert short < 0.8 * long


def test_a_lora_trains_what_its_rank_says_and_needs_less_memory():
    recipe = RECIPES / "lens" / "lora.yaml"
    (lora,) = read_run_specs(recipe, ["lora.rank=8"], None).values()
    (whole,) = read_run_specs(recipe, ["lora=null"], None).values()
    dim, hidden = 1536, 4096
    sides = 2 * (4 * dim + 2 * dim + 3 * (dim + hidden))  # of both streams: qkv, output, three products
    assert lora.num_trainable_parameters == 8 * 48 * sides
    assert (
        lora.num_parameters - lora.num_trainable_parameters
        == whole.num_parameters
        == whole.num_trainable_parameters
    )
    less, more = (sum(estimate_memory_gib(run, 1).values()) for run in (lora, whole))
    assert less < 0.2 * more
    assert sum(estimate_memory_gib(whole, 8).values()) < 0.3 * more


def test_a_run_that_does_not_fit_is_refused_with_what_takes_how_much_and_what_helps():
    (lora,) = read_run_specs(RECIPES / "lens" / "lora.yaml", None, None).values()
    recipe = RECIPES / "lens" / "finetune.yaml"
    (whole,) = read_run_specs(recipe, ["gradient_checkpointing=selective"], None).values()
    check_memory(lora, 1, free_gib=23.0)
    with pytest.raises(MemoryNeedError, match=r"needs about \d+\.\d GiB .*weights 7\.9.*8\.0 GiB are free"):
        check_memory(lora, 1, free_gib=8.0)
    with pytest.raises(MemoryNeedError, match="gradient_checkpointing=full, a smaller pack_tokens, lora"):
        check_memory(whole, 1, free_gib=79.0)


def test_a_card_holds_less_the_more_is_computed_again():
    recipe = RECIPES / "lens" / "finetune.yaml"
    memory = {}
    for mode in ("none", "selective", "full"):
        (run,) = read_run_specs(recipe, [f"gradient_checkpointing={mode}"], None).values()
        memory[mode] = estimate_memory_gib(run, 8)
    none, selective, full = (parts["activations"] for parts in memory.values())
    assert full < 0.2 * selective and selective < 0.5 * none
    assert all(parts["weights"] == memory["none"]["weights"] for parts in memory.values())
    for old, mode in (("true", "full"), ("false", "none")):
        (run,) = read_run_specs(recipe, [f"gradient_checkpointing={old}"], None).values()
        assert run.checkpointing == mode


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("t4", 1, None), "--gpu is 't4'"),
        (("h100", 0, None), "--gpus is 0"),
        (("h100", 1, 1.5), r"--mfu is 1\.5"),
    ],
)
def test_numbers_that_are_none_are_refused(arguments, says):
    with pytest.raises(SettingError, match=says):
        estimate_cost(tuple(read_run_specs(MIXED, None, None).values()), *arguments)


def test_a_recipe_of_another_stage_and_one_that_follows_itself_are_refused(tmp_path):
    with pytest.raises(SettingError, match="stage is 'vae', but it needs denoiser"):
        read_run_specs(RECIPES / "nano" / "vae.yaml", None, None)
    circle = tmp_path / "circle.yaml"
    circle.write_text(MIXED.with_name("lora.yaml").read_text() + "follows: circle.yaml\n")
    with pytest.raises(SettingError, match=r"follows is 'circle\.yaml'"):
        read_run_specs(circle, None, None)
