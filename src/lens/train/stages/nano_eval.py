"""Evaluation of a model in training on the six tasks of the nano world.

Knows nothing of training. Letters: N images.
"""

import logging
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from lens.core.noise import generator_for
from lens.errors import NonFiniteError
from lens.nano.scoring.scorer import score_detections
from lens.nano.scoring.scorer_pool import detect_all
from lens.nano.tasks import FULL_WORLD, TASKS, WorldConfig, task_prompts
from lens.train.devices import autocast
from lens.train.sample_grid import image_grid

logger = logging.getLogger(__name__)

CaptionStyle = Literal["brief", "dense"]


class NanoEval:
    """Fixed held-out prompts, which alternate between some image sizes."""

    def __init__(
        self,
        num_prompts_per_task: int,
        sizes: Sequence[tuple[int, int]],
        device: torch.device,
        precision: str,
        styles: Sequence[CaptionStyle] = ("brief",),
        world: WorldConfig = FULL_WORLD,
        num_processes: int = 0,
    ):
        self._num_prompts_per_task, self._sizes, self._styles = (
            num_prompts_per_task,
            list(sizes),
            tuple(styles),
        )
        self._device, self._precision, self._world = device, precision, world
        self._num_processes = num_processes
        self._grid_images: list[np.ndarray] = []

    def evaluate(self, pipeline: Any, **pipeline_kwargs: Any) -> dict[str, float]:
        """Return the share of images that match their prompts, by task, and the mean over the tasks.

        Metrics of styles other than brief begin with the style. `pipeline_kwargs` go to the pipeline.
        """
        self._grid_images, metrics = [], {}
        for style in self._styles:
            pass_rates = {task: self._pass_rate(pipeline, task, style, pipeline_kwargs) for task in TASKS}
            prefix = "" if style == "brief" else f"{style}/"
            pass_rates["mean"] = float(np.mean(list(pass_rates.values())))
            metrics |= {prefix + task: share for task, share in pass_rates.items()}
        return metrics

    def sample_grid(self) -> Image.Image:
        """Return the first images of the latest evaluation, one row per task."""
        images = torch.from_numpy(np.stack(self._grid_images)).permute(0, 3, 1, 2) * 2 - 1      # (N, 3, H, W)
        return image_grid(images, columns=min(4, self._num_prompts_per_task))

    def _pass_rate(
        self, pipeline: Any, task: str, style: CaptionStyle, pipeline_kwargs: dict[str, Any]
    ) -> float:
        prompts = task_prompts(task, self._num_prompts_per_task, 1, self._world, style)
        results = []
        for turn, size in enumerate(self._sizes):
            size_prompts = prompts[turn :: len(self._sizes)]
            texts = [prompt.prompt for prompt in size_prompts]
            images = self._generate(pipeline, texts, *size, **pipeline_kwargs) if size_prompts else []
            self._grid_images += list(images[:4]) if turn == 0 else []
            if not np.isfinite(images).all():
                results += [False] * len(size_prompts)
                continue
            uint8_images = [(image * 255).round().astype(np.uint8) for image in images]
            for objects, prompt in zip(
                detect_all(uint8_images, self._num_processes), size_prompts, strict=True
            ):
                results.append(score_detections(objects, prompt.spec).passed)
        return float(np.mean(results))

    def _generate(
        self, pipeline: Any, prompts: list[str], height_px: int, width_px: int, **pipeline_kwargs: Any
    ) -> np.ndarray:
        """Return images (N, H, W, 3) in [0, 1]; all NaN if one is not finite, as a run must go on."""
        generators = [generator_for(1, "pretrain/probe", 0, item) for item in range(len(prompts))]
        pipeline.set_progress_bar_config(disable=True)
        try:
            with autocast(self._device, self._precision):
                output = pipeline(
                    prompts,
                    height=height_px,
                    width=width_px,
                    generator=generators,
                    output_type="np",
                    **pipeline_kwargs,
                )
        except NonFiniteError as error:
            logger.warning("The images of %d prompts count as failed. %s", len(prompts), error)
            return np.full((len(prompts), height_px, width_px, 3), np.nan, np.float32)
        return output.images
