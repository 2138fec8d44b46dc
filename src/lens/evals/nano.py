"""Evaluation of nano models on their six tasks, side by side, with an exact scorer.

Prompts are held out; the nine aspect ratios of base 128 alternate. There is no learned judge (see
lens.nano.scoring.scorer); its scores of rendered ground truth come first. Seconds are those of generation
alone: the weights are loaded, and a first call has been made. Each model uses its own number of steps and its
own guidance scale unless the caller names others.
"""

import os
import platform
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lens.core.resolution import buckets_for
from lens.core.step_caches import NO_CACHE
from lens.errors import SettingError
from lens.evals.nano_report import (
    EvalItem,
    EvalModel,
    ImageResult,
    NanoEvalResult,
    images_to_json,
    mean_seconds,
    tables_to_json,
    tally_by_task,
)
from lens.nano.scoring.scorer import ImageArray, score_detections
from lens.nano.scoring.scorer_pool import detect_all
from lens.nano.tasks import TASKS, task_prompts, task_scene
from lens.nano.world.scenes import draw_scene

BASE = 128
TRUTH_BATCH_SIZE = 64

OnProgress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


class NanoEvalOptions(NamedTuple):
    """How images are generated and scored, beside the steps and the guidance of each model."""

    solver: str = "euler"
    seed: int = 0
    batch_size: int = 10
    num_processes: int = 0
    """Processes that score; 0 scores in this one."""
    lora: Path | None = None
    lora_weight: float = 1.0
    cache: str | None = None
    """Cache of denoising steps; `first-block` decides for a batch as a whole."""


def evaluate_nano(
    models: Sequence[EvalModel],
    num_prompts_per_task: int,
    options: NanoEvalOptions,
    num_diversity_images: int = 0,
    on_progress: OnProgress = lambda *_: None,
) -> NanoEvalResult:
    """Score rendered ground truth, then the images of each model, on the same prompts and seeds.

    `num_diversity_images` images of some prompts are compared with one another; 0 skips that.
    """
    items = list(eval_items(num_prompts_per_task, options.seed))
    truth = list(
        report_progress("truth", ground_truth_results(items, options.num_processes), len(items), on_progress)
    )
    scored = []
    for model in models:
        results, label = model_results(items, model, options), f"{model.name}, {model.sampling_label}"
        scored.append(list(report_progress(label, results, len(items), on_progress)))
    if not num_diversity_images:
        return NanoEvalResult(list(models), truth, scored, [])
    by_task = [item for task in TASKS for item in items if item.task == task]
    chosen = by_task[:: max(1, num_prompts_per_task // 4)]
    diversities = [mean_diversity(model, chosen, num_diversity_images, options) for model in models]
    return NanoEvalResult(list(models), truth, scored, diversities, num_diversity_images, len(chosen))


def result_to_json(
    result: NanoEvalResult, info: dict[str, object], options: NanoEvalOptions
) -> list[dict[str, object]]:
    """Return one JSON object a model; one of the ground truth where there is no model."""
    truth_tables = {"truth": tally_by_task(result.truth)}
    if not result.models:
        images = images_to_json(result.truth)
        return [info | {"tables": tables_to_json(truth_tables), "pictures": images}]
    return [
        info | model_info(model, options) | mean_seconds(results)
        | {"tables": tables_to_json({"model": tally_by_task(results)} | truth_tables)}
        | ({"diversity": result.diversities[number]} if result.diversities else {})
        | {"pictures": images_to_json(results)}
        for number, (model, results) in enumerate(zip(result.models, result.scored, strict=True))
    ]  # fmt: skip


def eval_models(
    models: Sequence[str], extra: Sequence[str] = (), steps: int | None = None, guidance: float | None = None
) -> list[EvalModel]:
    """Return the models to evaluate; `extra` are models written as MODEL:STEPS:GUIDANCE.

    Raises: LensError for a model that is not installed; SettingError for an extra of another form.
    """
    found = [eval_model(model, steps, guidance) for model in models]
    for text in extra:
        match = re.fullmatch(r"(.+):(\d+):(\d+\.?\d*)", text)
        if match is None:
            raise SettingError("--extra", text, "MODEL:STEPS:GUIDANCE, as in lens-nano-base:4:1.0")
        found.append(eval_model(match[1], int(match[2]), float(match[3])))
    return found


def eval_model(model: str, steps: int | None = None, guidance: float | None = None) -> EvalModel:
    """Return a model with the given steps and guidance, or else its own."""
    from lens.sampling.resolved_model import ResolvedModel

    resolved = ResolvedModel.of(model)
    own = resolved.defaults
    return EvalModel(
        model,
        own.num_inference_steps if steps is None else steps,
        own.guidance_scale if guidance is None else guidance,
        resolved.content_hash,
    )


def eval_items(num_prompts_per_task: int, seed: int) -> Iterator[EvalItem]:
    """Yield every prompt of every task; the nine aspect ratios alternate."""
    ratios = list(buckets_for(BASE))
    for number, task in enumerate(TASKS):
        for index, prompt in enumerate(task_prompts(task, num_prompts_per_task, seed)):
            yield EvalItem(task, prompt, ratios[index % len(ratios)], seed + 10_000 * number + index)


def ground_truth_results(items: list[EvalItem], num_processes: int = 0) -> Iterator[ImageResult]:
    """Yield the score of a rendered scene for each prompt."""
    for start in range(0, len(items), TRUTH_BATCH_SIZE):
        batch = items[start : start + TRUTH_BATCH_SIZE]
        yield from score_batch(batch, [render_item(item) for item in batch], num_processes)


def render_item(item: EvalItem) -> ImageArray:
    """Return an image that shows what the prompt of an item asks for."""
    scene = task_scene(item.prompt, np.random.default_rng(item.seed), *buckets_for(BASE)[item.ratio])
    return np.round((draw_scene(scene).transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8)  # (H, W, 3)


def score_batch(
    items: list[EvalItem], images: list[ImageArray], num_processes: int, *seconds: float
) -> Iterator[ImageResult]:
    """Yield the score of each image; `seconds` are those of one image, in total and in the denoiser."""
    for item, image, detections in zip(items, images, detect_all(images, num_processes), strict=True):
        yield ImageResult(item, image, score_detections(detections, item.prompt.spec), *seconds)


def model_results(
    items: list[EvalItem], model: EvalModel, options: NanoEvalOptions
) -> Iterator[ImageResult]:
    """Yield the score of the model's image for each prompt; prompts of one aspect ratio share batches."""

    pipeline = build_pipeline(model, options)
    timer = ModuleTimer(pipeline.transformer)
    pipeline(items[0].prompt.prompt, num_inference_steps=1, guidance_scale=model.guidance)  # fills caches
    by_ratio: defaultdict[str, list[EvalItem]] = defaultdict(list)
    for item in items:
        by_ratio[item.ratio].append(item)
    for ratio, same in by_ratio.items():
        height, width = buckets_for(BASE)[ratio]
        yield from draw_items(pipeline, timer, same, model, options, height, width)


def draw_items(
    pipeline: Any, timer: "ModuleTimer", items: list[EvalItem], model: EvalModel, options: NanoEvalOptions,
    height: int | None, width: int | None,
) -> Iterator[ImageResult]:  # fmt: skip
    """Yield the scores of images of one size, in batches; without a size, in the model's own."""
    import torch

    for start in range(0, len(items), options.batch_size):
        batch = items[start : start + options.batch_size]
        started_at, timer.seconds = time.perf_counter(), 0.0
        (images,) = pipeline(
            [item.prompt.prompt for item in batch], height=height, width=width,
            num_inference_steps=model.steps, guidance_scale=model.guidance,
            solver=options.solver, return_dict=False,
            generator=[torch.Generator().manual_seed(item.seed) for item in batch],
        )  # fmt: skip
        elapsed_s = time.perf_counter() - started_at
        pixels = [np.asarray(image.convert("RGB")) for image in images]
        seconds = elapsed_s / len(batch), timer.seconds / len(batch)
        yield from score_batch(batch, pixels, options.num_processes, *seconds)


def build_pipeline(model: EvalModel, options: NanoEvalOptions) -> Any:
    """Return the pipeline of a model, with the LoRA of the options, on the GPU where there is one."""
    import torch

    from lens.sampling.pipeline import LensPipeline

    pipeline = LensPipeline.from_pretrained(model.model)
    pipeline.set_progress_bar_config(disable=True)
    if options.lora:
        pipeline.load_lora_weights(options.lora, weight=options.lora_weight)
    if options.cache:
        from lens.models.step_cache import cache_settings

        pipeline.transformer.enable_cache(cache_settings(options.cache))
    return pipeline.to("cuda") if torch.cuda.is_available() else pipeline


def mean_diversity(
    model: EvalModel, items: list[EvalItem], num_images: int, options: NanoEvalOptions
) -> float:
    """Return the mean distance between latents of images of one prompt, as training by rewards logs it."""
    import torch

    from lens.losses.diffusion_nft import diversity

    pipeline, diversities = build_pipeline(model, options), []
    for item in items:
        height, width = buckets_for(BASE)[item.ratio]
        (latents,) = pipeline(
            item.prompt.prompt, height=height, width=width, num_inference_steps=model.steps,
            guidance_scale=model.guidance, solver=options.solver, return_dict=False,
            num_images_per_prompt=num_images, output_type="latent",
            generator=[torch.Generator().manual_seed(item.seed + 1 + index) for index in range(num_images)],
        )  # fmt: skip
        diversities.append(float(diversity(latents.float())))
    return sum(diversities) / len(diversities)


class ModuleTimer:
    """Counts the seconds that a module computes."""

    def __init__(self, module: Any):
        self.seconds, self._started_at = 0.0, 0.0
        module.register_forward_pre_hook(self._start)
        module.register_forward_hook(self._stop)

    def _start(self, *_: object) -> None:
        self._started_at = self._now()

    def _stop(self, *_: object) -> None:
        self.seconds += self._now() - self._started_at

    def _now(self) -> float:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()


def report_progress(
    name: str, results: Iterator[ImageResult], total: int, on_progress: OnProgress
) -> Iterator[ImageResult]:
    """Yield the results; call `on_progress` after each with the number of passes so far in its stage."""
    num_passed = 0
    for count, result in enumerate(results, 1):
        num_passed += result.score.passed
        on_progress(f"{name}, {num_passed} passed", count, total)
        yield result


def run_info(command: str, has_models: bool = True) -> dict[str, object]:
    """Return what a reader needs to repeat an evaluation: the command, the date and the machine."""
    machine = f"{cpu_model()}, {os.cpu_count()} cores"
    if has_models:
        import torch

        machine += f", {torch.get_num_threads()} threads, torch {torch.__version__}"
        if torch.cuda.is_available():
            machine += f", {torch.cuda.get_device_name()}"
    return {
        "command": command,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine,
    }


def model_info(model: EvalModel, options: NanoEvalOptions) -> dict[str, object]:
    """Return what a reader needs to repeat the column of one model."""
    return {
        "name": model.name,
        "hash": model.hash,
        "steps": model.steps,
        "guidance": model.guidance,
        "drawn": f"{model.sampling_label}, {options.solver}, seed {options.seed}",
        "cache": options.cache or NO_CACHE,
        "batch": options.batch_size,
    }


def cpu_model() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
