"""Score nano models on their six tasks, side by side: each draws with its own steps and guidance.

Prompts are held out; the nine ratios of base 128 take turns. No learned judge: see lens.nano.scoring.scorer;
what it
makes of rendered ground truth stands first. Intervals are Wilson's at 95%; the mean's is of all pictures
together, rather too wide than too narrow. Seconds are of drawing alone, the weights loaded, after a first
call. The table goes to stdout, progress to stderr.

    python benchmarks/nano_score.py             # lens-nano, 100 prompts a task
    python benchmarks/nano_score.py --truth     # the scorer alone, on rendered ground truth
    python benchmarks/nano_score.py --models lens-nano-base lens-nano lens-nano-turbo --json scores.json
    python benchmarks/nano_score.py --models lens-nano lens-nano-turbo --extra lens-nano-base:4:1.0
    python benchmarks/nano_score.py --models lens-nano-base lens-nano --prompts 10 --diversity 8
    python benchmarks/nano_score.py --model FOLDER --prompts 20 --contact-sheet sheet.png
"""

import argparse
import json
import os
import platform
import re
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from lens.core.resolution import buckets_for
from lens.errors import LensError, SettingError
from lens.nano.scoring.scorer import ImageArray, score_detections
from lens.nano.scoring.scorer_pool import detect_all
from lens.nano.tasks import TASKS, task_prompts, task_scene
from lens.nano.world.scenes import draw_scene
from nano_results import (
    EvalItem,
    EvalModel,
    ImageResult,
    mean_seconds,
    print_table,
    results_to_json,
    save_contact_sheet,
    tables_to_json,
    tally_by_task,
)

BASE = 128


def main() -> int:
    options = parse_options()
    try:
        models = [] if options.truth else eval_models(options)
    except LensError as error:
        sys.exit(str(error))
    items = list(eval_items(options.prompts, options.seed))
    groups = [ask for task in TASKS for ask in items if ask.task == task][:: max(1, options.prompts // 4)]
    about = run_info(options)
    for name, value in about.items():
        print(f"{name:<8} {value}")
    truth = list(with_progress("truth", ground_truth_results(items, options.processes), len(items)))
    scored = [
        list(
            with_progress(f"{one.name}, {one.sampling_label}", model_results(items, one, options), len(items))
        )
        for one in models
    ]
    print_table(models, truth, scored)
    spreads = [mean_diversity(one, groups, options) for one in models] if options.diversity else []
    print_diversity(models, spreads, len(groups), options.diversity)
    if options.contact_sheet:
        for number, results in enumerate(scored or [truth], 1):
            path = options.contact_sheet
            save_contact_sheet(results, path.with_stem(f"{path.stem}_{number}") if len(scored) > 1 else path)
    if options.json:
        truth_tables = {"truth": tally_by_task(truth)}
        saved = [
            about | model_info(one, options) | mean_seconds(results)
            | {"tables": tables_to_json({"model": tally_by_task(results)} | truth_tables)}
            | ({"diversity": spreads[number]} if spreads else {}) | {"pictures": results_to_json(results)}
            for number, (one, results) in enumerate(zip(models, scored, strict=True))
        ]  # fmt: skip
        alone = about | {"tables": tables_to_json(truth_tables), "pictures": results_to_json(truth)}
        options.json.write_text(json.dumps(saved or [alone], indent=1))
    return 0


def parse_options() -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--models", "--model", nargs="+", default=["lens-nano"], metavar="MODEL",
                        help="known names or folders")  # fmt: skip
    parser.add_argument("--extra", nargs="+", default=[], metavar="MODEL:STEPS:GUIDANCE",
                        help="a model beside them, drawing in another way than its own")  # fmt: skip
    parser.add_argument("--lora", type=Path, metavar="FILE", help="an adapter to draw with")
    parser.add_argument("--lora-weight", type=float, default=1.0)
    parser.add_argument("--prompts", type=int, default=100, help="prompts a task")
    parser.add_argument("--steps", type=int, help="each model's own by default")
    parser.add_argument("--guidance", type=float, help="each model's own by default")
    parser.add_argument("--solver", default="euler")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--diversity", type=int, default=0, metavar="K",
                        help="draw K pictures of some prompts too: how far apart are they?")  # fmt: skip
    parser.add_argument("--processes", type=int, default=0, help="that judge; 0 judges here")
    parser.add_argument("--truth", action="store_true", help="score rendered ground truth alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save numbers, reasons: an object a model")
    parser.add_argument("--contact-sheet", type=Path, metavar="FILE.png",
                        help="save all pictures, labelled; a numbered sheet a model")  # fmt: skip
    return parser.parse_args()


def eval_models(options: argparse.Namespace) -> list[EvalModel]:
    """Return who draws how, by the options.

    Raises: LensError for a model that is not here, SettingError for an extra that says something else.
    """
    contenders = [eval_model(model, options.steps, options.guidance) for model in options.models]
    for extra in options.extra:
        said = re.fullmatch(r"(.+):(\d+):(\d+\.?\d*)", extra)
        if said is None:
            raise SettingError("--extra", extra, "MODEL:STEPS:GUIDANCE, as in lens-nano-base:4:1.0")
        contenders.append(eval_model(said[1], int(said[2]), float(said[3])))
    return contenders


def eval_model(model: str, steps: int | None = None, guidance: float | None = None) -> EvalModel:
    """Return a model with the steps and guidance that are asked for, or else its own."""
    from lens.models.checkpoints.hashing import content_hash
    from lens.models.checkpoints.registry import resolve_model
    from lens.sampling.defaults import folder_defaults

    folder = resolve_model(model)
    own = folder_defaults(folder, model)
    return EvalModel(
        model,
        own.num_inference_steps if steps is None else steps,
        own.guidance_scale if guidance is None else guidance,
        content_hash(folder),
    )


def eval_items(num_prompts_per_task: int, seed: int) -> Iterator[EvalItem]:
    """Yield every prompt of every task, the nine ratios in turn."""
    ratios = list(buckets_for(BASE))
    for number, task in enumerate(TASKS):
        for index, prompt in enumerate(task_prompts(task, num_prompts_per_task, seed)):
            yield EvalItem(task, prompt, ratios[index % len(ratios)], seed + 10_000 * number + index)


def ground_truth_results(items: list[EvalItem], num_processes: int = 0) -> Iterator[ImageResult]:
    """Yield a rendered scene for each prompt, judged."""
    for start in range(0, len(items), 64):
        some = items[start : start + 64]
        yield from score_batch(some, [render_item(ask) for ask in some], num_processes)


def render_item(item: EvalItem) -> ImageArray:
    scene = task_scene(item.prompt, np.random.default_rng(item.seed), *buckets_for(BASE)[item.ratio])
    return np.round((draw_scene(scene).transpose(1, 2, 0) + 1) * 127.5).astype(np.uint8)


def score_batch(
    items: list[EvalItem], images: list[ImageArray], num_processes: int, *seconds: float
) -> Iterator[ImageResult]:
    for ask, picture, shown in zip(items, images, detect_all(images, num_processes), strict=True):
        yield ImageResult(ask, picture, score_detections(shown, ask.prompt.spec), *seconds)


def model_results(
    items: list[EvalItem], model: EvalModel, options: argparse.Namespace
) -> Iterator[ImageResult]:
    """Yield the model's picture for each prompt, judged; prompts of one shape share batches."""
    import torch

    pipeline = build_pipeline(model, options)
    watch = Stopwatch(pipeline.transformer)
    pipeline(items[0].prompt.prompt, num_inference_steps=1, guidance_scale=model.guidance)  # fills caches
    by_ratio: defaultdict[str, list[EvalItem]] = defaultdict(list)
    for ask in items:
        by_ratio[ask.ratio].append(ask)
    for ratio, same in by_ratio.items():
        height, width = buckets_for(BASE)[ratio]
        for start in range(0, len(same), options.batch):
            batch = same[start : start + options.batch]
            started_at, watch.seconds = time.perf_counter(), 0.0
            (images,) = pipeline(
                [ask.prompt.prompt for ask in batch], height=height, width=width,
                num_inference_steps=model.steps, guidance_scale=model.guidance,
                solver=options.solver, return_dict=False,
                generator=[torch.Generator().manual_seed(ask.seed) for ask in batch],
            )  # fmt: skip
            spent = (time.perf_counter() - started_at) / len(batch), watch.seconds / len(batch)
            yield from score_batch(
                batch, [np.asarray(image.convert("RGB")) for image in images], options.processes, *spent
            )


def build_pipeline(model: EvalModel, options: argparse.Namespace) -> Any:
    import torch

    from lens import LensPipeline

    pipeline = LensPipeline.from_pretrained(model.model)
    pipeline.set_progress_bar_config(disable=True)
    if options.lora:
        pipeline.load_lora_weights(options.lora, weight=options.lora_weight)
    return pipeline.to("cuda") if torch.cuda.is_available() else pipeline


def mean_diversity(model: EvalModel, groups: list[EvalItem], options: argparse.Namespace) -> float:
    """Return the mean distance between pictures of one prompt, by latents, as training by rewards logs it."""
    import torch

    from lens.losses.diffusion_nft import diversity

    pipeline, spreads, count = build_pipeline(model, options), [], options.diversity
    for ask in groups:
        height, width = buckets_for(BASE)[ask.ratio]
        (latents,) = pipeline(
            ask.prompt.prompt, height=height, width=width, num_inference_steps=model.steps,
            guidance_scale=model.guidance, solver=options.solver, return_dict=False,
            num_images_per_prompt=count, output_type="latent",
            generator=[torch.Generator().manual_seed(ask.seed + 1 + turn) for turn in range(count)],
        )  # fmt: skip
        spreads.append(float(diversity(latents.float())))
    return sum(spreads) / len(spreads)


def print_diversity(models: list[EvalModel], spreads: list[float], groups: int, count: int) -> None:
    """Print how far apart pictures of a prompt are, and against the first model."""
    if spreads:
        print(f"\nMean distance of {count} pictures of a prompt, {groups} prompts, against the first model:")
    for one, spread in zip(models, spreads, strict=False):
        print(f"{one.name}, {one.sampling_label}: {spread:.3f}, {spread / spreads[0]:.0%}")


class Stopwatch:
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


def with_progress(name: str, results: Iterator[ImageResult], total: int) -> Iterator[ImageResult]:
    """Pass results on and count them on stderr."""
    passed = 0
    for count, result in enumerate(results, 1):
        passed += result.score.passed
        print(f"\r{name}: {count} of {total}, {passed} passed", end="", file=sys.stderr, flush=True)
        yield result
    print(file=sys.stderr)


def run_info(options: argparse.Namespace) -> dict[str, object]:
    """Return what a reader needs to repeat the table."""
    machine = f"{cpu_model()}, {os.cpu_count()} cores"
    if not options.truth:
        import torch

        machine += f", {torch.get_num_threads()} threads, torch {torch.__version__}"
        if torch.cuda.is_available():
            machine += f", {torch.cuda.get_device_name()}"
    return {
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine,
    }


def model_info(model: EvalModel, options: argparse.Namespace) -> dict[str, object]:
    """Return what a reader needs to repeat one model's column."""
    return {
        "name": model.name,
        "hash": model.hash,
        "steps": model.steps,
        "guidance": model.guidance,
        "drawn": f"{model.sampling_label}, {options.solver}, seed {options.seed}",
        "batch": options.batch,
    }


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    sys.exit(main())
