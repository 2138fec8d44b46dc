"""Compare caches of denoising steps on a nano model: time, tasks passed, likeness to images without a cache.

The images are those of the six tasks, one at a time. Time is CPU time of the denoiser in one thread, so that
other work on the machine does not count. Likeness is the mean PSNR of the pixels, in dB.

    OMP_NUM_THREADS=1 python benchmarks/step_caches.py --prompts 3 --steps 20
"""

import argparse
import time
from typing import Any

import numpy as np
import torch
from PIL import Image

from lens.core.resolution import buckets_for
from lens.evals.nano import (
    BASE,
    NanoEvalOptions,
    build_pipeline,
    eval_items,
    eval_model,
    run_info,
    score_batch,
)
from lens.models.step_cache import CACHES, cache_settings


class CpuTimer:
    """Counts the CPU seconds that a module computes."""

    def __init__(self, module: Any):
        self.seconds, self._started_at = 0.0, 0.0
        module.register_forward_pre_hook(self._start)
        module.register_forward_hook(self._stop)

    def _start(self, *_: object) -> None:
        self._started_at = time.process_time()

    def _stop(self, *_: object) -> None:
        self.seconds += time.process_time() - self._started_at


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="lens-nano")
    parser.add_argument("--prompts", type=int, default=3, help="prompts of each of the six tasks")
    parser.add_argument("--steps", type=int, default=None, help="denoising steps (the model's default)")
    parser.add_argument("--cache", action="append", choices=list(CACHES), help="repeat for more (all)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = eval_model(arguments.model, arguments.steps)
    items = list(eval_items(arguments.prompts, seed=0))
    pipeline = build_pipeline(model, NanoEvalOptions())
    timer = CpuTimer(pipeline.transformer)
    info = run_info(f"step_caches.py --prompts {arguments.prompts} --steps {model.steps}")
    print(", ".join(str(value) for value in info.values()))
    print(f"{arguments.model}, {model.sampling_label}, {len(items)} images")
    print(f"{'cache':<14}{'CPU s':>8}{'faster':>8}{'passed':>8}{'PSNR':>8}")
    draw(pipeline, items[:1], model, 1)  # fills caches
    plain, plain_s = [], 0.0
    for name in (None, *(arguments.cache or CACHES)):
        if name is not None:
            pipeline.transformer.enable_cache(cache_settings(name))
        timer.seconds = 0.0
        images = draw(pipeline, items, model, model.steps)
        if name is None:
            plain, plain_s = images, timer.seconds
        else:
            pipeline.transformer.disable_cache()
        passed = sum(result.score.passed for result in score_batch(items, images, 0))
        likeness = np.mean([psnr(one, other) for one, other in zip(images, plain, strict=True)])
        print(
            f"{name or 'none':<14}{timer.seconds / len(items):>8.2f}{plain_s / timer.seconds:>7.2f}x"
            f"{passed:>8}{likeness:>8.1f}", flush=True,
        )  # fmt: skip


def draw(pipeline: Any, items: list[Any], model: Any, steps: int) -> list[np.ndarray]:
    """Return the image of each item, as (H, W, 3) bytes."""
    images: list[Image.Image] = []
    for item in items:
        height, width = buckets_for(BASE)[item.ratio]
        images += pipeline(
            item.prompt.prompt, height=height, width=width, num_inference_steps=steps,
            guidance_scale=model.guidance, generator=torch.Generator().manual_seed(item.seed),
        ).images  # fmt: skip
    return [np.asarray(image.convert("RGB")) for image in images]


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Return the ratio of the largest value to the mean error in dB; 99 for equal images."""
    error = np.square(one.astype(float) - other).mean()
    return 99.0 if error == 0 else float(10 * np.log10(255**2 / error))


if __name__ == "__main__":
    main()
