"""The six tasks of the nano world, asked of a model that is being trained.

Knows nothing of how it is trained. Letters: N pictures.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from lens.core.noise import generator_for
from lens.nano.scoring.scorer import judge
from lens.nano.scoring.scorer_pool import detected
from lens.nano.tasks import TASKS, WHOLE, World, task_prompts
from lens.train.devices import autocast
from lens.train.sample_grid import grid_of

Style = Literal["brief", "dense"]


class NanoProbe:
    """Held-out prompts, always the same, in some sizes by turns."""

    def __init__(
        self, num_prompts: int, sizes: Sequence[tuple[int, int]], device: torch.device, precision: str,
        styles: Sequence[Style] = ("brief",), world: World = WHOLE, processes: int = 0,
    ):  # fmt: skip
        self._num_prompts, self._sizes, self._styles = num_prompts, list(sizes), tuple(styles)
        self._device, self._precision, self._world = device, precision, world
        self._processes = processes
        self._shown: list[np.ndarray] = []

    def numbers(self, pipeline: Any, **drawing: Any) -> dict[str, float]:
        """Return the share of pictures that show what was asked for: by task, and the mean of all.

        Numbers of styles other than brief begin with the style. `drawing` goes to the pipeline.
        """
        self._shown, found = [], {}
        for style in self._styles:
            passed = {task: self._passed(pipeline, task, style, drawing) for task in TASKS}
            prefix = "" if style == "brief" else f"{style}/"
            passed["mean"] = float(np.mean(list(passed.values())))
            found |= {prefix + task: share for task, share in passed.items()}
        return found

    def grid(self) -> Image.Image:
        """Return the first pictures of the latest numbers, a row a task."""
        shown = torch.from_numpy(np.stack(self._shown)).permute(0, 3, 1, 2) * 2 - 1             # (N, 3, H, W)
        return grid_of(shown, columns=min(4, self._num_prompts))

    def _passed(self, pipeline: Any, task: str, style: Style, drawing: dict[str, Any]) -> float:
        prompts = task_prompts(task, self._num_prompts, 1, self._world, style)
        passed = []
        for turn, size in enumerate(self._sizes):
            asked = prompts[turn :: len(self._sizes)]
            texts = [prompt.prompt for prompt in asked]
            pictures = self._draw(pipeline, texts, *size, **drawing) if asked else []
            self._shown += list(pictures[:4]) if turn == 0 else []
            whole = [(picture * 255).round().astype(np.uint8) for picture in pictures]
            for shown, prompt in zip(detected(whole, self._processes), asked, strict=True):
                passed.append(judge(shown, prompt.expected).passed)
        return float(np.mean(passed))

    def _draw(
        self, pipeline: Any, prompts: list[str], height_px: int, width_px: int, **drawing: Any
    ) -> np.ndarray:
        """Return pictures (N, H, W, 3) in [0, 1]."""
        generators = [generator_for(1, "pretrain/probe", 0, item) for item in range(len(prompts))]
        pipeline.set_progress_bar_config(disable=True)
        with autocast(self._device, self._precision):
            drawn = pipeline(
                prompts, height=height_px, width=width_px, generator=generators, output_type="np", **drawing
            )
        return drawn.images
