"""Pictures that show what a run has learned so far.

Letters: L captured layers, T text tokens, E their width, H and W pixels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lens.core.noise import generator_for
from lens.models.prompt_template import no_text, pad_features
from lens.train.devices import autocast


def previewed(
    pipeline: Any, texts: Sequence[Tensor], side: int, seed: int, precision: str, **drawing: Any
) -> Image.Image:
    """Return square pictures of encoded prompts, (L, T, E) each, drawn from the same noise at every probe.

    `drawing` goes to the pipeline.
    """
    pipeline.set_progress_bar_config(disable=True)
    device = pipeline.transformer.device
    pictures = []
    for number, features in enumerate(texts):
        embeds, mask = pad_features([[layer.to(device) for layer in features]])
        nothing, no_mask = no_text(embeds)
        with autocast(device, precision):
            drawn = pipeline(
                prompt_embeds=embeds, prompt_mask=mask, negative_prompt_embeds=nothing,
                negative_prompt_mask=no_mask, height=side, width=side, output_type="pt",
                generator=generator_for(seed, "denoiser/preview", 0, number), **drawing,
            )  # fmt: skip
        pictures.append(drawn.images.float().cpu() * 2 - 1)                                    # (1, 3, H, W)
    return grid_of(torch.cat(pictures), columns=min(4, len(pictures)))


def grid_of(pixels: Tensor, columns: int, gap_px: int = 2) -> Image.Image:
    """Return pictures of one size as rows of `columns`. Shapes: pixels (N, 3, H, W) in [-1, 1]."""
    count, _, height, width = pixels.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap_px), columns * (width + gap_px), 3), 255, np.uint8)
    parts = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().byte().cpu().permute(0, 2, 3, 1).numpy()
    for index, part in enumerate(parts):
        top, left = index // columns * (height + gap_px), index % columns * (width + gap_px)
        sheet[top : top + height, left : left + width] = part
    return Image.fromarray(sheet)
