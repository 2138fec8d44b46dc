"""Sample grids: images that show the progress of a run.

Letters: L captured layers, T text tokens, E their width, H and W pixels.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lens.core.noise import generator_for
from lens.errors import NonFiniteError
from lens.models.prompt_template import empty_prompt_embeds, pad_features
from lens.train.devices import autocast

logger = logging.getLogger(__name__)


def render_previews(
    pipeline: Any,
    text_features: Sequence[Tensor],
    side_px: int,
    seed: int,
    precision: str,
    **pipeline_kwargs: Any,
) -> Image.Image:
    """Return square images of encoded prompts, (L, T, E) each, from the same noise at every evaluation.

    `pipeline_kwargs` go to the pipeline.
    """
    pipeline.set_progress_bar_config(disable=True)
    device = pipeline.transformer.device
    images = []
    for number, features in enumerate(text_features):
        embeds, mask = pad_features([[layer.to(device) for layer in features]])
        empty_embeds, empty_mask = empty_prompt_embeds(embeds)
        try:
            with autocast(device, precision):
                output = pipeline(
                    prompt_embeds=embeds, prompt_mask=mask, negative_prompt_embeds=empty_embeds,
                    negative_prompt_mask=empty_mask, height=side_px, width=side_px, output_type="pt",
                    generator=generator_for(seed, "denoiser/preview", 0, number), **pipeline_kwargs,
                )  # fmt: skip
            images.append(output.images.float().cpu() * 2 - 1)                                # (1, 3, H, W)
        except NonFiniteError as error:  # a run goes on: it can recover, or return to its last checkpoint
            logger.warning("A sample has no image. %s", error)
            images.append(torch.full((1, 3, side_px, side_px), torch.nan))
    return image_grid(torch.cat(images), columns=min(4, len(images)))


def image_grid(pixels: Tensor, columns: int, gap_px: int = 2) -> Image.Image:
    """Return images of one size as a grid with so many columns; those that are not finite are magenta.

    Shapes: pixels (N, 3, H, W) in [-1, 1].
    """
    num_images, _, height, width = pixels.shape
    rows = -(-num_images // columns)
    canvas = np.full((rows * (height + gap_px), columns * (width + gap_px), 3), 255, np.uint8)
    is_finite = pixels.isfinite().flatten(1).all(1)[:, None, None, None]                      # (N, 1, 1, 1)
    magenta = torch.tensor([1.0, -1.0, 1.0], device=pixels.device)[:, None, None]               # (3, 1, 1)
    pixels = torch.where(is_finite, pixels.float(), magenta)
    images = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().cpu().permute(0, 2, 3, 1).numpy()
    for index, image in enumerate(images):
        top, left = index // columns * (height + gap_px), index % columns * (width + gap_px)
        canvas[top : top + height, left : left + width] = image
    return Image.fromarray(canvas)
