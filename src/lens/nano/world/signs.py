"""Signs of the nano world: a light board with a dark border and dark capitals.

Every letter has a cell of the same size, where possible a whole number of latent patches, so that a small model has
few looks to learn. Knows nothing of scenes.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lens.nano.world.placement import Canvas

CELL_SHARES = (1 / 4, 3 / 16, 1 / 8)
"""Widths of a letter's cell as fractions of the base, the widest that fits first."""


class Sign(NamedTuple):
    """A sign: its text, the centre of its board, and the sides of the board."""

    text: str
    x_px: int
    y_px: int
    width_px: int
    height_px: int


def sign_board(text: str, canvas: Canvas) -> Sign:
    """Return a sign with letters as large as an image allows, in its centre."""
    cells_px = [int(share * 128) * round(canvas.base_px / 16) // 8 for share in CELL_SHARES]
    cell_px = next(
        (side_px for side_px in cells_px if side_px * len(text) <= canvas.width_px),
        canvas.width_px // len(text) // 2 * 2,
    )
    width_px = cell_px * len(text)
    height_px = canvas.grid_px * max(2, round(1.4 * cell_px / canvas.grid_px))
    left_px, top_px = canvas.middle(canvas.width_px, width_px), canvas.middle(canvas.height_px, height_px)
    left_px = min(left_px, canvas.width_px - width_px)
    return Sign(text, left_px + width_px // 2, top_px + height_px // 2, width_px, height_px)


def draw_sign(canvas: NDArray[np.float32], sign: Sign) -> None:
    """Draw a sign over an image (height, width, 3) in [0, 1], in place."""
    left, top = sign.x_px - sign.width_px // 2, sign.y_px - sign.height_px // 2
    canvas[top : top + sign.height_px, left : left + sign.width_px] = 0.1
    canvas[top + 2 : top + sign.height_px - 2, left + 2 : left + sign.width_px - 2] = 0.95
