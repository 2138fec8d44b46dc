"""Plans of RL and distillation: passes counted by hand, memory of roles, judge calls, what is refused."""

import json
from pathlib import Path

import pytest

from lens.cli.main import main
from lens.config import read_recipe
from lens.core.resolution import buckets_for
from lens.rl.prompts.dataset import RLPrompt
from lens.train.cost.flops import forward_flops
from lens.train.cost.from_post_training_recipe import MAX_CRITERIA_PER_IMAGE, post_training_spec
from lens.train.cost.post_training import (
    estimate_post_training,
    estimate_post_training_memory_gib,
    format_post_training,
    post_training_to_dict,
)
from lens.train.run import parse_settings

RECIPES = Path(__file__).parents[4] / "recipes"
RL, TURBO = (RECIPES / "lens" / f"{name}.yaml" for name in ("rl", "turbo"))
PARAMETERS = 4_104_225_152


def run_of(recipe: Path, *changes: str, num_text_tokens=None):
    values = read_recipe(recipe, list(changes))
    return post_training_spec(parse_settings(values["stage"], values, str(recipe)), num_text_tokens)


def test_rollouts_and_passes_of_rl_are_the_papers_numbers():
    run = run_of(RL)
    assert run.num_images == 180 * 48 * 24 == 207_360
    passes = {name: (one.num_images, one.cost_per_image) for name, one in run.passes.items()}
    assert passes == {
        "rollouts, by old": (2_073_600, 1),
        "training, through theta": (9 * 207_360, 3),
        "training, through old": (9 * 207_360, 1),
        "training, through the base": (9 * 207_360, 1),
    }
    forward = forward_flops(run.config, 4096, 64)
    assert run.flops == pytest.approx((10 + 9 * 5) * 207_360 * forward)


def test_without_a_distance_to_the_base_nothing_goes_through_it():
    less, more = run_of(RL, "kl_weight=0"), run_of(RL)
    assert "training, through the base" not in less.passes
    assert less.flops / more.flops == pytest.approx(46 / 55)


def test_a_judge_is_asked_eleven_times_a_picture_where_there_are_no_rubrics_to_count(tmp_path):
    missing = f"prompts={tmp_path / 'none.jsonl'}"
    judging = run_of(RL, missing).judge_calls
    assert judging == (207_360 * 11, 11, True)
    path = tmp_path / "rubrics.jsonl"
    prompts = [
        RLPrompt(prompt=names, category="animal", item="fox", rubric=dict.fromkeys(names, "is there"))
        for names in ("abc", "abcdef")
    ]
    path.write_text("".join(prompt.model_dump_json() + "\n" for prompt in prompts))
    assert run_of(RL, f"prompts={path}").judge_calls == (207_360 * 4.5, 4.5, False)


def test_each_judge_of_a_combination_is_asked_and_exact_ones_are_not(tmp_path):
    judge = "{kind: judge, endpoint: {url: 'http://127.0.0.1:1/v1', model: m}}"
    parts = f"a: {{reward: {judge}}}, b: {{reward: {judge}}}, c: {{reward: {{kind: text}}}}"
    none = (f"prompts={tmp_path / 'none.jsonl'}", "reward=null")
    both = run_of(RL, *none, f"reward={{kind: combined, parts: {{{parts}}}}}")
    assert both.judge_calls.calls_per_image == 2 * MAX_CRITERIA_PER_IMAGE
    assert run_of(RECIPES / "nano" / "rl.yaml").judge_calls is None


def test_adapters_of_rl_take_what_their_rank_says_and_whole_copies_far_more():
    lora, whole = run_of(RL), run_of(RL, "lora=null")
    dim, hidden = 1536, 4096
    sides = 2 * (4 * dim + 2 * dim + 3 * (dim + hidden))  # of both streams: qkv, output, three products
    assert lora.num_role_parameters == 64 * 48 * sides and whole.num_role_parameters == PARAMETERS
    one, eight = (estimate_post_training_memory_gib(lora, gpus) for gpus in (1, 8))
    gib = 2**30
    assert one["base"] == pytest.approx(4 * PARAMETERS / gib)
    assert one["theta"] == one["old"] == one["gradients"] == pytest.approx(4 * lora.num_role_parameters / gib)
    assert one["optimizer"] == pytest.approx(2 * one["theta"])
    assert eight["base"] == pytest.approx(one["base"] / 8) and eight["text encoder"] == one["text encoder"]
    copies = estimate_post_training_memory_gib(whole, 8)
    assert copies["theta"] == copies["old"] == copies["base"] == pytest.approx(4 * PARAMETERS / 8 / gib)


def test_passes_of_distillation_follow_the_cycle_of_four_to_one():
    run = run_of(TURBO)
    pictures = 8 * (16 + 7 + 4) / 3  # packs of 17,000 tokens at base 512, 768 and 1024
    assert run.images_per_micro_batch == {512: 16, 768: 7, 1024: 4}
    assert run.num_images == 5000 * pictures
    assert {
        name: (one.num_images / pictures, one.cost_per_image, one.has_text)
        for name, one in run.passes.items()
    } == {
        "student: earlier steps": (1000 * 1.5, 1, True),
        "student: trained step": (1000, 3, True),
        "student: DM, by teacher and fake": (2000, 1, True),
        "student: CA, by the teacher": (1000, 1, True),
        "student: CA, without text": (1000, 1, False),
        "student: adversarial loss": (1000, 3, True),
        "critics: student samples": (4000 * 2.5, 1, True),
        "critics: teacher features": (4000 * 3, 1, True),
        "critics: fake model": (4000, 3, True),
    }


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        (["dm_weight=0"], {"student: DM, by teacher and fake", "critics: fake model"}),
        (["ca_weight=0"], {"student: CA, by the teacher", "student: CA, without text"}),
        (["adversarial_weight=0"], {"student: adversarial loss", "critics: teacher features"}),
    ],
)
def test_a_term_that_is_off_costs_nothing(changes, gone):
    whole, less = run_of(TURBO), run_of(TURBO, *changes)
    assert set(whole.passes) - set(less.passes) == gone
    assert less.flops < whole.flops


def test_guidance_alone_needs_no_critics():
    run = run_of(TURBO, "dm_weight=0", "adversarial_weight=0")
    assert not [name for name in run.passes if name.startswith("critics")]
    assert run.passes["student: trained step"].num_images == run.num_images
    assert run.trained_roles == ("student",)


def test_operations_are_the_mean_over_the_bases_by_their_pictures():
    run = run_of(TURBO, num_text_tokens=100)
    tokens = {base: height * width // 256 for base in (512, 768, 1024)
              for height, width in [buckets_for(base)["1:1"]]}  # fmt: skip
    sums = sum(count * forward_flops(run.config, tokens[base], 100)
               for base, count in {512: 16, 768: 7, 1024: 4}.items())  # fmt: skip
    assert run.flops_per_image() == pytest.approx(sums / 27)
    assert run.flops_per_image(has_text=False) < run.flops_per_image()


def test_distillation_holds_two_whole_models_in_training_and_a_light_teacher():
    run = run_of(TURBO)
    memory, gib = estimate_post_training_memory_gib(run, 8), 8 * 2**30
    assert memory["student"] == memory["fake"] == memory["gradients"] == pytest.approx(4 * PARAMETERS / gib)
    assert memory["optimizer"] == pytest.approx(16 * PARAMETERS / gib)
    assert memory["base"] == pytest.approx(2 * PARAMETERS / gib)
    assert "text encoder" not in memory  # texts are in the store
    alone = estimate_post_training_memory_gib(run_of(TURBO, "adversarial_weight=0"), 8)
    assert alone["activations"] < 0.7 * memory["activations"]


def test_groups_that_cards_cannot_share_out_are_told_with_how_many_can():
    plan = estimate_post_training(run_of(RL), "a100", 64)
    assert post_training_to_dict(plan)["gpus_that_share_it_out"] == 48
    text = "\n".join(format_post_training(plan, "a100", True))
    assert "does not run on 64 GPUs: prompts_per_step = 48 must" in text and "number is 48" in text
    fitting = estimate_post_training(run_of(RL), "a100", 24)
    assert "does not run" not in "\n".join(format_post_training(fitting, "a100", True))


def test_what_does_not_fit_is_told_with_what_helps():
    plan = estimate_post_training(run_of(TURBO, "gradient_checkpointing=none"), "rtx4090", 1)
    last = list(format_post_training(plan, "rtx4090", True))[-1]
    assert last.startswith("does not fit") and "gradient_checkpointing=full" in last and "lora" in last


@pytest.mark.parametrize("recipe", ["lens/rl", "lens/turbo", "nano/rl", "nano/turbo"])
def test_the_command_prints_lines_or_the_same_as_json(recipe, capsys):
    cards = ["--gpu", "a100", "--gpus", "2", "--mfu", "0.3"]
    arguments = ["train", "plan", str(RECIPES / f"{recipe}.yaml"), *cards]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert main(arguments) == 0
    text = capsys.readouterr().out
    drawn = found["rollouts"] if recipe.endswith("rl") else found["pictures"]
    assert f"{found['parameters']:,} parameters" in text and f"{drawn:,.0f}" in text
    assert found["gpu_hours"] == pytest.approx(found["flops"] / (312e12 * 0.3) / 3600)
    assert found["dollars"] == pytest.approx(1.5 * found["gpu_hours"])
    assert ("judge calls" in text) == bool(found["judge_calls"])
    assert f"{sum(found['memory_gib'].values()):.2f}" in text
