"""Pictures that show what a run has learned so far."""

import numpy as np
from PIL import Image
from torch import Tensor


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
