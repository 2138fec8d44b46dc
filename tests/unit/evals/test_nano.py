"""Evaluation of nano models: each by its own steps and guidance, and the numbers of the table by hand."""

import numpy as np
import pytest
import torch

from lens.errors import SettingError
from lens.evals.nano import (
    NanoEvalOptions,
    build_pipeline,
    eval_items,
    eval_model,
    eval_models,
    render_item,
    score_batch,
)
from lens.evals.nano_report import (
    EvalItem,
    ImageResult,
    mean_seconds,
    tables_to_json,
    tally_by_task,
    total_tally,
)
from lens.models.checkpoints.adapters.lora_formats import LoraWeights, write_adapter
from lens.nano.scoring.scorer import SceneScore
from lens.nano.tasks import TASKS, task_prompts


def test_each_model_draws_by_its_own_numbers_unless_options_say_others():
    def sampling(*arguments):
        return [(one.model, one.steps, one.guidance) for one in eval_models(*arguments)]

    assert sampling(["lens-nano"]) == [("lens-nano", 20, 2.0)]
    assert sampling(["lens-nano-base"]) == [("lens-nano-base", 20, 2.0)]
    assert sampling(["lens-nano", "lens-nano-base"], ["lens-nano:4:1.0"], None, 5.0) == [
        ("lens-nano", 20, 5.0),
        ("lens-nano-base", 20, 5.0),
        ("lens-nano", 4, 1.0),
    ]


@pytest.mark.parametrize("extra", ["lens-nano", "lens-nano:4", "lens-nano:four:1", "lens-nano:4:"])
def test_an_extra_that_says_something_else_is_refused(extra):
    with pytest.raises(SettingError, match="MODEL:STEPS:GUIDANCE"):
        eval_models(["lens-nano"], [extra])


def test_an_adapter_is_drawn_with_at_the_weight_that_is_asked_for(tmp_path):
    layer, model = "transformer_blocks.1.attn.img_qkv", eval_model("lens-nano-turbo")

    def weight(options: NanoEvalOptions):
        pipeline = build_pipeline(model, options)
        if options.lora:
            pipeline.fuse_lora()
        return pipeline.transformer.get_submodule(layer).weight.detach().float()

    plain = weight(NanoEvalOptions())
    generator = torch.Generator().manual_seed(0)
    down = torch.randn(2, plain.shape[1], generator=generator)
    up = torch.randn(plain.shape[0], 2, generator=generator)
    path = tmp_path / "bold.safetensors"
    write_adapter({layer: LoraWeights(down, up, alpha=6.0)}, path)
    added = weight(NanoEvalOptions(lora=path, lora_weight=0.25)) - plain
    torch.testing.assert_close(added, 0.25 * 6.0 / 2 * up @ down, rtol=0.01, atol=0.02)  # of bfloat16


def test_a_cache_is_on_where_it_is_asked_for():
    model = eval_model("lens-nano-turbo")
    caches = (None, "first-block")
    assert [build_pipeline(model, NanoEvalOptions(cache=cache)).transformer.is_cache_enabled
            for cache in caches] == [False, True]  # fmt: skip


def test_scores_are_fractions_by_task():
    items = [item for item in eval_items(3, 0) if item.task == "single"]
    items += [item for item in eval_items(2, 0) if item.task == "two"]
    images = [np.full((128, 128, 3), 200, np.uint8), *map(render_item, items[1:])]
    tallies = tally_by_task(list(score_batch(items, images, 0)))
    assert {task: tally.fraction for task, tally in tallies.items()} == {"single": 2 / 3, "two": 1.0}


def test_the_mean_is_of_all_tasks_with_wilsons_interval():
    items = [EvalItem(task, next(iter(task_prompts(task, 1, 0))), "1:1", 0) for task in TASKS]
    image = np.zeros((2, 3, 3), np.uint8)
    results = [
        ImageResult(item, image, SceneScore(index < 3, (), ()), seconds=0.5, denoiser_seconds=0.2)
        for index, item in enumerate(items)
    ]
    mean = total_tally(tally_by_task(results))
    assert tuple(mean) == (3, 6) and mean.fraction == 0.5
    # (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n) with z = 1.96, n = 6, by hand
    assert mean.interval == pytest.approx((0.18761, 0.81239), abs=1e-4)
    assert tables_to_json({"model": tally_by_task(results)})["model"]["mean"]["fraction"] == 0.5
    assert mean_seconds(results) == pytest.approx(
        {"seconds_a_picture": 0.5, "denoiser_seconds_a_picture": 0.2}
    )
